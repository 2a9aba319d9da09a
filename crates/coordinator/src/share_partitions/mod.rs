//! Share partitions as a pure state machine (KIP-932): which records of a topic's partition a share group was given,
//! which of them are done, and where it goes on.
//!
//! [`SharePartitions`] holds one shard of share partitions. As [`crate::Groups`] it does no I/O and reads no clock.
//!
//! What it promises
//! - a record is acquired by one member at a time, until it is acknowledged, given back, or its lock has ended;
//! - an acknowledgement that was answered is stored: what was accepted or rejected is not delivered again;
//! - a record is delivered as often as `share.delivery.count.limit` says, and no more often;
//! - the start offset does not go back, unless a client of the state APIs moves it;
//! - after a load, what was acquired is available again, with the delivery count that was stored.
//!
//! Left to others: who is a member of the group, reading records, sessions of fetches.

mod acknowledge;
mod acquire;
mod batches;
mod in_flight;
mod live;
mod state_apis;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use milena_protocol::Uuid;

use crate::Effects;
use crate::facts::{self, Key, LoadError};

pub use acknowledge::{AcknowledgementBatch, Refusal};
pub use acquire::{Acquire, AcquiredRecords, LogBatch};
pub use batches::{RecordState, StateBatch};
pub use live::{FetchStart, LogView, SharePartitionConfig};
pub use stored::SharePartitionKey;

use live::Live;
use stored::StoredState;

/// One shard of share partitions, with its timers.
#[derive(Default)]
pub struct SharePartitions {
    partitions: BTreeMap<SharePartitionKey, SharePartition>,
    /// When locks of share partitions end.
    locks: BTreeSet<(i64, SharePartitionKey)>,
    /// Of which there may be more to fetch.
    woken: BTreeSet<SharePartitionKey>,
}

/// What is known of one share partition.
#[derive(Debug)]
struct SharePartition {
    stored: StoredState,
    /// What is in flight; nobody has fetched since the start if there is none.
    live: Option<Live>,
}

impl SharePartition {
    fn stored(stored: StoredState) -> Self {
        Self { stored, live: None }
    }
}

impl fmt::Debug for SharePartitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharePartitions")
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

impl SharePartitions {
    /// An empty shard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the place of whatever the shard held with what is stored. What was acquired is available again.
    ///
    /// # Errors
    /// Facts that this version does not understand.
    pub fn load(&mut self, rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), LoadError> {
        self.clear();
        for (key, value) in rows {
            let Key::ShareState(partition) = facts::parse_key(&key)? else {
                return Err(LoadError::UnknownKey(key));
            };
            let state = StoredState::load(&key, &value)?;
            self.partitions.insert(partition, SharePartition::stored(state));
        }
        Ok(())
    }

    /// Forgets everything; nobody waits for a reply here.
    pub fn unload(&mut self) -> Effects {
        self.clear();
        Effects::default()
    }

    /// Topics are gone: so is what share groups have of them.
    pub fn topics_deleted(&mut self, ids: &[Uuid]) -> Effects {
        let mut effects = Effects::default();
        let gone: Vec<SharePartitionKey> = self
            .partitions
            .keys()
            .filter(|key| ids.contains(&key.topic_id))
            .cloned()
            .collect();
        for key in gone {
            self.forget(&key, &mut effects);
        }
        effects
    }

    fn clear(&mut self) {
        // Whoever waits for records finds that the shard is loaded anew.
        self.woken
            .extend(std::mem::take(&mut self.partitions).into_keys());
        self.locks.clear();
    }
}
