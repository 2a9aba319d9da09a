//! Kafka's tables of settings: name, type, default, valid values. Read at first use; the text of
//! the tables stays in the program's own pages, only small rows are made of it.

use std::sync::OnceLock;

use super::value::{ConfigType, Value};
use super::{ConfigError, Properties};

/// What a value must be, beside its type.
#[derive(Debug, Clone, PartialEq)]
enum Validator {
    Any,
    /// Inclusive bounds as the table writes them.
    Range {
        min: Option<&'static str>,
        max: Option<&'static str>,
    },
    GzipLevel,
    OneOf(Vec<&'static str>),
    OneOfIgnoringCase(Vec<&'static str>),
    /// A list of any values, none of them empty.
    NonBlankItems {
        empty_list_allowed: bool,
    },
    /// A list of these values.
    ItemsOf {
        items: Vec<&'static str>,
        empty_list_allowed: bool,
    },
    NonEmptyText,
    ThrottledReplicas,
    ShareAutoOffsetReset,
    QuorumVoters,
}

/// One setting.
#[derive(Debug, Clone)]
pub struct ConfigDef {
    pub name: &'static str,
    pub config_type: ConfigType,
    /// As text in the form in which a value is reported; `None` is Kafka's null.
    pub default: Option<String>,
    validator: Validator,
}

/// Milena runs without any configuration, so it has defaults where Kafka has required settings, and
/// data beside the working directory instead of in `/tmp`, where systems clean up.
const OWN_DEFAULTS: [(&str, &str); 4] = [
    ("node.id", "1"),
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("log.dir", "./milena-data"),
];

/// What Kafka does not have, by topics and brokers alike: a row as in its tables.
const DURABILITY_ROW: &str = "durability\tSTRING\tdisk\t[disk, os]\tHIGH";

/// Settings that Kafka does not have. They are described where they are set, so that a client that
/// compares sees Kafka's own list otherwise.
pub(super) const OWN: [&str; 1] = ["durability"];

/// Lists that must not be empty when they are given at all.
const NEVER_EMPTY_LISTS: [&str; 9] = [
    "advertised.listeners",
    "controller.listener.names",
    "group.consumer.assignors",
    "group.coordinator.rebalance.protocols",
    "group.share.assignors",
    "listeners",
    "log.dir",
    "log.dirs",
    "process.roles",
];

impl ConfigDef {
    fn from_row(row: &'static str) -> Option<Self> {
        let mut columns = row.split('\t');
        let name = columns.next().filter(|name| !name.is_empty())?;
        let config_type = ConfigType::from_name(columns.next()?);
        let default = columns.next()?;
        let valid_values = columns.next()?;
        let default = match OWN_DEFAULTS.iter().find(|(own, _)| *own == name) {
            Some((_, own)) => Some((*own).to_owned()),
            None => match default {
                "null" | "(required)" => None,
                _ if config_type == ConfigType::List => {
                    Some(default.trim_matches(['[', ']']).replace(", ", ","))
                }
                _ => Some(default.trim_start_matches("class ").to_owned()),
            },
        };
        Some(Self {
            name,
            config_type,
            default,
            validator: validator(name, config_type, valid_values),
        })
    }

    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        self.config_type == ConfigType::Password
    }

    /// Parses and checks a value that was given.
    pub fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let mut value = Value::parse(self.name, self.config_type, text)?;
        if let (Value::List(items), Validator::NonBlankItems { .. } | Validator::ItemsOf { .. }) =
            (&mut value, &self.validator)
        {
            // Kafka drops later duplicates.
            let mut seen = std::collections::HashSet::new();
            items.retain(|item| seen.insert(item.clone()));
        }
        self.validator.check(self.name, &value)?;
        Ok(value)
    }

    /// The value in `properties`, else the default; `None` is Kafka's null.
    pub fn value_in(&self, properties: &Properties) -> Result<Option<Value>, ConfigError> {
        match properties.get(self.name) {
            Some(text) => self.parse(text).map(Some),
            None => self.default_value(),
        }
    }

    pub(super) fn default_value(&self) -> Result<Option<Value>, ConfigError> {
        self.default
            .as_deref()
            .map(|text| Value::parse(self.name, self.config_type, text))
            .transpose()
    }
}

fn validator(name: &'static str, config_type: ConfigType, text: &'static str) -> Validator {
    let items = |text: &'static str| text.trim_matches(['[', ']']).split(", ").collect::<Vec<_>>();
    let empty_list_allowed = !NEVER_EMPTY_LISTS.contains(&name);
    if config_type == ConfigType::List {
        return match text {
            "non-empty list" if name == "controller.quorum.voters" => Validator::QuorumVoters,
            "non-empty list" => Validator::NonBlankItems { empty_list_allowed },
            "" => Validator::NonBlankItems { empty_list_allowed },
            _ if text.starts_with("[partitionId]") => Validator::ThrottledReplicas,
            _ => Validator::ItemsOf {
                items: items(text),
                empty_list_allowed,
            },
        };
    }
    match text {
        "" | "non-null string" => Validator::Any,
        "non-empty string" => Validator::NonEmptyText,
        "[1,...,9] or -1" => Validator::GzipLevel,
        _ if text.contains("by_duration") => Validator::ShareAutoOffsetReset,
        _ if text.contains(",...") => {
            let (min, max) = text
                .trim_matches(['[', ']'])
                .split_once(",...")
                .unwrap_or((text, ""));
            let bound =
                |text: &'static str| Some(text.trim_start_matches(',')).filter(|text| !text.is_empty());
            Validator::Range {
                min: bound(min),
                max: bound(max),
            }
        }
        _ => match text.strip_prefix("(case insensitive) ") {
            Some(text) => Validator::OneOfIgnoringCase(items(text)),
            None => Validator::OneOf(items(text)),
        },
    }
}

impl Validator {
    fn check(&self, name: &str, value: &Value) -> Result<(), ConfigError> {
        let refuse = |message: String| Err(ConfigError::value(name, &value.in_sentence(), &message));
        match (self, value) {
            (Self::Range { min, max }, Value::Integer(_) | Value::Double(_)) => {
                check_range(*min, *max, value).map_or(Ok(()), refuse)
            }
            (Self::GzipLevel, Value::Integer(level)) if *level != -1 && !(1..=9).contains(level) => {
                refuse("Value must be between 1 and 9 or equal to -1".to_owned())
            }
            (Self::OneOf(allowed), Value::Text(text)) if !allowed.contains(&text.as_str()) => {
                refuse(format!("String must be one of: {}", allowed.join(", ")))
            }
            (Self::OneOfIgnoringCase(allowed), Value::Text(text))
                if !allowed.iter().any(|item| item.eq_ignore_ascii_case(text)) =>
            {
                refuse(format!(
                    "String must be one of (case insensitive): {}",
                    allowed.join(", ")
                ))
            }
            (Self::NonEmptyText, Value::Text(text)) if text.is_empty() => {
                refuse("String must be non-empty".to_owned())
            }
            (Self::ShareAutoOffsetReset, Value::Text(text)) if !is_share_auto_offset_reset(text) => {
                refuse(format!(
                    "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', \
                     'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
                ))
            }
            (Self::ThrottledReplicas, Value::List(items)) if !are_throttled_replicas(items) => {
                refuse(format!(
                    "{name} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                ))
            }
            (Self::QuorumVoters, Value::List(items)) if !items.iter().all(|item| is_voter(item)) => {
                Err(ConfigError::Invalid(format!(
                    "Invalid configuration value for {name}. Each entry should be in the form `{{id}}@{{host}}:{{port}}`."
                )))
            }
            (Self::NonBlankItems { empty_list_allowed }, Value::List(items)) => {
                check_list(name, items, None, *empty_list_allowed)
            }
            (
                Self::ItemsOf {
                    items: allowed,
                    empty_list_allowed,
                },
                Value::List(items),
            ) => check_list(name, items, Some(allowed), *empty_list_allowed),
            _ => Ok(()),
        }
    }
}

/// Compares as doubles, as Kafka does; what is no number is inside every range.
fn check_range(min: Option<&str>, max: Option<&str>, value: &Value) -> Option<String> {
    #[allow(clippy::cast_precision_loss)] // Kafka compares doubles too
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Double(number) => *number,
        _ => return None,
    };
    let bound = |text: &str| text.parse::<f64>().ok();
    if let Some(text) = min.filter(|text| bound(text).is_some_and(|bound| number < bound)) {
        return Some(format!("Value must be at least {text}"));
    }
    let text = max.filter(|text| bound(text).is_some_and(|bound| number > bound))?;
    Some(format!("Value must be no more than {text}"))
}

fn check_list(
    name: &str,
    items: &[String],
    allowed: Option<&[&'static str]>,
    empty_list_allowed: bool,
) -> Result<(), ConfigError> {
    if items.is_empty() && !empty_list_allowed {
        let valid = allowed.map_or("any non-empty value".to_owned(), |items| {
            format!("[{}]", items.join(", "))
        });
        return Err(ConfigError::Invalid(format!(
            "Configuration '{name}' must not be empty. Valid values include: {valid}"
        )));
    }
    for item in items {
        if let Some(allowed) = allowed
            && !item.is_empty()
            && !allowed.contains(&item.as_str())
        {
            return Err(ConfigError::value(
                name,
                item,
                &format!("String must be one of: {}", allowed.join(", ")),
            ));
        }
        if item.is_empty() {
            return Err(ConfigError::Invalid(format!(
                "Configuration '{name}' values must not be empty."
            )));
        }
    }
    Ok(())
}

fn are_throttled_replicas(items: &[String]) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_replica = |item: &String| {
        item.split_once(':')
            .is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
    };
    matches!(items, [one] if one == "*") || items.iter().all(is_replica)
}

fn is_voter(item: &str) -> bool {
    let Some((id, address)) = item.split_once('@') else {
        return false;
    };
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    id.parse::<i32>().is_ok_and(|id| id >= 0) && !host.is_empty() && port.parse::<u16>().is_ok()
}

/// `earliest`, `latest`, or `by_duration:` and an ISO-8601 duration that is not negative.
fn is_share_auto_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => matches!(text, "earliest" | "latest"),
    }
}

fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['P', 'p']) else {
        return false;
    };
    let upper = rest.to_ascii_uppercase();
    let (days, time) = upper
        .split_once('T')
        .map_or((upper.as_str(), None), |(days, time)| (days, Some(time)));
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let day_part = days.is_empty() || days.strip_suffix('D').is_some_and(is_number);
    let Some(mut time) = time else {
        return day_part && !days.is_empty();
    };
    if time.is_empty() {
        return false;
    }
    for unit in ['H', 'M', 'S'] {
        if let Some((number, rest)) = time.split_once(unit) {
            if !is_number(number) {
                return false;
            }
            time = rest;
        }
    }
    day_part && time.is_empty()
}

/// One of Kafka's tables, in order of names.
#[derive(Debug)]
pub struct Table(Vec<ConfigDef>);

impl Table {
    fn parse(text: &'static str, own: &'static str) -> Self {
        let lines = text.lines().skip(1).chain(own.lines());
        let mut rows: Vec<ConfigDef> = lines.filter_map(ConfigDef::from_row).collect();
        rows.sort_by_key(|def| def.name);
        Self(rows)
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ConfigDef> {
        self.0
            .binary_search_by_key(&name, |def| def.name)
            .ok()
            .and_then(|at| self.0.get(at))
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigDef> {
        self.0.iter()
    }
}

/// All topic configs.
pub fn topic_configs() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::parse(include_str!("topic-configs.tsv"), DURABILITY_ROW))
}

/// All broker configs.
pub fn broker_configs() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::parse(include_str!("broker-configs.tsv"), DURABILITY_ROW))
}

/// All group configs (KIP-848, KIP-932, KIP-1071).
pub fn group_configs() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::parse(include_str!("group-configs.tsv"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kafka 4.3.1 answers for each value; `None`: it accepts.
    const TOPIC_CASES: [(&str, &str, Option<&str>); 32] = [
        (
            "cleanup.policy",
            "foo",
            Some(
                "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
        ),
        ("cleanup.policy", "", None),
        ("cleanup.policy", "delete,delete", None),
        ("cleanup.policy", "delete, compact", None),
        (
            "cleanup.policy",
            "delete,foo",
            Some(
                "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
        ),
        (
            "cleanup.policy",
            "delete,,compact",
            Some("Configuration 'cleanup.policy' values must not be empty."),
        ),
        (
            "retention.ms",
            "abc",
            Some("Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        ),
        (
            "retention.ms",
            "-2",
            Some("Invalid value -2 for configuration retention.ms: Value must be at least -1"),
        ),
        ("retention.ms", " 5 ", None),
        (
            "segment.bytes",
            "14",
            Some("Invalid value 14 for configuration segment.bytes: Value must be at least 1048576"),
        ),
        ("segment.bytes", "1048576", None),
        (
            "min.cleanable.dirty.ratio",
            "2",
            Some(
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
        ),
        (
            "min.cleanable.dirty.ratio",
            "-0.1",
            Some("Invalid value -0.1 for configuration min.cleanable.dirty.ratio: Value must be at least 0"),
        ),
        ("min.cleanable.dirty.ratio", "NaN", None),
        (
            "compression.type",
            "foo",
            Some(
                "Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
        ),
        (
            "compression.gzip.level",
            "0",
            Some(
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
        ),
        ("compression.gzip.level", "-1", None),
        (
            "compression.lz4.level",
            "18",
            Some("Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17"),
        ),
        (
            "compression.zstd.level",
            "-131073",
            Some(
                "Invalid value -131073 for configuration compression.zstd.level: Value must be at least -131072",
            ),
        ),
        ("preallocate", "TRUE", None),
        (
            "message.timestamp.type",
            "foo",
            Some(
                "Invalid value foo for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
            ),
        ),
        ("leader.replication.throttled.replicas", "*", None),
        ("leader.replication.throttled.replicas", "", None),
        ("leader.replication.throttled.replicas", "0:1,1:2", None),
        (
            "leader.replication.throttled.replicas",
            "*,0:1",
            Some(
                "Invalid value [*, 0:1] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
        ),
        (
            "max.message.bytes",
            "-1",
            Some("Invalid value -1 for configuration max.message.bytes: Value must be at least 0"),
        ),
        (
            "max.compaction.lag.ms",
            "0",
            Some("Invalid value 0 for configuration max.compaction.lag.ms: Value must be at least 1"),
        ),
        (
            "local.retention.ms",
            "-3",
            Some("Invalid value -3 for configuration local.retention.ms: Value must be at least -2"),
        ),
        ("retention.bytes", "-5", None),
        (
            "segment.jitter.ms",
            "-1",
            Some("Invalid value -1 for configuration segment.jitter.ms: Value must be at least 0"),
        ),
        (
            "min.insync.replicas",
            "0",
            Some("Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"),
        ),
        (
            "flush.messages",
            "0",
            Some("Invalid value 0 for configuration flush.messages: Value must be at least 1"),
        ),
    ];

    #[test]
    fn values_are_refused_in_kafkas_words() {
        for (name, text, expected) in TOPIC_CASES {
            let answer = topic_configs()
                .get(name)
                .unwrap()
                .parse(text)
                .err()
                .map(|error| error.to_string());
            assert_eq!(answer.as_deref(), expected, "{name}={text}");
        }
    }

    #[test]
    fn broker_lists_are_refused_in_kafkas_words() {
        let refused = |name: &str, text: &str| {
            broker_configs()
                .get(name)
                .unwrap()
                .parse(text)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused("listeners", ""),
            "Configuration 'listeners' must not be empty. Valid values include: any non-empty value"
        );
        assert_eq!(
            refused("process.roles", ""),
            "Configuration 'process.roles' must not be empty. Valid values include: [broker, controller]"
        );
        assert_eq!(
            refused("log.dirs", "/a, /b,"),
            "Configuration 'log.dirs' values must not be empty."
        );
        assert_eq!(
            refused("process.roles", "foo"),
            "Invalid value foo for configuration process.roles: String must be one of: broker, controller"
        );
        assert_eq!(
            refused("controller.quorum.voters", "foo"),
            "Invalid configuration value for controller.quorum.voters. Each entry should be in the form `{id}@{host}:{port}`."
        );
        assert_eq!(
            refused("group.consumer.migration.policy", "foo"),
            "Invalid value foo for configuration group.consumer.migration.policy: String must be one of (case insensitive): DISABLED, DOWNGRADE, UPGRADE, BIDIRECTIONAL"
        );
        assert!(broker_configs().get("log.dirs").unwrap().parse("/a,/a").is_ok());
    }

    #[test]
    fn every_row_of_every_table_is_understood_and_its_default_is_valid() {
        for (table, text) in [
            (topic_configs(), include_str!("topic-configs.tsv")),
            (broker_configs(), include_str!("broker-configs.tsv")),
            (group_configs(), include_str!("group-configs.tsv")),
        ] {
            let kafkas = table.iter().filter(|def| !OWN.contains(&def.name));
            assert_eq!(kafkas.count(), text.lines().count() - 1);
            for def in table.iter() {
                assert_ne!(def.config_type, ConfigType::Unknown, "{}", def.name);
                if let Some(default) = &def.default {
                    assert!(def.parse(default).is_ok(), "{}={default}", def.name);
                }
            }
        }
    }

    #[test]
    fn durations_are_told_from_other_text() {
        for good in ["PT1H", "P1D", "P1DT2H3M4.5S", "pt1s"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["", "P", "PT", "-PT1H", "PT-1H", "1H", "PT1X"] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
