//! Where the settings come from when the broker starts, and what is said about those that do nothing.
//!
//! Defaults < file < environment < `--override`. The environment has the form of Kafka's container
//! images: `KAFKA_` and the name in upper case, `.` as `_`, `_` as `__`, `-` as `___`; `CLUSTER_ID` is
//! the cluster id.

use std::path::PathBuf;

use super::broker::BrokerConfig;
use super::definition::broker_configs;
use super::value::{ConfigType, java_trim};
use super::{ConfigError, Properties, parse_properties};

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`
    pub file: Option<PathBuf>,
    /// All variables; those that do not concern the broker are passed over.
    pub environment: Vec<(String, String)>,
    /// `--override key=value`, in order.
    pub overrides: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: BrokerConfig,
    /// `CLUSTER_ID`: the id that a new cluster is given.
    pub cluster_id: Option<String>,
    /// Sentences for the log, to be shown once.
    pub notices: Vec<String>,
}

/// Reads the sources, the later covering the earlier.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut settings = Properties::new();
    if let Some(path) = sources
        .file
        .clone()
        .or_else(|| mounted_file(&sources.environment))
    {
        let fail = |error: &dyn std::fmt::Display| {
            ConfigError::Invalid(format!(
                "Cannot read the configuration file {}: {error}",
                path.display()
            ))
        };
        let text = std::fs::read_to_string(&path).map_err(|error| fail(&error))?;
        settings = parse_properties(&text).map_err(|error| fail(&error))?;
    }
    let environment = from_environment(&sources.environment);
    if !settings.contains_key("listeners") && !environment.settings.contains_key("listeners") {
        settings.extend(listeners_from_advertised(&environment.settings));
    }
    settings.extend(environment.settings);
    for text in &sources.overrides {
        let Some((name, value)) = text.split_once('=') else {
            return Err(ConfigError::Invalid(format!(
                "--override {text}: expected name=value"
            )));
        };
        settings.insert(java_trim(name).to_owned(), value.to_owned());
    }
    refuse_unprotected(&settings)?;
    let mut notices = environment.notices;
    notices.extend(notices_about(&settings));
    Ok(Loaded {
        config: BrokerConfig::new(settings)?,
        cluster_id: environment.cluster_id,
        notices,
    })
}

/// Names a file that is read if it is there and no other was asked for. Our image sets it to where
/// Kafka's image has its `server.properties` mounted.
const CONFIG_IF_PRESENT: &str = "MILENA_CONFIG_IF_PRESENT";

fn mounted_file(environment: &[(String, String)]) -> Option<PathBuf> {
    let (_, path) = environment.iter().find(|(name, _)| name == CONFIG_IF_PRESENT)?;
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

#[derive(Debug, Default)]
struct FromEnvironment {
    settings: Properties,
    cluster_id: Option<String>,
    notices: Vec<String>,
}

/// Variables of the images that speak to the Java process or to scripts, not to the broker.
const JAVA_VARIABLES: [&str; 18] = [
    "KAFKA_CLASSPATH",
    "KAFKA_DEBUG",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_MODE",
    "KAFKA_OPTS",
    "KAFKA_SCALA_VERSION",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_USER",
    "KAFKA_VERSION",
];

fn from_environment(variables: &[(String, String)]) -> FromEnvironment {
    let mut found = FromEnvironment::default();
    let mut java = Vec::new();
    for (variable, value) in variables {
        match variable.as_str() {
            "CLUSTER_ID" | "KAFKA_CLUSTER_ID" | "KAFKA_KRAFT_CLUSTER_ID" => {
                found.cluster_id = Some(value.trim().to_owned()).filter(|id| !id.is_empty());
            }
            name if JAVA_VARIABLES.contains(&name) => java.push(name),
            name => {
                if let Some(setting) = setting_of_variable(name) {
                    found.settings.insert(setting, value.clone());
                }
            }
        }
    }
    if !java.is_empty() {
        java.sort_unstable();
        found.notices.push(format!(
            "Without meaning here, where no Java runs: {}",
            java.join(", ")
        ));
    }
    found
}

/// The setting that a variable names. `KAFKA_CFG_` is another widespread image's prefix.
fn setting_of_variable(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("KAFKA_")?;
    let name = name.strip_prefix("CFG_").unwrap_or(name);
    let dotted = name.to_lowercase().replace('_', ".");
    Some(dotted.replace("...", "-").replace("..", "_")).filter(|name| !name.is_empty())
}

/// As the images do: listeners that nobody set are the advertised ones on all interfaces.
fn listeners_from_advertised(environment: &Properties) -> Option<(String, String)> {
    let advertised = environment.get("advertised.listeners")?;
    let all_interfaces = |text: &str| {
        let (name, address) = text.split_once("://")?;
        let (_, port) = address.rsplit_once(':')?;
        Some(format!("{name}://:{port}"))
    };
    let listeners: Option<Vec<String>> = advertised
        .split(',')
        .map(|text| all_interfaces(text.trim()))
        .collect();
    Some(("listeners".to_owned(), listeners?.join(",")))
}

/// A security setting that is accepted and then ignored leaves people unprotected without knowing.
fn refuse_unprotected(settings: &Properties) -> Result<(), ConfigError> {
    for (name, text) in settings {
        let is_default = broker_configs().get(name).is_some_and(|def| {
            let default = def.default.as_deref().unwrap_or_default();
            java_trim(text) == default
        });
        if is_default {
            continue;
        }
        if is_security(name) {
            return Err(ConfigError::Invalid(format!(
                "{name} is set, but Milena does not implement it yet: TLS, SASL, ACLs and delegation tokens are \
                 still missing. Ignoring it would leave the broker less protected than it is configured to be, \
                 so it does not start. Remove {name} to run without that protection."
            )));
        }
        if name == "config.providers" {
            return Err(ConfigError::Invalid(
                "config.providers is set, but Milena resolves no ${provider:…} values yet. Write the values \
                 themselves and remove config.providers."
                    .to_owned(),
            ));
        }
        if broker_configs()
            .get(name)
            .is_some_and(|def| def.config_type == ConfigType::Class)
        {
            let class = java_trim(text);
            return Err(ConfigError::Invalid(format!(
                "Invalid value {class} for configuration {name}: Class {class} could not be found. Milena runs no \
                 Java classes: remove {name}."
            )));
        }
    }
    Ok(())
}

fn is_security(name: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "ssl.",
        "sasl.",
        "delegation.token.",
        "password.encoder.",
        "kafka.ssl.",
        "authorizer.",
    ];
    const NAMES: [&str; 7] = [
        "allow.everyone.if.no.acl.found",
        "super.users",
        "principal.builder.class",
        "security.providers",
        "security.inter.broker.protocol",
        "connections.max.reauth.ms",
        "connection.failed.authentication.delay.ms",
    ];
    // listener.name.<listener>.ssl.keystore.location, listener.name.<listener>.<mechanism>.sasl.jaas.config
    let base = match name.strip_prefix("listener.name.") {
        Some(rest) => {
            return rest.contains(".ssl.") || rest.contains(".sasl.") || rest.contains("principal.builder");
        }
        None => name,
    };
    PREFIXES.iter().any(|prefix| base.starts_with(prefix)) || NAMES.contains(&base)
}

/// Settings that change what this broker does, or that are checked because they could not (the last
/// ones). What Kafka knows beside them is accepted and named.
const WITH_EFFECT: &[&str] = &[
    "quota.window.num",
    "quota.window.size.seconds",
    "controller.quota.window.num",
    "controller.quota.window.size.seconds",
    "advertised.listeners",
    "auto.create.topics.enable",
    "broker.id",
    "broker.rack",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "connections.max.idle.ms",
    "controller.listener.names",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "cordoned.log.dirs",
    "default.replication.factor",
    "delete.topic.enable",
    "durability",
    "fetch.max.bytes",
    "group.consumer.assignment.interval.ms",
    "group.consumer.assignors",
    "group.consumer.heartbeat.interval.ms",
    "group.consumer.max.assignment.interval.ms",
    "group.consumer.max.heartbeat.interval.ms",
    "group.consumer.max.session.timeout.ms",
    "group.consumer.max.size",
    "group.consumer.migration.policy",
    "group.consumer.min.assignment.interval.ms",
    "group.consumer.min.heartbeat.interval.ms",
    "group.consumer.min.session.timeout.ms",
    "group.consumer.session.timeout.ms",
    "group.coordinator.rebalance.protocols",
    "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "group.min.session.timeout.ms",
    "group.streams.assignment.interval.ms",
    "group.streams.heartbeat.interval.ms",
    "group.streams.initial.rebalance.delay.ms",
    "group.streams.max.assignment.interval.ms",
    "group.streams.max.heartbeat.interval.ms",
    "group.streams.max.session.timeout.ms",
    "group.streams.max.size",
    "group.streams.max.standby.replicas",
    "group.streams.min.assignment.interval.ms",
    "group.streams.min.heartbeat.interval.ms",
    "group.streams.min.session.timeout.ms",
    "group.streams.num.standby.replicas",
    "group.streams.session.timeout.ms",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "listeners",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.enable",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleaner.threads",
    "log.cleanup.policy",
    "log.dir",
    "log.dirs",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.flush.offset.checkpoint.interval.ms",
    "log.flush.scheduler.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.check.interval.ms",
    "log.retention.hours",
    "log.retention.minutes",
    "log.retention.ms",
    "log.roll.hours",
    "log.roll.jitter.hours",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "max.incremental.fetch.session.cache.slots",
    "telemetry.max.bytes",
    "max.request.partition.size.limit",
    "message.max.bytes",
    "node.id",
    "num.partitions",
    "num.replica.alter.log.dirs.threads",
    "offset.metadata.max.bytes",
    "offsets.retention.check.interval.ms",
    "offsets.retention.minutes",
    "process.roles",
    "producer.id.expiration.ms",
    "queued.max.request.bytes",
    "queued.max.requests",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "socket.listen.backlog.size",
    "socket.receive.buffer.bytes",
    "socket.request.max.bytes",
    "socket.send.buffer.bytes",
    "transaction.max.timeout.ms",
    "transaction.partition.verification.enable",
    "transaction.remove.expired.transaction.cleanup.interval.ms",
    "transactional.id.expiration.ms",
    "authorizer.class.name",
    "security.inter.broker.protocol",
    "principal.builder.class",
    "sasl.enabled.mechanisms",
    "ssl.client.auth",
    "config.providers",
    "connections.max.reauth.ms",
    "connection.failed.authentication.delay.ms",
];

pub(super) fn has_effect(name: &str) -> bool {
    WITH_EFFECT.contains(&name)
}

/// One line for what is known and idle, one for each name that is not known.
fn notices_about(settings: &Properties) -> Vec<String> {
    let known = |name: &&str| broker_configs().get(name).is_some();
    let names = || settings.keys().map(String::as_str);
    let idle: Vec<&str> = names().filter(known).filter(|name| !has_effect(name)).collect();
    let mut notices = Vec::new();
    if !idle.is_empty() {
        notices.push(format!(
            "Settings of Kafka that have no meaning here: {}",
            idle.join(", ")
        ));
    }
    for name in names().filter(|name| !known(name)) {
        notices.push(match nearest(name) {
            Some(near) => format!("Unknown setting {name} is ignored. Did you mean {near}?"),
            None => format!("Unknown setting {name} is ignored."),
        });
    }
    notices
}

/// The known name that looks most like this one, if one does.
fn nearest(name: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.75;
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let rated = broker_configs().iter().map(|def| (likeness(def.name), def.name));
    let (best, near) = rated.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best >= ALIKE).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn loaded(environment: &[(&str, &str)], overrides: &[&str]) -> Result<Loaded, String> {
        let overrides = overrides.iter().map(|text| (*text).to_owned()).collect();
        load(&Sources {
            file: None,
            environment: variables(environment),
            overrides,
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_configured_is_a_broker_for_this_machine() {
        let Loaded {
            config,
            cluster_id,
            notices,
        } = loaded(&[], &[]).unwrap();
        assert_eq!((config.node_id, cluster_id), (1, None));
        assert_eq!(notices, Vec::<String>::new());
        assert_eq!(config.log_dirs, [PathBuf::from("./milena-data")]);
        let listener = &config.listeners[0];
        assert_eq!(
            (listener.name.as_str(), listener.host.as_deref(), listener.port),
            ("PLAINTEXT", None, 9092)
        );
        assert_eq!(
            (listener.advertised_host.as_str(), listener.advertised_port),
            ("localhost", 9092)
        );
    }

    #[test]
    fn later_sources_cover_earlier_ones() {
        let directory = std::env::temp_dir().join(format!("milena-sources-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("server.properties");
        std::fs::write(
            &file,
            "num.partitions=2\nlog.dirs=/from/file\nmessage.max.bytes=100\n",
        )
        .unwrap();
        let sources = Sources {
            file: Some(file),
            environment: variables(&[("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_MESSAGE_MAX_BYTES", "200")]),
            overrides: vec!["message.max.bytes=300".to_owned()],
        };
        let config = load(&sources).unwrap().config;
        let mounted = Sources {
            file: None,
            environment: variables(&[(
                "MILENA_CONFIG_IF_PRESENT",
                &directory.join("server.properties").to_string_lossy(),
            )]),
            overrides: Vec::new(),
        };
        let from_mounted = load(&mounted).unwrap().config;
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((config.num_partitions, config.message_max_bytes), (3, 300));
        assert_eq!(from_mounted.num_partitions, 2);
        assert_eq!(
            load(&mounted).unwrap().config.num_partitions,
            1,
            "a file that is not mounted is no error"
        );
        assert_eq!(config.log_dirs, [PathBuf::from("/from/file")]);
    }

    #[test]
    fn the_compose_file_of_kafkas_own_image_needs_no_change() {
        let environment = [
            ("PATH", "/bin"),
            ("KAFKA_NODE_ID", "4"),
            (
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
            ),
            (
                "KAFKA_ADVERTISED_LISTENERS",
                "PLAINTEXT_HOST://localhost:9092,PLAINTEXT://broker:19092",
            ),
            ("KAFKA_PROCESS_ROLES", "broker,controller"),
            ("KAFKA_CONTROLLER_QUORUM_VOTERS", "4@broker:29093"),
            (
                "KAFKA_LISTENERS",
                "CONTROLLER://:29093,PLAINTEXT_HOST://:9092,PLAINTEXT://:19092",
            ),
            ("KAFKA_INTER_BROKER_LISTENER_NAME", "PLAINTEXT"),
            ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
            ("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw"),
            ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
            ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
            ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
            ("KAFKA_LOG_DIRS", "/tmp/kraft-combined-logs"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
        ];
        let Loaded {
            config,
            cluster_id,
            notices,
        } = loaded(&environment, &[]).unwrap();
        assert_eq!((config.node_id, config.group_initial_rebalance_delay_ms), (4, 0));
        assert_eq!(cluster_id.as_deref(), Some("4L6g3nShT-eMCtK--X86sw"));
        let names: Vec<&str> = config
            .listeners
            .iter()
            .map(|listener| listener.name.as_str())
            .collect();
        assert_eq!(names, ["PLAINTEXT_HOST", "PLAINTEXT"]);
        assert_eq!(config.listeners[1].advertised_host, "broker");
        assert_eq!(
            notices,
            [
                "Without meaning here, where no Java runs: KAFKA_HEAP_OPTS",
                "Settings of Kafka that have no meaning here: offsets.topic.replication.factor, transaction.state.log.min.isr"
            ]
        );
    }

    #[test]
    fn the_projects_own_compose_file_is_a_broker_without_notices() {
        let compose = include_str!("../../../../docker-compose.yml");
        let environment: Vec<(&str, &str)> = compose
            .lines()
            .filter_map(|line| {
                line.trim()
                    .split_once(": ")
                    .filter(|(name, _)| name.starts_with("KAFKA_"))
            })
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        let Loaded { config, notices, .. } = loaded(&environment, &[]).unwrap();
        assert_eq!(notices, Vec::<String>::new());
        let shown = |at: usize| {
            (
                config.listeners[at].port,
                config.listeners[at].advertised_host.as_str(),
            )
        };
        assert_eq!((shown(0), shown(1)), ((9092, "localhost"), (19092, "milena")));
    }

    #[test]
    fn variables_name_settings_as_in_kafkas_images() {
        for (variable, setting) in [
            ("KAFKA_LOG_RETENTION_MS", "log.retention.ms"),
            ("KAFKA_ABC___DEF", "abc-def"),
            ("KAFKA_ABC__DEF", "abc_def"),
            ("KAFKA_CFG_NODE_ID", "node.id"),
        ] {
            assert_eq!(setting_of_variable(variable).as_deref(), Some(setting));
        }
        assert_eq!(setting_of_variable("PATH"), None);
    }

    #[test]
    fn advertised_listeners_alone_give_listeners_on_all_interfaces() {
        let config = loaded(&[("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://broker:9094")], &[])
            .unwrap()
            .config;
        assert_eq!(
            (config.listeners[0].host.as_deref(), config.listeners[0].port),
            (None, 9094)
        );
        assert_eq!(config.listeners[0].advertised_host, "broker");
    }

    #[test]
    fn a_security_setting_that_is_not_implemented_refuses_to_start() {
        for setting in [
            "ssl.keystore.location=/x",
            "sasl.enabled.mechanisms=PLAIN",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:admin",
            "delegation.token.secret.key=x",
            "listener.name.plaintext.ssl.keystore.location=/x",
            "listener.name.external.plain.sasl.jaas.config=x",
            "security.inter.broker.protocol=SSL",
        ] {
            let name = setting.split('=').next().unwrap();
            let sentence = loaded(&[], &[setting]).unwrap_err();
            assert!(
                sentence.starts_with(&format!("{name} is set, but Milena does not implement it yet")),
                "{sentence}"
            );
        }
        for harmless in [
            "authorizer.class.name=",
            "ssl.client.auth=none",
            "security.inter.broker.protocol=PLAINTEXT",
        ] {
            assert!(loaded(&[], &[harmless]).is_ok(), "{harmless} asks for nothing");
        }
    }

    #[test]
    fn what_cannot_work_here_refuses_to_start() {
        let refused = |setting: &str| loaded(&[], &[setting]).unwrap_err();
        assert!(refused("controller.quorum.voters=1@a:9093,2@b:9093,3@c:9093").contains("names 3 nodes"));
        assert!(refused("process.roles=controller").contains("Milena needs no controllers"));
        assert!(refused("create.topic.policy.class.name=a.B").contains("Class a.B could not be found"));
        assert!(refused("config.providers=env").contains("config.providers"));
        assert!(
            refused("num.partitions=abc")
                .contains("Invalid value abc for configuration num.partitions: Not a number of type INT")
        );
        assert!(
            refused("num.io.threads=0").contains("Value must be at least 1"),
            "idle settings have to be right too"
        );
        assert!(refused("nonsense").contains("expected name=value"));
        assert_eq!(
            loaded(&[], &["node.id=1", "broker.id=2"]).unwrap_err(),
            "You must set `node.id` to the same value as `broker.id`."
        );
    }

    #[test]
    fn an_unknown_name_is_named_with_the_nearest_known_one() {
        let notices = loaded(&[], &["log.retenton.ms=5", "zzz=1", "num.io.threads=4"])
            .unwrap()
            .notices;
        assert_eq!(
            notices,
            [
                "Settings of Kafka that have no meaning here: num.io.threads",
                "Unknown setting log.retenton.ms is ignored. Did you mean log.retention.ms?",
                "Unknown setting zzz is ignored."
            ]
        );
    }
}
