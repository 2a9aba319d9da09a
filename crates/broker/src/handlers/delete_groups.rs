//! DeleteGroups (API 42), versions 0 to 2: removes empty groups with their offsets (KIP-229).
//!
//! Versions: 2 flexible. A group named twice is deleted, and answered, once.

use std::collections::HashSet;
use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use milena_protocol::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
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
            let reply = broker.groups.ask(&group_id, |groups, _, ticket| {
                groups.delete_group(ticket, &group_id)
            });
            (group_id, reply)
        })
        .collect();
    Outcome::Later(Box::pin(async move {
        let mut results = Vec::with_capacity(answers.len());
        for (group_id, reply) in answers {
            let deleted = group_reply(reply.await, |reply| {
                if let Reply::DeleteGroup(error) = reply {
                    Some(error)
                } else {
                    None
                }
            });
            let error = deleted.unwrap_or_else(|error: ErrorCode| error);
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
