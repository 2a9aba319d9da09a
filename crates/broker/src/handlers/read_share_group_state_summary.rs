//! ReadShareGroupStateSummary (API 87), versions 0 and 1: where a share group stands in partitions.
//!
//! Versions: 1 the number of records that are done (KIP-1226).
//!
//! Kafka's brokers ask it of each other (KIP-932); a share coordinator's state is a shard of facts here.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::read_share_group_state_summary_request::ReadShareGroupStateSummaryRequest;
use milena_protocol::messages::read_share_group_state_summary_response::{
    PartitionResult, ReadShareGroupStateSummaryResponse, ReadStateSummaryResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ReadShareGroupStateSummaryRequest,
) -> Outcome<ReadShareGroupStateSummaryResponse> {
    let named: Vec<_> = request
        .topics
        .iter()
        .map(|topic| {
            let partitions: Vec<i32> = topic.partitions.iter().map(|one| one.partition).collect();
            (topic.topic_id, partitions)
        })
        .collect();
    let answer = broker.share.read_summary(&broker.topics, request);
    Outcome::Later(Box::pin(async move {
        answer
            .await
            .unwrap_or_else(|error| ReadShareGroupStateSummaryResponse {
                results: named
                    .into_iter()
                    .map(|(topic_id, partitions)| ReadStateSummaryResult {
                        topic_id,
                        partitions: partitions.into_iter().map(|one| refused(one, error)).collect(),
                        ..ReadStateSummaryResult::default()
                    })
                    .collect(),
                ..ReadShareGroupStateSummaryResponse::default()
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
