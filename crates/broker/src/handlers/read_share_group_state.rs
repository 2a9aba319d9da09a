//! ReadShareGroupState (API 84), version 0: what is stored of a share group's partitions.
//!
//! Kafka's brokers ask it of each other (KIP-932); a share coordinator's state is a shard of facts here.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::read_share_group_state_request::ReadShareGroupStateRequest;
use milena_protocol::messages::read_share_group_state_response::{
    PartitionResult, ReadShareGroupStateResponse, ReadStateResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ReadShareGroupStateRequest,
) -> Outcome<ReadShareGroupStateResponse> {
    let named: Vec<_> = request
        .topics
        .iter()
        .map(|topic| {
            let partitions: Vec<i32> = topic.partitions.iter().map(|one| one.partition).collect();
            (topic.topic_id, partitions)
        })
        .collect();
    let answer = broker.share.read(&broker.topics, request);
    Outcome::Later(Box::pin(async move {
        answer.await.unwrap_or_else(|error| ReadShareGroupStateResponse {
            results: named
                .into_iter()
                .map(|(topic_id, partitions)| ReadStateResult {
                    topic_id,
                    partitions: partitions.into_iter().map(|one| refused(one, error)).collect(),
                    ..ReadStateResult::default()
                })
                .collect(),
            ..ReadShareGroupStateResponse::default()
        })
    }))
}

fn refused(partition: i32, error: ErrorCode) -> PartitionResult {
    PartitionResult {
        partition,
        error_code: error.code(),
        ..PartitionResult::default()
    }
}
