//! What the records of `kafka-producer-perf-test` hold. Nothing is made or copied per record, but
//! for the digits of a number.

use std::fs;
use std::io::Write;
use std::path::Path;

use regex_lite::Regex;

use super::Random;
use crate::{ToolError, ToolResult};

/// Random letters from which records are cut: more than a batch has, so that none repeats within
/// what is compressed together.
const LETTERS_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) enum Payload {
    Letters {
        letters: Vec<u8>,
        size: usize,
        at: usize,
    },
    Lines {
        lines: Vec<Vec<u8>>,
        random: Random,
    },
    Number {
        next: u64,
        text: Vec<u8>,
    },
}

impl Payload {
    pub(super) fn letters(size: usize) -> Self {
        let mut random = Random(0);
        Self::Letters {
            letters: (0..LETTERS_BYTES + size).map(|_| random.letter()).collect(),
            size,
            at: 0,
        }
    }

    pub(super) fn numbers() -> Self {
        Self::Number {
            next: 0,
            text: Vec::new(),
        }
    }

    /// The pieces of a text between matches of a delimiter; says what it reads, as Kafka's does.
    ///
    /// # Errors
    /// When the file cannot be read or has nothing in it, or the delimiter is no regular expression.
    pub(super) fn file(path: &str, delimiter: &str) -> ToolResult<Self> {
        println!(
            "Reading payloads from: {}",
            std::path::absolute(Path::new(path))?.display()
        );
        let empty = || ToolError::Failed("File does not exist or empty file provided.".into());
        let bytes = fs::read(path).map_err(|_| empty())?;
        let lines = split(&String::from_utf8_lossy(&bytes), delimiter)?;
        if lines.is_empty() {
            return Err(empty());
        }
        println!("Number of records read: {}", lines.len());
        Ok(Self::Lines {
            lines,
            random: Random(0),
        })
    }

    /// The next record's value.
    pub(super) fn next(&mut self) -> &[u8] {
        match self {
            Self::Letters { letters, size, at } => {
                let start = *at;
                *at = (start + *size) % LETTERS_BYTES;
                letters.get(start..start + *size).unwrap_or_default()
            }
            Self::Lines { lines, random } => {
                let at = random.below(lines.len());
                lines.get(at).map(Vec::as_slice).unwrap_or_default()
            }
            Self::Number { next, text } => {
                text.clear();
                // A vector takes everything.
                let _ = write!(text, "{next}");
                *next += 1;
                text
            }
        }
    }
}

/// As Java's `String.split`: empty pieces at the end are left out.
fn split(text: &str, delimiter: &str) -> ToolResult<Vec<Vec<u8>>> {
    let delimiter = if delimiter == "\\n" { "\n" } else { delimiter };
    let pattern = Regex::new(delimiter)
        .map_err(|error| ToolError::Failed(format!("--payload-delimiter {delimiter}: {error}")))?;
    let mut pieces: Vec<Vec<u8>> = pattern
        .split(text)
        .map(|piece| piece.as_bytes().to_vec())
        .collect();
    while pieces.last().is_some_and(Vec::is_empty) {
        pieces.pop();
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_the_size_asked_for_wherever_they_are_cut() {
        for size in [1, 100, LETTERS_BYTES - 1, LETTERS_BYTES + 5] {
            let mut payload = Payload::letters(size);
            for _ in 0..5 {
                let record = payload.next();
                assert_eq!(record.len(), size);
                assert!(record.iter().all(u8::is_ascii_uppercase));
            }
        }
        let mut payload = Payload::letters(100);
        assert_ne!(payload.next().to_vec(), payload.next());
    }

    #[test]
    fn numbers_grow_from_0() {
        let mut payload = Payload::numbers();
        let all: Vec<String> = (0..11)
            .map(|_| String::from_utf8_lossy(payload.next()).into_owned())
            .collect();
        assert_eq!(all.join(" "), "0 1 2 3 4 5 6 7 8 9 10");
    }

    #[test]
    fn a_file_is_split_as_java_splits() {
        assert_eq!(split("a\n\nb\n\n", "\\n").unwrap(), [&b"a"[..], b"", b"b"]);
        assert_eq!(split("a1b22c", "[0-9]+").unwrap(), [b"a", b"b", b"c"]);
        assert!(split("\n\n", "\\n").unwrap().is_empty());
        assert!(split("a", "(").is_err());
    }
}
