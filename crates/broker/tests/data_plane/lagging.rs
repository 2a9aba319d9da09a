//! An engine whose high watermark follows only when the test lets it, as that of an engine that
//! waits for stable storage does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use milena_log::{
    ActiveProducer, Append, Appended, BoxFuture, EndTransaction, EpochEndOffset, LogConfig, LogDir, LogError,
    LogStore, MemoryLogStore, PartitionId, PartitionLog, Read, ReadBound, ReadResult, StartVerification,
    TimestampedOffset, VerificationGuard, WatermarkObserver, Watermarks,
};

#[derive(Debug, Default)]
pub(crate) struct LaggingLogStore {
    inner: MemoryLogStore,
    limit: Arc<AtomicI64>,
    observers: Mutex<Vec<Arc<Held>>>,
    /// The partition that cannot be opened.
    damaged: Mutex<Option<i32>>,
}

/// The observer that the engine below tells; it passes on what the limit allows.
struct Held {
    limit: Arc<AtomicI64>,
    observer: Arc<dyn WatermarkObserver>,
    latest: Mutex<Watermarks>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

fn limited(watermarks: Watermarks, limit: i64) -> Watermarks {
    Watermarks {
        last_stable: watermarks.last_stable.min(limit),
        high_watermark: watermarks.high_watermark.min(limit),
        ..watermarks
    }
}

impl WatermarkObserver for Held {
    fn advanced(&self, watermarks: Watermarks) {
        *self.latest.lock().unwrap() = watermarks;
        self.observer
            .advanced(limited(watermarks, self.limit.load(Ordering::SeqCst)));
    }

    fn failed(&self) {
        self.observer.failed();
    }
}

impl LaggingLogStore {
    /// From the next start on, logs of this partition cannot be opened.
    pub(crate) fn damage(&self, partition: i32) {
        *self.damaged.lock().unwrap() = Some(partition);
    }

    /// Lets every high watermark go as far as this.
    pub(crate) fn allow(&self, offset: i64) {
        self.limit.store(offset, Ordering::SeqCst);
        for held in self.observers.lock().unwrap().iter() {
            let latest = *held.latest.lock().unwrap();
            held.observer.advanced(limited(latest, offset));
        }
    }
}

#[derive(Debug)]
struct LaggingLog {
    inner: Arc<dyn PartitionLog>,
    limit: Arc<AtomicI64>,
}

impl PartitionLog for LaggingLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.inner.append(append)
    }

    fn start_verification(&self, start: StartVerification) -> Result<Option<VerificationGuard>, LogError> {
        self.inner.start_verification(start)
    }

    fn end_transaction(&self, end: EndTransaction) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.inner.end_transaction(end)
    }

    fn read(&self, read: Read) -> BoxFuture<'static, Result<ReadResult, LogError>> {
        let seen = self.watermarks();
        assert!(
            read.offset < seen.high_watermark,
            "the broker read above the high watermark"
        );
        let inner = self.inner.read(read);
        Box::pin(async move {
            Ok(ReadResult {
                watermarks: seen,
                ..inner.await?
            })
        })
    }

    fn watermarks(&self) -> Watermarks {
        limited(self.inner.watermarks(), self.limit.load(Ordering::SeqCst))
    }

    fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        self.inner.offset_for_timestamp(timestamp_ms, bound)
    }

    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        self.inner.max_timestamp()
    }

    fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset> {
        self.inner.end_offset_for_epoch(leader_epoch)
    }

    fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.inner.epoch_for_offset(offset)
    }

    fn delete_records(&self, before_offset: i64) -> BoxFuture<'static, Result<i64, LogError>> {
        self.inner.delete_records(before_offset)
    }

    fn producers(&self) -> Vec<ActiveProducer> {
        self.inner.producers()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn check(&self) -> Result<(), LogError> {
        self.inner.check()
    }

    fn update_config(&self, config: LogConfig) {
        self.inner.update_config(config);
    }
}

impl LogStore for LaggingLogStore {
    fn open(
        &self,
        partition: PartitionId,
        config: LogConfig,
        observer: Arc<dyn WatermarkObserver>,
    ) -> BoxFuture<'static, Result<Arc<dyn PartitionLog>, LogError>> {
        if *self.damaged.lock().unwrap() == Some(partition.partition) {
            let failed = Err(LogError::Storage("as the test wants it".to_owned()));
            return Box::pin(std::future::ready(failed));
        }
        let limit = Arc::clone(&self.limit);
        let held = Arc::new(Held {
            limit: limit.clone(),
            observer,
            latest: Mutex::new(Watermarks::default()),
        });
        self.observers.lock().unwrap().push(held.clone());
        let opened = self.inner.open(partition, config, held);
        Box::pin(async move {
            let log: Arc<dyn PartitionLog> = Arc::new(LaggingLog {
                inner: opened.await?,
                limit,
            });
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
        vec![LogDir {
            path: PathBuf::from("/lagging"),
            error: None,
            total_bytes: -1,
            usable_bytes: -1,
            is_cordoned: false,
            replicas: Vec::new(),
        }]
    }

    fn maintain(&self, now_ms: i64) -> BoxFuture<'static, ()> {
        self.inner.maintain(now_ms)
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.inner.close()
    }
}
