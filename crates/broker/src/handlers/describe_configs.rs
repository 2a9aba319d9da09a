//! DescribeConfigs (key 32, versions 1-4): every config with its value, where the value comes from,
//! and what it would be otherwise.
//!
//! Authorisation: DESCRIBE_CONFIGS on the topic or the cluster (none yet). v1 sources and synonyms
//! (KIP-226); v3 types and documentation (KIP-569).
//!
//! Differences: there is no documentation to give (Kafka's texts are not part of this program), and
//! loggers have the names of this program's parts, but for `root` and `kafka.request.logger`.

use std::sync::Arc;

use milena_protocol::messages::DescribeConfigsRequest;
use milena_protocol::messages::describe_configs_request::DescribeConfigsResource;
use milena_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use milena_protocol::{ErrorCode, Str};

use super::config_resources::{ResourceType, check_node_id};
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::config::{self, ConfigEntry, ConfigSource, ConfigType};
use crate::context::RequestContext;
use crate::loggers::Loggers;
use crate::topics;

/// What Kafka says of a resource type that it does not know: the text of INVALID_REQUEST.
const INVALID_REQUEST: &str = "This most likely occurs because of a request being malformed by the client library or \
                               the message was sent to an incompatible broker. See the broker logs for more details.";

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let describe = |resource: &DescribeConfigsResource| {
        let result = match entries(broker, resource) {
            Ok(mut entries) => {
                if let Some(wanted) = resource
                    .configuration_keys
                    .as_deref()
                    .filter(|keys| !keys.is_empty())
                {
                    entries.retain(|entry| wanted.iter().any(|key| **key == *entry.name));
                }
                let configs = entries
                    .into_iter()
                    .map(|entry| answer(entry, request.include_synonyms))
                    .collect();
                DescribeConfigsResult {
                    configs,
                    ..Default::default()
                }
            }
            Err(error) => DescribeConfigsResult {
                error_code: error.code.code(),
                error_message: Some(error.wire_message().unwrap_or_default()),
                ..Default::default()
            },
        };
        DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..result
        }
    };
    DescribeConfigsResponse {
        results: request.resources.iter().map(describe).collect(),
        ..Default::default()
    }
}

fn entries(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, ApiError> {
    let name = &*resource.resource_name;
    let current = broker.topics.settings().current();
    let must_be_named = |what: &str| match name {
        "" => Err(ApiError::invalid_request(format!("{what} must not be empty"))),
        _ => Ok(()),
    };
    let not_a_number = "Broker id must be an integer, but it is: ";
    match ResourceType::from_code(resource.resource_type) {
        Some(ResourceType::Topic) => {
            topics::validate_name(name)
                .map_err(|why| ApiError::new(ErrorCode::InvalidTopicException, why))?;
            let topic = broker.topics.get(name);
            let topic = topic.ok_or_else(|| ApiError::bare(ErrorCode::UnknownTopicOrPartition))?;
            Ok(config::describe_topic(&current, &topic.overrides)?)
        }
        Some(ResourceType::Broker) if name.is_empty() => Ok(config::describe_broker_defaults(&current)),
        Some(ResourceType::Broker) => {
            check_node_id(current.node_id, name, not_a_number, |id| {
                format!("Unexpected broker id, expected {id} or empty string, but received {name}")
            })?;
            Ok(config::describe_broker(&current)?)
        }
        Some(ResourceType::BrokerLogger) => {
            must_be_named("Broker id")?;
            check_node_id(current.node_id, name, not_a_number, |id| {
                format!("Unexpected broker id, expected {id} but received {name}")
            })?;
            Ok(broker.loggers().map(loggers).unwrap_or_default())
        }
        Some(ResourceType::ClientMetrics) => {
            must_be_named("Client metrics subscription name")?;
            Ok(broker.client_metrics.subscriptions.current().describe(name))
        }
        Some(ResourceType::Group) => {
            must_be_named("Group name")?;
            let overrides = broker.group_configs.current().of(name);
            Ok(config::describe_group(&current, &overrides)?)
        }
        None => Err(ApiError::invalid_request(INVALID_REQUEST)),
    }
}

fn loggers(loggers: &Loggers) -> Vec<ConfigEntry> {
    let entry = |(name, level): (String, &str)| ConfigEntry {
        name,
        value: Some(level.to_owned()),
        read_only: false,
        is_sensitive: false,
        source: ConfigSource::DynamicBrokerLoggerConfig,
        synonyms: Vec::new(),
        config_type: ConfigType::Unknown,
    };
    loggers.described().into_iter().map(entry).collect()
}
fn answer(entry: ConfigEntry, include_synonyms: bool) -> DescribeConfigsResourceResult {
    let synonyms = if include_synonyms {
        entry.synonyms
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult {
        name: entry.name.into(),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.is_sensitive,
        synonyms: synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name.into(),
                value: synonym.value.map(Str::from),
                source: synonym.source.code(),
                ..Default::default()
            })
            .collect(),
        config_type: entry.config_type.code(),
        documentation: None,
        ..Default::default()
    }
}
