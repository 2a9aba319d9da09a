//! What `kafka-configs` says about its arguments before it asks a cluster, in Kafka's order and words.

use std::collections::BTreeMap;

use crate::options::{Options, load_properties};
use crate::{ToolError, ToolResult};

/// Kinds of entities, as `--entity-type` has them and in the order in which Kafka names them.
const TYPES: [&str; 8] = [
    "topics",
    "clients",
    "users",
    "brokers",
    "ips",
    "client-metrics",
    "groups",
    BROKER_LOGGERS,
];
const BROKER_LOGGERS: &str = "broker-loggers";
/// Kinds that have defaults for those that are not named.
const WITH_DEFAULTS: [&str; 4] = ["users", "clients", "brokers", "ips"];
/// Flags that name an entity of a kind.
const NAMING: [(&str, &str); 8] = [
    ("topic", "topics"),
    ("client", "clients"),
    ("user", "users"),
    ("broker", "brokers"),
    ("broker-logger", BROKER_LOGGERS),
    ("ip", "ips"),
    ("client-metrics", "client-metrics"),
    ("group", "groups"),
];
/// Flags that mean the defaults of a kind.
const DEFAULTING: [(&str, &str); 4] = [
    ("client-defaults", "clients"),
    ("user-defaults", "users"),
    ("broker-defaults", "brokers"),
    ("ip-defaults", "ips"),
];
const CHANGES: [&str; 3] = ["add-config", "add-config-file", "delete-config"];

fn flags() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    NAMING.iter().chain(&DEFAULTING)
}

/// Kinds that the arguments name, in the order of Kafka's command.
pub(crate) fn types(options: &Options) -> Vec<&str> {
    let given = options.all("entity-type").iter().map(String::as_str);
    let by_flag = flags()
        .filter(|(flag, _)| options.has(flag))
        .map(|(_, kind)| *kind);
    given.chain(by_flag).collect()
}

/// Names that the arguments give, empty for the defaults.
pub(crate) fn names(options: &Options) -> Vec<&str> {
    let given = options.all("entity-name").iter().map(String::as_str);
    let defaults = options.has("entity-default").then_some("");
    let by_flag = NAMING.iter().filter_map(|(flag, _)| options.get(flag));
    let defaults_by_flag = DEFAULTING
        .iter()
        .filter(|(flag, _)| options.has(flag))
        .map(|_| "");
    given
        .chain(defaults)
        .chain(by_flag)
        .chain(defaults_by_flag)
        .collect()
}

/// # Errors
/// [`ToolError::Usage`] where Kafka shows its usage, too; else [`ToolError::Failed`].
pub(crate) fn check(options: &Options) -> ToolResult {
    if options.has("alter") == options.has("describe") {
        return Err(ToolError::Usage(
            "Command must include exactly one action: --describe, --alter".into(),
        ));
    }
    options.exclude("describe", &["add-config"])?;
    options.exclude("describe", &["delete-config"])?;
    let refuse = |sentence: String| Err(ToolError::Failed(sentence));
    let types = types(options);
    check_types(&types)?;
    let generic = ["entity-name", "entity-type", "entity-default"];
    if generic.iter().any(|flag| options.has(flag)) && flags().any(|(flag, _)| options.has(flag)) {
        return refuse(
            "--entity-{type,name,default} should not be used in conjunction with specific entity flags"
                .into(),
        );
    }
    let names = names(options);
    match (
        options.has("bootstrap-server"),
        options.has("bootstrap-controller"),
    ) {
        (false, false) => {
            return refuse("Either --bootstrap-server or --bootstrap-controller must be specified.".into());
        }
        (true, true) => {
            return refuse(
                "Only one of --bootstrap-server or --bootstrap-controller can be specified".into(),
            );
        }
        _ => {}
    }
    if let Some(kind) = types
        .iter()
        .find(|kind| matches!(**kind, "brokers" | BROKER_LOGGERS))
        && let Some(name) = names
            .iter()
            .find(|name| !name.is_empty() && name.parse::<i32>().is_err())
    {
        return refuse(format!(
            "The entity name for {kind} must be a valid integer broker id, but it is: {name}"
        ));
    }
    if options.has("describe") {
        return check_describe(options, &types, &names);
    }
    check_alter(options, &types, &names)?;
    added(options).map(|_| ())
}

fn check_types(types: &[&str]) -> ToolResult {
    let mut repeated = types.to_vec();
    for kind in TYPES {
        if let Some(at) = repeated.iter().position(|one| *one == kind) {
            repeated.remove(at);
        }
    }
    repeated.retain(|kind| TYPES.contains(kind));
    let sentence = if !repeated.is_empty() {
        format!("Duplicate entity type(s) specified: {}", repeated.join(","))
    } else if let Some(unknown) = types.iter().find(|kind| !TYPES.contains(kind)) {
        format!(
            "Invalid entity type {unknown}, the entity type must be one of {} with a --bootstrap-server or --bootstrap-controller argument",
            TYPES.join(", ")
        )
    } else if types.is_empty() {
        "At least one entity type must be specified".to_owned()
    } else if types.len() > 1 && !types.iter().all(|kind| matches!(*kind, "users" | "clients")) {
        "Only 'users' and 'clients' entity types may be specified together".to_owned()
    } else {
        return Ok(());
    };
    Err(ToolError::Failed(sentence))
}

fn check_describe(options: &Options, types: &[&str], names: &[&str]) -> ToolResult {
    let has_defaults = types.iter().any(|kind| WITH_DEFAULTS.contains(kind));
    if !has_defaults && options.has("entity-default") {
        return Err(ToolError::Failed(format!(
            "--entity-default must not be specified with --describe of {}",
            types.join(",")
        )));
    }
    if types.contains(&BROKER_LOGGERS) && names.iter().all(|name| name.is_empty()) {
        return Err(ToolError::Failed(format!(
            "An entity name must be specified with --describe of {}",
            types.join(",")
        )));
    }
    Ok(())
}

fn check_alter(options: &Options, types: &[&str], names: &[&str]) -> ToolResult {
    let is_named = names.iter().any(|name| !name.is_empty());
    let sentence = if types.iter().any(|kind| WITH_DEFAULTS.contains(kind)) {
        names.is_empty().then(|| {
            "An entity-name or default entity must be specified with --alter of users, clients, brokers or ips"
                .to_owned()
        })
    } else {
        (!is_named).then(|| {
            format!(
                "An entity name must be specified with --alter of {}",
                types.join(",")
            )
        })
    };
    if let Some(sentence) = sentence {
        return Err(ToolError::Failed(sentence));
    }
    if options.has("add-config") && options.has("add-config-file") {
        return Err(ToolError::Failed(
            "Only one of --add-config or --add-config-file must be specified".into(),
        ));
    }
    if !CHANGES.iter().any(|flag| options.has(flag)) {
        return Err(ToolError::Failed(
            "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter".into(),
        ));
    }
    Ok(())
}

/// What Kafka says of a topic's name that no topic can have.
///
/// # Errors
/// [`ToolError::Failed`] with the sentence.
pub(crate) fn check_topic_name(name: &str) -> ToolResult {
    const MAX_LENGTH: usize = 249;
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let sentence = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > MAX_LENGTH => {
            format!("the length of '{name}' is longer than the max allowed length {MAX_LENGTH}")
        }
        _ if !name.chars().all(is_legal) => format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ),
        _ => return Ok(()),
    };
    Err(ToolError::Failed(format!("Topic name is invalid: {sentence}")))
}

/// `k1=v1,k2=[a,b]`: commas and equals signs in square brackets part nothing.
fn parse_added(text: &str) -> ToolResult<BTreeMap<String, String>> {
    let without_brackets = |value: &str| value.replace(['[', ']'], "").trim().to_owned();
    split_outside_brackets(text, ',')
        .into_iter()
        .map(|pair| match split_outside_brackets(pair, '=')[..] {
            [name, value] => Ok((name.trim().to_owned(), without_brackets(value))),
            _ => Err(ToolError::Failed("requirement failed: Invalid entity config: all configs to be added must be in the format \"key=val\" or  \"key=[val1,val2]\" to group values which contain commas.".into())),
        })
        .collect()
}

fn split_outside_brackets(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if c == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// What is to be set, by name.
///
/// # Errors
/// What is not understood, and a file that cannot be read.
pub(crate) fn added(options: &Options) -> ToolResult<BTreeMap<String, String>> {
    let mut added = BTreeMap::new();
    if let Some(text) = options.get("add-config") {
        added = parse_added(text)?;
    } else if let Some(path) = options.get("add-config-file") {
        added.extend(load_properties(path)?);
    }
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match added.keys().find(|name| !name.chars().all(is_legal)) {
        Some(name) => Err(ToolError::Failed(format!(
            "Invalid character found for config key: {name}"
        ))),
        None => Ok(added),
    }
}

/// Names of what is to be taken away.
pub(crate) fn deleted(options: &Options) -> impl Iterator<Item = &str> {
    options
        .all("delete-config")
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configs::SPEC;

    /// What Kafka 4.3.1's command says of each line.
    #[test]
    fn arguments_are_refused_in_kafkas_words() {
        const ONE_ACTION: &str = "Command must include exactly one action: --describe, --alter";
        const TOGETHER: &str = "Only 'users' and 'clients' entity types may be specified together";
        let cases = [
            ("--bootstrap-server x --broker 1", ONE_ACTION),
            ("--bootstrap-server x --broker 1 --alter --describe", ONE_ACTION),
            (
                "--describe --broker 1",
                "Either --bootstrap-server or --bootstrap-controller must be specified.",
            ),
            (
                "--bootstrap-server x --bootstrap-controller x --describe --broker 1",
                "Only one of --bootstrap-server or --bootstrap-controller can be specified",
            ),
            (
                "--bootstrap-server x --describe",
                "At least one entity type must be specified",
            ),
            (
                "--bootstrap-server x --describe --entity-type nonsense",
                "Invalid entity type nonsense, the entity type must be one of topics, clients, users, brokers, ips, client-metrics, groups, broker-loggers with a --bootstrap-server or --bootstrap-controller argument",
            ),
            (
                "--bootstrap-server x --describe --entity-type brokers --entity-type brokers",
                "Duplicate entity type(s) specified: brokers",
            ),
            ("--bootstrap-server x --describe --broker 1 --topic x", TOGETHER),
            (
                "--bootstrap-server x --describe --entity-type topics --broker 1",
                TOGETHER,
            ),
            (
                "--bootstrap-server x --describe --broker 1 --entity-name 1",
                "--entity-{type,name,default} should not be used in conjunction with specific entity flags",
            ),
            (
                "--bootstrap-server x --describe --broker-logger y",
                "The entity name for broker-loggers must be a valid integer broker id, but it is: y",
            ),
            (
                "--bootstrap-server x --describe --entity-type groups --entity-default",
                "--entity-default must not be specified with --describe of groups",
            ),
            (
                "--bootstrap-server x --describe --entity-type broker-loggers",
                "An entity name must be specified with --describe of broker-loggers",
            ),
            (
                "--bootstrap-server x --alter --entity-type groups --add-config a=b",
                "An entity name must be specified with --alter of groups",
            ),
            (
                "--bootstrap-server x --alter --entity-type brokers --add-config a=b",
                "An entity-name or default entity must be specified with --alter of users, clients, brokers or ips",
            ),
            (
                "--bootstrap-server x --alter --broker 1 --add-config a=b --add-config-file f",
                "Only one of --add-config or --add-config-file must be specified",
            ),
            (
                "--bootstrap-server x --alter --broker 1",
                "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter",
            ),
            (
                "--bootstrap-server x --alter --broker 1 --add-config a%b=1",
                "Invalid character found for config key: a%b",
            ),
        ];
        let answer = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            SPEC.parse(&arguments).and_then(|options| check(&options))
        };
        for (line, sentence) in cases {
            assert_eq!(answer(line).unwrap_err().to_string(), sentence, "{line}");
        }
        for line in [
            "--bootstrap-server x --describe --entity-type users --entity-type clients",
            "--bootstrap-server x --alter --all --group g --add-config a=b",
            "--bootstrap-server x --alter --broker-defaults --delete-config a,b",
            "--bootstrap-controller x --describe --entity-type brokers --entity-default",
        ] {
            assert!(answer(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn brackets_keep_a_list_together() {
        let parsed = parse_added("a=1, cleanup.policy=[compact,delete],b=[x=y]").unwrap();
        let pairs: Vec<(&str, &str)> = parsed
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [("a", "1"), ("b", "x=y"), ("cleanup.policy", "compact,delete")]
        );
        assert!(parse_added("nonsense").is_err());
        assert!(parse_added("b=x=y").is_err());
    }
}
