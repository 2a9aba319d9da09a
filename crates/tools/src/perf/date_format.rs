//! Times in the patterns of `java.text.SimpleDateFormat`, as far as numbers go: letters that stand
//! for words (names of months, eras, zones) are refused.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::{ToolError, ToolResult};

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(char, usize),
}

#[derive(Debug)]
pub(super) struct DateFormat {
    parts: Vec<Part>,
    zone: TimeZone,
}

impl DateFormat {
    /// # Errors
    /// When the pattern has a letter that is not known here, or a quote without its end.
    pub(super) fn new(pattern: &str, zone: TimeZone) -> ToolResult<Self> {
        let mut parts = Vec::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\'' => parts.push(Part::Text(quoted(&mut letters, pattern)?)),
                'y' | 'M' | 'd' | 'H' | 'm' | 's' | 'S' | 'D' => {
                    let mut width = 1;
                    while letters.next_if_eq(&letter).is_some() {
                        width += 1;
                    }
                    if letter == 'M' && width > 2 {
                        return Err(refused("MMM", pattern));
                    }
                    parts.push(Part::Field(letter, width));
                }
                letter if letter.is_ascii_alphabetic() => {
                    return Err(refused(&letter.to_string(), pattern));
                }
                other => parts.push(Part::Text(other.to_string())),
            }
        }
        Ok(Self { parts, zone })
    }

    pub(super) fn format(&self, time: Timestamp) -> String {
        let time = time.to_zoned(self.zone.clone());
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(letter, width) => {
                    let value = match letter {
                        // Two letters are a year without its century.
                        'y' if *width == 2 => time.year() % 100,
                        'y' => time.year(),
                        'M' => i16::from(time.month()),
                        'd' => i16::from(time.day()),
                        'D' => time.day_of_year(),
                        'H' => i16::from(time.hour()),
                        'm' => i16::from(time.minute()),
                        's' => i16::from(time.second()),
                        _ => time.millisecond(),
                    };
                    text.push_str(&format!("{value:0width$}"));
                }
            }
        }
        text
    }
}

fn quoted(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, pattern: &str) -> ToolResult<String> {
    if letters.next_if_eq(&'\'').is_some() {
        return Ok("'".to_owned());
    }
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' if letters.next_if_eq(&'\'').is_some() => text.push('\''),
            '\'' => return Ok(text),
            other => text.push(other),
        }
    }
    Err(ToolError::Failed(format!(
        "Unterminated quote in --date-format {pattern}"
    )))
}

fn refused(letters: &str, pattern: &str) -> ToolError {
    ToolError::Failed(format!(
        "--date-format {pattern}: {letters} is not known to this command; y, M, MM, D, d, H, m, s and S are"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pattern: &str) -> String {
        let time = "2026-02-03T04:05:06.007Z".parse().unwrap();
        DateFormat::new(pattern, TimeZone::UTC).unwrap().format(time)
    }

    #[test]
    fn patterns_are_those_of_java() {
        assert_eq!(at("yyyy-MM-dd HH:mm:ss:SSS"), "2026-02-03 04:05:06:007");
        assert_eq!(at("d.M.yy 'o''clock' H"), "3.2.26 o'clock 4");
        assert_eq!(at("''D"), "'34");
    }

    #[test]
    fn a_letter_that_stands_for_a_word_is_refused() {
        for pattern in ["MMM", "EEE", "z", "'open"] {
            assert!(DateFormat::new(pattern, TimeZone::UTC).is_err(), "{pattern}");
        }
    }
}
