//! Heartbeat (API 12), versions 0 to 4: a member is alive, and hears whether its group rebalances.
//!
//! Versions: 3 static members (KIP-345), 4 flexible.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: HeartbeatRequest,
) -> Outcome<HeartbeatResponse> {
    let reply = broker.groups.ask(&request.group_id, |groups, now_ms, ticket| {
        groups.heartbeat(now_ms, ticket, &request)
    });
    Outcome::Later(Box::pin(async move {
        group_reply(reply.await, |reply| {
            if let Reply::Heartbeat(response) = reply {
                Some(response)
            } else {
                None
            }
        })
        .unwrap_or_else(|error| HeartbeatResponse {
            error_code: error.code(),
            ..HeartbeatResponse::default()
        })
    }))
}
