//! What can go wrong in a log, and the one place where it becomes Kafka's error code.

use milena_protocol::ErrorCode;

#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("offset {offset} is outside [{log_start}, {upper}]")]
    OffsetOutOfRange { offset: i64, log_start: i64, upper: i64 },
    #[error("batch of {size} bytes is larger than max.message.bytes={limit}")]
    MessageTooLarge { size: usize, limit: i32 },
    #[error("appended batches of {size} bytes do not fit one segment of {limit} bytes")]
    RecordListTooLarge { size: usize, limit: i32 },
    #[error("corrupt batch: {0}")]
    CorruptMessage(String),
    #[error("invalid record: {0}")]
    InvalidRecord(String),
    #[error("timestamp {timestamp_ms} is outside the topic's bounds")]
    InvalidTimestamp { timestamp_ms: i64 },
    #[error("producer {producer_id}: sequence {found} does not follow {expected}")]
    OutOfOrderSequence {
        producer_id: i64,
        expected: i32,
        found: i32,
    },
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    InvalidProducerEpoch {
        producer_id: i64,
        current: i16,
        found: i16,
    },
    #[error("producer {producer_id}: the batch is not part of an ongoing transaction")]
    InvalidTxnState { producer_id: i64 },
    #[error("producer {producer_id}: coordinator epoch {found} is older than {current}")]
    TransactionCoordinatorFenced {
        producer_id: i64,
        current: i32,
        found: i32,
    },
    #[error("the partition was deleted")]
    Deleted,
    #[error("log directory {0} is not one of this broker's log.dirs")]
    LogDirNotFound(String),
    #[error("log directory {0} is cordoned")]
    LogDirCordoned(String),
    /// The log directory failed and is offline.
    #[error("log directory offline: {0}")]
    Storage(String),
}

impl LogError {
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::MessageTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::RecordListTooLarge { .. } => ErrorCode::RecordListTooLarge,
            Self::CorruptMessage(_) => ErrorCode::CorruptMessage,
            Self::InvalidRecord(_) => ErrorCode::InvalidRecord,
            Self::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
            Self::TransactionCoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
            Self::Deleted => ErrorCode::UnknownTopicOrPartition,
            Self::LogDirNotFound(_) => ErrorCode::LogDirNotFound,
            Self::LogDirCordoned(_) => ErrorCode::InvalidReplicaAssignment,
            Self::Storage(_) => ErrorCode::KafkaStorageError,
        }
    }
}
