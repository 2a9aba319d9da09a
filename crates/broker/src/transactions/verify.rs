//! Asks the coordinator about transactional batches before they are appended (KIP-890): a batch that
//! opens a transaction in its partition must be part of one that is open at the coordinator. Else an
//! append that comes after its transaction's end would hold back read_committed readers for ever.

use std::collections::HashMap;
use std::sync::Arc;

use milena_coordinator::AddPartitions;
use milena_log::{StartVerification, VerificationGuard};
use milena_protocol::records::BatchHeader;
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::partitions::Partition;

/// A transactional batch on its way to its partition.
pub(crate) struct Unverified {
    pub(crate) topic: Str,
    pub(crate) partition: Arc<Partition>,
    pub(crate) header: BatchHeader,
}

/// What came of it, by topic and partition. What is not in it needs no guard.
pub(crate) type Verified = HashMap<(Str, i32), Result<VerificationGuard, ErrorCode>>;

/// Asks about the batches of one request. `adds`: the client is of transaction.version 2 and leaves it
/// to the broker to add partitions to its transaction.
pub(crate) async fn verify_produce(
    broker: &Arc<Broker>,
    transactional_id: &Str,
    adds: bool,
    batches: Vec<Unverified>,
) -> Verified {
    let mut verified = Verified::new();
    let mut asked: HashMap<(i64, i16), Vec<(Str, i32)>> = HashMap::new();
    let is_required = broker
        .topics
        .settings()
        .current()
        .transaction_partition_verification_enable;
    for Unverified {
        topic,
        partition,
        header,
    } in batches
    {
        let key = (topic, partition.index());
        let start = StartVerification {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            supports_epoch_bump: adds,
            now_ms: broker.clock.now_ms(),
        };
        match partition.log().start_verification(start) {
            Ok(None) => {}
            Ok(Some(_)) if !is_required && !adds => {
                verified.insert(key, Ok(VerificationGuard::NOT_REQUIRED));
            }
            Ok(Some(guard)) => {
                let producer = (header.producer_id, header.producer_epoch);
                asked.entry(producer).or_default().push(key.clone());
                verified.insert(key, Ok(guard));
            }
            Err(error) => {
                verified.insert(key, Err(error.code()));
            }
        }
    }
    for ((producer_id, producer_epoch), partitions) in asked {
        let add = AddPartitions {
            transactional_id: transactional_id.clone(),
            producer_id,
            producer_epoch,
            partitions: partitions.clone(),
            verify_only: !adds,
            bumps_epoch: adds,
        };
        for (key, error) in partitions
            .into_iter()
            .zip(broker.transactions.add_partitions(add).await)
        {
            if error != ErrorCode::None {
                verified.insert(key, Err(error));
            }
        }
    }
    verified
}
