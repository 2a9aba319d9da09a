//! SyncGroup (API 14), versions 0 to 5: the leader brings the assignment, every member gets its part.
//!
//! Versions: 3 static members (KIP-345), 4 flexible, 5 protocol type and name are mandatory
//! (KIP-559). Assignments are opaque bytes that pass through unchanged.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

/// The first version in which protocol type and name must be given.
const MANDATORY_PROTOCOL_VERSION: i16 = 5;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: SyncGroupRequest,
) -> Outcome<SyncGroupResponse> {
    let failed = |error: ErrorCode| SyncGroupResponse {
        error_code: error.code(),
        ..SyncGroupResponse::default()
    };
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.api_version >= MANDATORY_PROTOCOL_VERSION && !names_protocol {
        return Outcome::Now(failed(ErrorCode::InconsistentGroupProtocol));
    }
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            groups.sync(now_ms, ticket, &request)
        });
    let stopped = broker.stop.stopped();
    Outcome::Later(Box::pin(async move {
        let reply = tokio::select! {
            biased;
            reply = reply => reply,
            () = stopped => Err(ErrorCode::NotCoordinator),
        };
        group_reply(reply, |reply| {
            if let Reply::SyncGroup(response) = reply {
                Some(response)
            } else {
                None
            }
        })
        .unwrap_or_else(failed)
    }))
}
