//! WriteShareGroupState (API 85), versions 0 and 1: stores what became of a share group's records.
//!
//! Versions: 1 the number of records that are done (KIP-1226).
//!
//! Kafka's brokers ask it of each other (KIP-932); a share coordinator's state is a shard of facts here.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::write_share_group_state_request::WriteShareGroupStateRequest;
use milena_protocol::messages::write_share_group_state_response::{
    PartitionResult, WriteShareGroupStateResponse, WriteStateResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: WriteShareGroupStateRequest,
) -> Outcome<WriteShareGroupStateResponse> {
    let named: Vec<_> = request
        .topics
        .iter()
        .map(|topic| {
            let partitions: Vec<i32> = topic.partitions.iter().map(|one| one.partition).collect();
            (topic.topic_id, partitions)
        })
        .collect();
    let answer = broker.share.write(&broker.topics, request);
    Outcome::Later(Box::pin(async move {
        answer.await.unwrap_or_else(|error| WriteShareGroupStateResponse {
            results: named
                .into_iter()
                .map(|(topic_id, partitions)| WriteStateResult {
                    topic_id,
                    partitions: partitions.into_iter().map(|one| refused(one, error)).collect(),
                    ..WriteStateResult::default()
                })
                .collect(),
            ..WriteShareGroupStateResponse::default()
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
