//! IncrementalAlterConfigs (key 44, versions 0-1; KIP-339): sets, deletes, appends to and subtracts
//! from configs of topics, brokers, groups and client metrics, and levels of loggers (KIP-412).
//!
//! Authorisation: ALTER_CONFIGS on the topic, or on the cluster (none yet). Forwardable. Versions
//! differ only in form. What is answered is stored and in force.
//!
//! Differences: an operation of an unknown number is an invalid request for every resource, where Kafka has an
//! unknown error for most.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::IncrementalAlterConfigsRequest;
use milena_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use milena_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use super::config_resources::{self, Change, ResourceType, check_entries, repeated, unknown_type};
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::config::AlterOp;
use crate::context::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let key = |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let duplicates = repeated(request.resources.iter().map(key));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let result = if duplicates.contains(&key(resource)) {
            Err(ApiError::invalid_request(
                "Each resource must appear at most once.",
            ))
        } else {
            alter(broker, resource, request.validate_only).await
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
    IncrementalAlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

async fn alter(
    broker: &Arc<Broker>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), ApiError> {
    let is_delete = |code: i8| code == AlterOp::Delete as i8;
    let without_value: Vec<&str> = resource
        .configs
        .iter()
        .filter(|config| config.value.is_none() && !is_delete(config.config_operation))
        .map(|config| &*config.name)
        .collect();
    check_entries(resource.configs.iter().map(|config| &config.name), &without_value)?;
    let resource_type = ResourceType::from_code(resource.resource_type)
        .ok_or_else(|| unknown_type(resource.resource_type))?;
    let change = Change::Alter(resource.configs.clone());
    config_resources::change(
        broker,
        resource_type,
        &resource.resource_name,
        change,
        validate_only,
    )
    .await
}
