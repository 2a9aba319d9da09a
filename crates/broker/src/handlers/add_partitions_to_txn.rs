//! AddPartitionsToTxn (API 24), versions 0 to 5: makes partitions part of a producer's transaction, or
//! verifies that they are (KIP-98, KIP-890).
//!
//! Versions: 2 PRODUCER_FENCED, 3 flexible, 4 several transactions and verification, which brokers send
//! each other in Kafka, 5 TRANSACTION_ABORTABLE. A request in which one partition does not exist adds
//! none: the others are answered with OPERATION_NOT_ATTEMPTED.

use std::sync::Arc;

use milena_coordinator::AddPartitions;
use milena_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use milena_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use milena_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;

/// The first version with several transactions.
const BATCHED_VERSION: i16 = 4;
/// The first version whose clients know PRODUCER_FENCED.
const FENCED_VERSION: i16 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let version = context.api_version;
    if version < BATCHED_VERSION {
        let add = AddPartitions {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            partitions: Vec::new(),
            verify_only: false,
            bumps_epoch: false,
        };
        return AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: add_topics(broker, version, add, &request.v3_and_below_topics)
                .await,
            ..AddPartitionsToTxnResponse::default()
        };
    }
    let mut response = AddPartitionsToTxnResponse::default();
    for transaction in request.transactions {
        let add = AddPartitions {
            transactional_id: transaction.transactional_id.clone(),
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            partitions: Vec::new(),
            verify_only: transaction.verify_only,
            bumps_epoch: true,
        };
        response.results_by_transaction.push(AddPartitionsToTxnResult {
            transactional_id: transaction.transactional_id,
            topic_results: add_topics(broker, version, add, &transaction.topics).await,
            ..AddPartitionsToTxnResult::default()
        });
    }
    response
}

async fn add_topics(
    broker: &Arc<Broker>,
    version: i16,
    mut add: AddPartitions,
    topics: &[AddPartitionsToTxnTopic],
) -> Vec<AddPartitionsToTxnTopicResult> {
    add.partitions = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|index| (topic.name.clone(), *index)))
        .collect();
    let exists = |(name, index): &(Str, i32)| {
        let topic = broker.topics.get(name);
        topic.is_some_and(|topic| topic.partition(*index).is_some())
    };
    let there: Vec<bool> = add.partitions.iter().map(exists).collect();
    let errors = if there.iter().all(|there| *there) {
        broker.transactions.add_partitions(add).await
    } else {
        let tell = |there| match there {
            true => ErrorCode::OperationNotAttempted,
            false => ErrorCode::UnknownTopicOrPartition,
        };
        there.into_iter().map(tell).collect()
    };
    let mut errors = errors.into_iter().map(|error| match error {
        ErrorCode::ProducerFenced if version < FENCED_VERSION => ErrorCode::InvalidProducerEpoch,
        other => other,
    });
    let mut results = Vec::with_capacity(topics.len());
    for topic in topics {
        let partitions = topic.partitions.iter().zip(&mut errors);
        results.push(AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: partitions
                .map(|(index, error)| AddPartitionsToTxnPartitionResult {
                    partition_index: *index,
                    partition_error_code: error.code(),
                    ..AddPartitionsToTxnPartitionResult::default()
                })
                .collect(),
            ..AddPartitionsToTxnTopicResult::default()
        });
    }
    results
}
