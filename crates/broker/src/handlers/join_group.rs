//! JoinGroup (API 11), versions 0 to 9: a member enters its group's next generation.
//!
//! Versions: 1 rebalance timeout (KIP-62), 4 member ids are given first (KIP-394), 5 static members
//! (KIP-345), 6 flexible, 7 protocol type, 8 reason (KIP-800), 9 the leader may skip the assignment.
//!
//! The answer comes when the generation is complete. While the broker stops, and when the group's
//! facts cannot be stored, it is NOT_COORDINATOR or COORDINATOR_NOT_AVAILABLE, and members look for
//! their coordinator again.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use milena_protocol::{ErrorCode, Str};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::settings;
use crate::outcome::Outcome;

/// The first version in which there may be no protocol name.
const NULLABLE_PROTOCOL_VERSION: i16 = 7;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: JoinGroupRequest,
) -> Outcome<JoinGroupResponse> {
    let version = context.api_version;
    let client = context.client();
    let consumer = settings::consumer(broker, &request.group_id);
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            groups.join(now_ms, ticket, version, &client, &consumer, &request)
        });
    let stopped = broker.stop.stopped();
    // The wait may be long: it must not keep the request's buffer.
    let member_id = request.member_id.detached();
    Outcome::Later(Box::pin(async move {
        let reply = tokio::select! {
            biased;
            reply = reply => reply,
            () = stopped => Err(ErrorCode::NotCoordinator),
        };
        match group_reply(reply, |reply| {
            if let Reply::JoinGroup(response) = reply {
                Some(response)
            } else {
                None
            }
        }) {
            Ok(response) => response,
            Err(error) => JoinGroupResponse {
                error_code: error.code(),
                generation_id: -1,
                protocol_name: (version < NULLABLE_PROTOCOL_VERSION).then(Str::default),
                member_id,
                ..JoinGroupResponse::default()
            },
        }
    }))
}
