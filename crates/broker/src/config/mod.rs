//! Configuration that people already have: Kafka's names, Kafka's defaults, Kafka's sentences.
//!
//! [`load`] merges the sources (defaults < `--config server.properties` < environment variables
//! `KAFKA_*` < `--override key=value`) and gives a typed [`BrokerConfig`] with notices for the log.
//! What is wrong refuses to start with Kafka's sentence; a security setting that is not implemented
//! refuses too, because ignoring it would be worse; a known setting without meaning here is
//! accepted and named in one notice, an unknown one is named with the nearest known name.
//!
//! Everything here is a pure function of what it is given, except that [`load`] reads the file:
//!
//! - [`BrokerConfig::topic_settings`] merges a topic's overrides with the broker's defaults;
//! - [`validate_topic`] and [`validate_group`] say what Kafka says about a topic's and a group's overrides;
//! - [`describe_topic`], [`describe_broker`], [`describe_broker_defaults`], [`describe_group`] give
//!   what `DescribeConfigs` answers: value, source, synonyms, type, flags;
//! - [`apply_alterations`] carries out `IncrementalAlterConfigs` operations on a map of overrides;
//! - [`validate_dynamic`] and [`BrokerConfig::with_dynamic`] check and apply dynamic broker settings;
//! - [`diagnose`] says what is wrong with the advertised addresses.
//!
//! The tables beside this file are Kafka 4.3.1's own (`name, type, default, valid values,
//! importance`). Kafka's documentation strings are not part of them: `DescribeConfigs` answers null
//! where it is asked for documentation.

use std::collections::BTreeMap;

use milena_protocol::ErrorCode;

mod advertised;
mod alter;
mod broker;
mod definition;
mod describe;
mod dynamic;
mod group;
mod listeners;
mod properties;
mod reconfigure;
mod sources;
mod topic;
mod value;

pub use advertised::{diagnose, diagnose_client};
pub use alter::{AlterOp, Alteration, ConfigResourceType, apply_alterations};
pub use broker::{BrokerConfig, Layers};
pub use definition::{ConfigDef, Table, broker_configs, group_configs, topic_configs};
pub use describe::{
    ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_broker_defaults, describe_group,
    describe_topic,
};
pub use dynamic::validate_dynamic;
pub use group::{GroupSettings, validate_group};
pub use listeners::{Listener, SecurityProtocol};
pub use properties::parse_properties;
pub use sources::{Loaded, Sources, load};
pub use topic::{TopicSettings, validate_topic};
pub use value::{ConfigType, Value};

/// Settings as text, by name.
pub type Properties = BTreeMap<String, String>;

/// Why a setting was refused. The sentence is Kafka's own where Kafka has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value does not fit its setting, or settings contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// What Kafka checks with a requirement after parsing; as an answer it says so.
    #[error("{0}")]
    Requirement(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Request(String),
}

impl ConfigError {
    /// The code that an answer carries.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) | Self::Requirement(_) => ErrorCode::InvalidConfig,
            Self::Request(_) => ErrorCode::InvalidRequest,
        }
    }

    /// Kafka's `ConfigException(name, value, message)`.
    fn value(name: &str, value: &str, message: &str) -> Self {
        Self::Invalid(format!(
            "Invalid value {value} for configuration {name}: {message}"
        ))
    }
}
