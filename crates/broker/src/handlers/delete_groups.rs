//! DeleteGroups (API 42), versions 0 to 2: removes empty groups with their offsets (KIP-229).
//!
//! A share group's states go before it does; when they cannot, the group stays.
//!
//! Versions: 2 flexible. A group named twice is deleted, and answered, once.

use std::collections::HashSet;
use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::DeleteShareGroupStateRequest;
use milena_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use milena_protocol::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use milena_protocol::{ErrorCode, Str};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::share;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DeleteGroupsRequest,
) -> Outcome<DeleteGroupsResponse> {
    let mut seen = HashSet::new();
    let answers: Vec<_> = request
        .groups_names
        .into_iter()
        .filter(|group_id| seen.insert(group_id.clone()))
        .map(|group_id| {
            let reply = broker
                .groups
                .ask_seeing(&broker.topics, &group_id, |groups, _, ticket| {
                    groups.delete_group(ticket, &group_id)
                });
            (group_id, reply)
        })
        .collect();
    let broker = Arc::clone(broker);
    Outcome::Later(Box::pin(async move {
        let mut results = Vec::with_capacity(answers.len());
        for (group_id, reply) in answers {
            let error = match reply.await {
                Ok(Reply::DeleteShareGroup(states)) => delete_share_group(&broker, &group_id, *states).await,
                reply => deleted(reply),
            };
            results.push(DeletableGroupResult {
                group_id,
                error_code: error.code(),
                ..DeletableGroupResult::default()
            });
        }
        DeleteGroupsResponse {
            results,
            ..DeleteGroupsResponse::default()
        }
    }))
}

fn deleted(reply: Result<Reply, ErrorCode>) -> ErrorCode {
    let error = group_reply(reply, |reply| match reply {
        Reply::DeleteGroup(error) => Some(error),
        _ => None,
    });
    error.unwrap_or_else(|error| error)
}

async fn delete_share_group(
    broker: &Arc<Broker>,
    group_id: &Str,
    states: DeleteShareGroupStateRequest,
) -> ErrorCode {
    let outcomes = share::delete(broker, states).await;
    if let Some(error) = outcomes.into_iter().find_map(|(_, outcome)| outcome.err()) {
        return error;
    }
    let reply = broker.groups.ask(group_id, |groups, _, ticket| {
        groups.delete_share_group(ticket, group_id)
    });
    deleted(reply.await)
}
