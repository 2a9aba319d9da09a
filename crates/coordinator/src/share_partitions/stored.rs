//! What is stored of one share partition: Kafka's ShareSnapshotValue, under the key
//! `share-state/<group>/<topic id>/<partition>`.

use bytes::Bytes;
use milena_protocol::stored::ShareSnapshotValue;
use milena_protocol::{Str, Uuid};

use super::batches::{StateBatch, combine};
use crate::facts::{self, LoadError};

/// The only version of ShareSnapshotValue.
const VERSION: i16 = 0;

/// In the place of an offset: where to start is not decided yet.
pub(crate) const NO_START_OFFSET: i64 = -1;
/// In the place of a count: nothing can be told yet.
pub(crate) const NO_DELIVERY_COMPLETE_COUNT: i32 = -1;
/// In the place of an epoch: the request does not say.
pub(crate) const NO_EPOCH: i32 = -1;

/// Names a share partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SharePartitionKey {
    pub group: Str,
    pub topic_id: Uuid,
    pub partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredState {
    /// Grows with every initialization.
    pub(crate) snapshot_epoch: i32,
    pub(crate) state_epoch: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) start_offset: i64,
    /// Records at and behind the start offset that nobody is given any more.
    pub(crate) delivery_complete_count: i32,
    pub(crate) created_ms: i64,
    pub(crate) written_ms: i64,
    pub(crate) batches: Vec<StateBatch>,
    /// The highest leader epoch that was seen: requests of lower ones are fenced.
    pub(crate) highest_leader_epoch: i32,
}

impl StoredState {
    /// As initialized, in the place of what was there before.
    pub(crate) fn initialized(
        before: Option<&Self>,
        now_ms: i64,
        state_epoch: i32,
        start_offset: i64,
    ) -> Self {
        let delivery_complete_count = match start_offset {
            NO_START_OFFSET => NO_DELIVERY_COMPLETE_COUNT,
            _ => 0,
        };
        Self {
            snapshot_epoch: before.map_or(0, |state| state.snapshot_epoch.saturating_add(1)),
            state_epoch,
            leader_epoch: 0,
            start_offset,
            delivery_complete_count,
            created_ms: now_ms,
            written_ms: now_ms,
            batches: Vec::new(),
            highest_leader_epoch: before.map_or(0, |state| state.highest_leader_epoch),
        }
    }

    /// With what is written of some of its offsets. `None` if that is more than is kept.
    pub(crate) fn written(
        &self,
        now_ms: i64,
        start_offset: i64,
        delivery_complete_count: i32,
        batches: &[StateBatch],
        max_batches: usize,
    ) -> Option<Self> {
        let new = combine(&[], batches, start_offset);
        let start_offset = match start_offset {
            NO_START_OFFSET => self.start_offset,
            given => given,
        };
        let batches = combine(&self.batches, &new, start_offset);
        (batches.len() <= max_batches).then(|| Self {
            start_offset,
            delivery_complete_count,
            written_ms: now_ms,
            batches,
            ..self.clone()
        })
    }

    pub(crate) fn with_leader_epoch(&self, now_ms: i64, leader_epoch: i32) -> Self {
        Self {
            leader_epoch,
            highest_leader_epoch: self.highest_leader_epoch.max(leader_epoch),
            written_ms: now_ms,
            ..self.clone()
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let value = ShareSnapshotValue {
            snapshot_epoch: self.snapshot_epoch,
            state_epoch: self.state_epoch,
            leader_epoch: self.leader_epoch,
            start_offset: self.start_offset,
            delivery_complete_count: self.delivery_complete_count,
            create_timestamp: self.created_ms,
            write_timestamp: self.written_ms,
            state_batches: self.batches.iter().map(|batch| batch.to_stored()).collect(),
            ..ShareSnapshotValue::default()
        };
        facts::encode(&value, VERSION)
    }

    pub(crate) fn load(key: &Bytes, value: &Bytes) -> Result<Self, LoadError> {
        let value: ShareSnapshotValue = facts::decode(key, value)?;
        Ok(Self {
            snapshot_epoch: value.snapshot_epoch,
            state_epoch: value.state_epoch,
            leader_epoch: value.leader_epoch,
            start_offset: value.start_offset,
            delivery_complete_count: value.delivery_complete_count,
            created_ms: value.create_timestamp,
            written_ms: value.write_timestamp,
            batches: value.state_batches.iter().map(StateBatch::of_stored).collect(),
            highest_leader_epoch: value.leader_epoch,
        })
    }
}
