//! Config resources as the three configs APIs name them, and what IncrementalAlterConfigs and
//! AlterConfigs share: the checks before a change, in Kafka's order and words, and the change.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use milena_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use milena_protocol::{ErrorCode, Str};
use tracing::info;

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::config::{self, AlterOp, Alteration, ConfigResourceType};
use crate::eligible_replicas;
use crate::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use crate::loggers::no_such_logger;
use crate::settings::BrokerEntity;
use crate::topics::{self, Overrides};

/// Kafka's `ConfigResource.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ResourceType {
    pub(super) fn from_code(code: i8) -> Option<Self> {
        match code {
            2 => Some(Self::Topic),
            4 => Some(Self::Broker),
            8 => Some(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics),
            32 => Some(Self::Group),
            _ => None,
        }
    }

    pub(super) fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }
}

pub(super) fn unknown_type(code: i8) -> ApiError {
    ApiError::invalid_request(format!("Unknown resource type {code}"))
}

/// What a request wants of one resource.
#[derive(Debug)]
pub(super) enum Change {
    /// IncrementalAlterConfigs
    Alter(Vec<AlterableConfig>),
    /// AlterConfigs: what is not named goes back to its default.
    Replace(Overrides),
}

impl Change {
    fn names(&self, config: &str) -> bool {
        match self {
            Self::Alter(configs) => configs.iter().any(|altered| &*altered.name == config),
            Self::Replace(overrides) => overrides.contains_key(config),
        }
    }

    fn apply(self, kind: ConfigResourceType, old: &Overrides) -> Result<Overrides, config::ConfigError> {
        match self {
            Self::Alter(configs) => config::apply_alterations(kind, old, &alterations(&configs)?),
            Self::Replace(overrides) => Ok(overrides),
        }
    }
}

fn alterations(configs: &[AlterableConfig]) -> Result<Vec<Alteration<'_>>, config::ConfigError> {
    let mut alterations = Vec::with_capacity(configs.len());
    for config in configs {
        alterations.push(Alteration {
            name: &config.name,
            op: AlterOp::from_code(config.config_operation)?,
            value: config.value.as_deref(),
        });
    }
    Ok(alterations)
}

/// Items that occur more than once.
pub(super) fn repeated<T: Eq + Hash>(items: impl Iterator<Item = T>) -> HashSet<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(item, _)| item)
        .collect()
}

/// The checks on the entries of one resource: no key twice, no value missing.
pub(super) fn check_entries<'a>(
    names: impl Iterator<Item = &'a Str> + Clone,
    without_value: &[&str],
) -> Result<(), ApiError> {
    if !repeated(names).is_empty() {
        return Err(ApiError::invalid_request("Error due to duplicate config keys"));
    }
    if !without_value.is_empty() {
        let sentence = format!("Null value not supported for : {}", without_value.join(", "));
        return Err(ApiError::invalid_request(sentence));
    }
    Ok(())
}

/// Changes the configs of one resource.
pub(super) async fn change(
    broker: &Arc<Broker>,
    resource_type: ResourceType,
    name: &Str,
    change: Change,
    validate_only: bool,
) -> Result<(), ApiError> {
    match resource_type {
        ResourceType::Topic => change_topic(broker, name, change, validate_only).await,
        ResourceType::Broker => change_broker(broker, name, change, validate_only).await,
        ResourceType::BrokerLogger => change_logger(broker, name, &change, validate_only),
        ResourceType::ClientMetrics => change_client_metrics(broker, name, change, validate_only).await,
        ResourceType::Group => change_group(broker, name, change, validate_only).await,
    }
}

async fn change_topic(
    broker: &Arc<Broker>,
    name: &Str,
    change: Change,
    validate_only: bool,
) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid_request(
            "Default topic resources are not allowed.",
        ));
    }
    topics::validate_name(name).map_err(|why| ApiError::new(ErrorCode::InvalidTopicException, why))?;
    let settings = broker.topics.settings();
    let altered = broker.topics.alter_topic_configs(name, validate_only, |old| {
        let new = change.apply(ConfigResourceType::Topic, old)?;
        settings.validate_topic(&new)?;
        Ok(new)
    });
    altered.await.map_err(|error| match error.code {
        ErrorCode::UnknownTopicOrPartition => {
            ApiError::new(error.code, format!("The topic '{name}' does not exist."))
        }
        _ => error,
    })
}

async fn change_broker(
    broker: &Arc<Broker>,
    name: &Str,
    change: Change,
    validate_only: bool,
) -> Result<(), ApiError> {
    let entity = if name.is_empty() {
        BrokerEntity::Default
    } else {
        BrokerEntity::This
    };
    if entity == BrokerEntity::This {
        check_node_id(
            broker.config.node_id,
            name,
            "Node id must be an integer, but it is: ",
            |id| format!("Unexpected broker id, expected {id}, but received {name}"),
        )?;
    }
    let settings = broker.topics.settings();
    let altered = broker.topics.alter_broker_configs(entity, validate_only, |old| {
        let named = change.names(eligible_replicas::MINIMUM);
        let new = change.apply(ConfigResourceType::Broker, old)?;
        let (_, notices) = config::validate_dynamic(&settings.current(), entity == BrokerEntity::This, &new)?;
        if broker.features.current().of(&ELIGIBLE_LEADER_REPLICAS_VERSION) > 0 {
            eligible_replicas::check(entity, named, &new)?;
        }
        for notice in notices {
            info!("{notice}");
        }
        Ok(new)
    });
    altered.await
}

/// A resource that is a broker has to be this one.
pub(super) fn check_node_id(
    node_id: i32,
    name: &str,
    no_number: &str,
    other: impl FnOnce(i32) -> String,
) -> Result<(), ApiError> {
    match name.parse::<i32>() {
        Err(_) => Err(ApiError::invalid_request(format!("{no_number}{name}"))),
        Ok(id) if id != node_id => Err(ApiError::invalid_request(other(node_id))),
        Ok(_) => Ok(()),
    }
}

/// Not stored: the next start has the levels of its environment.
fn change_logger(broker: &Broker, name: &str, change: &Change, validate_only: bool) -> Result<(), ApiError> {
    let Change::Alter(configs) = change else {
        return Err(unknown_type(8));
    };
    check_node_id(
        broker.config.node_id,
        name,
        "Node id must be an integer, but it is: ",
        |id| format!("Unexpected node id. Expected {id}, but received {name}"),
    )?;
    let alterations = alterations(configs)?;
    match broker.loggers() {
        Some(loggers) => loggers.alter(&alterations, validate_only)?,
        None => alterations
            .first()
            .map_or(Ok(()), |first| Err(no_such_logger(first.name)))?,
    }
    if !validate_only && !alterations.is_empty() {
        let changed: Vec<String> = alterations
            .iter()
            .map(|change| format!("{}={}", change.name, change.value.unwrap_or_default()))
            .collect();
        info!("log levels changed: {}", changed.join(", "));
    }
    Ok(())
}

async fn change_client_metrics(
    broker: &Arc<Broker>,
    name: &str,
    change: Change,
    validate_only: bool,
) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid_request("Subscription name can't be empty"));
    }
    let changed = broker.client_metrics.subscriptions.change(|subscriptions| {
        let old = subscriptions.overrides(name);
        let new = change.apply(ConfigResourceType::ClientMetrics, &old)?;
        let (next, changes) = subscriptions.with(name, new)?;
        Ok((next, if validate_only { Vec::new() } else { changes }))
    });
    changed.await
}

async fn change_group(
    broker: &Arc<Broker>,
    name: &Str,
    change: Change,
    validate_only: bool,
) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid_request(
            "Default group resources are not allowed.",
        ));
    }
    let current = broker.topics.settings().current();
    let altered = broker.group_configs.alter(name, validate_only, |old| {
        let new = change.apply(ConfigResourceType::Group, old)?;
        config::validate_group(&current, &new)?;
        Ok(new)
    });
    altered.await
}
