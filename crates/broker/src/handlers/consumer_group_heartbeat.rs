//! ConsumerGroupHeartbeat (API 68), versions 0 and 1: a member of a consumer group joins, goes on or leaves, and hears
//! which partitions it has (KIP-848).
//!
//! Versions: 1 patterns, and member ids that clients choose.
//!
//! Difference from Kafka: a pattern is resolved within the request that brings it, so that the first answer may
//! have its partitions.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::settings;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> Outcome<ConsumerGroupHeartbeatResponse> {
    if !settings::consumer_groups_are_on(broker) {
        return Outcome::Now(refuse(ErrorCode::UnsupportedVersion));
    }
    let version = context.api_version;
    let client = context.client();
    let config = settings::consumer(broker, &request.group_id);
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            groups.consumer_heartbeat(now_ms, ticket, version, &client, &config, &request)
        });
    Outcome::Later(Box::pin(async move {
        group_reply(reply.await, |reply| {
            if let Reply::ConsumerGroupHeartbeat(response) = reply {
                Some(response)
            } else {
                None
            }
        })
        .unwrap_or_else(refuse)
    }))
}

fn refuse(error: ErrorCode) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: error.code(),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
