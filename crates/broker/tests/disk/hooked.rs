//! The disk engine with a hook at every look that the broker takes at a log, so that a test can do
//! something between any two of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use milena_log::{
    ActiveProducer, Append, Appended, BoxFuture, EndTransaction, EpochEndOffset, LogConfig, LogDir, LogError,
    LogStore, PartitionId, PartitionLog, Read, ReadBound, ReadResult, StartVerification, TimestampedOffset,
    VerificationGuard, WatermarkObserver, Watermarks,
};
use milena_log_disk::DiskLogStore;

type Action = Box<dyn FnOnce() + Send>;

/// The looks at one partition's log.
#[derive(Default)]
pub(crate) struct Looks {
    counted: Mutex<(usize, Vec<(usize, Action)>)>,
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looks").finish_non_exhaustive()
    }
}

impl Looks {
    /// Counts from 0 again.
    pub(crate) fn reset(&self) {
        *self.counted.lock().unwrap() = (0, Vec::new());
    }

    pub(crate) fn count(&self) -> usize {
        self.counted.lock().unwrap().0
    }

    /// Does something just before the look of this number is taken.
    pub(crate) fn before(&self, number: usize, action: impl FnOnce() + Send + 'static) {
        self.counted.lock().unwrap().1.push((number, Box::new(action)));
    }

    fn look(&self) {
        let due: Vec<Action> = {
            let mut counted = self.counted.lock().unwrap();
            let number = counted.0;
            counted.0 += 1;
            let planned = std::mem::take(&mut counted.1);
            let (due, later) = planned.into_iter().partition(|(at, _)| *at == number);
            counted.1 = later;
            let due: Vec<(usize, Action)> = due;
            due.into_iter().map(|(_, action)| action).collect()
        };
        due.into_iter().for_each(|action| action());
    }
}

/// A partition's log without hooks, and the looks that the broker takes at it.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) log: Arc<dyn PartitionLog>,
    pub(crate) looks: Arc<Looks>,
}

#[derive(Debug)]
pub(crate) struct HookedStore {
    pub(crate) inner: Arc<DiskLogStore>,
    hooks: Arc<Mutex<HashMap<String, Hook>>>,
}

impl HookedStore {
    pub(crate) fn new(inner: Arc<DiskLogStore>) -> Self {
        Self {
            inner,
            hooks: Arc::default(),
        }
    }

    /// Of a partition by its name, `t-0`, when it is open.
    pub(crate) fn hook(&self, partition: &str) -> Hook {
        self.hooks.lock().unwrap()[partition].clone()
    }
}

#[derive(Debug)]
struct HookedLog(Hook);

impl PartitionLog for HookedLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.0.log.append(append)
    }

    fn start_verification(&self, start: StartVerification) -> Result<Option<VerificationGuard>, LogError> {
        self.0.log.start_verification(start)
    }

    fn end_transaction(&self, end: EndTransaction) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.0.log.end_transaction(end)
    }

    fn read(&self, read: Read) -> BoxFuture<'static, Result<ReadResult, LogError>> {
        self.0.looks.look();
        self.0.log.read(read)
    }

    fn watermarks(&self) -> Watermarks {
        self.0.looks.look();
        self.0.log.watermarks()
    }

    fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        self.0.log.offset_for_timestamp(timestamp_ms, bound)
    }

    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        self.0.log.max_timestamp()
    }

    fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset> {
        self.0.log.end_offset_for_epoch(leader_epoch)
    }

    fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.0.log.epoch_for_offset(offset)
    }

    fn delete_records(&self, before_offset: i64) -> BoxFuture<'static, Result<i64, LogError>> {
        self.0.log.delete_records(before_offset)
    }

    fn producers(&self) -> Vec<ActiveProducer> {
        self.0.log.producers()
    }

    fn size_bytes(&self) -> u64 {
        self.0.looks.look();
        self.0.log.size_bytes()
    }

    fn update_config(&self, config: LogConfig) {
        self.0.log.update_config(config);
    }

    fn check(&self) -> Result<(), LogError> {
        self.0.looks.look();
        self.0.log.check()
    }
}

impl LogStore for HookedStore {
    fn open(
        &self,
        partition: PartitionId,
        config: LogConfig,
        observer: Arc<dyn WatermarkObserver>,
    ) -> BoxFuture<'static, Result<Arc<dyn PartitionLog>, LogError>> {
        let name = partition.to_string();
        let opened = self.inner.open(partition, config, observer);
        let hooks = Arc::clone(&self.hooks);
        Box::pin(async move {
            let hook = Hook {
                log: opened.await?,
                looks: Arc::default(),
            };
            hooks.lock().unwrap().insert(name, hook.clone());
            let log: Arc<dyn PartitionLog> = Arc::new(HookedLog(hook));
            Ok(log)
        })
    }

    fn delete(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>> {
        self.inner.delete(partition)
    }

    fn set_aside(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>> {
        self.inner.set_aside(partition)
    }

    fn stored(&self) -> Result<Vec<PartitionId>, LogError> {
        self.inner.stored()
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        self.inner.log_dirs()
    }

    fn move_to(&self, partition: &PartitionId, log_dir: &str) -> BoxFuture<'static, Result<(), LogError>> {
        self.inner.move_to(partition, log_dir)
    }

    fn prefer_log_dir(&self, topic: &str, partition: i32, log_dir: &str) -> Result<(), LogError> {
        self.inner.prefer_log_dir(topic, partition, log_dir)
    }

    fn maintain(&self, now_ms: i64) -> BoxFuture<'static, ()> {
        self.inner.maintain(now_ms)
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.inner.close()
    }
}
