//! AlterShareGroupOffsets (API 91), version 0: says from where a share group that nobody is in goes on (KIP-932). A group
//! that there is not is created.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic;
use milena_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use milena_protocol::messages::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse};
use milena_protocol::{ErrorCode, Str};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::settings;
use crate::groups::share::{self, Failures};
use crate::outcome::Outcome;

const UNKNOWN_TOPIC_OR_PARTITION: &str = "This server does not host this topic-partition.";

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    mut request: AlterShareGroupOffsetsRequest,
) -> Outcome<AlterShareGroupOffsetsResponse> {
    if !settings::share_groups_are_on(broker) {
        return Outcome::Now(refuse(ErrorCode::UnsupportedVersion));
    }
    if request.group_id.is_empty() {
        return Outcome::Now(refuse(ErrorCode::InvalidGroupId));
    }
    let topics = std::mem::take(&mut request.topics);
    let (known, unknown): (Vec<_>, Vec<_>) = topics
        .into_iter()
        .partition(|topic| broker.topics.get(&topic.topic_name).is_some());
    request.topics = known;
    let mut responses: Vec<_> = unknown.iter().map(unknown_topic).collect();
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            groups.alter_share_offsets(now_ms, ticket, &request)
        });
    let broker = Arc::clone(broker);
    // What was begun is brought to its end also when the client does not wait for the answer.
    let task = tokio::spawn(async move {
        let answered = group_reply(reply.await, |reply| match reply {
            Reply::AlterShareGroupOffsets(response, initialize) => Some((response, initialize)),
            _ => None,
        });
        let (mut response, initialize) = match answered {
            Ok(answered) => answered,
            Err(error) => return refuse(error),
        };
        if response.error_code != 0 {
            return response;
        }
        if let Some(states) = initialize {
            let failures = share::initialize(&broker, *states).await;
            tell_failures(&mut response, &failures);
        }
        responses.append(&mut response.responses);
        response.responses = responses;
        response
    });
    Outcome::Later(Box::pin(async move {
        task.await
            .unwrap_or_else(|_| refuse(ErrorCode::UnknownServerError))
    }))
}

fn tell_failures(response: &mut AlterShareGroupOffsetsResponse, failures: &Failures) {
    for topic in &mut response.responses {
        for partition in &mut topic.partitions {
            if let Some((error, message)) = failures.get(&(topic.topic_id, partition.partition_index)) {
                partition.error_code = error.code();
                partition.error_message.clone_from(message);
            }
        }
    }
}

fn unknown_topic(topic: &AlterShareGroupOffsetsRequestTopic) -> AlterShareGroupOffsetsResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|partition| AlterShareGroupOffsetsResponsePartition {
            partition_index: partition.partition_index,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
            error_message: Some(Str::from(UNKNOWN_TOPIC_OR_PARTITION)),
            ..AlterShareGroupOffsetsResponsePartition::default()
        });
    AlterShareGroupOffsetsResponseTopic {
        topic_name: topic.topic_name.clone(),
        partitions: partitions.collect(),
        ..AlterShareGroupOffsetsResponseTopic::default()
    }
}

fn refuse(error: ErrorCode) -> AlterShareGroupOffsetsResponse {
    AlterShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: share::sentence(error),
        ..AlterShareGroupOffsetsResponse::default()
    }
}
