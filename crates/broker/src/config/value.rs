//! Types of settings, and how text becomes a value and a value becomes text: Kafka's `ConfigDef`.

use super::ConfigError;

/// The type of a setting. The number is the one that `DescribeConfigs` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// A name that no table knows.
    Unknown = 0,
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

impl ConfigType {
    #[must_use]
    pub fn code(self) -> i8 {
        self as i8
    }

    /// As Kafka writes it in tables and sentences.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }

    pub(super) fn from_name(name: &str) -> Self {
        match name {
            "BOOLEAN" => Self::Boolean,
            "STRING" => Self::String,
            "INT" => Self::Int,
            "SHORT" => Self::Short,
            "LONG" => Self::Long,
            "DOUBLE" => Self::Double,
            "LIST" => Self::List,
            "CLASS" => Self::Class,
            "PASSWORD" => Self::Password,
            _ => Self::Unknown,
        }
    }
}

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Boolean(bool),
    /// STRING, CLASS and PASSWORD.
    Text(String),
    /// INT, SHORT and LONG.
    Integer(i64),
    Double(f64),
    List(Vec<String>),
}

impl Value {
    /// Parses text as Kafka does: surrounding blanks do not count.
    pub fn parse(name: &str, config_type: ConfigType, text: &str) -> Result<Self, ConfigError> {
        let trimmed = java_trim(text);
        let not_a_number = || {
            ConfigError::value(
                name,
                text,
                &format!("Not a number of type {}", config_type.name()),
            )
        };
        Ok(match config_type {
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("true") => Self::Boolean(true),
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("false") => Self::Boolean(false),
            ConfigType::Boolean => {
                return Err(ConfigError::value(
                    name,
                    text,
                    "Expected value to be either true or false",
                ));
            }
            ConfigType::Int => Self::Integer(trimmed.parse::<i32>().map_err(|_| not_a_number())?.into()),
            ConfigType::Short => Self::Integer(trimmed.parse::<i16>().map_err(|_| not_a_number())?.into()),
            ConfigType::Long => Self::Integer(trimmed.parse().map_err(|_| not_a_number())?),
            ConfigType::Double => Self::Double(java_double(trimmed).ok_or_else(not_a_number)?),
            ConfigType::List => Self::List(split_list(trimmed)),
            ConfigType::Unknown | ConfigType::String | ConfigType::Class | ConfigType::Password => {
                Self::Text(trimmed.to_owned())
            }
        })
    }

    /// The value as Kafka reports it.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::Integer(value) => value.to_string(),
            Self::Double(value) => java_double_text(*value),
            Self::List(values) => values.join(","),
        }
    }

    /// The value as Kafka writes it in a sentence about it.
    pub(super) fn in_sentence(&self) -> String {
        match self {
            Self::List(values) => format!("[{}]", values.join(", ")),
            other => other.to_text(),
        }
    }
}

/// What Java's `String.trim` takes away: everything up to and including the blank.
pub(super) fn java_trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

/// Comma separated, blanks around the commas do not count; empty text is an empty list.
pub(super) fn split_list(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',')
        .map(|item| item.trim_matches(|c: char| c.is_ascii_whitespace()).to_owned())
        .collect()
}

/// `Double.parseDouble` without its hexadecimal form.
fn java_double(text: &str) -> Option<f64> {
    let unsigned = text.trim_start_matches(['+', '-']);
    match unsigned {
        "NaN" => return Some(f64::NAN),
        "Infinity" => {
            return Some(if text.starts_with('-') {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            });
        }
        _ => {}
    }
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    // Rust also reads "inf" and "nan", which Java does not.
    digits.chars().all(numeric).then(|| digits.parse().ok()).flatten()
}

/// `Double.toString`: plain from 10^-3 up to 10^7, else with an exponent.
fn java_double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        Some((mantissa, exponent)) => format!("{mantissa}E{exponent}"),
        None => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(config_type: ConfigType, text: &str) -> Result<String, String> {
        Value::parse("x", config_type, text)
            .map(|v| v.to_text())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn text_is_read_as_java_reads_it() {
        assert_eq!(parsed(ConfigType::Boolean, " TRUE "), Ok("true".into()));
        assert_eq!(parsed(ConfigType::Int, "+5"), Ok("5".into()));
        assert_eq!(parsed(ConfigType::Long, " 5 "), Ok("5".into()));
        assert_eq!(parsed(ConfigType::List, "a , b"), Ok("a,b".into()));
        assert_eq!(parsed(ConfigType::List, " "), Ok(String::new()));
        for (text, expected) in [
            ("0.5d", "0.5"),
            ("1e-1", "0.1"),
            ("NaN", "NaN"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
        ] {
            assert_eq!(parsed(ConfigType::Double, text), Ok(expected.into()));
        }
    }

    #[test]
    fn what_java_does_not_read_is_refused_in_kafkas_words() {
        let refused = |config_type, text: &str| parsed(config_type, text).unwrap_err();
        assert_eq!(
            refused(ConfigType::Long, ""),
            "Invalid value  for configuration x: Not a number of type LONG"
        );
        assert_eq!(
            refused(ConfigType::Int, "3000000000"),
            "Invalid value 3000000000 for configuration x: Not a number of type INT"
        );
        assert_eq!(
            refused(ConfigType::Boolean, "yes"),
            "Invalid value yes for configuration x: Expected value to be either true or false"
        );
        for text in ["inf", "nan", "x", "", "infinity"] {
            assert!(
                refused(ConfigType::Double, text).ends_with("Not a number of type DOUBLE"),
                "{text}"
            );
        }
    }

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        let pairs = [
            (1e-5, "1.0E-5"),
            (12_345_678.0, "1.2345678E7"),
            (1e7, "1.0E7"),
            (0.001, "0.001"),
            (2.0, "2.0"),
            (0.0, "0.0"),
        ];
        for (value, expected) in pairs {
            assert_eq!(java_double_text(value), expected);
        }
    }
}
