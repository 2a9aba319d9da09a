//! Record batches in Kafka's format v2 (KIP-98): headers, checks, lazy iteration, building, and the
//! four compression codecs.
//!
//! A batch is a header of 61 bytes and its records, which may be compressed as a whole:
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | base offset |
//! | 8 | 4 | batch length: bytes after this field |
//! | 12 | 4 | partition leader epoch |
//! | 16 | 1 | magic, always 2 |
//! | 17 | 4 | CRC-32C of everything after this field |
//! | 21 | 2 | attributes |
//! | 23 | 4 | last offset delta |
//! | 27 | 8 | base timestamp (ms) |
//! | 35 | 8 | max timestamp (ms) |
//! | 43 | 8 | producer id |
//! | 51 | 2 | producer epoch |
//! | 53 | 4 | base sequence |
//! | 57 | 4 | record count |
//!
//! Base offset and leader epoch are outside the CRC, so the broker writes them without touching the
//! rest. Nothing here keeps a batch in memory twice: batches, keys, values and headers are slices of
//! the buffer they came in (or of the decompressed one).

mod batch;
mod builder;
mod compression;
mod control;
mod scan;
mod validate;
mod varint;

pub use batch::{
    Batch, BatchHeader, Batches, HEADER_BYTES, LENGTH_AT, LOG_OVERHEAD_BYTES, MAGIC, TimestampType, batches,
};
pub use builder::{BatchBuilder, NewRecord};
pub use compression::{Compression, compress, decompress};
pub use control::EndTransactionMarker;
pub use scan::{Record, RecordHeader, Records, Summary};
pub use validate::{Validated, validate};

use crate::ErrorCode;

/// Why bytes are not good record batches. Becomes Kafka's error code in [`RecordError::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a batch of {length} bytes is shorter than its header")]
    BatchTooShort { length: i64 },
    #[error("CRC-32C is {computed:#010x}, the batch says {stored:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("magic {0} is not supported, only 2 is")]
    Magic(i8),
    #[error("{0}")]
    Invalid(String),
    #[error("compression type {0} does not exist")]
    UnknownCompression(i16),
    #[error("the records cannot be decompressed: {0}")]
    Decompress(String),
    #[error("the records take more than {limit} bytes decompressed")]
    TooLarge { limit: usize },
}

impl RecordError {
    /// What a producer is answered.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::BatchTooShort { .. } | Self::Crc { .. } => ErrorCode::CorruptMessage,
            Self::Magic(magic) if *magic > batch::MAGIC => ErrorCode::CorruptMessage,
            Self::Magic(_) | Self::Invalid(_) | Self::Decompress(_) => ErrorCode::InvalidRecord,
            Self::UnknownCompression(_) => ErrorCode::UnsupportedCompressionType,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
        }
    }
}
