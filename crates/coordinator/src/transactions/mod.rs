//! Transactions as a pure state machine (KIP-98, KIP-360, KIP-890): who may write under a
//! transactional id, which partitions a transaction has, and how it ends.
//!
//! [`Transactions`] holds one shard of transactional ids. As [`crate::Groups`] it does no I/O and reads
//! no clock; besides facts and replies its [`Effects`] carry tasks: transactions whose end is decided,
//! to be ended in their partitions once the decision is stored. Whoever does it calls
//! [`Transactions::ended`]; until then the producer's next transaction waits
//! (CONCURRENT_TRANSACTIONS). After a load, what is decided and not ended is given as tasks again.
//!
//! What it promises
//! - a producer that was fenced (by a newer one of its id, by its transaction's timeout) decides
//!   nothing any more: every request carries the producer's id and epoch, and stale ones are refused;
//! - with `transaction.version` 2 each transaction has an epoch of its own, so that a request of one that
//!   comes late cannot touch the next (KIP-890);
//! - a transaction that is open for longer than its timeout is aborted;
//! - what was decided once is never decided otherwise.
//!
//! Left to others: new producer ids, the existence of topics, markers and offsets.

mod end;
mod init;
mod list;
mod partitions;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use milena_protocol::{ErrorCode, Str};

use crate::Effects;
use crate::facts::{self, Key, LoadError};
use crate::limits::MAX_NAME_BYTES;

pub use list::{TransactionFilter, whole_match};
pub use partitions::AddPartitions;
pub use transaction::TransactionState;

use transaction::Transaction;

/// The `transaction.version` of clients that do not bump their epoch with each transaction.
const CLASSIC_VERSION: i16 = 0;
/// KIP-890's, and this coordinator's own.
const EPOCH_BUMP_VERSION: i16 = 2;

/// The broker's settings that transactions follow. Defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiration_check_interval_ms: i64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            max_timeout_ms: 900_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1000,
            expiration_check_interval_ms: 3_600_000,
        }
    }
}

/// One shard of transactional ids, with its timers.
pub struct Transactions {
    config: TransactionConfig,
    /// Of the shard's lease: markers carry it, so that those of a former holder are refused.
    coordinator_epoch: i32,
    transactions: BTreeMap<Str, Transaction>,
    /// When open transactions time out.
    timeouts: BTreeSet<(i64, Str)>,
    /// When to look for ids that nobody uses.
    next_expiration_ms: i64,
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions")
            .field("transactional_ids", &self.transactions.len())
            .field("open", &self.timeouts.len())
            .finish_non_exhaustive()
    }
}

impl Transactions {
    /// An empty shard.
    #[must_use]
    pub fn new(config: TransactionConfig) -> Self {
        Self {
            config,
            coordinator_epoch: 0,
            transactions: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            next_expiration_ms: i64::MAX,
        }
    }

    /// Takes the place of whatever the shard held with what is stored; gives as tasks what was decided
    /// and not ended. Must be called once before anything else, also when nothing is stored yet.
    ///
    /// # Errors
    /// Facts that this version does not understand.
    pub fn load(
        &mut self,
        now_ms: i64,
        coordinator_epoch: i32,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Effects, LoadError> {
        self.transactions.clear();
        self.timeouts.clear();
        self.coordinator_epoch = coordinator_epoch;
        self.next_expiration_ms = now_ms.saturating_add(self.config.expiration_check_interval_ms.max(1));
        let mut effects = Effects::default();
        for (key, value) in rows {
            let Key::Transaction { transactional_id } = facts::parse_key(&key)? else {
                return Err(LoadError::UnknownKey(key));
            };
            let transaction = Transaction::load(&key, &value)?;
            if let Some(at_ms) = transaction.times_out_ms() {
                self.timeouts.insert((at_ms, transactional_id.clone()));
            }
            effects
                .tasks
                .extend(transaction.task(&transactional_id, coordinator_epoch));
            self.transactions.insert(transactional_id, transaction);
        }
        Ok(effects)
    }

    /// Forgets everything; nobody waits for a reply here.
    pub fn unload(&mut self) -> Effects {
        self.transactions.clear();
        self.timeouts.clear();
        self.next_expiration_ms = i64::MAX;
        Effects::default()
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let timeout_ms = self.timeouts.first().map(|(at_ms, _)| *at_ms);
        let expiration_ms = (!self.transactions.is_empty()).then_some(self.next_expiration_ms);
        timeout_ms.into_iter().chain(expiration_ms).min()
    }

    /// Aborts what is open for too long, and forgets ids that nobody used for long.
    pub fn tick(&mut self, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        while let Some((at_ms, id)) = self.timeouts.first().cloned()
            && at_ms <= now_ms
        {
            self.timeouts.pop_first();
            self.fence(now_ms, &id, &mut effects);
        }
        if now_ms >= self.next_expiration_ms {
            self.next_expiration_ms = now_ms.saturating_add(self.config.expiration_check_interval_ms.max(1));
            let unused_since_ms = now_ms.saturating_sub(self.config.id_expiration_ms);
            self.transactions.retain(|id, transaction| {
                let stays = !transaction.state.is_idle() || transaction.updated_ms > unused_since_ms;
                if !stays {
                    effects.remove(facts::transaction_key(id));
                }
                stays
            });
        }
        effects
    }

    /// Whether an id is one that can be kept.
    fn check_id(transactional_id: &str) -> Result<(), ErrorCode> {
        if transactional_id.is_empty() || transactional_id.len() > MAX_NAME_BYTES {
            Err(ErrorCode::InvalidRequest)
        } else {
            Ok(())
        }
    }

    /// The transaction of a producer, if it is who it says.
    fn of_producer(
        &mut self,
        transactional_id: &Str,
        producer_id: i64,
        producer_epoch: i16,
    ) -> Result<&mut Transaction, ErrorCode> {
        Self::check_id(transactional_id)?;
        let transaction = self
            .transactions
            .get_mut(transactional_id)
            .ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if transaction.producer_id != producer_id {
            Err(ErrorCode::InvalidProducerIdMapping)
        } else if transaction.producer_epoch != producer_epoch {
            Err(ErrorCode::ProducerFenced)
        } else {
            Ok(transaction)
        }
    }

    /// Stores a transaction as it is now, and keeps its timeout.
    fn note(&mut self, transactional_id: &Str, before_ms: Option<i64>, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get(transactional_id) else {
            return;
        };
        effects.put(facts::transaction_key(transactional_id), transaction.encode());
        let after_ms = transaction.times_out_ms();
        if before_ms != after_ms {
            if let Some(at_ms) = before_ms {
                self.timeouts.remove(&(at_ms, transactional_id.clone()));
            }
            if let Some(at_ms) = after_ms {
                self.timeouts.insert((at_ms, transactional_id.clone()));
            }
        }
    }

    /// Panics if something that must hold between steps does not. For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let open: BTreeSet<(i64, Str)> = self
            .transactions
            .iter()
            .filter_map(|(id, transaction)| Some((transaction.times_out_ms()?, id.clone())))
            .collect();
        assert_eq!(self.timeouts, open, "every open transaction has its timeout");
        for (id, transaction) in &self.transactions {
            transaction.check_invariants(id);
        }
    }
}
