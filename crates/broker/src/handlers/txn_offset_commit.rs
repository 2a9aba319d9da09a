//! TxnOffsetCommit (API 28), versions 0 to 5: offsets of a group that are committed when the producer's
//! transaction is (KIP-98).
//!
//! Versions: 2 leader epoch, 3 flexible, with the member (KIP-447), 4 TRANSACTION_ABORTABLE, 5 makes the
//! group part of the transaction, without AddOffsetsToTxn (KIP-890). Before anything is kept the
//! transaction's coordinator is asked whether it is open.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use milena_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

/// The first version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 4;
/// The first version whose clients leave it to the broker to make the group part of the transaction.
const EPOCH_BUMP_VERSION: i16 = 5;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> Outcome<TxnOffsetCommitResponse> {
    let version = context.api_version;
    if request.group_id.is_empty() {
        return Outcome::Now(refused(&request, ErrorCode::InvalidGroupId));
    }
    let mut known = request.clone();
    for topic in &mut known.topics {
        let found = broker.topics.get(&topic.name);
        topic.partitions.retain(|partition| {
            let index = partition.partition_index;
            found
                .as_ref()
                .is_some_and(|topic| topic.partition(index).is_some())
        });
    }
    known.topics.retain(|topic| !topic.partitions.is_empty());
    if known.topics.is_empty() {
        return Outcome::Now(answer(
            &request,
            &TxnOffsetCommitResponse::default(),
            ErrorCode::UnknownTopicOrPartition,
        ));
    }
    // Asked here, and not while the answer waits: requests of a connection keep their order.
    let adds = version >= EPOCH_BUMP_VERSION;
    let decided = broker
        .transactions
        .commit_offsets(&broker.groups, &known, adds)
        .await;
    Outcome::Now(match decided {
        Ok(decided) => answer(&request, &decided, ErrorCode::UnknownTopicOrPartition),
        Err(error) => {
            let error = match error {
                ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
                ErrorCode::TransactionAbortable if version < ABORTABLE_VERSION => ErrorCode::InvalidTxnState,
                ErrorCode::ConcurrentTransactions if version < EPOCH_BUMP_VERSION => {
                    ErrorCode::CoordinatorNotAvailable
                }
                other => other,
            };
            answer(
                &request,
                &refused(&known, error),
                ErrorCode::UnknownTopicOrPartition,
            )
        }
    })
}

fn refused(request: &TxnOffsetCommitRequest, error: ErrorCode) -> TxnOffsetCommitResponse {
    answer(request, &TxnOffsetCommitResponse::default(), error)
}

/// An answer for every partition of the request: what was decided, or the error where nothing was.
fn answer(
    request: &TxnOffsetCommitRequest,
    decided: &TxnOffsetCommitResponse,
    otherwise: ErrorCode,
) -> TxnOffsetCommitResponse {
    let code_of = |topic: &str, index: i32| {
        let mut partitions = decided
            .topics
            .iter()
            .filter(|decided| *decided.name == *topic)
            .flat_map(|decided| &decided.partitions);
        let found = partitions.find(|partition| partition.partition_index == index);
        found.map_or(otherwise.code(), |partition| partition.error_code)
    };
    let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: code_of(&topic.name, partition.partition_index),
                ..TxnOffsetCommitResponsePartition::default()
            })
            .collect(),
        ..TxnOffsetCommitResponseTopic::default()
    });
    TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..TxnOffsetCommitResponse::default()
    }
}
