//! DeleteShareGroupOffsets (API 92), version 0: forgets where a share group that nobody is in stands in topics
//! (KIP-932). Members who come later start where `share.auto.offset.reset` says.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use milena_protocol::messages::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, DeleteShareGroupStateRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::{settings, share};
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> Outcome<DeleteShareGroupOffsetsResponse> {
    if !settings::share_groups_are_on(broker) {
        return Outcome::Now(refuse(ErrorCode::UnsupportedVersion));
    }
    if request.group_id.is_empty() {
        return Outcome::Now(refuse(ErrorCode::InvalidGroupId));
    }
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            groups.delete_share_offsets(now_ms, ticket, &request)
        });
    let broker = Arc::clone(broker);
    let group_id = request.group_id.detached();
    // What was begun is brought to its end also when the client does not wait for the answer.
    let task = tokio::spawn(async move {
        let answered = group_reply(reply.await, |reply| match reply {
            Reply::DeleteShareGroupOffsets(response, delete) => Some((response, delete)),
            _ => None,
        });
        match answered {
            Ok((response, Some(states))) => delete(&broker, &group_id, response, *states).await,
            Ok((response, None)) => response,
            Err(error) => refuse(error),
        }
    });
    Outcome::Later(Box::pin(async move {
        task.await
            .unwrap_or_else(|_| refuse(ErrorCode::UnknownServerError))
    }))
}

/// Removes the states and says so; the topics that had none come last, as in Kafka.
async fn delete(
    broker: &Arc<Broker>,
    group_id: &Str,
    mut response: DeleteShareGroupOffsetsResponse,
    states: DeleteShareGroupStateRequest,
) -> DeleteShareGroupOffsetsResponse {
    let outcomes = share::delete(broker, states).await;
    let deleted: Vec<Uuid> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .map(|(topic, _)| *topic)
        .collect();
    if !deleted.is_empty() {
        let told = broker.groups.change(group_id, |groups, now_ms| {
            groups.share_states_deleted(now_ms, group_id, &deleted)
        });
        if let Err(error) = told.await {
            return refuse(error);
        }
    }
    let image = broker.topics.image();
    let topic = |(topic, outcome): &(Uuid, Result<(), ErrorCode>)| DeleteShareGroupOffsetsResponseTopic {
        topic_name: image
            .get_by_id(topic)
            .map(|topic| topic.name.clone())
            .unwrap_or_default(),
        topic_id: *topic,
        error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
        error_message: outcome.err().and_then(share::sentence),
        ..DeleteShareGroupOffsetsResponseTopic::default()
    };
    let (done, failed): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(_, outcome)| outcome.is_ok());
    let had_none = std::mem::take(&mut response.responses);
    response.responses = done.into_iter().map(topic).collect();
    response.responses.extend(had_none);
    response.responses.extend(failed.into_iter().map(topic));
    response
}

fn refuse(error: ErrorCode) -> DeleteShareGroupOffsetsResponse {
    DeleteShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: share::sentence(error),
        ..DeleteShareGroupOffsetsResponse::default()
    }
}
