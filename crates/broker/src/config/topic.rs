//! Topic settings: overrides checked in Kafka's words, and merged with the broker's defaults.

use milena_log::{CleanupPolicy, CompressionType, Durability, LogConfig, TimestampType};

use super::broker::{BrokerConfig, FLUSH_MS, Layers, RETENTION_MS, ROLL_JITTER_MS, ROLL_MS};
use super::definition::topic_configs;
use super::value::Value;
use super::{ConfigError, Properties};

/// What a topic runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicSettings {
    pub log: LogConfig,
    pub min_insync_replicas: i32,
}

/// How a broker setting becomes a topic's default.
#[derive(Debug, Clone, Copy)]
enum BrokerDefault {
    /// The same value under the broker's name.
    Named(&'static str),
    /// A time in one of several units.
    Time(&'static [(&'static str, i64)]),
    /// No broker setting: the topic table's own default.
    None,
}

/// The broker setting behind a topic setting (`ServerTopicConfigSynonyms`).
fn broker_default(topic_config: &str) -> BrokerDefault {
    use BrokerDefault::{Named, Time};
    match topic_config {
        "cleanup.policy" => Named("log.cleanup.policy"),
        "compression.gzip.level" => Named("compression.gzip.level"),
        "compression.lz4.level" => Named("compression.lz4.level"),
        "compression.type" => Named("compression.type"),
        "compression.zstd.level" => Named("compression.zstd.level"),
        "durability" => Named("durability"),
        "delete.retention.ms" => Named("log.cleaner.delete.retention.ms"),
        "file.delete.delay.ms" => Named("log.segment.delete.delay.ms"),
        "flush.messages" => Named("log.flush.interval.messages"),
        "flush.ms" => Time(&FLUSH_MS),
        "index.interval.bytes" => Named("log.index.interval.bytes"),
        "local.retention.bytes" => Named("log.local.retention.bytes"),
        "local.retention.ms" => Named("log.local.retention.ms"),
        "max.compaction.lag.ms" => Named("log.cleaner.max.compaction.lag.ms"),
        "max.message.bytes" => Named("message.max.bytes"),
        "message.timestamp.after.max.ms" => Named("log.message.timestamp.after.max.ms"),
        "message.timestamp.before.max.ms" => Named("log.message.timestamp.before.max.ms"),
        "message.timestamp.type" => Named("log.message.timestamp.type"),
        "min.cleanable.dirty.ratio" => Named("log.cleaner.min.cleanable.ratio"),
        "min.compaction.lag.ms" => Named("log.cleaner.min.compaction.lag.ms"),
        "min.insync.replicas" => Named("min.insync.replicas"),
        "preallocate" => Named("log.preallocate"),
        "retention.bytes" => Named("log.retention.bytes"),
        "retention.ms" => Time(&RETENTION_MS),
        "segment.bytes" => Named("log.segment.bytes"),
        "segment.index.bytes" => Named("log.index.size.max.bytes"),
        "segment.jitter.ms" => Time(&ROLL_JITTER_MS),
        "segment.ms" => Time(&ROLL_MS),
        "unclean.leader.election.enable" => Named("unclean.leader.election.enable"),
        _ => BrokerDefault::None,
    }
}

/// The broker settings that a topic setting falls back to, the one that counts first.
pub(super) fn broker_synonyms(topic_config: &str) -> Vec<&'static str> {
    match broker_default(topic_config) {
        BrokerDefault::Named(name) => vec![name],
        BrokerDefault::Time(names) => names.iter().map(|(name, _)| *name).collect(),
        BrokerDefault::None => Vec::new(),
    }
}

/// The value that is in force for a topic.
pub(super) fn value(layers: &Layers, overrides: &Properties, name: &str) -> Result<Value, ConfigError> {
    let def = topic_configs().get(name).ok_or_else(|| unknown(name))?;
    if let Some(text) = overrides.get(name) {
        return def.parse(text);
    }
    let inherited = match broker_default(name) {
        BrokerDefault::Named(broker_name) => layers.value(broker_name)?,
        BrokerDefault::Time(names) => {
            let time_ms = layers.time_ms(names)?;
            // Every negative retention is "for ever".
            Some(Value::Integer(if name == "retention.ms" && time_ms < 0 {
                -1
            } else {
                time_ms
            }))
        }
        BrokerDefault::None => None,
    };
    match inherited {
        Some(value) => Ok(value),
        None => Ok(def.default_value()?.unwrap_or(Value::Text(String::new()))),
    }
}

fn unknown(name: &str) -> ConfigError {
    ConfigError::Invalid(format!("Unknown topic config name: {name}"))
}

/// Says what Kafka says about a topic's overrides: unknown names first, then each value, then what
/// contradicts each other or cannot work here.
pub fn validate_topic(config: &BrokerConfig, overrides: &Properties) -> Result<(), ConfigError> {
    if let Some(name) = overrides.keys().find(|name| topic_configs().get(name).is_none()) {
        return Err(unknown(name));
    }
    for (name, text) in overrides {
        topic_configs()
            .get(name)
            .ok_or_else(|| unknown(name))?
            .parse(text)?;
    }
    let integer = |name: &str| match value(config.layers(), overrides, name) {
        Ok(Value::Integer(value)) => Ok(value),
        Ok(_) => Ok(0),
        Err(error) => Err(error),
    };
    let (min_lag, max_lag) = (
        integer("min.compaction.lag.ms")?,
        integer("max.compaction.lag.ms")?,
    );
    if min_lag > max_lag {
        return Err(ConfigError::Invalid(format!(
            "conflict topic config setting min.compaction.lag.ms ({min_lag}) > max.compaction.lag.ms ({max_lag})"
        )));
    }
    if value(config.layers(), overrides, "remote.storage.enable")? == Value::Boolean(true) {
        return Err(ConfigError::Invalid(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote \
             log storage."
                .to_owned(),
        ));
    }
    Ok(())
}

impl BrokerConfig {
    /// What a topic with these overrides runs with.
    pub fn topic_settings(&self, overrides: &Properties) -> Result<TopicSettings, ConfigError> {
        settings(self.layers(), overrides)
    }
}

/// What a topic without overrides has.
pub(super) fn broker_defaults(layers: &Layers) -> Result<LogConfig, ConfigError> {
    Ok(settings(layers, &Properties::new())?.log)
}

fn settings(layers: &Layers, overrides: &Properties) -> Result<TopicSettings, ConfigError> {
    let get = |name: &str| value(layers, overrides, name);
    let long = |name: &str| match get(name)? {
        Value::Integer(number) => Ok(number),
        other => Err(ConfigError::value(
            name,
            &other.in_sentence(),
            "Not a number of type LONG",
        )),
    };
    // The tables' types keep these within an int.
    let int = |name: &str| long(name).map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let is = |name: &str| get(name).map(|value| value == Value::Boolean(true));
    let text = |name: &str| get(name).map(|value| value.to_text());
    let Value::List(policies) = get("cleanup.policy")? else {
        return Err(ConfigError::value(
            "cleanup.policy",
            "",
            "Expected a comma separated list.",
        ));
    };
    let has = |policy: &str| policies.iter().any(|item| item == policy);
    let compression_type = match text("compression.type")?.as_str() {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip(int("compression.gzip.level")?),
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4(int("compression.lz4.level")?),
        "zstd" => CompressionType::Zstd(int("compression.zstd.level")?),
        _ => CompressionType::Producer,
    };
    let message_timestamp_type = match text("message.timestamp.type")?.as_str() {
        "LogAppendTime" => TimestampType::LogAppendTime,
        _ => TimestampType::CreateTime,
    };
    let durability = match text("durability")?.as_str() {
        "os" => Durability::Os,
        _ => Durability::Disk,
    };
    let min_cleanable_dirty_ratio = match get("min.cleanable.dirty.ratio")? {
        Value::Double(ratio) => ratio,
        _ => LogConfig::default().min_cleanable_dirty_ratio,
    };
    let producer_id_expiration_ms = match layers.value("producer.id.expiration.ms")? {
        Some(Value::Integer(expiration_ms)) => expiration_ms,
        _ => LogConfig::default().producer_id_expiration_ms,
    };
    let log = LogConfig {
        cleanup_policy: CleanupPolicy {
            delete: has("delete"),
            compact: has("compact"),
        },
        compression_type,
        delete_retention_ms: long("delete.retention.ms")?,
        durability,
        file_delete_delay_ms: long("file.delete.delay.ms")?,
        flush_messages: long("flush.messages")?,
        flush_ms: long("flush.ms")?,
        index_interval_bytes: int("index.interval.bytes")?,
        max_compaction_lag_ms: long("max.compaction.lag.ms")?,
        max_message_bytes: int("max.message.bytes")?,
        message_timestamp_after_max_ms: long("message.timestamp.after.max.ms")?,
        message_timestamp_before_max_ms: long("message.timestamp.before.max.ms")?,
        message_timestamp_type,
        min_cleanable_dirty_ratio,
        min_compaction_lag_ms: long("min.compaction.lag.ms")?,
        preallocate: is("preallocate")?,
        retention_bytes: long("retention.bytes")?,
        retention_ms: long("retention.ms")?,
        segment_bytes: int("segment.bytes")?,
        segment_index_bytes: int("segment.index.bytes")?,
        segment_jitter_ms: long("segment.jitter.ms")?,
        segment_ms: long("segment.ms")?,
        producer_id_expiration_ms,
    };
    Ok(TopicSettings {
        log,
        min_insync_replicas: int("min.insync.replicas")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn broker(pairs: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::new(properties(pairs)).unwrap()
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        validate_topic(&broker(&[]), &properties(pairs))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_topic_without_overrides_has_kafkas_defaults() {
        let settings = broker(&[]).topic_settings(&Properties::new()).unwrap();
        assert_eq!(
            settings,
            TopicSettings {
                log: LogConfig::default(),
                min_insync_replicas: 1
            }
        );
    }

    #[test]
    fn overrides_cover_the_brokers_defaults() {
        let broker = broker(&[
            ("log.segment.bytes", "2000000"),
            ("compression.type", "gzip"),
            ("log.cleanup.policy", "compact"),
        ]);
        let settings = broker
            .topic_settings(&properties(&[
                ("cleanup.policy", "compact,delete"),
                ("min.insync.replicas", "2"),
            ]))
            .unwrap();
        assert_eq!(settings.log.segment_bytes, 2_000_000);
        assert_eq!(settings.log.compression_type, CompressionType::Gzip(-1));
        assert_eq!(
            settings.log.cleanup_policy,
            CleanupPolicy {
                delete: true,
                compact: true
            }
        );
        assert_eq!(settings.min_insync_replicas, 2);
        assert_eq!(
            broker.log.cleanup_policy,
            CleanupPolicy {
                delete: false,
                compact: true
            }
        );
    }

    /// Each topic setting that a log obeys, the broker setting behind it, and a value that is no default.
    const OBEYED: [(&str, &str, &str); 24] = [
        ("cleanup.policy", "log.cleanup.policy", "compact"),
        ("compression.gzip.level", "compression.gzip.level", "7"),
        ("compression.lz4.level", "compression.lz4.level", "12"),
        ("compression.type", "compression.type", "snappy"),
        ("compression.zstd.level", "compression.zstd.level", "-7"),
        ("delete.retention.ms", "log.cleaner.delete.retention.ms", "11"),
        ("file.delete.delay.ms", "log.segment.delete.delay.ms", "12"),
        ("flush.messages", "log.flush.interval.messages", "13"),
        ("flush.ms", "log.flush.interval.ms", "14"),
        ("index.interval.bytes", "log.index.interval.bytes", "15"),
        ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", "16"),
        ("max.message.bytes", "message.max.bytes", "17"),
        (
            "message.timestamp.after.max.ms",
            "log.message.timestamp.after.max.ms",
            "18",
        ),
        (
            "message.timestamp.before.max.ms",
            "log.message.timestamp.before.max.ms",
            "19",
        ),
        (
            "message.timestamp.type",
            "log.message.timestamp.type",
            "LogAppendTime",
        ),
        (
            "min.cleanable.dirty.ratio",
            "log.cleaner.min.cleanable.ratio",
            "0.2",
        ),
        ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", "21"),
        ("preallocate", "log.preallocate", "true"),
        ("retention.bytes", "log.retention.bytes", "22"),
        ("retention.ms", "log.retention.ms", "23"),
        ("segment.bytes", "log.segment.bytes", "1048577"),
        ("segment.index.bytes", "log.index.size.max.bytes", "25"),
        ("segment.jitter.ms", "log.roll.jitter.ms", "26"),
        ("segment.ms", "log.roll.ms", "27"),
    ];

    #[test]
    fn each_setting_counts_as_the_topics_own_the_brokers_and_the_default_of_all_brokers() {
        for (name, broker_name, text) in OBEYED {
            // Levels count only with their codec.
            let codec = name
                .strip_prefix("compression.")
                .and_then(|rest| rest.strip_suffix(".level"));
            let codec: Vec<(&str, &str)> = codec
                .map(|codec| ("compression.type", codec))
                .into_iter()
                .collect();
            let plain = broker(&codec);
            let log_of = |config: &BrokerConfig, overrides: &[(&str, &str)]| {
                config.topic_settings(&properties(overrides)).unwrap().log
            };
            let own = log_of(&plain, &[(name, text)]);
            assert_ne!(own, log_of(&plain, &[]), "{name} changes nothing");
            let mut at_start = codec.clone();
            at_start.push((broker_name, text));
            assert_eq!(log_of(&broker(&at_start), &[]), own, "{broker_name} at the start");
            let dynamic = properties(&[(broker_name, text)]);
            let of_all = plain.with_dynamic(Properties::new(), dynamic.clone()).unwrap();
            assert_eq!(log_of(&of_all, &[]), own, "{broker_name} of all brokers");
            let of_one = plain.with_dynamic(dynamic, Properties::new()).unwrap();
            assert_eq!(log_of(&of_one, &[]), own, "{broker_name} of this broker");
            let default = topic_configs().get(name).unwrap().default.clone().unwrap();
            assert_eq!(
                log_of(&of_all, &[(name, default.trim_matches(['[', ']']))]),
                log_of(&plain, &[(name, default.trim_matches(['[', ']']))]),
                "a topic's own {name} counts more than the default of all brokers"
            );
            assert!(
                super::super::dynamic::update_mode(broker_name).is_some(),
                "{broker_name} can be changed at run time"
            );
        }
    }

    #[test]
    fn no_topic_setting_is_forgotten() {
        // What speaks of replicas, or of storage beyond the log directories.
        const WITHOUT_MEANING: [&str; 9] = [
            "follower.replication.throttled.replicas",
            "leader.replication.throttled.replicas",
            "local.retention.bytes",
            "local.retention.ms",
            "min.insync.replicas",
            "remote.log.copy.disable",
            "remote.log.delete.on.disable",
            "remote.storage.enable",
            "unclean.leader.election.enable",
        ];
        let obeyed = OBEYED.map(|(name, _, _)| name);
        let forgotten: Vec<&str> = topic_configs()
            .iter()
            .map(|def| def.name)
            .filter(|name| !obeyed.contains(name) && !WITHOUT_MEANING.contains(name))
            .collect();
        assert_eq!(forgotten, ["durability"], "Milena's own");
    }

    #[test]
    fn the_finest_unit_of_a_time_counts() {
        let retention = |pairs: &[(&str, &str)]| broker(pairs).log.retention_ms;
        assert_eq!(retention(&[]), 168 * 3_600_000);
        assert_eq!(retention(&[("log.retention.hours", "1")]), 3_600_000);
        assert_eq!(
            retention(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")]),
            120_000
        );
        assert_eq!(
            retention(&[("log.retention.minutes", "2"), ("log.retention.ms", "3")]),
            3
        );
        assert_eq!(retention(&[("log.retention.hours", "-5")]), -1);
        assert_eq!(broker(&[("log.roll.hours", "2")]).log.segment_ms, 7_200_000);
        assert_eq!(
            broker(&[("log.flush.scheduler.interval.ms", "9")]).log.flush_ms,
            9
        );
    }

    #[test]
    fn wrong_overrides_are_refused_in_kafkas_words() {
        assert_eq!(
            refused(&[("foo", "1"), ("retention.ms", "x")]),
            "Unknown topic config name: foo"
        );
        assert_eq!(
            refused(&[("retention.ms", "x")]),
            "Invalid value x for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            refused(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]),
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
        );
        assert_eq!(
            refused(&[("remote.storage.enable", "true")]),
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
        );
        let accepted = properties(&[
            ("remote.log.copy.disable", "true"),
            ("local.retention.ms", "99999999999"),
            ("leader.replication.throttled.replicas", "*"),
        ]);
        assert_eq!(validate_topic(&broker(&[]), &accepted), Ok(()));
    }
}
