//! The operations of `IncrementalAlterConfigs` (KIP-339), carried out on a resource's overrides.

use std::collections::HashSet;

use super::definition::{Table, broker_configs, group_configs, topic_configs};
use super::value::ConfigType;
use super::{ConfigError, Properties};

/// Kafka's numbers of what a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOp {
    Set = 0,
    Delete = 1,
    /// Adds items to a LIST.
    Append = 2,
    /// Takes items from a LIST.
    Subtract = 3,
}

impl AlterOp {
    pub fn from_code(code: i8) -> Result<Self, ConfigError> {
        match code {
            0 => Ok(Self::Set),
            1 => Ok(Self::Delete),
            2 => Ok(Self::Append),
            3 => Ok(Self::Subtract),
            _ => Err(ConfigError::Request(format!("Unknown operations type {code}"))),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Append => "APPEND",
            Self::Subtract => "SUBTRACT",
        }
    }
}

/// What kind of resource has the overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigResourceType {
    Topic,
    Broker,
    Group,
    ClientMetrics,
}

impl ConfigResourceType {
    /// Kafka has no types for the configs of client metrics when it changes them, so none is a list.
    fn table(self) -> Option<&'static Table> {
        match self {
            Self::Topic => Some(topic_configs()),
            Self::Broker => Some(broker_configs()),
            Self::Group => Some(group_configs()),
            Self::ClientMetrics => None,
        }
    }
}

/// One change of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alteration<'a> {
    pub name: &'a str,
    pub op: AlterOp,
    pub value: Option<&'a str>,
}

/// The overrides after the changes. Whether the result is valid is for
/// [`validate_topic`](super::validate_topic) or [`validate_dynamic`](super::validate_dynamic) to say.
pub fn apply_alterations(
    resource: ConfigResourceType,
    current: &Properties,
    alterations: &[Alteration<'_>],
) -> Result<Properties, ConfigError> {
    let mut seen = HashSet::new();
    if !alterations.iter().all(|alteration| seen.insert(alteration.name)) {
        return Err(ConfigError::Request(
            "Error due to duplicate config keys".to_owned(),
        ));
    }
    let without_value =
        |alteration: &&Alteration<'_>| alteration.op != AlterOp::Delete && alteration.value.is_none();
    let missing: Vec<&str> = alterations
        .iter()
        .filter(without_value)
        .map(|alteration| alteration.name)
        .collect();
    if !missing.is_empty() {
        return Err(ConfigError::Request(format!(
            "Null value not supported for : {}",
            missing.join(", ")
        )));
    }
    let mut changed = current.clone();
    for alteration in alterations {
        let value = alteration.value.unwrap_or_default();
        match alteration.op {
            AlterOp::Set => {
                changed.insert(alteration.name.to_owned(), value.to_owned());
            }
            AlterOp::Delete => {
                changed.remove(alteration.name);
            }
            AlterOp::Append | AlterOp::Subtract => {
                let list = change_list(resource, &changed, alteration, value)?;
                changed.insert(alteration.name.to_owned(), list);
            }
        }
    }
    Ok(changed)
}

fn change_list(
    resource: ConfigResourceType,
    current: &Properties,
    alteration: &Alteration<'_>,
    value: &str,
) -> Result<String, ConfigError> {
    let def = resource.table().and_then(|table| table.get(alteration.name));
    if resource == ConfigResourceType::Broker && def.is_none() {
        return Err(ConfigError::Invalid(format!(
            "Unknown config name: {}",
            alteration.name
        )));
    }
    let Some(def) = def.filter(|def| def.config_type == ConfigType::List) else {
        let (op, name) = (alteration.op.name(), alteration.name);
        return Err(ConfigError::Invalid(match resource {
            ConfigResourceType::Broker => {
                format!(
                    "Config value {} is not allowed for config key: {name}",
                    op.to_lowercase()
                )
            }
            _ => format!("Can't {op} to key {name} because its type is not LIST."),
        }));
    };
    let text = current
        .get(alteration.name)
        .map(String::as_str)
        .or(def.default.as_deref())
        .unwrap_or_default();
    let mut items: Vec<&str> = text.split(',').filter(|item| !item.is_empty()).collect();
    for item in value.split(',') {
        let at = items.iter().position(|present| *present == item);
        match (alteration.op, at) {
            (AlterOp::Append, None) => items.push(item),
            (AlterOp::Subtract, Some(at)) => {
                items.remove(at);
            }
            _ => {}
        }
    }
    Ok(items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altered(
        current: &[(&str, &str)],
        changes: &[(&str, AlterOp, Option<&str>)],
    ) -> Result<Vec<(String, String)>, String> {
        let current = current
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let changes: Vec<_> = changes
            .iter()
            .map(|(name, op, value)| Alteration {
                name,
                op: *op,
                value: *value,
            })
            .collect();
        apply_alterations(ConfigResourceType::Topic, &current, &changes)
            .map(|properties| properties.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    fn pair(name: &str, text: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), text.to_owned())]
    }

    #[test]
    fn items_are_added_to_and_taken_from_lists() {
        const NAME: &str = "cleanup.policy";
        let change =
            |current: &[(&str, &str)], op, value| altered(current, &[(NAME, op, Some(value))]).unwrap();
        assert_eq!(
            change(&[(NAME, "compact")], AlterOp::Append, "delete"),
            pair(NAME, "compact,delete")
        );
        assert_eq!(
            change(&[(NAME, "compact")], AlterOp::Append, "compact"),
            pair(NAME, "compact")
        );
        assert_eq!(
            change(&[], AlterOp::Append, "compact"),
            pair(NAME, "delete,compact"),
            "the default counts"
        );
        assert_eq!(
            change(&[(NAME, "compact,delete")], AlterOp::Subtract, "compact"),
            pair(NAME, "delete")
        );
        assert_eq!(
            change(&[(NAME, "delete")], AlterOp::Subtract, "delete"),
            pair(NAME, "")
        );
        assert_eq!(change(&[(NAME, "")], AlterOp::Subtract, "delete"), pair(NAME, ""));
    }

    #[test]
    fn changes_that_cannot_be_are_refused_in_kafkas_words() {
        let set = ("retention.ms", AlterOp::Set, Some("5"));
        assert_eq!(
            altered(&[], &[set, set]).unwrap_err(),
            "Error due to duplicate config keys"
        );
        assert_eq!(
            altered(
                &[],
                &[
                    ("a", AlterOp::Set, None),
                    ("b", AlterOp::Append, None),
                    ("c", AlterOp::Delete, None)
                ]
            )
            .unwrap_err(),
            "Null value not supported for : a, b"
        );
        for (op, word) in [(AlterOp::Append, "APPEND"), (AlterOp::Subtract, "SUBTRACT")] {
            assert_eq!(
                altered(&[], &[("retention.ms", op, Some("5"))]).unwrap_err(),
                format!("Can't {word} to key retention.ms because its type is not LIST.")
            );
        }
        assert!(AlterOp::from_code(4).is_err());
    }

    #[test]
    fn setting_and_deleting_touch_only_their_own_name() {
        let current = [("retention.ms", "5"), ("segment.ms", "6")];
        let changes = [
            ("retention.ms", AlterOp::Delete, None),
            ("never.there", AlterOp::Delete, None),
            ("segment.ms", AlterOp::Set, Some("7")),
        ];
        assert_eq!(altered(&current, &changes).unwrap(), pair("segment.ms", "7"));
    }
}
