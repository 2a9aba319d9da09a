//! LeaveGroup (API 13), versions 0 to 5: members go, and the group rebalances at once.
//!
//! Versions: 3 several members, also by their instance id (KIP-345), 4 flexible, 5 reason (KIP-800).

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: LeaveGroupRequest,
) -> Outcome<LeaveGroupResponse> {
    let version = context.api_version;
    let reply = broker.groups.ask(&request.group_id, |groups, now_ms, ticket| {
        groups.leave(now_ms, ticket, version, &request)
    });
    Outcome::Later(Box::pin(async move {
        group_reply(reply.await, |reply| {
            if let Reply::LeaveGroup(response) = reply {
                Some(response)
            } else {
                None
            }
        })
        .unwrap_or_else(|error| LeaveGroupResponse {
            error_code: error.code(),
            ..LeaveGroupResponse::default()
        })
    }))
}
