//! AlterConfigs (key 33, versions 0-2): replaces all configs of topics and brokers. Old: clients use
//! IncrementalAlterConfigs since KIP-339.
//!
//! Authorisation: ALTER_CONFIGS on the topic, or on the cluster (none yet). Forwardable. Versions
//! differ only in form. What the request does not name goes back to its default.
//!
//! Differences: as in `incremental_alter_configs`; and a resource named twice is refused by name,
//! where Kafka does not answer at all.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::AlterConfigsRequest;
use milena_protocol::messages::alter_configs_request::AlterConfigsResource;
use milena_protocol::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};

use super::config_resources::{self, Change, ResourceType, check_entries, repeated, unknown_type};
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let key = |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let duplicates = repeated(request.resources.iter().map(key));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let result = if duplicates.contains(&key(resource)) {
            Err(ApiError::invalid_request(
                "Each resource must appear at most once.",
            ))
        } else {
            replace(broker, resource, request.validate_only).await
        };
        let error = result.err();
        responses.push(AlterConfigsResourceResponse {
            error_code: error.as_ref().map_or(ErrorCode::None, |error| error.code).code(),
            error_message: error.and_then(|error| error.wire_message()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        });
    }
    AlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

async fn replace(
    broker: &Arc<Broker>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), ApiError> {
    let without_value: Vec<&str> = resource
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| &*config.name)
        .collect();
    check_entries(resource.configs.iter().map(|config| &config.name), &without_value)?;
    let resource_type = ResourceType::from_code(resource.resource_type)
        .ok_or_else(|| unknown_type(resource.resource_type))?;
    let set = resource.configs.iter().filter_map(|config| {
        config
            .value
            .as_ref()
            .map(|value| (config.name.to_string(), value.to_string()))
    });
    let change = Change::Replace(set.collect());
    config_resources::change(
        broker,
        resource_type,
        &resource.resource_name,
        change,
        validate_only,
    )
    .await
}
