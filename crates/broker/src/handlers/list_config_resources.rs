//! ListConfigResources (key 74, versions 0-1; KIP-1142): what there is that has configs.
//!
//! Authorisation: DESCRIBE_CONFIGS on the cluster (none yet). v0 (ListClientMetricsResources) has client metrics only; v1
//! the asked types, or all.

use std::sync::Arc;

use milena_protocol::messages::ListConfigResourcesRequest;
use milena_protocol::messages::list_config_resources_response::{
    ConfigResource, ListConfigResourcesResponse,
};
use milena_protocol::{ErrorCode, Str};

use super::config_resources::ResourceType;
use crate::broker::Broker;
use crate::context::RequestContext;

/// In the order in which they are answered.
const ALL: [ResourceType; 5] = [
    ResourceType::Group,
    ResourceType::ClientMetrics,
    ResourceType::BrokerLogger,
    ResourceType::Broker,
    ResourceType::Topic,
];

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked: Option<Vec<ResourceType>> = request
        .resource_types
        .iter()
        .map(|code| ResourceType::from_code(*code))
        .collect();
    let Some(mut asked) = asked else {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
    };
    if context.api_version == 0 {
        asked = vec![ResourceType::ClientMetrics];
    } else if asked.is_empty() {
        asked = ALL.to_vec();
    }
    let wanted = ALL.into_iter().filter(|kind| asked.contains(kind));
    let config_resources = wanted
        .flat_map(|kind| {
            names(broker, kind).into_iter().map(move |name| ConfigResource {
                resource_name: name,
                resource_type: kind.code(),
                ..Default::default()
            })
        })
        .collect();
    ListConfigResourcesResponse {
        config_resources,
        ..Default::default()
    }
}

fn names(broker: &Broker, kind: ResourceType) -> Vec<Str> {
    match kind {
        ResourceType::Group => broker.group_configs.current().names().cloned().collect(),
        ResourceType::ClientMetrics => {
            let subscriptions = broker.client_metrics.subscriptions.current();
            subscriptions
                .names()
                .map(|name| Str::from(name.to_owned()))
                .collect()
        }
        ResourceType::BrokerLogger | ResourceType::Broker => {
            vec![Str::from(broker.config.node_id.to_string())]
        }
        ResourceType::Topic => broker
            .topics
            .list()
            .iter()
            .map(|topic| topic.name.clone())
            .collect(),
    }
}
