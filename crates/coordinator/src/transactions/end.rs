//! How transactions end: EndTxn, fencing, and what follows when every partition knows.

use milena_protocol::messages::{EndTxnRequest, EndTxnResponse};
use milena_protocol::{ErrorCode, Str};

use super::transaction::{NO_EPOCH, NO_PRODUCER_ID, Transaction, TransactionState};
use super::{CLASSIC_VERSION, EPOCH_BUMP_VERSION, Transactions};
use crate::effects::EndTransaction;
use crate::{Effects, Reply, Ticket};

/// EndTxn from this version on bumps the producer's epoch (KIP-890).
const FIRST_VERSION_WITH_EPOCH_BUMP: i16 = 5;

/// What an EndTxn comes to.
enum Decision {
    /// The end is decided now.
    End,
    /// It was decided by the same request before: the same answer again.
    Again,
}

impl Transactions {
    /// Decides how a transaction ends. `fresh_producer_id` is one that nobody had, for a producer that
    /// has no epochs left. From version 5 on the answer has what the producer goes on with.
    pub fn end(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        version: i16,
        request: &EndTxnRequest,
        fresh_producer_id: i64,
    ) -> Effects {
        let mut effects = Effects::default();
        let bumps_epoch = version >= FIRST_VERSION_WITH_EPOCH_BUMP;
        let ended = self.try_end(now_ms, bumps_epoch, request, fresh_producer_id, &mut effects);
        let response = match ended {
            Ok((producer_id, producer_epoch)) => EndTxnResponse {
                producer_id,
                producer_epoch,
                ..EndTxnResponse::default()
            },
            Err(error) => EndTxnResponse {
                error_code: error.code(),
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_EPOCH,
                ..EndTxnResponse::default()
            },
        };
        effects.reply(ticket, Reply::EndTxn(response));
        effects
    }

    fn try_end(
        &mut self,
        now_ms: i64,
        bumps_epoch: bool,
        request: &EndTxnRequest,
        fresh_producer_id: i64,
        effects: &mut Effects,
    ) -> Result<(i64, i16), ErrorCode> {
        let id = &request.transactional_id;
        Self::check_id(id)?;
        let transaction = self
            .transactions
            .get_mut(id)
            .ok_or(ErrorCode::InvalidProducerIdMapping)?;
        let decision = if bumps_epoch {
            transaction.decide_with_epoch_bump(request)?
        } else {
            transaction.decide(request)?
        };
        if let Decision::Again = decision {
            if bumps_epoch && transaction.producer_epoch == i16::MAX {
                // It timed out in its last epoch but one. The last is given to nobody.
                transaction.rotate(fresh_producer_id);
                self.note(id, None, effects);
                return Ok((fresh_producer_id, 0));
            }
            return Ok((transaction.producer_id, transaction.producer_epoch));
        }
        let before_ms = transaction.times_out_ms();
        if bumps_epoch && Transaction::is_epoch_exhausted(transaction.producer_epoch) {
            transaction.next_producer_id = fresh_producer_id;
        }
        transaction.prepare(now_ms, request.committed, bumps_epoch);
        let producer = match transaction.next_producer_id {
            NO_PRODUCER_ID => (transaction.producer_id, transaction.producer_epoch),
            next => (next, 0),
        };
        effects.tasks.extend(transaction.task(id, self.coordinator_epoch));
        self.note(id, before_ms, effects);
        Ok(producer)
    }

    /// Aborts a transaction whose producer is not to go on with it: the epoch that grows with the end
    /// fences it.
    pub(super) fn fence(&mut self, now_ms: i64, id: &Str, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        if transaction.state != TransactionState::Ongoing {
            return;
        }
        let before_ms = transaction.times_out_ms();
        transaction.prepare(now_ms, false, true);
        effects.tasks.extend(transaction.task(id, self.coordinator_epoch));
        self.note(id, before_ms, effects);
    }

    /// Whether a task is still to be done. It is not once it was done, also by the task that a later load
    /// gave for the same decision; the producer may have its next transaction open by then.
    #[must_use]
    pub fn is_to_be_ended(&self, task: &EndTransaction) -> bool {
        let id = &task.transactional_id;
        let transaction = self.transactions.get(id);
        transaction
            .and_then(|transaction| transaction.task(id, self.coordinator_epoch))
            .as_ref()
            == Some(task)
    }

    /// Every partition of a transaction knows how it ended.
    pub fn ended(&mut self, now_ms: i64, task: &EndTransaction) -> Effects {
        let mut effects = Effects::default();
        let id = &task.transactional_id;
        if !self.is_to_be_ended(task) {
            return effects;
        }
        let Some(transaction) = self.transactions.get_mut(id) else {
            return effects;
        };
        transaction.complete(now_ms);
        self.note(id, None, &mut effects);
        effects
    }
}

impl Transaction {
    /// For clients that keep their epoch.
    fn decide(&self, request: &EndTxnRequest) -> Result<Decision, ErrorCode> {
        if self.producer_id != request.producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if self.producer_epoch != request.producer_epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        match (self.state, request.committed) {
            (TransactionState::Ongoing, _) => Ok(Decision::End),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
                Ok(Decision::Again)
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// With KIP-890 the epoch tells a request that is sent again from one for the next transaction: the
    /// decision has bumped it.
    fn decide_with_epoch_bump(&self, request: &EndTxnRequest) -> Result<Decision, ErrorCode> {
        let (id, epoch) = (request.producer_id, request.producer_epoch);
        // A transaction of a client that keeps its epoch says nothing of the one before.
        let has_rotated = self.bumps_epoch()
            && self.previous_producer_id == id
            && epoch == i16::MAX - 1
            && self.producer_epoch == 0;
        let is_again = has_rotated
            || self.bumps_epoch()
                && self.producer_id == id
                && self.producer_epoch.checked_sub(1) == Some(epoch);
        if self.producer_id != id && !has_rotated {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let is_current = self.producer_epoch == epoch;
        let is_valid = match self.state {
            TransactionState::Ongoing | TransactionState::Empty => is_current,
            // With the current epoch it is for the next transaction, which has to wait.
            TransactionState::PrepareCommit | TransactionState::PrepareAbort if is_current => {
                return Err(ErrorCode::ConcurrentTransactions);
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => is_again,
            TransactionState::CompleteCommit | TransactionState::CompleteAbort => is_again || is_current,
        };
        if !is_valid {
            return Err(ErrorCode::ProducerFenced);
        }
        match (self.state, request.committed) {
            (TransactionState::Ongoing, _) => Ok(Decision::End),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
                if is_again =>
            {
                Ok(Decision::Again)
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            // An abort of a transaction that has no partition: the producer only wants its epoch.
            (
                TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort,
                false,
            ) if !is_again => Ok(Decision::End),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    fn prepare(&mut self, now_ms: i64, commit: bool, bumps_epoch: bool) {
        if self.state != TransactionState::Ongoing {
            self.started_ms = now_ms;
        }
        self.state = if commit {
            TransactionState::PrepareCommit
        } else {
            TransactionState::PrepareAbort
        };
        self.client_version = if bumps_epoch {
            EPOCH_BUMP_VERSION
        } else {
            CLASSIC_VERSION
        };
        if bumps_epoch {
            self.last_producer_epoch = self.producer_epoch;
            self.producer_epoch = self.producer_epoch.saturating_add(1);
        }
        self.updated_ms = now_ms;
    }

    fn complete(&mut self, now_ms: i64) {
        self.state = match self.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        self.partitions.clear();
        if self.next_producer_id != NO_PRODUCER_ID {
            let next = std::mem::replace(&mut self.next_producer_id, NO_PRODUCER_ID);
            self.rotate(next);
        }
        self.updated_ms = now_ms;
    }
}
