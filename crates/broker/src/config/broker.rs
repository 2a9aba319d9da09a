//! The broker's settings, typed, and the layers that they come from.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use milena_coordinator::{Assignor, SHARE_ASSIGNOR};
use milena_log::{CleanerConfig, LogConfig, MoveConfig};

use super::definition::broker_configs;
use super::group;
use super::listeners::{self, Listener, ListenerSettings};
use super::topic;
use super::value::{ConfigType, Value, split_list};
use super::{ConfigError, Properties};
use crate::quotas::Windows;

/// Where a broker setting's value comes from: each layer covers those after it, and Kafka's
/// defaults are under them all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// Set for this broker by `AlterConfigs`.
    pub dynamic_broker: Properties,
    /// Set for all brokers by `AlterConfigs`.
    pub dynamic_default: Properties,
    /// What the broker was started with.
    pub static_broker: Properties,
}

impl Layers {
    /// The text that is in force, if any layer has the name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let layers = [&self.dynamic_broker, &self.dynamic_default, &self.static_broker];
        layers
            .into_iter()
            .find_map(|layer| layer.get(name))
            .map(String::as_str)
    }

    /// The value in force, or the default; `None` is Kafka's null.
    pub(super) fn value(&self, name: &str) -> Result<Option<Value>, ConfigError> {
        let def = broker_configs()
            .get(name)
            .ok_or_else(|| ConfigError::Invalid(format!("Unknown config name: {name}")))?;
        match self.get(name) {
            Some(text) => def.parse(text).map(Some),
            None => def.default_value(),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ConfigError> {
        Ok(match self.value(name)? {
            Some(Value::Integer(value)) => Some(value),
            _ => None,
        })
    }

    /// A number that has a default. The types of the table bound it to the field's type.
    fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, ConfigError> {
        let value = self.integer(name)?.and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| ConfigError::Invalid(format!("Configuration {name} has no usable value")))
    }

    fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        Ok(self.value(name)? == Some(Value::Boolean(true)))
    }

    fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.value(name)?.map(|value| value.to_text()))
    }

    fn list(&self, name: &str) -> Result<Option<Vec<String>>, ConfigError> {
        Ok(match self.value(name)? {
            Some(Value::List(items)) => Some(items),
            _ => None,
        })
    }

    /// A time that may be given in several units: the first name that is set counts, else the last
    /// name's default. Each name comes with its unit in milliseconds.
    pub(super) fn time_ms(&self, names: &[(&str, i64)]) -> Result<i64, ConfigError> {
        for (name, unit_ms) in names {
            if let Some(value) = self.integer(name)? {
                return Ok(value.saturating_mul(*unit_ms));
            }
        }
        Ok(-1)
    }
}

const MEBIBYTE: i64 = 1 << 20;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// What the broker runs with. Each field has the name of its setting with `_` for `.`.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerConfig {
    pub node_id: i32,
    pub broker_rack: Option<String>,
    /// Which protocols members of groups may use, by name.
    pub rebalance_protocols: Vec<String>,
    pub group_consumer_migration_policy: MigrationPolicy,
    pub group_consumer_max_size: i32,
    pub group_streams_max_size: i32,
    /// The first is the default.
    pub group_consumer_assignors: Vec<Assignor>,
    pub group_share_max_size: i32,
    /// Those of `controller.listener.names` are not among them: they are not opened.
    pub listeners: Vec<Listener>,
    /// `log.dirs`, or `log.dir`. At least one; facts live in the first.
    pub log_dirs: Vec<PathBuf>,
    /// `cordoned.log.dirs`, of which `*` means all.
    pub cordoned_log_dirs: Vec<PathBuf>,

    /// -1: what the system gives.
    pub socket_send_buffer_bytes: i32,
    /// -1: what the system gives, which it also is unless somebody sets it: no less than Kafka's default,
    /// and more for a peer that sends much, which then has not to stop and start with each read.
    pub socket_receive_buffer_bytes: i32,
    pub socket_request_max_bytes: i32,
    pub socket_listen_backlog_size: i32,
    pub connections_max_idle_ms: i64,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    /// By host name or address as written.
    pub max_connections_per_ip_overrides: BTreeMap<String, i32>,
    /// New connections per second.
    pub max_connection_creation_rate: i32,
    pub queued_max_requests: i32,
    /// Not positive: the broker's own limit.
    pub queued_max_request_bytes: i64,

    pub num_partitions: i32,
    pub default_replication_factor: i32,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    pub min_insync_replicas: i32,
    pub message_max_bytes: i32,
    pub fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub telemetry_max_bytes: i32,
    pub(crate) quota_windows: Windows,
    pub(crate) controller_quota_windows: Windows,
    pub max_request_partition_size_limit: i32,

    pub group_min_session_timeout_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_initial_rebalance_delay_ms: i32,
    pub group_max_size: i32,
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes` in milliseconds.
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: i64,
    /// `transaction.max.timeout.ms`
    pub transaction_max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`
    pub transactional_id_expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub transaction_expiration_check_interval_ms: i64,
    /// `transaction.partition.verification.enable`
    pub transaction_partition_verification_enable: bool,
    pub producer_id_expiration_ms: i32,
    pub log_retention_check_interval_ms: i64,
    pub log_flush_offset_checkpoint_interval_ms: i32,

    /// What a topic without overrides has; see [`Self::topic_settings`].
    pub log: LogConfig,
    /// `log.cleaner.*`
    pub cleaner: CleanerConfig,
    /// `num.replica.alter.log.dirs.threads`, `replica.alter.log.dirs.io.max.bytes.per.second`
    pub moves: MoveConfig,
    layers: Arc<Layers>,
}

impl BrokerConfig {
    /// Whether no partition can be placed, as every log directory is cordoned.
    pub(crate) fn is_cordoned(&self) -> bool {
        let is_cordoned = |dir| self.cordoned_log_dirs.contains(dir);
        self.log_dirs.iter().all(is_cordoned)
    }

    /// From what the broker is started with.
    pub fn new(mut static_broker: Properties) -> Result<Self, ConfigError> {
        // Two names of one setting: Kafka reports both where one is set.
        for (name, other) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if let Some(id) = static_broker.get(name).cloned() {
                static_broker.entry(other.to_owned()).or_insert(id);
            }
        }
        Self::from_layers(Layers {
            static_broker,
            ..Layers::default()
        })
    }

    /// The same broker with other dynamic settings.
    pub fn with_dynamic(
        &self,
        dynamic_broker: Properties,
        dynamic_default: Properties,
    ) -> Result<Self, ConfigError> {
        let static_broker = self.layers.static_broker.clone();
        Self::from_layers(Layers {
            dynamic_broker,
            dynamic_default,
            static_broker,
        })
    }

    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    #[cfg(test)]
    pub(super) fn without_layers(&self) -> Self {
        Self {
            layers: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn from_layers(layers: Layers) -> Result<Self, ConfigError> {
        check_known(&layers)?;
        check_roles(&layers)?;
        group::check_broker(&layers)?;
        let log = topic::broker_defaults(&layers)?;
        let config = Self {
            node_id: node_id(&layers)?,
            broker_rack: layers.text("broker.rack")?,
            rebalance_protocols: layers
                .list("group.coordinator.rebalance.protocols")?
                .unwrap_or_default(),
            group_consumer_migration_policy: migration_policy(&layers)?,
            group_consumer_max_size: layers.number("group.consumer.max.size")?,
            group_streams_max_size: layers.number("group.streams.max.size")?,
            group_consumer_assignors: assignors(&layers)?,
            group_share_max_size: share_max_size(&layers)?,
            listeners: resolve_listeners(&layers)?,
            cordoned_log_dirs: cordoned_log_dirs(&layers)?,
            log_dirs: log_dirs(&layers)?,
            socket_send_buffer_bytes: layers.number("socket.send.buffer.bytes")?,
            socket_receive_buffer_bytes: receive_buffer_bytes(&layers)?,
            socket_request_max_bytes: layers.number("socket.request.max.bytes")?,
            socket_listen_backlog_size: layers.number("socket.listen.backlog.size")?,
            connections_max_idle_ms: layers.number("connections.max.idle.ms")?,
            max_connections: layers.number("max.connections")?,
            max_connections_per_ip: layers.number("max.connections.per.ip")?,
            max_connections_per_ip_overrides: per_ip_overrides(&layers)?,
            max_connection_creation_rate: layers.number("max.connection.creation.rate")?,
            queued_max_requests: layers.number("queued.max.requests")?,
            queued_max_request_bytes: layers.number("queued.max.request.bytes")?,
            num_partitions: layers.number("num.partitions")?,
            default_replication_factor: layers.number("default.replication.factor")?,
            auto_create_topics_enable: layers.boolean("auto.create.topics.enable")?,
            delete_topic_enable: layers.boolean("delete.topic.enable")?,
            min_insync_replicas: layers.number("min.insync.replicas")?,
            message_max_bytes: layers.number("message.max.bytes")?,
            fetch_max_bytes: layers.number("fetch.max.bytes")?,
            telemetry_max_bytes: layers.number("telemetry.max.bytes")?,
            quota_windows: windows(&layers, "quota")?,
            controller_quota_windows: windows(&layers, "controller.quota")?,
            max_incremental_fetch_session_cache_slots: layers
                .number("max.incremental.fetch.session.cache.slots")?,
            max_request_partition_size_limit: layers.number("max.request.partition.size.limit")?,
            group_min_session_timeout_ms: layers.number("group.min.session.timeout.ms")?,
            group_max_session_timeout_ms: layers.number("group.max.session.timeout.ms")?,
            group_initial_rebalance_delay_ms: layers.number("group.initial.rebalance.delay.ms")?,
            group_max_size: layers.number("group.max.size")?,
            offset_metadata_max_bytes: layers.number("offset.metadata.max.bytes")?,
            offsets_retention_ms: layers.time_ms(&[("offsets.retention.minutes", MINUTE_MS)])?,
            offsets_retention_check_interval_ms: layers.number("offsets.retention.check.interval.ms")?,
            transaction_max_timeout_ms: layers.number("transaction.max.timeout.ms")?,
            transactional_id_expiration_ms: layers.number("transactional.id.expiration.ms")?,
            transaction_expiration_check_interval_ms: layers
                .number("transaction.remove.expired.transaction.cleanup.interval.ms")?,
            transaction_partition_verification_enable: layers
                .boolean("transaction.partition.verification.enable")?,
            producer_id_expiration_ms: layers.number("producer.id.expiration.ms")?,
            log_retention_check_interval_ms: layers.number("log.retention.check.interval.ms")?,
            log_flush_offset_checkpoint_interval_ms: layers
                .number("log.flush.offset.checkpoint.interval.ms")?,
            log,
            cleaner: cleaner(&layers)?,
            moves: moves(&layers)?,
            layers: Arc::new(layers),
        };
        config.check_limits()?;
        Ok(config)
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let require = |holds: bool, sentence: &str| match holds {
            true => Ok(()),
            false => Err(ConfigError::Requirement(sentence.to_owned())),
        };
        let log = &self.log;
        require(
            log.segment_ms >= 1,
            "log.roll.ms must be greater than or equal to 1",
        )?;
        require(
            log.segment_jitter_ms >= 0,
            "log.roll.jitter.ms must be greater than or equal to 0",
        )?;
        require(
            log.retention_ms >= 1 || log.retention_ms == -1,
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        )?;
        require(
            self.queued_max_request_bytes <= 0
                || self.queued_max_request_bytes >= i64::from(self.socket_request_max_bytes),
            "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
        )?;
        let cleaner = &self.cleaner;
        let cleaner_threads = i64::from(cleaner.threads);
        require(cleaner_threads >= 1, "log.cleaner.threads must be at least 1.")?;
        require(
            cleaner.dedupe_buffer_size / cleaner_threads > MEBIBYTE,
            "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
        )?;
        require(
            self.max_connections_per_ip > 0 || !self.max_connections_per_ip_overrides.is_empty(),
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.",
        )
    }
}

fn cleaner(layers: &Layers) -> Result<CleanerConfig, ConfigError> {
    let real = |name: &str, default: f64| match layers.value(name)? {
        Some(Value::Double(value)) => Ok(value),
        _ => Ok(default),
    };
    let default = CleanerConfig::default();
    Ok(CleanerConfig {
        enable: layers.boolean("log.cleaner.enable")?,
        threads: layers.number("log.cleaner.threads")?,
        dedupe_buffer_size: layers.number("log.cleaner.dedupe.buffer.size")?,
        io_buffer_load_factor: real("log.cleaner.io.buffer.load.factor", default.io_buffer_load_factor)?,
        io_buffer_size: layers.number("log.cleaner.io.buffer.size")?,
        io_max_bytes_per_second: real(
            "log.cleaner.io.max.bytes.per.second",
            default.io_max_bytes_per_second,
        )?,
        backoff_ms: layers.number("log.cleaner.backoff.ms")?,
    })
}

fn moves(layers: &Layers) -> Result<MoveConfig, ConfigError> {
    // It exists as a dynamic setting only.
    let name = "replica.alter.log.dirs.io.max.bytes.per.second";
    let rate = layers
        .dynamic_broker
        .get(name)
        .or_else(|| layers.dynamic_default.get(name));
    Ok(MoveConfig {
        threads: match layers.value("num.replica.alter.log.dirs.threads")? {
            Some(Value::Integer(threads)) => i32::try_from(threads).ok(),
            _ => None,
        },
        io_max_bytes_per_second: match rate {
            Some(text) => match Value::parse(name, ConfigType::Long, text)? {
                Value::Integer(rate) => rate as f64,
                _ => f64::MAX,
            },
            None => f64::MAX,
        },
    })
}

/// Settings that nothing reads have to be right too.
fn check_known(layers: &Layers) -> Result<(), ConfigError> {
    for layer in [
        &layers.static_broker,
        &layers.dynamic_default,
        &layers.dynamic_broker,
    ] {
        for (name, text) in layer {
            if let Some(def) = broker_configs().get(name) {
                def.parse(text)?;
            }
        }
    }
    Ok(())
}

/// Milena is one broker that needs no controllers; what asks for more than that must not seem to work.
fn check_roles(layers: &Layers) -> Result<(), ConfigError> {
    let roles = layers.list("process.roles")?.unwrap_or_default();
    if !roles.iter().any(|role| role == "broker") {
        return Err(ConfigError::Invalid(
            "process.roles=controller asks for a controller without a broker. Milena needs no controllers: \
             leave this process out, or set process.roles=broker,controller."
                .to_owned(),
        ));
    }
    for name in ["controller.quorum.voters", "controller.quorum.bootstrap.servers"] {
        let nodes = layers.list(name)?.unwrap_or_default();
        if nodes.len() > 1 {
            return Err(ConfigError::Invalid(format!(
                "{name} names {} nodes. Milena runs as one broker and forms no cluster yet: several of them \
                 would be strangers with separate data. Start one broker and remove {name}.",
                nodes.len()
            )));
        }
    }
    Ok(())
}

/// Over which time quotas are measured.
fn windows(layers: &Layers, prefix: &str) -> Result<Windows, ConfigError> {
    let seconds: u32 = layers.number(&format!("{prefix}.window.size.seconds"))?;
    Ok(Windows {
        count: layers.number(&format!("{prefix}.window.num"))?,
        size_ms: seconds.saturating_mul(1_000),
    })
}

fn receive_buffer_bytes(layers: &Layers) -> Result<i32, ConfigError> {
    const NAME: &str = "socket.receive.buffer.bytes";
    match layers.get(NAME) {
        Some(_) => layers.number(NAME),
        None => Ok(-1),
    }
}

/// `node.id`, for which `broker.id` is Kafka's old name.
fn node_id(layers: &Layers) -> Result<i32, ConfigError> {
    let broker_id = layers
        .get("broker.id")
        .map(|_| layers.number::<i32>("broker.id"))
        .transpose()?;
    let node_id: i32 = match (layers.get("node.id"), broker_id) {
        (None, Some(broker_id)) => broker_id,
        _ => layers.number("node.id")?,
    };
    if broker_id.is_some_and(|broker_id| broker_id != node_id) {
        return Err(ConfigError::Invalid(
            "You must set `node.id` to the same value as `broker.id`.".to_owned(),
        ));
    }
    if node_id < 0 {
        return Err(ConfigError::value(
            "node.id",
            &node_id.to_string(),
            "Value must be at least 0",
        ));
    }
    Ok(node_id)
}

fn log_dirs(layers: &Layers) -> Result<Vec<PathBuf>, ConfigError> {
    let dirs = match layers.list("log.dirs")? {
        Some(dirs) => dirs,
        None => layers.list("log.dir")?.unwrap_or_default(),
    };
    if dirs.is_empty() {
        return Err(ConfigError::Requirement(
            "At least one log directory must be defined via log.dirs or log.dir.".to_owned(),
        ));
    }
    Ok(dirs.into_iter().map(PathBuf::from).collect())
}

fn cordoned_log_dirs(layers: &Layers) -> Result<Vec<PathBuf>, ConfigError> {
    let known = log_dirs(layers)?;
    let cordoned = layers.list("cordoned.log.dirs")?.unwrap_or_default();
    if cordoned.iter().any(|dir| dir == "*") {
        return match cordoned.len() {
            1 => Ok(known),
            _ => Err(ConfigError::Requirement(
                "When cordoned.log.dirs is set to *, it must not contain other values".to_owned(),
            )),
        };
    }
    let missing = cordoned
        .iter()
        .filter(|dir| !known.iter().any(|known| known.as_os_str() == dir.as_str()));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(ConfigError::Requirement(format!(
            "All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : {}",
            missing.join(", ")
        )));
    }
    Ok(cordoned.into_iter().map(PathBuf::from).collect())
}

/// `group.consumer.migration.policy`: whether groups with members may change their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationPolicy {
    pub upgrade: bool,
    pub downgrade: bool,
}

/// The table's valid values are the only ones that come here.
fn migration_policy(layers: &Layers) -> Result<MigrationPolicy, ConfigError> {
    let name = layers
        .text("group.consumer.migration.policy")?
        .unwrap_or_default();
    let is = |names: [&str; 2]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
    Ok(MigrationPolicy {
        upgrade: is(["upgrade", "bidirectional"]),
        downgrade: is(["downgrade", "bidirectional"]),
    })
}

/// The server-side assignors by name, or by the name of Kafka's class.
fn assignors(layers: &Layers) -> Result<Vec<Assignor>, ConfigError> {
    let names = layers.list("group.consumer.assignors")?.unwrap_or_default();
    let assignor = |name: &String| match name.as_str() {
        "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => Ok(Assignor::Uniform),
        "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => Ok(Assignor::Range),
        name => Assignor::from_name(name).ok_or_else(|| {
            ConfigError::Invalid(format!(
                "{name} is not an assignor of group.consumer.assignors: there are uniform and range."
            ))
        }),
    };
    names.iter().map(assignor).collect()
}

/// `group.share.max.size`, with what must hold of the settings around it.
fn share_max_size(layers: &Layers) -> Result<i32, ConfigError> {
    const CLASS: &str = "org.apache.kafka.coordinator.group.assignor.SimpleAssignor";
    let assignors = layers.list("group.share.assignors")?.unwrap_or_default();
    if let Some(name) = assignors
        .iter()
        .find(|name| ![CLASS, SHARE_ASSIGNOR].contains(&name.as_str()))
    {
        return Err(ConfigError::Invalid(format!(
            "{name} is not an assignor of group.share.assignors: there is {SHARE_ASSIGNOR}."
        )));
    }
    let size: i32 = layers.number("group.share.max.size")?;
    if layers.number::<i32>("group.share.max.share.sessions")? < size {
        return Err(ConfigError::Invalid(
            "group.share.max.share.sessions must be greater than or equal to group.share.max.size".to_owned(),
        ));
    }
    Ok(size)
}

fn per_ip_overrides(layers: &Layers) -> Result<BTreeMap<String, i32>, ConfigError> {
    const NAME: &str = "max.connections.per.ip.overrides";
    let text = layers.text(NAME)?.unwrap_or_default();
    split_list(&text)
        .into_iter()
        .map(|item| {
            let parsed = item
                .rsplit_once(':')
                .and_then(|(host, count)| Some((host.trim(), count.trim().parse().ok()?)));
            parsed.map(|(host, count)| (host.to_owned(), count)).ok_or_else(|| {
                ConfigError::Invalid(format!(
                    "Error parsing configuration property '{NAME}': `{item}` is not of the form host:count"
                ))
            })
        })
        .collect()
}

fn resolve_listeners(layers: &Layers) -> Result<Vec<Listener>, ConfigError> {
    if layers.get("inter.broker.listener.name").is_some()
        && layers.get("security.inter.broker.protocol").is_some()
    {
        return Err(ConfigError::Invalid(
            "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set."
                .to_owned(),
        ));
    }
    listeners::resolve(&ListenerSettings {
        listeners: &layers.list("listeners")?.unwrap_or_default(),
        advertised: layers.list("advertised.listeners")?.as_deref(),
        protocol_map: &layers.text("listener.security.protocol.map")?.unwrap_or_default(),
        protocol_map_is_default: layers.get("listener.security.protocol.map").is_none(),
        controller_names: &layers.list("controller.listener.names")?.unwrap_or_default(),
        inter_broker_name: layers.text("inter.broker.listener.name")?.as_deref(),
        fallback_host: fallback_host(layers),
    })
}

/// The address that clients are told when nobody named one. With nothing configured that is
/// `localhost`: whoever tries Milena out has the client on the same machine, and a machine's own name
/// often resolves nowhere. Where listeners were configured it is the machine's name, as in Kafka,
/// because that is what other machines and containers know.
fn fallback_host(layers: &Layers) -> &'static str {
    match layers.get("listeners") {
        Some(_) => machine_name(),
        None => "localhost",
    }
}

/// `localhost` where not even this machine knows its own name. Asked once: a broker must not change
/// what it tells clients because a name server did.
fn machine_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let is_known = (name.as_str(), 0)
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.next().is_some());
        if is_known { name } else { "localhost".to_owned() }
    })
}

pub(super) const RETENTION_MS: [(&str, i64); 3] = [
    ("log.retention.ms", 1),
    ("log.retention.minutes", MINUTE_MS),
    ("log.retention.hours", HOUR_MS),
];
pub(super) const ROLL_MS: [(&str, i64); 2] = [("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)];
pub(super) const ROLL_JITTER_MS: [(&str, i64); 2] =
    [("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)];
pub(super) const FLUSH_MS: [(&str, i64); 2] = [
    ("log.flush.interval.ms", 1),
    ("log.flush.scheduler.interval.ms", 1),
];
