//! The trait of a partition log, what every engine shares, and the conformance suite that every
//! engine must pass.
//!
//! A partition log is an ordered, immutable sequence of record batches in Kafka's own format
//! (magic 2). An engine gives each appended batch its offsets, keeps the producers' and their
//! transactions' state (KIP-98, KIP-890), the leader epochs (KIP-101) and time index, and tells an
//! observer when the watermarks move.
//!
//! Invariants that every engine keeps:
//! - an offset, once answered, is never given to other bytes, and records leave only by retention,
//!   compaction or [`PartitionLog::delete_records`];
//! - `log_start <= last_stable <= high_watermark <= log_end`, and none of them ever goes back;
//! - nothing here reads a clock: `now_ms` (milliseconds since the Unix epoch) is passed in.
//!
//! Calls are accepted in call order (not in the order of first poll): the disk engine does its
//! work before it returns the future; a cluster engine may take its time.
//!
//! Left to others: structural validation of batches (`milena_protocol::records`), authorisation,
//! waiting for data (the broker waits on [`WatermarkObserver`]).

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use milena_protocol::records::Validated;
use milena_protocol::{Chunk, Str, Uuid};

mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod epochs;
mod error;
mod memory;
mod prepare;
mod producers;
mod transactions;

pub use config::{
    CleanerConfig, CleanupPolicy, CompressionType, Durability, LogConfig, MoveConfig, TimestampType,
};
pub use epochs::{EpochStart, LeaderEpochs};
pub use error::LogError;
pub use memory::MemoryLogStore;
pub use prepare::{Prepared, RecordFault, marker_of, prepare, prepare_marker, record_fault};
pub use producers::{Producer, Producers, SEQUENCED_BATCHES, SequenceCheck, SequencedBatch};
pub use transactions::{EndTransaction, EndedTransaction, StartVerification, VerificationGuard};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names one partition for ever: the topic id tells a topic from a later one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    pub topic: Str,
    pub topic_id: Uuid,
    pub partition: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Where a log stands. Offsets; each is the offset *after* the last record it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// First offset that can be read.
    pub log_start: i64,
    /// Readers with `read_committed` see records below this (KIP-98): the first offset of the earliest
    /// transaction that is open, or whose marker is not below the high watermark; else that one.
    pub last_stable: i64,
    /// Readers see records below this: everything that is as durable as `acks=all` promises.
    pub high_watermark: i64,
    /// Where the next record goes.
    pub log_end: i64,
}

/// Told whenever a watermark moves; called with no lock of the log held. Must not block.
pub trait WatermarkObserver: Send + Sync {
    fn advanced(&self, watermarks: Watermarks);

    /// The log takes no more part: [`PartitionLog::check`] says why.
    fn failed(&self);
}

/// What one append is made of.
#[derive(Debug, Clone)]
pub struct Append {
    /// A whole batch that passed every check that needs no log.
    pub batch: Validated,
    /// Written into the batch and into the leader-epoch checkpoint when it is new.
    pub leader_epoch: i32,
    pub now_ms: i64,
    /// What [`PartitionLog::start_verification`] gave, for a batch that may open a transaction.
    pub verification: Option<VerificationGuard>,
}

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record; for a duplicate, that of the original append.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The broker's time in ms if `message.timestamp.type=LogAppendTime`, else -1. For a duplicate, as in Kafka, the largest
    /// timestamp of the original append, whatever its type.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// True when an idempotent producer sent one of its last five batches again: nothing was written.
    pub duplicate: bool,
}

/// Up to where a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBound {
    HighWatermark,
    /// `isolation.level=read_committed`
    LastStable,
}

#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// First offset wanted. Equal to the bound's offset is a good, empty read.
    pub offset: i64,
    /// No more bytes than this; it may end within a batch.
    pub max_bytes: usize,
    /// Return the first batch even if it is larger than `max_bytes` (KIP-74).
    pub at_least_one_batch: bool,
    pub bound: ReadBound,
}

/// An aborted transaction that overlaps a `read_committed` read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

#[derive(Debug, Clone)]
pub struct ReadResult {
    /// Batches; the first one contains the wanted offset, or follows it where records are gone, and is
    /// whole. The last one may be cut at `max_bytes`, as in Kafka.
    pub records: Chunk,
    /// As of before the records were read, so a reader never misses a wake-up.
    pub watermarks: Watermarks,
    /// With [`ReadBound::LastStable`], those whose records may be among the ones read; there may be more.
    pub aborted: Vec<AbortedTransaction>,
}

/// Answer of the time index (ListOffsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub leader_epoch: i32,
}

/// End offset of an epoch (KIP-101, KIP-320): the largest epoch that is not larger than the asked
/// one, and the offset at which the next epoch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub leader_epoch: i32,
    pub end_offset: i64,
}

/// An idempotent or transactional producer as the log knows it (DescribeProducers, KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp_ms: i64,
    pub coordinator_epoch: i32,
    /// First offset of the open transaction, or -1.
    pub current_transaction_start_offset: i64,
}

/// One partition's log.
pub trait PartitionLog: Send + Sync + fmt::Debug {
    /// Gives the batch its offsets and stores it. A batch of an idempotent producer is checked
    /// against the producer's epoch and sequence first. A transactional one is part of the producer's
    /// transaction; to open it, it needs the guard of [`Self::start_verification`].
    /// Readers see the records when the high watermark passes them; that is also when they are as
    /// durable as `acks=all` promises. The future resolves before, for `acks=1`.
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, LogError>>;

    /// Announces a transactional batch of a producer. `None`: its transaction is open here already, and
    /// the batch can be appended. Else the guard is given to the append once the transaction's
    /// coordinator has said that the partition is part of the transaction (KIP-890). A marker makes it
    /// void, so that an append that comes too late cannot leave a transaction open for ever.
    ///
    /// # Errors
    /// [`LogError::InvalidProducerEpoch`] for a fenced producer.
    fn start_verification(&self, start: StartVerification) -> Result<Option<VerificationGuard>, LogError>;

    /// Ends the producer's transaction here by a marker, in a batch of its own (KIP-98). A marker for a
    /// producer that has none open is written too.
    fn end_transaction(&self, end: EndTransaction) -> BoxFuture<'static, Result<Appended, LogError>>;

    fn read(&self, read: Read) -> BoxFuture<'static, Result<ReadResult, LogError>>;

    fn watermarks(&self) -> Watermarks;

    /// First record whose timestamp is `>= timestamp_ms`, below the bound.
    fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>>;

    /// The record with the largest timestamp (first of those; KIP-734), below the high watermark.
    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>>;

    /// `None` when the log knows no epoch, or the asked one is newer than the latest. An epoch older
    /// than all known ones ends where the first known one starts.
    fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset>;

    /// The epoch that the record at `offset` (or the next one written there) belongs to.
    fn epoch_for_offset(&self, offset: i64) -> Option<i32>;

    /// Moves the log start to `before_offset` (-1: the high watermark) and answers the new start.
    fn delete_records(&self, before_offset: i64) -> BoxFuture<'static, Result<i64, LogError>>;

    fn producers(&self) -> Vec<ActiveProducer>;

    fn size_bytes(&self) -> u64;

    /// Takes effect for everything that is appended, rolled or retained from now on.
    fn update_config(&self, config: LogConfig);

    /// Why the log takes no part any more: it was deleted, closed, or its directory is offline.
    fn check(&self) -> Result<(), LogError>;
}

/// One log directory as DescribeLogDirs tells it.
#[derive(Debug, Clone)]
pub struct LogDir {
    /// Absolute.
    pub path: PathBuf,
    /// Why the directory is offline, if it is.
    pub error: Option<String>,
    pub total_bytes: i64,
    pub usable_bytes: i64,
    /// It takes no more replicas ([`LogStore::update_cordoned`]).
    pub is_cordoned: bool,
    pub replicas: Vec<StoredReplica>,
}

/// What a log directory holds of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReplica {
    pub partition: PartitionId,
    pub size_bytes: u64,
    /// It is being filled, and takes the place of the current one when it is as long ([`LogStore::move_to`]).
    pub is_future: bool,
    /// How many offsets a future one is behind the current one; -1 when that cannot be told. 0 of a current one.
    pub offset_lag: i64,
}

/// All partitions of one engine.
pub trait LogStore: Send + Sync + fmt::Debug {
    /// Opens the partition, creating it where it does not exist, and recovers it if it was not
    /// closed cleanly. `observer` is called from then on.
    fn open(
        &self,
        partition: PartitionId,
        config: LogConfig,
        observer: Arc<dyn WatermarkObserver>,
    ) -> BoxFuture<'static, Result<Arc<dyn PartitionLog>, LogError>>;

    /// The cluster that the stored partitions belong to, if that was ever written down.
    fn cluster_id(&self) -> Option<String> {
        None
    }

    /// Writes down whose the stored partitions are. Engines that outlast no broker have nothing to do.
    ///
    /// # Errors
    /// When they belong to another cluster or node; the sentence says what to do.
    fn claim(&self, _cluster_id: &str, _node_id: i32) -> Result<(), LogError> {
        Ok(())
    }

    /// Takes the partition away at once (a partition of the same name can be created right after);
    /// its bytes are freed after `file.delete.delay.ms`.
    fn delete(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>>;

    /// Takes the partition away at once and keeps its bytes where nobody opens them: a person may
    /// still want what the metadata does not know.
    fn set_aside(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>>;

    /// Every partition that is stored, open or not: what the metadata does not know is a stray.
    fn stored(&self) -> Result<Vec<PartitionId>, LogError>;

    fn log_dirs(&self) -> Vec<LogDir>;

    /// Moves the partition to another log directory (KIP-113), while it is in use; returns when that has
    /// begun. It keeps its offsets and all that is known of it. A move to where it is already ends one that
    /// is under way, and so does one to a third directory before it begins.
    ///
    /// # Errors
    /// [`LogError::LogDirNotFound`]; [`LogError::Storage`] when either directory is offline;
    /// [`LogError::LogDirCordoned`]; [`LogError::Deleted`] when the partition is not open.
    fn move_to(&self, _partition: &PartitionId, log_dir: &str) -> BoxFuture<'static, Result<(), LogError>> {
        Box::pin(std::future::ready(Err(LogError::LogDirNotFound(log_dir.into()))))
    }

    /// Has a partition that does not exist be created in this directory, if it is created in this run.
    ///
    /// # Errors
    /// [`LogError::LogDirNotFound`]; [`LogError::Storage`] when the directory is offline;
    /// [`LogError::LogDirCordoned`].
    fn prefer_log_dir(&self, _topic: &str, _partition: i32, log_dir: &str) -> Result<(), LogError> {
        Err(LogError::LogDirNotFound(log_dir.into()))
    }

    /// These directories take no more replicas from now on, and all others do (`cordoned.log.dirs`, KIP-1066).
    /// A partition that has to be created while all are cordoned is created all the same.
    fn update_cordoned(&self, _log_dirs: &[PathBuf]) {}

    /// How replicas are moved from now on. Engines that move none have nothing to do.
    fn update_moves(&self, _config: MoveConfig) {}

    /// Work that time asks for: retention, rolling by time, freeing of deleted files, expiry of
    /// producer ids, checkpoints. The broker calls it every `log.retention.check.interval.ms`
    /// and sooner.
    fn maintain(&self, now_ms: i64) -> BoxFuture<'static, ()>;

    /// How compaction works from now on. Engines that compact nothing have nothing to do.
    fn update_cleaner(&self, _config: CleanerConfig) {}

    /// Flushes and closes every log so that the next start needs no recovery.
    fn close(&self) -> BoxFuture<'static, Result<(), LogError>>;
}
