//! Broker settings that change while the broker runs: which ones, and what Kafka says about a change.

use super::definition::broker_configs;
use super::reconfigure;
use super::sources::has_effect;
use super::value::{ConfigType, Value};
use super::{BrokerConfig, ConfigError, Properties};

/// For whom a dynamic setting can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateMode {
    /// Only for one broker.
    PerBroker,
    /// For one broker or for all.
    ClusterWide,
}

/// Kafka 4.3.1's cluster-wide dynamic settings and Milena's own, in order of names.
const CLUSTER_WIDE: [&str; 66] = [
    "background.threads",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "config.providers",
    "durability",
    "follower.fetch.last.tiered.offset.enable",
    "follower.replication.throttled.rate",
    "group.consumer.assignment.interval.ms",
    "group.coordinator.cached.buffer.max.bytes",
    "group.share.assignment.interval.ms",
    "group.streams.assignment.interval.ms",
    "leader.replication.throttled.rate",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleaner.threads",
    "log.cleanup.policy",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.local.retention.bytes",
    "log.local.retention.ms",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.ms",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "message.max.bytes",
    "metric.reporters",
    "min.insync.replicas",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "producer.id.expiration.ms",
    "remote.fetch.max.wait.ms",
    "remote.list.offsets.request.timeout.ms",
    "remote.log.index.file.cache.total.size.bytes",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.copy.max.bytes.per.second",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.fetch.max.bytes.per.second",
    "remote.log.manager.follower.thread.pool.size",
    "remote.log.reader.threads",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "share.coordinator.cached.buffer.max.bytes",
    "transaction.partition.verification.enable",
    "unclean.leader.election.enable",
];

/// Dynamic for one broker: what is its own, and what Kafka reconfigures per listener.
const PER_BROKER: [&str; 17] = [
    "cordoned.log.dirs",
    "listener.security.protocol.map",
    "listeners",
    "principal.builder.class",
    "sasl.enabled.mechanisms",
    "sasl.jaas.config",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal.to.local.rules",
    "sasl.kerberos.service.name",
    "sasl.kerberos.ticket.renew.jitter",
    "sasl.kerberos.ticket.renew.window.factor",
    "sasl.login.refresh.buffer.seconds",
    "sasl.login.refresh.min.period.seconds",
    "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter",
    "sasl.mechanism.inter.broker.protocol",
];

/// Those of them that are here; what is left is about security that is not.
const OBEYED_PER_BROKER: [&str; 3] = ["cordoned.log.dirs", "listener.security.protocol.map", "listeners"];

/// `ssl.*` settings that are not dynamic.
const STATIC_SSL: [&str; 3] = [
    "ssl.allow.dn.changes",
    "ssl.allow.san.changes",
    "ssl.principal.mapping.rules",
];

fn is_dynamic_ssl(name: &str) -> bool {
    name.starts_with("ssl.") && !STATIC_SSL.contains(&name) && broker_configs().get(name).is_some()
}

/// Replication quotas, which exist only as dynamic broker settings.
pub(super) fn broker_quota_config(name: &str) -> bool {
    matches!(
        name,
        "leader.replication.throttled.rate"
            | "follower.replication.throttled.rate"
            | "replica.alter.log.dirs.io.max.bytes.per.second"
    )
}

/// `None`: the setting is read only.
pub(super) fn update_mode(name: &str) -> Option<UpdateMode> {
    if CLUSTER_WIDE.contains(&name) {
        return Some(UpdateMode::ClusterWide);
    }
    let per_broker = PER_BROKER.contains(&name) || is_dynamic_ssl(name);
    per_broker.then_some(UpdateMode::PerBroker)
}

/// Checks what a broker resource would be set to (all of it: `new` replaces the layer), for one broker
/// or for all. Gives the configuration to run with from then on, and notices for the log.
pub fn validate_dynamic(
    config: &BrokerConfig,
    per_broker: bool,
    new: &Properties,
) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
    check_names(new, per_broker)?;
    for (name, text) in new {
        check_value(name, text)?;
    }
    let layers = config.layers();
    let (dynamic_broker, dynamic_default) = match per_broker {
        true => (new.clone(), layers.dynamic_default.clone()),
        false => (layers.dynamic_broker.clone(), new.clone()),
    };
    let changed = config
        .with_dynamic(dynamic_broker, dynamic_default)
        .and_then(|changed| reconfigure::check(config, &changed).map(|()| changed))
        .map_err(as_request)?;
    let before = if per_broker {
        &layers.dynamic_broker
    } else {
        &layers.dynamic_default
    };
    let idle: Vec<&str> = new
        .iter()
        .filter(|(name, text)| !has_effect(name) && before.get(*name) != Some(text))
        .map(|(name, _)| name.as_str())
        .collect();
    let notices = match idle.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "Stored, but without meaning for Milena: {}",
            idle.join(", ")
        )],
    };
    Ok((changed, notices))
}

/// Kafka answers every refusal of a broker resource as an invalid request (KAFKA-13609).
fn as_request(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Requirement(sentence) => ConfigError::Request(format!("requirement failed: {sentence}")),
        ConfigError::Invalid(sentence) | ConfigError::Request(sentence) => ConfigError::Request(sentence),
    }
}

fn check_names(new: &Properties, per_broker: bool) -> Result<(), ConfigError> {
    let refuse = |is_wrong: &dyn Fn(&str) -> bool, sentence: &str| {
        let wrong: Vec<&str> = new
            .keys()
            .map(String::as_str)
            .filter(|name| is_wrong(name))
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::Request(format!(
                "{sentence}: [{}]",
                wrong.join(", ")
            ))),
        }
    };
    refuse(
        &|name| broker_configs().get(name).is_some() && update_mode(name).is_none(),
        "Cannot update these configs dynamically",
    )?;
    refuse(
        &is_dynamic_ssl,
        "These security configs can be dynamically updated only per-listener using the listener prefix",
    )?;
    if !per_broker {
        refuse(
            &|name| update_mode(name) == Some(UpdateMode::PerBroker),
            "Cannot update these configs at default cluster level, broker id must be specified",
        )?;
    }
    refuse(
        &|name| {
            let is_per_broker = update_mode(name) == Some(UpdateMode::PerBroker);
            name.starts_with("listener.name.") || is_per_broker && !OBEYED_PER_BROKER.contains(&name)
        },
        "Milena does not implement these settings, and a security setting must not be accepted without effect",
    )
}

fn check_value(name: &str, text: &str) -> Result<(), ConfigError> {
    if broker_quota_config(name) {
        let value = Value::parse(name, ConfigType::Long, text).map_err(as_request)?;
        if matches!(value, Value::Integer(rate) if rate < 0) {
            return Err(as_request(ConfigError::value(
                name,
                text,
                "Value must be at least 0",
            )));
        }
    }
    match broker_configs().get(name) {
        Some(def) => def.parse(text).map(|_| ()).map_err(as_request),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(per_broker: bool, pairs: &[(&str, &str)]) -> Result<BrokerConfig, String> {
        let config = BrokerConfig::new(Properties::new()).unwrap();
        let new = pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        match validate_dynamic(&config, per_broker, &new) {
            Ok((config, _)) => Ok(config),
            Err(error) => {
                assert_eq!(error.code(), milena_protocol::ErrorCode::InvalidRequest);
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn changes_are_refused_in_kafkas_words() {
        let refused = |per_broker, pairs: &[(&str, &str)]| changed(per_broker, pairs).unwrap_err();
        assert_eq!(
            refused(true, &[("num.partitions", "5"), ("node.id", "1")]),
            "Cannot update these configs dynamically: [node.id, num.partitions]"
        );
        assert_eq!(
            refused(true, &[("log.retention.ms", "x")]),
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            refused(true, &[("ssl.keystore.location", "x")]),
            "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.location]"
        );
        assert_eq!(
            refused(false, &[("sasl.enabled.mechanisms", "PLAIN")]),
            "Cannot update these configs at default cluster level, broker id must be specified: [sasl.enabled.mechanisms]"
        );
        assert_eq!(
            refused(true, &[("log.roll.ms", "0")]),
            "requirement failed: log.roll.ms must be greater than or equal to 1"
        );
        assert_eq!(
            refused(true, &[("leader.replication.throttled.rate", "x")]),
            "Invalid value x for configuration leader.replication.throttled.rate: Not a number of type LONG"
        );
        assert_eq!(
            refused(false, &[("message.max.bytes", "")]),
            "Invalid value  for configuration message.max.bytes: Not a number of type INT"
        );
        assert_eq!(
            refused(true, &[("listeners", "PLAINTEXT://:1,OTHER://:2")]),
            "Error creating broker listeners from '[PLAINTEXT://:1, OTHER://:2]': No security protocol defined for \
             listener OTHER"
        );
        assert!(
            refused(true, &[("advertised.listeners", "PLAINTEXT://:1")])
                .starts_with("Cannot update these configs dynamically")
        );
        assert!(
            refused(true, &[("listener.name.plaintext.ssl.keystore.location", "x")])
                .contains("does not implement")
        );
    }

    #[test]
    fn a_change_for_one_broker_covers_one_for_all() {
        let config = changed(false, &[("log.retention.ms", "60000"), ("unknown.thing", "1")]).unwrap();
        assert_eq!(config.log.retention_ms, 60_000);
        let own = [("log.retention.ms".to_owned(), "50000".to_owned())].into();
        let (config, notices) = validate_dynamic(&config, true, &own).unwrap();
        assert_eq!((config.log.retention_ms, notices), (50_000, Vec::new()));
        let (config, _) = validate_dynamic(&config, true, &Properties::new()).unwrap();
        assert_eq!(config.log.retention_ms, 60_000);
    }

    #[test]
    fn a_change_without_meaning_is_named() {
        let config = BrokerConfig::new(Properties::new()).unwrap();
        let new = [("num.io.threads".to_owned(), "9".to_owned())].into();
        let (_, notices) = validate_dynamic(&config, false, &new).unwrap();
        assert_eq!(
            notices,
            ["Stored, but without meaning for Milena: num.io.threads"]
        );
    }

    /// Every setting that changes while the broker runs, and is not said to mean nothing, changes what it runs with.
    #[test]
    fn a_dynamic_setting_is_obeyed_or_said_to_mean_nothing() {
        const VALUES: [&str; 12] = [
            "2",
            "5000",
            "2097153",
            "true",
            "false",
            "0.25",
            "gzip",
            "compact",
            "LogAppendTime",
            "os",
            "10.0.0.1:5",
            "-5",
        ];
        let mut obeyed = 0;
        // The one's items name classes, of which there are none; the other is read, and one replica is always in sync.
        // The others are looked up for each group.
        let excepted = [
            "config.providers",
            "min.insync.replicas",
            "group.consumer.assignment.interval.ms",
            "group.streams.assignment.interval.ms",
            "group.share.assignment.interval.ms",
        ];
        let dynamic = CLUSTER_WIDE.into_iter().filter(|name| !excepted.contains(name));
        for name in dynamic {
            let mut start = Properties::new();
            // A codec's level counts where there is the codec.
            if let Some(codec) = name
                .strip_prefix("compression.")
                .and_then(|rest| rest.strip_suffix(".level"))
            {
                start.insert("compression.type".to_owned(), codec.to_owned());
            }
            let config = BrokerConfig::new(start).unwrap();
            let before = config.without_layers();
            let changes = VALUES.iter().any(|value| {
                let new = Properties::from([(name.to_owned(), (*value).to_owned())]);
                validate_dynamic(&config, false, &new)
                    .is_ok_and(|(changed, _)| changed.without_layers() != before)
            });
            assert_eq!(changes, has_effect(name), "{name}");
            obeyed += usize::from(changes);
        }
        assert!(obeyed > 30, "{obeyed}");
    }
}
