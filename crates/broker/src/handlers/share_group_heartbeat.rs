//! ShareGroupHeartbeat (API 76), version 1: a member of a share group joins, goes on or leaves, and hears which
//! partitions it reads from (KIP-932).
//!
//! Partitions whose state is not there yet are not assigned; the heartbeat has them initialized, and a later one
//! tells that they are.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::{settings, share};
use crate::outcome::Outcome;

/// Characters of a member's id: those of a UUID that people can read.
const MAX_MEMBER_ID_CHARACTERS: usize = 36;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ShareGroupHeartbeatRequest,
) -> Outcome<ShareGroupHeartbeatResponse> {
    if !settings::share_groups_are_on(broker) {
        return Outcome::Now(refuse(ErrorCode::UnsupportedVersion));
    }
    // Kafka counts as Java does.
    let characters = request.member_id.encode_utf16().count();
    if !(1..=MAX_MEMBER_ID_CHARACTERS).contains(&characters) {
        return Outcome::Now(refuse(ErrorCode::InvalidRequest));
    }
    let client = context.client();
    let config = settings::share(broker, &request.group_id);
    let mut initializes = false;
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            let effects = groups.share_heartbeat(now_ms, ticket, &client, &config, &request);
            initializes = effects
                .replies
                .iter()
                .any(|(_, reply)| matches!(reply, Reply::ShareGroupHeartbeat(_, Some(_))));
            effects
        });
    let of_task = Arc::clone(broker);
    let answer = async move {
        let answered = group_reply(reply.await, |reply| match reply {
            Reply::ShareGroupHeartbeat(response, initialize) => Some((response, initialize)),
            _ => None,
        });
        match answered {
            Ok((response, initialize)) => {
                if let Some(states) = initialize {
                    tokio::spawn(async move { share::initialize(&of_task, *states).await });
                }
                response
            }
            Err(error) => refuse(error),
        }
    };
    if !initializes {
        return Outcome::Later(Box::pin(answer));
    }
    // States are initialized also when the client does not wait for the answer.
    let task = tokio::spawn(answer);
    Outcome::Later(Box::pin(async move {
        task.await
            .unwrap_or_else(|_| refuse(ErrorCode::UnknownServerError))
    }))
}

fn refuse(error: ErrorCode) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: error.code(),
        ..ShareGroupHeartbeatResponse::default()
    }
}
