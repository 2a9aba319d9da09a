//! The rows of the `metadata` shard: their keys, which people can read, and their values.
//!
//! | key | value |
//! | --- | --- |
//! | `cluster/id` | the cluster id, as Kafka prints it |
//! | `broker/starts` | `{"v":1,"starts":n}`: how often the broker has started |
//! | `topic/<name>` | [`TopicFact`] |
//! | `topic-config/<name>/<config>` | the value as the client set it |
//! | `broker-config/<node id or default>/<config>` | the value as the client set it |
//!
//! Values that are more than a string are JSON with a format version `v`; a newer version than
//! this program knows refuses to start, so that an old program never rewrites what it does not
//! understand.

use std::collections::BTreeMap;

use bytes::Bytes;
use milena_protocol::{Str, Uuid};
use milena_state::{Change, Row};
use serde::{Deserialize, Serialize};

use super::Overrides;

pub(super) const SHARD: &str = "metadata";
/// The format version of JSON values.
const FORMAT: u32 = 1;

const CLUSTER_ID: &str = "cluster/id";
const STARTS: &str = "broker/starts";
const TOPIC: &str = "topic/";
const TOPIC_CONFIG: &str = "topic-config/";
const BROKER_CONFIG: &str = "broker-config/";

/// A row that cannot be understood, as a sentence.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("the fact {key:?} cannot be read: {why}")]
pub(crate) struct BadFact {
    key: String,
    why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicFact {
    pub(super) v: u32,
    pub(super) id: String,
    pub(super) partitions: i32,
    /// The broker's count of starts when the topic was created. The leader epoch of its partitions
    /// is the number of starts since: like Kafka's, it grows with each restart.
    pub(super) created_at_start: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StartsFact {
    v: u32,
    starts: i64,
}

impl TopicFact {
    pub(super) fn new(id: Uuid, partitions: i32, created_at_start: i64) -> Self {
        Self {
            v: FORMAT,
            id: id.to_string(),
            partitions,
            created_at_start,
        }
    }
}

/// A topic as its rows tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredTopic {
    pub(super) id: Uuid,
    pub(super) partitions: i32,
    pub(super) created_at_start: i64,
    pub(super) overrides: Overrides,
}

/// Everything that the shard holds.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) cluster_id: Option<Str>,
    pub(super) starts: i64,
    pub(super) topics: BTreeMap<Str, StoredTopic>,
    /// By entity: a node id, or [`"default"`].
    pub(super) broker_configs: BTreeMap<String, Overrides>,
}

impl Stored {
    /// Rows come in key order: `topic-config/` before `topic/`.
    pub(super) fn from_rows(rows: Vec<Row>) -> Result<Self, BadFact> {
        let mut stored = Self::default();
        let mut topic_configs: BTreeMap<String, Overrides> = BTreeMap::new();
        for (key, value) in rows {
            let key = text(&key, &key)?;
            if key == CLUSTER_ID {
                stored.cluster_id = Some(Str::from(text(key.as_bytes(), &value)?));
            } else if key == STARTS {
                stored.starts = json::<StartsFact>(&key, &value, |fact| fact.v)?.starts;
            } else if let Some(name) = key.strip_prefix(TOPIC) {
                let topic = stored_topic(&key, &value)?;
                stored.topics.insert(Str::from(name.to_owned()), topic);
            } else if let Some((entity, config)) = key
                .strip_prefix(TOPIC_CONFIG)
                .and_then(|rest| rest.split_once('/'))
            {
                let value = text(key.as_bytes(), &value)?;
                topic_configs
                    .entry(entity.to_owned())
                    .or_default()
                    .insert(config.to_owned(), value);
            } else if let Some((entity, config)) = key
                .strip_prefix(BROKER_CONFIG)
                .and_then(|rest| rest.split_once('/'))
            {
                let value = text(key.as_bytes(), &value)?;
                stored
                    .broker_configs
                    .entry(entity.to_owned())
                    .or_default()
                    .insert(config.to_owned(), value);
            } else {
                return Err(BadFact {
                    key,
                    why: "this version of Milena does not know it".to_owned(),
                });
            }
        }
        for (name, overrides) in topic_configs {
            match stored.topics.get_mut(name.as_str()) {
                Some(topic) => topic.overrides = overrides,
                None => {
                    let key = format!("{TOPIC_CONFIG}{name}");
                    return Err(BadFact {
                        key,
                        why: "there is no such topic".to_owned(),
                    });
                }
            }
        }
        Ok(stored)
    }
}

fn stored_topic(key: &str, value: &Bytes) -> Result<StoredTopic, BadFact> {
    let fact: TopicFact = json(key, value, |fact: &TopicFact| fact.v)?;
    let id = fact.id.parse::<Uuid>().map_err(|_| BadFact {
        key: key.to_owned(),
        why: format!("{:?} is no topic id", fact.id),
    })?;
    Ok(StoredTopic {
        id,
        partitions: fact.partitions,
        created_at_start: fact.created_at_start,
        overrides: Overrides::new(),
    })
}

fn text(key: &[u8], value: &[u8]) -> Result<String, BadFact> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(BadFact {
            key: String::from_utf8_lossy(key).into_owned(),
            why: "it is not UTF-8".to_owned(),
        }),
    }
}

fn json<T: for<'a> Deserialize<'a>>(
    key: &str,
    value: &Bytes,
    version: impl Fn(&T) -> u32,
) -> Result<T, BadFact> {
    let bad = |why: String| BadFact {
        key: key.to_owned(),
        why,
    };
    let fact: T = serde_json::from_slice(value).map_err(|error| bad(error.to_string()))?;
    match version(&fact) {
        FORMAT => Ok(fact),
        newer => Err(bad(format!(
            "its format version is {newer}, this version of Milena knows {FORMAT}"
        ))),
    }
}

fn put(key: String, value: impl Into<Bytes>) -> Change {
    Change {
        key: Bytes::from(key),
        value: Some(value.into()),
    }
}

fn remove(key: String) -> Change {
    Change {
        key: Bytes::from(key),
        value: None,
    }
}

/// The types here hold nothing that JSON cannot say, so encoding them cannot fail.
fn to_json(fact: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(fact).unwrap_or_default()
}

pub(super) fn cluster_id(id: &str) -> Change {
    put(CLUSTER_ID.to_owned(), id.to_owned())
}

pub(super) fn starts(starts: i64) -> Change {
    put(STARTS.to_owned(), to_json(&StartsFact { v: FORMAT, starts }))
}

pub(super) fn topic(name: &str, fact: &TopicFact) -> Change {
    put(format!("{TOPIC}{name}"), to_json(fact))
}

/// The changes that take a topic and its configs away.
pub(super) fn remove_topic(name: &str, overrides: &Overrides) -> Vec<Change> {
    let mut changes = vec![remove(format!("{TOPIC}{name}"))];
    changes.extend(
        overrides
            .keys()
            .map(|config| remove(format!("{TOPIC_CONFIG}{name}/{config}"))),
    );
    changes
}

/// The changes that turn a topic's configs from `old` into `new`.
pub(super) fn topic_configs(name: &str, old: &Overrides, new: &Overrides) -> Vec<Change> {
    difference(&format!("{TOPIC_CONFIG}{name}/"), old, new)
}

pub(super) fn broker_configs(entity: &str, old: &Overrides, new: &Overrides) -> Vec<Change> {
    difference(&format!("{BROKER_CONFIG}{entity}/"), old, new)
}

fn difference(prefix: &str, old: &Overrides, new: &Overrides) -> Vec<Change> {
    let gone = old
        .keys()
        .filter(|config| !new.contains_key(*config))
        .map(|config| remove(format!("{prefix}{config}")));
    let set = new
        .iter()
        .filter(|(config, value)| old.get(*config) != Some(*value))
        .map(|(config, value)| put(format!("{prefix}{config}"), value.clone()));
    gone.chain(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(changes: Vec<Change>) -> Vec<Row> {
        let mut rows: Vec<Row> = changes
            .into_iter()
            .filter_map(|change| change.value.map(|value| (change.key, value)))
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn what_was_stored_is_what_is_read() {
        let id = Uuid::from_bytes([7; 16]);
        let overrides = Overrides::from([("retention.ms".to_owned(), "5".to_owned())]);
        let mut changes = vec![
            cluster_id("abc"),
            starts(3),
            topic("t", &TopicFact::new(id, 6, 2)),
        ];
        changes.extend(topic_configs("t", &Overrides::new(), &overrides));
        changes.extend(broker_configs("default", &Overrides::new(), &overrides));
        let stored = Stored::from_rows(rows(changes)).unwrap();
        assert_eq!(stored.cluster_id.as_deref(), Some("abc"));
        assert_eq!(stored.starts, 3);
        let expected = StoredTopic {
            id,
            partitions: 6,
            created_at_start: 2,
            overrides: overrides.clone(),
        };
        assert_eq!(stored.topics.get("t"), Some(&expected));
        assert_eq!(stored.broker_configs.get("default"), Some(&overrides));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut fact = TopicFact::new(Uuid::ZERO, 1, 1);
        fact.v = FORMAT + 1;
        let error = Stored::from_rows(rows(vec![topic("t", &fact)])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the fact \"topic/t\" cannot be read: its format version is 2, this version of Milena knows 1"
        );
    }

    #[test]
    fn only_what_changed_is_written() {
        let old = Overrides::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let new = Overrides::from([("b".to_owned(), "2".to_owned()), ("c".to_owned(), "3".to_owned())]);
        let changes = topic_configs("t", &old, &new);
        let keys: Vec<_> = changes
            .iter()
            .map(|c| (c.key.as_ref().to_vec(), c.value.is_some()))
            .collect();
        assert_eq!(
            keys,
            [
                (b"topic-config/t/a".to_vec(), false),
                (b"topic-config/t/c".to_vec(), true)
            ]
        );
    }
}
