//! One transactional id: its producer, and the transaction that this has open, or had last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use milena_protocol::Str;
use milena_protocol::stored::TransactionLogValue;
use milena_protocol::stored::transaction_log_value::PartitionsSchema;

use super::EPOCH_BUMP_VERSION;
use crate::effects::EndTransaction;
use crate::facts::{self, LoadError};

pub(super) const NO_PRODUCER_ID: i64 = -1;
pub(super) const NO_EPOCH: i16 = -1;
const NO_TIME: i64 = -1;

/// Kafka's states, with their numbers in stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionState {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl TransactionState {
    const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether Kafka knows a state of this name, also one that is only on the way in memory there.
    pub(super) fn is_name(name: &str) -> bool {
        matches!(name, "Dead" | "PrepareEpochFence") || Self::ALL.iter().any(|state| state.name() == name)
    }

    fn of(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == number)
    }

    /// No transaction is open or being ended.
    pub(super) fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }

    pub(super) fn is_ending(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) producer_id: i64,
    /// That which had no epochs left, -1 where there was none.
    pub(super) previous_producer_id: i64,
    /// That which takes over when the transaction is ended, as this one has no epochs left.
    pub(super) next_producer_id: i64,
    /// -1: nobody has initialised yet.
    pub(super) producer_epoch: i16,
    /// The one before, by which a request that is sent again is known. Not stored, as in Kafka.
    pub(super) last_producer_epoch: i16,
    pub(super) timeout_ms: i32,
    pub(super) state: TransactionState,
    pub(super) partitions: BTreeSet<(Str, i32)>,
    pub(super) started_ms: i64,
    pub(super) updated_ms: i64,
    /// The `transaction.version` that the client last used.
    pub(super) client_version: i16,
}

impl Transaction {
    pub(super) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_EPOCH,
            last_producer_epoch: NO_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            started_ms: NO_TIME,
            updated_ms: now_ms,
            client_version: super::CLASSIC_VERSION,
        }
    }

    /// The last epoch is kept for fencing: no client may write with it.
    pub(super) fn is_epoch_exhausted(epoch: i16) -> bool {
        epoch >= i16::MAX - 1
    }

    /// Goes on with another producer id, as this one's epochs are used up.
    pub(super) fn rotate(&mut self, producer_id: i64) {
        self.previous_producer_id = std::mem::replace(&mut self.producer_id, producer_id);
        self.producer_epoch = 0;
    }

    pub(super) fn bumps_epoch(&self) -> bool {
        self.client_version >= EPOCH_BUMP_VERSION
    }

    pub(super) fn times_out_ms(&self) -> Option<i64> {
        (self.state == TransactionState::Ongoing)
            .then(|| self.started_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// What is left to be done, when the end is decided.
    pub(super) fn task(&self, transactional_id: &Str, coordinator_epoch: i32) -> Option<EndTransaction> {
        self.state.is_ending().then(|| EndTransaction {
            transactional_id: transactional_id.clone(),
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            commit: self.state == TransactionState::PrepareCommit,
            coordinator_epoch,
            transaction_version: self.client_version,
            partitions: self.partitions.iter().cloned().collect(),
        })
    }

    /// No transaction is open any more, or has been.
    pub(super) fn empty(&mut self, now_ms: i64) {
        self.state = TransactionState::Empty;
        self.partitions.clear();
        self.started_ms = NO_TIME;
        self.updated_ms = now_ms;
    }

    pub(super) fn load(key: &Bytes, value: &Bytes) -> Result<Self, LoadError> {
        let stored: TransactionLogValue = facts::decode(key, value)?;
        let state = TransactionState::of(stored.transaction_status).ok_or_else(|| LoadError::BadValue {
            key: key.clone(),
            reason: format!("transaction status {} is unknown", stored.transaction_status),
        })?;
        let partitions = stored.transaction_partitions.unwrap_or_default();
        Ok(Self {
            producer_id: stored.producer_id,
            previous_producer_id: stored.previous_producer_id,
            next_producer_id: stored.next_producer_id,
            producer_epoch: stored.producer_epoch,
            last_producer_epoch: NO_EPOCH,
            timeout_ms: stored.transaction_timeout_ms,
            state,
            partitions: partitions
                .into_iter()
                .flat_map(|topic| {
                    let name = topic.topic.detached();
                    topic
                        .partition_ids
                        .into_iter()
                        .map(move |partition| (name.clone(), partition))
                })
                .collect(),
            started_ms: stored.transaction_start_timestamp_ms,
            updated_ms: stored.transaction_last_update_timestamp_ms,
            client_version: stored.client_transaction_version,
        })
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut topics: BTreeMap<Str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.partitions {
            topics.entry(topic.clone()).or_default().push(*partition);
        }
        facts::encode_transaction(&TransactionLogValue {
            producer_id: self.producer_id,
            previous_producer_id: self.previous_producer_id,
            next_producer_id: self.next_producer_id,
            producer_epoch: self.producer_epoch,
            transaction_timeout_ms: self.timeout_ms,
            transaction_status: self.state as i8,
            // Kafka writes null for a transaction that has never been anything but empty.
            transaction_partitions: (self.state != TransactionState::Empty).then(|| {
                topics
                    .into_iter()
                    .map(|(topic, partition_ids)| PartitionsSchema {
                        topic,
                        partition_ids,
                        ..PartitionsSchema::default()
                    })
                    .collect()
            }),
            transaction_last_update_timestamp_ms: self.updated_ms,
            transaction_start_timestamp_ms: self.started_ms,
            client_transaction_version: self.client_version,
            ..TransactionLogValue::default()
        })
    }

    pub(super) fn check_invariants(&self, id: &Str) {
        assert!(self.producer_id >= 0, "{id}: a producer id was given");
        if self.state.is_idle() {
            assert!(
                self.partitions.is_empty(),
                "{id}: {:?} has no partitions",
                self.state
            );
            assert_eq!(self.next_producer_id, NO_PRODUCER_ID, "{id}");
        }
        assert!(
            self.state == TransactionState::Empty || self.producer_epoch >= 0,
            "{id}: only who has initialised has transactions"
        );
        assert!(
            self.last_producer_epoch <= self.producer_epoch || self.producer_epoch == 0,
            "{id}"
        );
    }
}
