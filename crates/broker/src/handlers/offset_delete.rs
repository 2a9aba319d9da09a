//! OffsetDelete (API 47), version 0: forgets committed offsets of topics that the group does not
//! read (KIP-496).
//!
//! Partitions that do not exist are answered with UNKNOWN_TOPIC_OR_PARTITION and come first; the
//! coordinator decides about the others, and about the group even when none is left.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::offset_delete_request::{OffsetDeleteRequest, OffsetDeleteRequestTopic};
use milena_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    mut request: OffsetDeleteRequest,
) -> Outcome<OffsetDeleteResponse> {
    let mut refused = Vec::new();
    request.topics.retain_mut(|topic| {
        let known = broker.topics.get(&topic.name);
        let exists = |index: i32| {
            known
                .as_ref()
                .is_some_and(|known| known.partition(index).is_some())
        };
        let mut unknown = topic.clone();
        unknown
            .partitions
            .retain(|partition| !exists(partition.partition_index));
        topic
            .partitions
            .retain(|partition| exists(partition.partition_index));
        if !unknown.partitions.is_empty() {
            refused.push(refuse_topic(&unknown));
        }
        !topic.partitions.is_empty()
    });
    let reply = broker.groups.ask(&request.group_id, |groups, _, ticket| {
        groups.delete_offsets(ticket, &request)
    });
    Outcome::Later(Box::pin(async move {
        let decided = group_reply(reply.await, |reply| {
            if let Reply::OffsetDelete(response) = reply {
                Some(response)
            } else {
                None
            }
        });
        match decided {
            // An error of the whole group stands alone.
            Ok(response) if response.error_code != ErrorCode::None.code() => response,
            Ok(mut response) => {
                response.topics = merge(refused, response.topics);
                response
            }
            Err(error) => OffsetDeleteResponse {
                error_code: error.code(),
                ..OffsetDeleteResponse::default()
            },
        }
    }))
}

fn refuse_topic(topic: &OffsetDeleteRequestTopic) -> OffsetDeleteResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|partition| OffsetDeleteResponsePartition {
            partition_index: partition.partition_index,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
            ..OffsetDeleteResponsePartition::default()
        })
        .collect();
    OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions,
        ..OffsetDeleteResponseTopic::default()
    }
}

/// Adds `decided` to `refused`, with one entry for each topic.
fn merge(
    mut refused: Vec<OffsetDeleteResponseTopic>,
    decided: Vec<OffsetDeleteResponseTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    for topic in decided {
        match refused.iter_mut().find(|earlier| earlier.name == topic.name) {
            Some(earlier) => earlier.partitions.extend(topic.partitions),
            None => refused.push(topic),
        }
    }
    refused
}
