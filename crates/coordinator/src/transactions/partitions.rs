//! AddPartitionsToTxn, AddOffsetsToTxn, and what the broker asks for a producer (KIP-890): which
//! partitions take part in a transaction.

use milena_protocol::{ErrorCode, Str};

use super::transaction::TransactionState;
use super::{CLASSIC_VERSION, EPOCH_BUMP_VERSION, Transactions};
use crate::limits::MAX_PARTITIONS_PER_TRANSACTION;
use crate::{Effects, Reply, Ticket};

/// Partitions that are to be part of a producer's transaction, or are said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitions {
    pub transactional_id: Str,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub partitions: Vec<(Str, i32)>,
    /// Add nothing, say which of them take part.
    pub verify_only: bool,
    /// Whether the client bumps its epoch with each transaction: then it leaves this to the broker.
    pub bumps_epoch: bool,
}

impl Transactions {
    /// Answers with an error code for each partition, in their order: all the same, but for
    /// `verify_only`, which tells TRANSACTION_ABORTABLE of each that does not take part.
    pub fn add_partitions(&mut self, now_ms: i64, ticket: Ticket, request: &AddPartitions) -> Effects {
        let mut effects = Effects::default();
        let errors = match self.add(now_ms, request, &mut effects) {
            Ok(errors) => errors,
            Err(error) => vec![error; request.partitions.len()],
        };
        effects.reply(ticket, Reply::AddPartitions(errors));
        effects
    }

    fn add(
        &mut self,
        now_ms: i64,
        request: &AddPartitions,
        effects: &mut Effects,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let id = &request.transactional_id;
        let transaction = self.of_producer(id, request.producer_id, request.producer_epoch)?;
        if transaction.state.is_ending() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let takes_part = |partition: &(Str, i32)| transaction.partitions.contains(partition);
        if request.verify_only {
            let tell = |partition| match takes_part(partition) {
                true => ErrorCode::None,
                false => ErrorCode::TransactionAbortable,
            };
            return Ok(request.partitions.iter().map(tell).collect());
        }
        let is_open = transaction.state == TransactionState::Ongoing;
        let all_added = vec![ErrorCode::None; request.partitions.len()];
        if is_open && request.partitions.iter().all(takes_part) {
            return Ok(all_added);
        }
        let new = request
            .partitions
            .iter()
            .filter(|partition| !takes_part(partition));
        if transaction.partitions.len() + new.count() > MAX_PARTITIONS_PER_TRANSACTION {
            return Err(ErrorCode::InvalidRequest);
        }
        let before_ms = transaction.times_out_ms();
        for (topic, partition) in &request.partitions {
            let partition = (topic.detached(), *partition);
            transaction.partitions.insert(partition);
        }
        if !is_open {
            transaction.state = TransactionState::Ongoing;
            transaction.started_ms = now_ms;
        }
        transaction.updated_ms = now_ms;
        transaction.client_version = if request.bumps_epoch {
            EPOCH_BUMP_VERSION
        } else {
            CLASSIC_VERSION
        };
        self.note(id, before_ms, effects);
        Ok(all_added)
    }
}
