//! The reference's answers as files: one for each API, a line for each answer, versions of one answer together.

use super::cases::directory;
use super::schema::Range;
use crate::error::{AtPath, Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The answers of one API: case, then version.
pub(super) type Answers = BTreeMap<String, BTreeMap<i16, Value>>;

fn path(api: &str) -> PathBuf {
    directory().join("recorded").join(format!("{api}.json"))
}

pub(super) fn write(api: &str, answers: &Answers) -> Result<()> {
    let mut text = String::from("{\n");
    for (at, (case, versions)) in answers.iter().enumerate() {
        if at > 0 {
            text.push_str(",\n");
        }
        text.push_str(&format!(" {}: {{\n", Value::from(case.as_str())));
        let mut groups: Vec<(i16, i16, &Value)> = Vec::new();
        for (version, answer) in versions {
            match groups.last_mut() {
                Some((_, last, same)) if *last + 1 == *version && *same == answer => *last = *version,
                _ => groups.push((*version, *version, answer)),
            }
        }
        let lines: Vec<String> = groups
            .iter()
            .map(|(first, last, answer)| format!("  \"{first}-{last}\": {answer}"))
            .collect();
        text.push_str(&lines.join(",\n"));
        text.push_str("\n }");
    }
    text.push_str("\n}\n");
    let path = path(api);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).at(parent)?;
    }
    std::fs::write(&path, text).at(&path)
}

/// Nothing, when the API has never been recorded.
pub(super) fn read(api: &str) -> Result<Answers> {
    let path = path(api);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(Answers::new());
    };
    let file: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_str(&text).map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
    let spread = |versions: BTreeMap<String, Value>| {
        let mut spread = BTreeMap::new();
        for (range, answer) in versions {
            let range = Range::parse(&range);
            for version in range.min..=range.max {
                spread.insert(version, answer.clone());
            }
        }
        spread
    };
    Ok(file
        .into_iter()
        .map(|(case, versions)| (case, spread(versions)))
        .collect())
}
