//! The settings that can change while the broker runs: what it was started with, covered by what
//! clients have set for all brokers and for this one.
//!
//! Left to others: which settings there are and what they mean (`config`), and storing them
//! (`topics`, whose shard they share).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use milena_log::LogConfig;
use milena_protocol::ErrorCode;
use tokio::sync::watch;
use tracing::error;

use crate::api_error::ApiError;
use crate::config::{self, BrokerConfig, ConfigError};
use crate::topics::Overrides;

/// Whose settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerEntity {
    /// This broker's own.
    This,
    /// Every broker's, where it has none of its own.
    Default,
}

/// The stored name of [`BrokerEntity::Default`].
const DEFAULT: &str = "default";

#[derive(Debug)]
pub(crate) struct Settings {
    current: RwLock<Arc<BrokerConfig>>,
    changes: watch::Sender<()>,
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Settings {
    pub(crate) fn new(config: BrokerConfig) -> Self {
        Self {
            current: RwLock::new(Arc::new(config)),
            changes: watch::Sender::new(()),
        }
    }

    /// What is in force now.
    pub(crate) fn current(&self) -> Arc<BrokerConfig> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Hears of every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Takes over what is stored, by entity.
    pub(crate) fn load(&self, stored: &BTreeMap<String, Overrides>) -> Result<(), ConfigError> {
        let of = |entity| stored.get(&self.entity_name(entity)).cloned().unwrap_or_default();
        let config = self
            .current()
            .with_dynamic(of(BrokerEntity::This), of(BrokerEntity::Default))?;
        self.replace(config);
        Ok(())
    }

    /// The entity's name in the fact store.
    pub(crate) fn entity_name(&self, entity: BrokerEntity) -> String {
        match entity {
            BrokerEntity::This => self.current().node_id.to_string(),
            BrokerEntity::Default => DEFAULT.to_owned(),
        }
    }

    pub(crate) fn overrides(&self, entity: BrokerEntity) -> Overrides {
        let current = self.current();
        match entity {
            BrokerEntity::This => current.layers().dynamic_broker.clone(),
            BrokerEntity::Default => current.layers().dynamic_default.clone(),
        }
    }

    /// What would be in force with other settings of the entity.
    pub(crate) fn with(
        &self,
        entity: BrokerEntity,
        overrides: Overrides,
    ) -> Result<BrokerConfig, ConfigError> {
        let current = self.current();
        match entity {
            BrokerEntity::This => current.with_dynamic(overrides, current.layers().dynamic_default.clone()),
            BrokerEntity::Default => current.with_dynamic(current.layers().dynamic_broker.clone(), overrides),
        }
    }

    pub(crate) fn replace(&self, config: BrokerConfig) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.changes.send_replace(());
    }

    pub(crate) fn validate_topic(&self, overrides: &Overrides) -> Result<(), ApiError> {
        Ok(config::validate_topic(&self.current(), overrides)?)
    }

    pub(crate) fn describe_topic(&self, overrides: &Overrides) -> Vec<config::ConfigEntry> {
        config::describe_topic(&self.current(), overrides).unwrap_or_else(|why| {
            error!("a topic's configs cannot be described: {why}");
            Vec::new()
        })
    }

    /// What a topic with these overrides runs with. They were validated when they were set; if this
    /// program knows better now, the broker's defaults are better than no topic.
    pub(crate) fn log_config(&self, overrides: &Overrides) -> LogConfig {
        let current = self.current();
        match current.topic_settings(overrides) {
            Ok(settings) => settings.log,
            Err(why) => {
                error!("a topic's configs cannot be applied, the defaults are: {why}");
                current.log.clone()
            }
        }
    }
}

/// Kafka answers a broker's setting that does not fit with INVALID_REQUEST (KAFKA-13609).
pub(crate) fn as_invalid_request(error: &ConfigError) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, error.to_string())
}
/// What follows from the settings, worked out once for each change of them.
#[derive(Debug)]
pub(crate) struct Derived<T>(RwLock<Option<(Arc<BrokerConfig>, Arc<T>)>>);

impl<T> Default for Derived<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Derived<T> {
    pub(crate) fn of(&self, config: Arc<BrokerConfig>, derive: impl FnOnce(&BrokerConfig) -> T) -> Arc<T> {
        if let Some((known, value)) = &*self.0.read().unwrap_or_else(PoisonError::into_inner)
            && Arc::ptr_eq(known, &config)
        {
            return Arc::clone(value);
        }
        let value = Arc::new(derive(&config));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((config, Arc::clone(&value)));
        value
    }
}
