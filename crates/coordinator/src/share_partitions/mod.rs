//! Share partitions as a pure state machine (KIP-932): which records of a topic's partition a share group was given,
//! which of them are done, and where it goes on.
//!
//! [`SharePartitions`] holds one shard of share partitions. As [`crate::Groups`] it does no I/O and reads no clock.
//!
//! Left to others: who is a member of the group, reading records, sessions of fetches.

mod batches;
mod state_apis;
mod stored;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use milena_protocol::Uuid;

use crate::Effects;
use crate::facts::{self, Key, LoadError};

pub use batches::{RecordState, StateBatch};
pub use stored::SharePartitionKey;

use stored::StoredState;

/// One shard of share partitions, with its timers.
#[derive(Default)]
pub struct SharePartitions {
    partitions: BTreeMap<SharePartitionKey, SharePartition>,
}

/// What is known of one share partition.
#[derive(Debug)]
struct SharePartition {
    stored: StoredState,
}

impl SharePartition {
    fn stored(stored: StoredState) -> Self {
        Self { stored }
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
        self.partitions.clear();
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
        self.partitions.clear();
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

    /// What is in flight of a share partition counts no more.
    fn let_go(&mut self, _key: &SharePartitionKey) {}
}
