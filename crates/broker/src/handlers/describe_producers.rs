//! DescribeProducers (API 61), version 0: the idempotent producers that a partition knows, for
//! those who look for a hanging transaction (KIP-664).

use std::sync::Arc;

use milena_protocol::messages::describe_producers_request::DescribeProducersRequest;
use milena_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::partitions::Partition;
use crate::topics::validate_name;

/// Kafka's sentence for UNKNOWN_TOPIC_OR_PARTITION.
const NOT_HOSTED: &str = "This server does not host this topic-partition.";

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let known = broker.topics.get(&topic.name);
            let invalid = validate_name(&topic.name).err().map(Str::from);
            let partitions = topic
                .partition_indexes
                .iter()
                .map(|index| match (&invalid, &known) {
                    (Some(why), _) => failed(*index, ErrorCode::InvalidTopicException, Some(why.clone())),
                    (None, None) => failed(
                        *index,
                        ErrorCode::UnknownTopicOrPartition,
                        Some(Str::from(NOT_HOSTED)),
                    ),
                    (None, Some(topic)) => match topic.partition(*index) {
                        None => failed(*index, ErrorCode::UnknownTopicOrPartition, None),
                        Some(partition) => describe(partition),
                    },
                })
                .collect();
            TopicResponse {
                name: topic.name.clone(),
                partitions,
                ..TopicResponse::default()
            }
        })
        .collect();
    DescribeProducersResponse {
        topics,
        ..DescribeProducersResponse::default()
    }
}

fn failed(index: i32, error: ErrorCode, message: Option<Str>) -> PartitionResponse {
    PartitionResponse {
        partition_index: index,
        error_code: error.code(),
        error_message: message,
        ..PartitionResponse::default()
    }
}

fn describe(partition: &Partition) -> PartitionResponse {
    if let Err(error) = partition.check() {
        return failed(partition.index(), error, None);
    }
    let active_producers = partition
        .log()
        .producers()
        .into_iter()
        .map(|producer| ProducerState {
            producer_id: producer.producer_id,
            producer_epoch: i32::from(producer.producer_epoch),
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_timestamp_ms,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_start_offset: producer.current_transaction_start_offset,
            ..ProducerState::default()
        })
        .collect();
    PartitionResponse {
        partition_index: partition.index(),
        active_producers,
        ..PartitionResponse::default()
    }
}
