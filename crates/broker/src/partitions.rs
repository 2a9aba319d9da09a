//! One partition as the broker sees it: its log, its leader epoch, and whoever waits for its
//! watermarks to move.
//!
//! Promises: a [`Wait`] that was armed with what its reader had *seen* is woken by every movement
//! after that, also by one that happened between the read and the arming (arming compares with the
//! log as it stands). A wait is told once per arming, and told *which* of its partitions moved, so
//! a fetch of a thousand partitions looks again only at those.
//!
//! Waits are as many as there are requests in flight, which connections and their limits bound.
//! Left to others: what to do with a wake-up (fetch, produce), and where bytes are (the log).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use milena_log::{
    EpochEndOffset, LogConfig, LogError, LogStore, PartitionId, PartitionLog, ReadBound, WatermarkObserver,
    Watermarks,
};
use milena_protocol::ErrorCode;
use tokio::sync::Notify;

mod offline;

use offline::OfflineLog;

/// A partition that this broker leads. It leads all of them.
pub(crate) struct Partition {
    id: PartitionId,
    log: Arc<dyn PartitionLog>,
    leader_epoch: i32,
    config: RwLock<Arc<LogConfig>>,
    deleted: AtomicBool,
    waiters: Arc<Waiters>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({}, leader epoch {})", self.id, self.leader_epoch)
    }
}

impl Partition {
    /// Opens (or creates) the partition's log.
    pub(crate) async fn open(
        logs: &Arc<dyn LogStore>,
        id: PartitionId,
        config: LogConfig,
        leader_epoch: i32,
    ) -> Result<Arc<Self>, LogError> {
        let waiters = Arc::new(Waiters::default());
        let observer: Arc<dyn WatermarkObserver> = waiters.clone();
        let log = logs.open(id.clone(), config.clone(), observer).await?;
        Ok(Arc::new(Self {
            id,
            log,
            leader_epoch,
            config: RwLock::new(Arc::new(config)),
            deleted: AtomicBool::new(false),
            waiters,
        }))
    }

    /// A partition whose log could not be opened: whatever is asked of it is answered with the reason.
    pub(crate) fn offline(id: PartitionId, config: LogConfig, leader_epoch: i32, why: LogError) -> Arc<Self> {
        Arc::new(Self {
            id,
            log: Arc::new(OfflineLog(why)),
            leader_epoch,
            config: RwLock::new(Arc::new(config)),
            deleted: AtomicBool::new(false),
            waiters: Arc::default(),
        })
    }

    pub(crate) fn id(&self) -> &PartitionId {
        &self.id
    }

    pub(crate) fn index(&self) -> i32 {
        self.id.partition
    }

    pub(crate) fn log(&self) -> &Arc<dyn PartitionLog> {
        &self.log
    }

    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    pub(crate) fn config(&self) -> Arc<LogConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes effect for everything that is appended from now on.
    pub(crate) fn update_config(&self, config: LogConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
        self.log.update_config(config);
    }

    /// The topic is gone: whoever waits here is woken and finds out.
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::SeqCst);
        self.waiters.wake_all();
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::SeqCst)
    }

    /// Why nobody can wait here any more, if so.
    pub(crate) fn check(&self) -> Result<(), ErrorCode> {
        if self.is_deleted() {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        self.log.check().map_err(|error| error.code())
    }

    /// Waits until the record at `offset` is as durable as `acks=all` promises.
    pub(crate) async fn reached(self: &Arc<Self>, offset: i64) -> Result<(), ErrorCode> {
        let mut wait = Wait::new();
        loop {
            if self.log.watermarks().high_watermark > offset {
                return Ok(());
            }
            // Failed, too: then the record may be gone.
            self.check()?;
            let seen = Seen {
                bound: ReadBound::HighWatermark,
                reached: offset,
                // Never told for the log start: what retention takes was committed.
                offset: i64::MAX,
            };
            wait.arm(0, self, seen);
            wait.changed().await;
        }
    }

    /// Whether its log directory is offline, so that nobody leads it.
    pub(crate) fn is_offline(&self) -> bool {
        self.check() == Err(ErrorCode::KafkaStorageError)
    }

    /// Compares the leader epoch that a client believes in (-1: none) with this one (KIP-320).
    pub(crate) fn check_leader_epoch(&self, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        match current_leader_epoch.cmp(&self.leader_epoch) {
            _ if current_leader_epoch < 0 => Ok(()),
            std::cmp::Ordering::Less => Err(ErrorCode::FencedLeaderEpoch),
            std::cmp::Ordering::Greater => Err(ErrorCode::UnknownLeaderEpoch),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    /// Where the records of `epoch` end (KIP-101), with the epoch that the answer is about: the
    /// largest that is not larger than the asked one. `None` for an epoch of the future.
    ///
    /// The log knows the epochs in which something was written. Kafka notes each epoch when the
    /// broker becomes leader; the answers are the same.
    pub(crate) fn end_offset_for_epoch(&self, epoch: i32) -> Option<EpochEndOffset> {
        let watermarks = self.log.watermarks();
        if epoch < 0 || epoch > self.leader_epoch {
            return None;
        }
        if epoch == self.leader_epoch {
            return Some(EpochEndOffset {
                leader_epoch: epoch,
                end_offset: watermarks.log_end,
            });
        }
        if let Some(known) = self.log.end_offset_for_epoch(epoch) {
            return Some(known);
        }
        // Either newer than everything written, or older than everything that is left.
        let newest = self.log.epoch_for_offset(watermarks.log_end.saturating_sub(1));
        match newest {
            Some(newest) if newest > epoch => Some(EpochEndOffset {
                leader_epoch: epoch,
                end_offset: watermarks.log_start,
            }),
            _ => Some(EpochEndOffset {
                leader_epoch: epoch,
                end_offset: watermarks.log_end,
            }),
        }
    }
}

/// The wake-up of one waiting request.
#[derive(Debug)]
struct Waker {
    notify: Notify,
    changed: Mutex<Vec<usize>>,
}

impl Waker {
    fn tell(&self, slot: usize) {
        lock(&self.changed).push(slot);
        self.notify.notify_one();
    }
}

/// A request's wait on one partition.
struct Entry {
    waker: Arc<Waker>,
    slot: usize,
    bound: ReadBound,
    /// Told when the bound passes this; `i64::MAX` after it was told, until it is armed again.
    beyond: i64,
    /// Told when the log start passes this: the reader's offset is gone.
    offset: i64,
}

impl Entry {
    fn concerns(&self, watermarks: &Watermarks) -> bool {
        let reached = match self.bound {
            ReadBound::HighWatermark => watermarks.high_watermark,
            ReadBound::LastStable => watermarks.last_stable,
        };
        self.beyond != i64::MAX && (reached > self.beyond || watermarks.log_start > self.offset)
    }

    /// What to tell, to be told when the lock is no longer held: whoever is woken takes it at once.
    #[must_use]
    fn disarm(&mut self) -> (Arc<Waker>, usize) {
        self.beyond = i64::MAX;
        (Arc::clone(&self.waker), self.slot)
    }
}

/// Everybody who waits on one partition.
#[derive(Default)]
struct Waiters {
    /// Spares an append without readers the lock.
    count: AtomicUsize,
    entries: Mutex<HashMap<u64, Entry>>,
}

impl Waiters {
    fn wake(&self, which: impl Fn(&Entry) -> bool) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let told: Vec<(Arc<Waker>, usize)> = lock(&self.entries)
            .values_mut()
            .filter(|entry| which(entry))
            .map(Entry::disarm)
            .collect();
        for (waker, slot) in told {
            waker.tell(slot);
        }
    }

    fn wake_all(&self) {
        self.wake(|_| true);
    }
}

impl WatermarkObserver for Waiters {
    fn advanced(&self, watermarks: Watermarks) {
        self.wake(|entry| entry.concerns(&watermarks));
    }

    fn failed(&self) {
        self.wake_all();
    }
}

/// What a wait on one partition is armed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) bound: ReadBound,
    /// The bound's offset as the reader saw it; a wake-up comes when it has moved further.
    pub(crate) reached: i64,
    /// The offset the reader is at.
    pub(crate) offset: i64,
}

/// One request's wait on any number of partitions. Dropping it ends the wait everywhere.
pub(crate) struct Wait {
    waker: Arc<Waker>,
    /// `(partition, the wait's key there)` by slot.
    slots: Vec<Option<(Arc<Partition>, u64)>>,
}

static NEXT_WAIT: AtomicU64 = AtomicU64::new(0);

impl Wait {
    pub(crate) fn new() -> Self {
        Self {
            waker: Arc::new(Waker {
                notify: Notify::new(),
                changed: Mutex::new(Vec::new()),
            }),
            slots: Vec::new(),
        }
    }

    /// Waits at `partition` under the number `slot`, or waits there again after it was told.
    pub(crate) fn arm(&mut self, slot: usize, partition: &Arc<Partition>, seen: Seen) {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        let key = match self.slots.get(slot) {
            Some(Some((_, key))) => *key,
            _ => NEXT_WAIT.fetch_add(1, Ordering::Relaxed),
        };
        let waiters = &partition.waiters;
        let mut entries = lock(&waiters.entries);
        let entry = Entry {
            waker: self.waker.clone(),
            slot,
            bound: seen.bound,
            beyond: seen.reached,
            offset: seen.offset,
        };
        if entries.insert(key, entry).is_none() {
            waiters.count.fetch_add(1, Ordering::SeqCst);
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some((partition.clone(), key));
            }
        }
        // What moved since the reader looked was told to nobody: look now, after registering.
        let watermarks = partition.log.watermarks();
        if let Some(entry) = entries.get_mut(&key)
            && (partition.check().is_err() || entry.concerns(&watermarks))
        {
            let (waker, slot) = entry.disarm();
            drop(entries);
            waker.tell(slot);
        }
    }

    /// Resolves when an armed partition moved; no movement since the last call is lost.
    pub(crate) async fn changed(&self) -> Vec<usize> {
        loop {
            let notified = self.waker.notify.notified();
            let changed = std::mem::take(&mut *lock(&self.waker.changed));
            if !changed.is_empty() {
                return changed;
            }
            notified.await;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        for (partition, key) in self.slots.drain(..).flatten() {
            if lock(&partition.waiters.entries).remove(&key).is_some() {
                partition.waiters.count.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
