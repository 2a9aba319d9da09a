//! The topic settings that a log obeys, typed. Names and defaults are Kafka's topic configs.

/// `cleanup.policy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// `message.timestamp.type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// `compression.type`: what batches are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    Uncompressed,
    /// With the level of `compression.gzip.level`.
    Gzip(i32),
    Snappy,
    Lz4(i32),
    Zstd(i32),
}

/// `durability`: what `acks=all` promises. Kafka has no such setting; it does what `os` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The records are on the disk: a power cut takes nothing that was acknowledged or read.
    Disk,
    /// The operating system has the records: the end of the process takes nothing.
    Os,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    pub delete_retention_ms: i64,
    pub durability: Durability,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub preallocate: bool,
    /// -1: no limit.
    pub retention_bytes: i64,
    /// -1: for ever.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    /// Broker-wide `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
}

impl LogConfig {
    /// The age at which the active segment rolls: `segment.ms`, or earlier where
    /// `max.compaction.lag.ms` asks for it (KIP-354).
    #[must_use]
    pub fn max_segment_ms(&self) -> i64 {
        if self.cleanup_policy.compact {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }
}

/// The settings of compaction (`log.cleaner.*`), typed.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerConfig {
    pub enable: bool,
    pub threads: i32,
    /// For all threads together.
    pub dedupe_buffer_size: i64,
    /// How full the map of keys may become.
    pub io_buffer_load_factor: f64,
    /// For all threads together, half for what is read and half for what is written.
    pub io_buffer_size: i32,
    /// For all threads together, read and written.
    pub io_max_bytes_per_second: f64,
    /// How long to wait when there was nothing to clean.
    pub backoff_ms: i64,
}

impl Default for CleanerConfig {
    /// Kafka 4.3.1's defaults.
    fn default() -> Self {
        Self {
            enable: true,
            threads: 1,
            dedupe_buffer_size: 134_217_728,
            io_buffer_load_factor: 0.9,
            io_buffer_size: 524_288,
            io_max_bytes_per_second: f64::MAX,
            backoff_ms: 15_000,
        }
    }
}

/// How replicas move between log directories.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveConfig {
    /// `num.replica.alter.log.dirs.threads`; `None`: as many as there are log directories.
    pub threads: Option<i32>,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`, for all threads together.
    pub io_max_bytes_per_second: f64,
}

impl Default for MoveConfig {
    /// Kafka 4.3.1's defaults.
    fn default() -> Self {
        Self {
            threads: None,
            io_max_bytes_per_second: f64::MAX,
        }
    }
}

impl Default for LogConfig {
    /// Kafka 4.3.1's defaults, and durable.
    fn default() -> Self {
        Self {
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            compression_type: CompressionType::Producer,
            delete_retention_ms: 86_400_000,
            durability: Durability::Disk,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            index_interval_bytes: 4096,
            max_compaction_lag_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            message_timestamp_after_max_ms: 3_600_000,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_type: TimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            preallocate: false,
            retention_bytes: -1,
            retention_ms: 604_800_000,
            segment_bytes: 1_073_741_824,
            segment_index_bytes: 10_485_760,
            segment_jitter_ms: 0,
            segment_ms: 604_800_000,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}
