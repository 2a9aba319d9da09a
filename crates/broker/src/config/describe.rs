//! What `DescribeConfigs` answers: each setting with its value, where it comes from, and every layer
//! that has it under one of its names, in order of precedence. Kafka's `ConfigHelper`.

use std::collections::BTreeSet;

use super::broker::{FLUSH_MS, RETENTION_MS, ROLL_JITTER_MS, ROLL_MS};
use super::definition::{OWN, broker_configs, group_configs, topic_configs};
use super::dynamic::{self, broker_quota_config};
use super::group;
use super::topic::{self, broker_synonyms};
use super::value::{ConfigType, Value};
use super::{BrokerConfig, ConfigError, Layers, Properties};

/// Where a value comes from, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    DynamicTopicConfig = 1,
    DynamicBrokerConfig = 2,
    DynamicDefaultBrokerConfig = 3,
    StaticBrokerConfig = 4,
    DefaultConfig = 5,
    DynamicBrokerLoggerConfig = 6,
    ClientMetricsConfig = 7,
    GroupConfig = 8,
}

impl ConfigSource {
    #[must_use]
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// One layer that has the setting, under the name that the layer uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    /// `None` where the value is secret.
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One setting as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` where there is none, or where it is secret.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub config_type: ConfigType,
    pub is_sensitive: bool,
    pub read_only: bool,
    /// The first is the one in force. Empty where only a default without a name applies.
    pub synonyms: Vec<ConfigSynonym>,
}

/// Every topic setting of a topic with these overrides, in order of names.
pub fn describe_topic(
    config: &BrokerConfig,
    overrides: &Properties,
) -> Result<Vec<ConfigEntry>, ConfigError> {
    let entry = |def: &super::ConfigDef| -> Result<ConfigEntry, ConfigError> {
        let value = topic::value(config.layers(), overrides, def.name)?.to_text();
        let mut synonyms = match broker_synonyms(def.name).first() {
            Some(name) => synonyms(config.layers(), name, false),
            None => Vec::new(),
        };
        if overrides.contains_key(def.name) {
            let own = ConfigSynonym {
                name: def.name.to_owned(),
                value: Some(value.clone()),
                source: ConfigSource::DynamicTopicConfig,
            };
            synonyms.insert(0, own);
        }
        Ok(ConfigEntry {
            name: def.name.to_owned(),
            value: Some(value),
            source: source(&synonyms),
            config_type: def.config_type,
            is_sensitive: false,
            read_only: false,
            synonyms,
        })
    };
    let is_told = |def: &&super::ConfigDef| {
        let is_set = overrides.contains_key(def.name) || config.layers().get(def.name).is_some();
        is_set || !OWN.contains(&def.name)
    };
    topic_configs().iter().filter(is_told).map(entry).collect()
}

/// Every broker setting of this broker, with those that it was given and does not know.
pub fn describe_broker(config: &BrokerConfig) -> Result<Vec<ConfigEntry>, ConfigError> {
    let layers = config.layers();
    let own = |def: &&super::ConfigDef| !OWN.contains(&def.name);
    let mut names: BTreeSet<&str> = broker_configs().iter().filter(own).map(|def| def.name).collect();
    for layer in [
        &layers.static_broker,
        &layers.dynamic_default,
        &layers.dynamic_broker,
    ] {
        names.extend(layer.keys().map(String::as_str));
    }
    names
        .into_iter()
        .map(|name| {
            let value = match broker_configs().get(name) {
                Some(def) if is_covered_by_other_unit(layers, name) => {
                    def.default_value()?.map(|value| value.to_text())
                }
                Some(_) => layers.value(name)?.map(|value| value.to_text()),
                None => layers.get(name).map(str::to_owned),
            };
            Ok(broker_entry(name, value, |sensitive| {
                synonyms(layers, name, sensitive)
            }))
        })
        .collect()
}

/// What was set for all brokers: the resource of type BROKER without a name.
#[must_use]
pub fn describe_broker_defaults(config: &BrokerConfig) -> Vec<ConfigEntry> {
    let layers = config.layers();
    let entry = |(name, value): (&String, &String)| {
        broker_entry(name, Some(value.clone()), |sensitive| {
            let all = synonyms(layers, name, sensitive).into_iter();
            all.filter(|synonym| synonym.source == ConfigSource::DynamicDefaultBrokerConfig)
                .collect()
        })
    };
    layers.dynamic_default.iter().map(entry).collect()
}

fn broker_entry(
    name: &str,
    value: Option<String>,
    synonyms: impl FnOnce(bool) -> Vec<ConfigSynonym>,
) -> ConfigEntry {
    let config_type = match broker_configs().get(name) {
        Some(def) => def.config_type,
        None if broker_quota_config(name) => ConfigType::Long,
        None => ConfigType::Unknown,
    };
    // What is not known could be anything, so it is kept secret.
    let is_sensitive = matches!(config_type, ConfigType::Password | ConfigType::Unknown);
    let synonyms = synonyms(is_sensitive);
    ConfigEntry {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        source: source(&synonyms),
        config_type,
        is_sensitive,
        read_only: dynamic::update_mode(name).is_none(),
        synonyms,
    }
}

/// Every group setting of a group with these overrides.
pub fn describe_group(
    config: &BrokerConfig,
    overrides: &Properties,
) -> Result<Vec<ConfigEntry>, ConfigError> {
    let entry = |def: &super::ConfigDef| -> Result<ConfigEntry, ConfigError> {
        let value = group::value(config.layers(), overrides, def.name)?.map(|value| value.to_text());
        let inherited = group::broker_name(def.name);
        let mut synonyms = match &inherited {
            Some(name) => synonyms(config.layers(), name, false),
            None => Vec::new(),
        };
        let own = |source| ConfigSynonym {
            name: def.name.to_owned(),
            value: value.clone(),
            source,
        };
        if overrides.contains_key(def.name) {
            synonyms.insert(0, own(ConfigSource::GroupConfig));
        } else if inherited.is_none() {
            synonyms.insert(0, own(ConfigSource::DefaultConfig));
        }
        Ok(ConfigEntry {
            name: def.name.to_owned(),
            value,
            source: source(&synonyms),
            config_type: def.config_type,
            is_sensitive: false,
            read_only: false,
            synonyms,
        })
    };
    group_configs().iter().map(entry).collect()
}

fn source(synonyms: &[ConfigSynonym]) -> ConfigSource {
    synonyms
        .first()
        .map_or(ConfigSource::DefaultConfig, |first| first.source)
}

/// Names of one broker setting in several units, the one that counts first.
fn broker_names(name: &str) -> Vec<&str> {
    for family in [RETENTION_MS.as_slice(), &ROLL_MS, &ROLL_JITTER_MS] {
        if family.iter().any(|(member, _)| *member == name) {
            return family.iter().map(|(member, _)| *member).collect();
        }
    }
    match name {
        "log.flush.interval.ms" => FLUSH_MS.iter().map(|(member, _)| *member).collect(),
        _ => vec![name],
    }
}

/// A dynamic setting takes the place of the same time in other units: Kafka then shows those with
/// their defaults.
fn is_covered_by_other_unit(layers: &Layers, name: &str) -> bool {
    [&layers.dynamic_broker, &layers.dynamic_default]
        .into_iter()
        .flat_map(Properties::keys)
        .any(|set| set != name && broker_names(set).contains(&name))
}

/// Layer by layer, every name of the setting. What comes before the asked name is left out: with
/// only `log.retention.hours` set, `log.retention.ms` has no synonyms, as in Kafka.
fn synonyms(layers: &Layers, name: &str, sensitive: bool) -> Vec<ConfigSynonym> {
    let names = broker_names(name);
    let mut found = Vec::new();
    let dynamic_and_static = [
        (&layers.dynamic_broker, ConfigSource::DynamicBrokerConfig),
        (&layers.dynamic_default, ConfigSource::DynamicDefaultBrokerConfig),
        (&layers.static_broker, ConfigSource::StaticBrokerConfig),
    ];
    let mut add = |name: &str, value: String, source| {
        found.push(ConfigSynonym {
            name: name.to_owned(),
            value: Some(value).filter(|_| !sensitive),
            source,
        });
    };
    for (layer, source) in dynamic_and_static {
        for name in &names {
            if let Some(value) = layer.get(*name) {
                add(name, value.clone(), source);
            }
        }
    }
    for name in &names {
        let default = broker_configs()
            .get(name)
            .and_then(|def| def.default_value().ok().flatten());
        if let Some(default) = default.as_ref().map(Value::to_text) {
            add(name, default, ConfigSource::DefaultConfig);
        }
    }
    found
        .into_iter()
        .skip_while(|synonym| synonym.name != name)
        .collect()
}

/// Against what a running Kafka 4.3.1 answered for the same settings and the same changes
/// (`reference/`): resource, name, value, source, type, sensitive, read only, synonyms.
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STATIC: [(&str, &str); 9] = [
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.quorum.voters", "1@localhost:9093"),
        (
            "listeners",
            "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
        ),
        ("log.dirs", "/var/kafka"),
        ("log.retention.hours", "100"),
        ("num.partitions", "3"),
        ("some.unknown.key", "5"),
        ("offsets.topic.replication.factor", "1"),
    ];

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn broker(dynamic_broker: &[(&str, &str)], dynamic_default: &[(&str, &str)]) -> BrokerConfig {
        let mut settings = properties(&STATIC);
        settings.insert("controller.listener.names".to_owned(), "CONTROLLER".to_owned());
        let config = BrokerConfig::new(settings).unwrap();
        config
            .with_dynamic(properties(dynamic_broker), properties(dynamic_default))
            .unwrap()
    }

    fn source_name(source: ConfigSource) -> &'static str {
        match source {
            ConfigSource::DynamicTopicConfig => "DYNAMIC_TOPIC_CONFIG",
            ConfigSource::DynamicBrokerConfig => "DYNAMIC_BROKER_CONFIG",
            ConfigSource::DynamicDefaultBrokerConfig => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            ConfigSource::StaticBrokerConfig => "STATIC_BROKER_CONFIG",
            ConfigSource::DefaultConfig => "DEFAULT_CONFIG",
            ConfigSource::DynamicBrokerLoggerConfig => "DYNAMIC_BROKER_LOGGER_CONFIG",
            ConfigSource::ClientMetricsConfig => "DYNAMIC_CLIENT_METRICS_CONFIG",
            ConfigSource::GroupConfig => "DYNAMIC_GROUP_CONFIG",
        }
    }

    fn line(resource: &str, entry: &ConfigEntry) -> String {
        let or_null = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
        let synonyms: String = entry
            .synonyms
            .iter()
            .map(|synonym| {
                format!(
                    "{}:{}={};",
                    source_name(synonym.source),
                    synonym.name,
                    or_null(&synonym.value)
                )
            })
            .collect();
        [
            resource,
            &entry.name,
            &or_null(&entry.value),
            source_name(entry.source),
            entry.config_type.name(),
            &entry.is_sensitive.to_string(),
            &entry.read_only.to_string(),
            &synonyms,
        ]
        .join("\t")
    }

    /// What Milena answers otherwise, and why.
    fn differs_on_purpose(name: &str) -> bool {
        matches!(
            name,
            // Our own defaults.
            "node.id" | "process.roles" | "controller.listener.names" | "log.dir"
            // A new Kafka cluster stores this one for eligible leader replicas (KIP-966).
            | "min.insync.replicas"
        )
    }

    fn assert_as_the_reference(reference: &str, described: &[(&str, Vec<ConfigEntry>)]) {
        let mut ours: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for (resource, entries) in described {
            for entry in entries {
                let key = ((*resource).to_owned(), entry.name.clone());
                ours.entry(key).or_default().push(line(resource, entry));
            }
        }
        let mut compared = 0;
        for expected in reference.lines().skip(1) {
            let mut columns = expected.split('\t');
            let (resource, name) = (columns.next().unwrap(), columns.next().unwrap());
            if differs_on_purpose(name) {
                continue;
            }
            let found = ours
                .get(&(resource.to_owned(), name.to_owned()))
                .cloned()
                .unwrap_or_default();
            assert!(
                found.iter().any(|line| line == expected),
                "expected {expected}\n   found {found:#?}"
            );
            compared += 1;
        }
        assert!(compared > 25, "{compared}");
    }

    #[test]
    fn a_broker_that_was_just_started_is_described_as_kafka_describes_it() {
        let config = broker(&[], &[]);
        let topic = properties(&[
            ("segment.bytes", "2000000"),
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.50"),
            ("preallocate", "TRUE"),
        ]);
        let reference = include_str!("reference/at-start.tsv");
        let described = [
            ("TOPIC", describe_topic(&config, &topic).unwrap()),
            ("BROKER", describe_broker(&config).unwrap()),
            ("BROKER", describe_broker_defaults(&config)),
            ("GROUP", describe_group(&config, &Properties::new()).unwrap()),
        ];
        assert_as_the_reference(reference, &described);
        let count = |resource: &str| {
            reference
                .lines()
                .filter(|line| line.starts_with(resource))
                .count()
        };
        assert_eq!(
            described[0].1.len(),
            count("TOPIC"),
            "no topic setting more or less"
        );
        // Kafka's answer has min.insync.replicas a second time, for all brokers.
        assert_eq!(
            described[1].1.len() + described[2].1.len() + 1,
            count("BROKER"),
            "no broker setting more or less"
        );
        assert_eq!(described[3].1.len(), count("GROUP"));
    }

    #[test]
    fn changed_settings_are_described_as_kafka_describes_them() {
        let config = broker(
            &[
                ("log.retention.ms", "50000"),
                ("log.cleaner.threads", "2"),
                ("unknown.thing", "77"),
                ("log.cleanup.policy", "delete,compact"),
                ("leader.replication.throttled.rate", "100"),
                ("zookeeper.connect", "foo"),
                ("remote.log.manager.copier.thread.pool.size", "5"),
            ],
            &[
                ("log.retention.ms", "0"),
                ("log.retention.bytes", "77"),
                ("min.insync.replicas", "2"),
                ("unclean.leader.election.enable", "true"),
            ],
        );
        let topic = properties(&[
            ("segment.bytes", "2000000"),
            ("min.cleanable.dirty.ratio", "0.50"),
            ("preallocate", "TRUE"),
            ("retention.ms", "5"),
            ("max.compaction.lag.ms", "5"),
            ("leader.replication.throttled.replicas", "0:1,1:1"),
            ("local.retention.ms", "6"),
        ]);
        let group = properties(&[("consumer.session.timeout.ms", "50000")]);
        let described = [
            ("TOPIC", describe_topic(&config, &topic).unwrap()),
            ("BROKER", describe_broker(&config).unwrap()),
            ("BROKER", describe_broker_defaults(&config)),
            ("GROUP", describe_group(&config, &group).unwrap()),
        ];
        assert_as_the_reference(include_str!("reference/after-changes.tsv"), &described);
    }
}
