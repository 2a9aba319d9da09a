//! The cases: one file for each API in `tests/differential/cases`, and those that every API has without being written.
//!
//! See `tests/differential/README.md` for the keys of a case.

use super::codec::{contains, load};
use super::schema::{Message, Range};
use crate::error::{AtPath, Error, Result};
use crate::process::root;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// One API that brokers have.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    pub(super) versions: Range,
    pub(crate) request: Message,
    pub(crate) response: Message,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) versions: Range,
    /// Topics that are there before, each a name or `{"name", "partitions", "configs"}`.
    pub(super) topics: Vec<Value>,
    pub(super) steps: Vec<Step>,
    pub(super) asked: Step,
    /// Elements of lists that other cases made are left out of the answer.
    pub(super) only_mine: bool,
    /// No other case is asked meanwhile.
    pub(super) alone: bool,
}

/// One request and what is done to its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Step {
    pub(super) api: String,
    /// The case's own version if it is asked, the highest otherwise.
    pub(super) version: Option<i16>,
    pub(super) request: Value,
    /// Variables and the paths of the answer that they are taken from.
    pub(super) capture: Map<String, Value>,
    /// What the answer has to become before the next step: paths and values.
    pub(super) until: Map<String, Value>,
    pub(super) mangle: Mangle,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Mangle {
    /// How many bytes are missing at the end.
    pub(super) cut: usize,
    pub(super) append: Option<String>,
    /// Bytes in place of the whole body.
    pub(super) body: Option<String>,
    /// What is added to the version in the header.
    pub(super) version_offset: i16,
}

pub(super) fn directory() -> PathBuf {
    root().join("tests/differential")
}

/// Every API that a broker listener has, by the definitions, with its stable versions.
pub(crate) fn apis() -> Result<Vec<Api>> {
    let path = root().join("crates/protocol/schema/apis.tsv");
    let text = std::fs::read_to_string(&path).at(&path)?;
    let mut apis = Vec::new();
    for line in text.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [key, name, min, _, stable_max, .., scope] = columns.as_slice() else {
            return Err(Error::new(format!("{}: '{line}' is no API", path.display())));
        };
        if !scope.contains("BROKER") {
            continue;
        }
        let number = |text: &str| -> Result<i16> {
            text.parse()
                .map_err(|_| Error::new(format!("{}: '{line}'", path.display())))
        };
        apis.push(Api {
            key: number(key)?,
            name: (*name).to_string(),
            versions: Range {
                min: number(min)?,
                max: number(stable_max)?,
            },
            request: load(&format!("{name}Request"))?,
            response: load(&format!("{name}Response"))?,
        });
    }
    Ok(apis)
}

/// The cases of an API: those of its file, and those that every API has.
pub(super) fn cases(api: &Api) -> Result<Vec<Case>> {
    let path = directory().join("cases").join(format!("{}.json", api.name));
    let file = if path.exists() {
        json_file(&path)?
    } else {
        json!({})
    };
    let shared = json_file(&directory().join("steps.json"))?;
    let within = |error: Error| Error::new(format!("{}: {error}", path.display()));
    known(&file, &["only_mine", "alone", "cases", "request"]).map_err(within)?;
    let only_mine = file["only_mine"].as_bool().unwrap_or(false);
    let request = match &file["request"] {
        Value::Null => json!({}),
        given => given.clone(),
    };
    let mut all = generated(api, &request, only_mine);
    for one in list(&file, "cases") {
        all.push(parse(api, one, &request, only_mine, &shared).map_err(within)?);
    }
    if file["alone"].as_bool().unwrap_or(false) {
        all.iter_mut().for_each(|case| case.alone = true);
    }
    Ok(all)
}

fn json_file(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).at(path)?;
    serde_json::from_str(&text).map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

/// What is asked of every API in every version: the plainest request, and bodies that are none.
fn generated(api: &Api, request: &Value, only_mine: bool) -> Vec<Case> {
    let case = |name: &str, versions, mangle| Case {
        name: name.to_string(),
        versions,
        topics: Vec::new(),
        steps: Vec::new(),
        asked: Step {
            api: api.name.clone(),
            request: request.clone(),
            mangle,
            ..Step::default()
        },
        only_mine,
        alone: false,
    };
    let all = api.versions;
    let lowest = Range {
        min: all.min,
        max: all.min,
    };
    let highest = Range {
        min: all.max,
        max: all.max,
    };
    let bytes = |body: &str| Mangle {
        body: Some(body.to_string()),
        ..Mangle::default()
    };
    let offset = |version_offset| Mangle {
        version_offset,
        ..Mangle::default()
    };
    let appended = Mangle {
        append: Some("00ff00ff".to_string()),
        ..Mangle::default()
    };
    let cut = Mangle {
        cut: 1,
        ..Mangle::default()
    };
    vec![
        case("the plainest request", all, Mangle::default()),
        case("a body that ends early", all, cut),
        case("bytes behind the body", all, appended),
        case("a body of the largest lengths", all, bytes(&"7f".repeat(40))),
        case("a body of negative lengths", all, bytes(&"ff".repeat(40))),
        case("a version above the highest", highest, offset(1)),
        case("a version below the lowest", lowest, offset(-1)),
    ]
}

fn parse(api: &Api, value: &Value, plainest: &Value, only_mine: bool, shared: &Value) -> Result<Case> {
    let name = value["name"]
        .as_str()
        .ok_or_else(|| Error::new(format!("a case without a name: {value}")))?;
    known(
        value,
        &[
            "name",
            "versions",
            "topics",
            "steps",
            "request",
            "only_mine",
            "cut",
            "append",
            "body",
        ],
    )
    .map_err(|error| Error::new(format!("'{name}': {error}")))?;
    let wanted = match value["versions"].as_str() {
        Some(text) => Range::parse(text),
        None => api.versions,
    };
    let versions = wanted.and(api.versions);
    if versions.is_none() {
        return Err(Error::new(format!("'{name}' is for no version")));
    }
    let mut steps = Vec::new();
    for one in list(value, "steps") {
        add_steps(one, shared, &mut steps)?;
    }
    let mut asked = Step {
        api: api.name.clone(),
        request: match &value["request"] {
            Value::Null => plainest.clone(),
            given => given.clone(),
        },
        ..Step::default()
    };
    asked.mangle = Mangle {
        cut: value["cut"].as_u64().unwrap_or(0) as usize,
        append: value["append"].as_str().map(str::to_string),
        body: value["body"].as_str().map(str::to_string),
        version_offset: 0,
    };
    Ok(Case {
        name: name.to_string(),
        versions,
        topics: list(value, "topics").to_vec(),
        steps,
        asked,
        only_mine: value["only_mine"].as_bool().unwrap_or(only_mine),
        alone: false,
    })
}

/// A step is a request, or the name of steps in `steps.json`, which may be made of others before them.
fn add_steps(value: &Value, shared: &Value, into: &mut Vec<Step>) -> Result<()> {
    let Some(name) = value.as_str() else {
        into.push(step(value)?);
        return Ok(());
    };
    let named = shared[name]
        .as_array()
        .ok_or_else(|| Error::new(format!("steps.json has no '{name}'")))?;
    if named.iter().any(|one| one == value) {
        return Err(Error::new(format!("'{name}' in steps.json is made of itself")));
    }
    named.iter().try_for_each(|one| add_steps(one, shared, into))
}

fn step(value: &Value) -> Result<Step> {
    known(value, &["api", "version", "request", "capture", "until"])?;
    let api = value["api"]
        .as_str()
        .ok_or_else(|| Error::new(format!("a step without an API: {value}")))?;
    Ok(Step {
        api: api.to_string(),
        version: value["version"].as_i64().map(|version| version as i16),
        request: match &value["request"] {
            Value::Null => json!({}),
            given => given.clone(),
        },
        capture: value["capture"].as_object().cloned().unwrap_or_default(),
        until: value["until"].as_object().cloned().unwrap_or_default(),
        mangle: Mangle::default(),
    })
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// A key that means nothing would be a case that does not test what it says.
fn known(value: &Value, keys: &[&str]) -> Result<()> {
    let given = value
        .as_object()
        .ok_or_else(|| Error::new(format!("an object is expected, not {value}")))?;
    match given.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(unknown) => Err(Error::new(format!("there is no key '{unknown}'"))),
        None => Ok(()),
    }
}

/// The name that is everything's in this case and version, and nothing's elsewhere.
pub(super) fn own_name(api: &Api, case: &Case, version: i16) -> String {
    let mut name = format!("{}-{}-v{version}", api.name, case.name);
    name = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    name
}

pub(super) fn versions_of(range: Range) -> impl Iterator<Item = i16> {
    (range.min..=range.max).filter(move |version| contains(range, *version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_cases_belongs_to_an_api_and_reads_well() {
        let apis = apis().unwrap();
        for api in &apis {
            let cases = cases(api).unwrap();
            assert!(cases.len() >= 5, "{} has too few cases", api.name);
            let names: std::collections::BTreeSet<&str> =
                cases.iter().map(|case| case.name.as_str()).collect();
            assert_eq!(
                names.len(),
                cases.len(),
                "two cases of {} have one name",
                api.name
            );
        }
        for entry in std::fs::read_dir(directory().join("cases")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(apis.iter().any(|api| api.name == name), "{name} is no API");
        }
    }
}
