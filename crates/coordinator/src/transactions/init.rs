//! InitProducerId with a transactional id (KIP-98, KIP-360): a new producer takes the id over, or one
//! that met an error goes on with a new epoch.

use milena_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use milena_protocol::{ErrorCode, Str};

use super::Transactions;
use super::transaction::{NO_EPOCH, NO_PRODUCER_ID, Transaction, TransactionState};
use crate::limits::MAX_TRANSACTIONAL_IDS_PER_SHARD;
use crate::{Effects, Reply, Ticket};

type Producer = (i64, i16);

impl Transactions {
    /// `fresh_producer_id` is one that nobody had; it is used where the id is new, or its producer has
    /// no epochs left.
    pub fn init_producer_id(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        request: &InitProducerIdRequest,
        fresh_producer_id: i64,
    ) -> Effects {
        let mut effects = Effects::default();
        let id = request.transactional_id.clone().unwrap_or_default();
        let given = self.init(now_ms, &id, request, fresh_producer_id, &mut effects);
        let response = match given {
            Ok((producer_id, producer_epoch)) => InitProducerIdResponse {
                producer_id,
                producer_epoch,
                ..InitProducerIdResponse::default()
            },
            Err(error) => InitProducerIdResponse {
                error_code: error.code(),
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_EPOCH,
                ..InitProducerIdResponse::default()
            },
        };
        effects.reply(ticket, Reply::InitProducerId(response));
        effects
    }

    fn init(
        &mut self,
        now_ms: i64,
        id: &Str,
        request: &InitProducerIdRequest,
        fresh_producer_id: i64,
        effects: &mut Effects,
    ) -> Result<Producer, ErrorCode> {
        Self::check_id(id)?;
        let timeout_ms = request.transaction_timeout_ms;
        if !(1..=self.config.max_timeout_ms).contains(&timeout_ms) {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        if !self.transactions.contains_key(id) {
            if self.transactions.len() >= MAX_TRANSACTIONAL_IDS_PER_SHARD {
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
            let created = Transaction::new(fresh_producer_id, timeout_ms, now_ms);
            self.transactions.insert(id.detached(), created);
        }
        let Some(transaction) = self.transactions.get_mut(id) else {
            return Err(ErrorCode::UnknownServerError);
        };
        let expected =
            (request.producer_id != NO_PRODUCER_ID).then_some((request.producer_id, request.producer_epoch));
        if !expected.is_none_or(|expected| transaction.may_be(expected)) {
            return Err(ErrorCode::ProducerFenced);
        }
        match transaction.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            TransactionState::Ongoing => {
                // Whoever has it open is fenced. The new one asks again, and gets an epoch above.
                self.fence(now_ms, id, effects);
                Err(ErrorCode::ConcurrentTransactions)
            }
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                let expected_epoch = expected.map(|(_, epoch)| epoch);
                transaction.take_over(expected_epoch, fresh_producer_id)?;
                transaction.timeout_ms = timeout_ms;
                transaction.empty(now_ms);
                let producer = (transaction.producer_id, transaction.producer_epoch);
                self.note(id, None, effects);
                Ok(producer)
            }
        }
    }
}

impl Transaction {
    /// Whether a producer that says to have had this id and epoch can be this id's: the epoch is looked
    /// at later.
    fn may_be(&self, (producer_id, producer_epoch): Producer) -> bool {
        // Just created: its producer's id was forgotten.
        self.producer_epoch == NO_EPOCH
            || self.producer_id == producer_id
            // It had the last epoch of the former id, and did not hear of the new one.
            || (self.previous_producer_id == producer_id && Self::is_epoch_exhausted(producer_epoch))
    }

    /// Gives a new epoch, or a new id where epochs are used up.
    fn take_over(&mut self, expected_epoch: Option<i16>, fresh_producer_id: i64) -> Result<(), ErrorCode> {
        let current = self.producer_epoch;
        let goes_on = expected_epoch.is_none_or(|expected| {
            // The very last epoch fenced it: that is given to nobody.
            expected == current || (current == i16::MAX && expected == self.last_producer_epoch)
        });
        if Self::is_epoch_exhausted(current) && goes_on {
            self.rotate(fresh_producer_id);
            self.last_producer_epoch = expected_epoch.unwrap_or(NO_EPOCH);
            return Ok(());
        }
        match expected_epoch {
            None => self.last_producer_epoch = NO_EPOCH,
            Some(expected) if expected == current || current == NO_EPOCH => {
                self.last_producer_epoch = current;
            }
            // The same request again, whose answer was lost: nobody else has initialised since.
            Some(expected) if expected == self.last_producer_epoch => return Ok(()),
            Some(_) => return Err(ErrorCode::ProducerFenced),
        }
        self.producer_epoch = current + 1;
        Ok(())
    }
}
