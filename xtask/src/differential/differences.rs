//! Where two answers differ, and the table of the differences that are meant: `tests/differential/differences.md`.
//!
//! A row explains differences by API, version, case and field, each with `*` for any part. A row that explains nothing
//! any more is a mistake as a difference without a row is one.

use super::cases::directory;
use super::codec::contains;
use super::mask::named;
use super::schema::Range;
use crate::error::{AtPath, Error, Result};
use serde_json::Value;
use std::cell::Cell;

/// One place of one answer.
#[derive(Debug)]
pub(super) struct Difference {
    /// The names that lead to it, without the indexes of lists.
    pub(super) field: String,
    pub(super) kafka: String,
    pub(super) milena: String,
}

/// How much of a value is shown.
const SHOWN: usize = 160;

pub(super) fn compare(kafka: &Value, milena: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", kafka, milena, &mut found);
    found
}

fn walk(path: &str, kafka: &Value, milena: &Value, found: &mut Vec<Difference>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_string()
        } else {
            format!("{path}.{name}")
        }
    };
    match (kafka, milena) {
        (Value::Object(left), Value::Object(right)) => {
            for (name, value) in left {
                walk(
                    &below(name),
                    value,
                    right.get(name).unwrap_or(&Value::from("(not there)")),
                    found,
                );
            }
            for (name, value) in right.iter().filter(|(name, _)| !left.contains_key(*name)) {
                walk(&below(name), &Value::from("(not there)"), value, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (left, right) in left.iter().zip(right) {
                walk(path, left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if names_all(left) && names_all(right) => {
            for one in left {
                match right.iter().find(|other| named(other) == named(one)) {
                    Some(other) => walk(path, one, other, found),
                    None => found.push(difference(&format!("{path}(missing)"), one, &Value::Null)),
                }
            }
            for one in right
                .iter()
                .filter(|one| left.iter().all(|other| named(other) != named(one)))
            {
                found.push(difference(&format!("{path}(more)"), &Value::Null, one));
            }
        }
        (left, right) if left == right => {}
        (left, right) => found.push(difference(path, left, right)),
    }
}

fn difference(path: &str, kafka: &Value, milena: &Value) -> Difference {
    let field = if path.is_empty() { "(answer)" } else { path };
    Difference {
        field: field.to_string(),
        kafka: short(kafka),
        milena: short(milena),
    }
}

fn names_all(elements: &[Value]) -> bool {
    elements
        .iter()
        .all(|one| one.is_object() && !named(one).trim_matches('\u{1}').is_empty())
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[derive(Debug)]
pub(super) struct Row {
    api: String,
    versions: Range,
    case: String,
    field: String,
    pub(super) used: Cell<bool>,
}

impl Row {
    fn explains(&self, api: &str, version: i16, case: &str, difference: &Difference) -> bool {
        matches(&self.api, api)
            && contains(self.versions, version)
            && matches(&self.case, case)
            && matches(&self.field, &difference.field)
    }

    pub(super) fn is_about(&self, api: &str) -> bool {
        matches(&self.api, api)
    }

    pub(super) fn shown(&self) -> String {
        format!("| {} | … | {} | {} |", self.api, self.case, self.field)
    }
}

/// The rows of the table: `| API | versions | case | field | reason |`.
pub(super) fn table() -> Result<Vec<Row>> {
    let path = directory().join("differences.md");
    parse(&std::fs::read_to_string(&path).at(&path)?)
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let lines = text.lines().filter(|line| line.starts_with('|'));
    for line in lines.filter(|line| !line.starts_with("| ---") && !line.starts_with("| API ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [api, versions, case, field, reason] = cells.as_slice() else {
            return Err(Error::new(format!(
                "differences.md: five columns are expected in {line}"
            )));
        };
        if reason.is_empty() {
            return Err(Error::new(format!("differences.md: no reason in {line}")));
        }
        rows.push(Row {
            api: (*api).to_string(),
            versions: Range::parse(if *versions == "all" { "0+" } else { versions }),
            case: (*case).to_string(),
            field: (*field).to_string(),
            used: Cell::new(false),
        });
    }
    Ok(rows)
}

/// The differences that no row explains. Rows that explain one are marked.
pub(super) fn unexplained(
    rows: &[Row],
    api: &str,
    version: i16,
    case: &str,
    found: Vec<Difference>,
) -> Vec<Difference> {
    let is_unexplained = |difference: &Difference| {
        let mut explained = false;
        for row in rows
            .iter()
            .filter(|row| row.explains(api, version, case, difference))
        {
            row.used.set(true);
            explained = true;
        }
        !explained
    };
    found.into_iter().filter(is_unexplained).collect()
}

/// Whether a text is what a pattern with `*` says.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            return false;
        };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pattern_matches_what_it_says_and_nothing_else() {
        assert!(matches("a*c*", "abcd"));
        assert!(matches("*", ""));
        assert!(matches("abc", "abc"));
        assert!(!matches("abc", "abcd"));
        assert!(!matches("a*c", "abcd"));
    }

    #[test]
    fn every_differing_field_is_found_by_its_path() {
        let kafka = json!({"Topics": [{"Name": "a", "ErrorCode": 0}], "Left": 1});
        let milena = json!({"Topics": [{"Name": "a", "ErrorCode": 3}], "Right": 1});
        let fields: Vec<String> = compare(&kafka, &milena)
            .into_iter()
            .map(|one| one.field)
            .collect();
        assert_eq!(fields, ["Left", "Topics.ErrorCode", "Right"]);
    }

    #[test]
    fn a_row_explains_only_its_versions_and_is_marked() {
        let rows =
            parse("| API | versions | case | field | reason |\n| --- |\n| Fetch | 3-4 | * | A.* | why |\n")
                .unwrap();
        let differ = || compare(&json!({"A": {"B": 1}}), &json!({"A": {"B": 2}}));
        assert_eq!(unexplained(&rows, "Fetch", 5, "x", differ()).len(), 1);
        assert!(!rows[0].used.get());
        assert_eq!(unexplained(&rows, "Fetch", 4, "x", differ()).len(), 0);
        assert!(rows[0].used.get());
    }
}
