//! OffsetForLeaderEpoch (API 23), versions 2 to 4: where the records of a leader epoch end, by
//! which a consumer finds out whether the log it read was cut (KIP-320).
//!
//! Versions: 2 the client's current leader epoch, 3 replica id (KIP-392), 4 flexible. An epoch of
//! the future is answered without error, with epoch and offset -1.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use milena_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::partitions::Partition;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let known = broker.topics.get(&topic.topic);
            let partitions = topic
                .partitions
                .iter()
                .map(|wanted| {
                    let partition = known.as_ref().and_then(|topic| topic.partition(wanted.partition));
                    answer(partition.map(AsRef::as_ref), wanted)
                })
                .collect();
            OffsetForLeaderTopicResult {
                topic: topic.topic.clone(),
                partitions,
                ..OffsetForLeaderTopicResult::default()
            }
        })
        .collect();
    OffsetForLeaderEpochResponse {
        topics,
        ..OffsetForLeaderEpochResponse::default()
    }
}

fn answer(partition: Option<&Partition>, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let mut answer = EpochEndOffset {
        partition: wanted.partition,
        leader_epoch: -1,
        end_offset: -1,
        ..EpochEndOffset::default()
    };
    let Some(partition) = partition else {
        answer.error_code = ErrorCode::UnknownTopicOrPartition.code();
        return answer;
    };
    let checked = partition
        .check()
        .and_then(|()| partition.check_leader_epoch(wanted.current_leader_epoch));
    if let Err(error) = checked {
        answer.error_code = error.code();
        return answer;
    }
    if let Some(end) = partition.end_offset_for_epoch(wanted.leader_epoch) {
        answer.leader_epoch = end.leader_epoch;
        answer.end_offset = end.end_offset;
    }
    answer
}
