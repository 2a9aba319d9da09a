//! OffsetCommit (API 8), versions 2 to 10: stores how far a group has read.
//!
//! Versions: 3 throttle time, 5 no retention time, 6 leader epoch (KIP-320), 7 static members
//! (KIP-345), 8 flexible, 9 member epochs and GROUP_ID_NOT_FOUND (KIP-848), 10 topics by id.
//!
//! Partitions that do not exist are answered with UNKNOWN_TOPIC_OR_PARTITION (UNKNOWN_TOPIC_ID for
//! ids) and come first; the coordinator decides about the others. When none is left, the group is
//! not even looked at, as in Kafka.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestTopic};
use milena_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use milena_protocol::{ErrorCode, Uuid};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

/// The first version that names topics by id.
const TOPIC_IDS_VERSION: i16 = 10;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    mut request: OffsetCommitRequest,
) -> Outcome<OffsetCommitResponse> {
    let version = context.api_version;
    let refused = refuse_unknown(broker, version, &mut request);
    if request.topics.is_empty() {
        return Outcome::Now(OffsetCommitResponse {
            topics: refused,
            ..OffsetCommitResponse::default()
        });
    }
    let reply = broker.groups.ask(&request.group_id, |groups, now_ms, ticket| {
        groups.commit_offsets(now_ms, ticket, version, &request)
    });
    Outcome::Later(Box::pin(async move {
        let mut response = match group_reply(reply.await, |reply| {
            if let Reply::OffsetCommit(response) = reply {
                Some(response)
            } else {
                None
            }
        }) {
            Ok(response) => response,
            Err(error) => {
                let topics = request
                    .topics
                    .iter()
                    .map(|topic| refuse_topic(topic, error))
                    .collect();
                OffsetCommitResponse {
                    topics,
                    ..OffsetCommitResponse::default()
                }
            }
        };
        response.topics = merge(refused, response.topics);
        for topic in &mut response.topics {
            if version < TOPIC_IDS_VERSION {
                topic.topic_id = Uuid::ZERO;
            }
        }
        response
    }))
}

/// Takes what does not exist out of the request, and gives topics known by one of name and id the
/// other too.
fn refuse_unknown(
    broker: &Broker,
    version: i16,
    request: &mut OffsetCommitRequest,
) -> Vec<OffsetCommitResponseTopic> {
    let by_id = version >= TOPIC_IDS_VERSION;
    let mut refused = Vec::new();
    request.topics.retain_mut(|topic| {
        let known = if by_id {
            broker.topics.get_by_id(&topic.topic_id)
        } else {
            broker.topics.get(&topic.name)
        };
        let Some(known) = known else {
            let error = if by_id {
                ErrorCode::UnknownTopicId
            } else {
                ErrorCode::UnknownTopicOrPartition
            };
            refused.push(refuse_topic(topic, error));
            return false;
        };
        topic.name = known.name.clone();
        topic.topic_id = known.id;
        let mut unknown = topic.clone();
        unknown
            .partitions
            .retain(|partition| known.partition(partition.partition_index).is_none());
        topic
            .partitions
            .retain(|partition| known.partition(partition.partition_index).is_some());
        if !unknown.partitions.is_empty() {
            refused.push(refuse_topic(&unknown, ErrorCode::UnknownTopicOrPartition));
        }
        !topic.partitions.is_empty()
    });
    refused
}

fn refuse_topic(topic: &OffsetCommitRequestTopic, error: ErrorCode) -> OffsetCommitResponseTopic {
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.code(),
                ..OffsetCommitResponsePartition::default()
            })
            .collect(),
        ..OffsetCommitResponseTopic::default()
    }
}

/// Adds `decided` to `refused`, with one entry for each topic.
fn merge(
    mut refused: Vec<OffsetCommitResponseTopic>,
    decided: Vec<OffsetCommitResponseTopic>,
) -> Vec<OffsetCommitResponseTopic> {
    let only_refused = refused.len();
    for topic in decided {
        let earlier = refused
            .iter_mut()
            .take(only_refused)
            .find(|earlier| earlier.name == topic.name && earlier.topic_id == topic.topic_id);
        match earlier {
            Some(earlier) => earlier.partitions.extend(topic.partitions),
            None => refused.push(topic),
        }
    }
    refused
}
