//! What every engine does to a batch before it can be written: the topic's own rules, the broker's
//! time, and compression anew where the topic asks for it. Needs no lock and no disk.

use bytes::Bytes;
use milena_protocol::records::{
    BatchBuilder, BatchHeader, Compression, NewRecord, RecordError, TimestampType as BatchTime, Validated,
};

use crate::{Append, CompressionType, LogConfig, LogError, TimestampType};

/// A batch that is compressed anew is held decompressed; it may take this much.
const MOST_RECOMPRESSED_BYTES: usize = 128 * 1024 * 1024;

/// Records without a time of their own say so with this.
const NO_TIMESTAMP: i64 = -1;

/// A batch that only lacks its base offset and leader epoch.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub header: BatchHeader,
    /// The records behind the header: the received bytes, unless they were compressed anew.
    pub payload: Bytes,
    /// Largest timestamp that readers will see.
    pub max_timestamp_ms: i64,
    /// See [`crate::Appended::log_append_time_ms`].
    pub log_append_time_ms: i64,
}

impl Prepared {
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.header.size_bytes()
    }

    /// Gives the batch its place. Both fields are outside the CRC.
    pub fn place(&mut self, base_offset: i64, leader_epoch: i32) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch;
    }
}

/// Applies the topic's settings to a batch.
///
/// # Errors
/// When the batch is too large, has no key on a compacted topic, or is outside the time bounds.
pub fn prepare(config: &LogConfig, append: &Append) -> Result<Prepared, LogError> {
    let Validated { batch, summary } = &append.batch;
    check_size(config, batch.bytes.len())?;
    if config.cleanup_policy.compact
        && let Some(index) = summary.first_without_key
    {
        return Err(LogError::InvalidRecord(format!(
            "Compacted topic cannot accept message without key (record {index})"
        )));
    }
    if config.message_timestamp_type == TimestampType::CreateTime {
        check_time(
            config,
            append.now_ms,
            summary.min_timestamp,
            summary.max_timestamp,
        )?;
    }
    let mut header = batch.header;
    let mut payload = batch.payload();
    let mut changed = false;
    if let Some((codec, level)) = recompression(config, &header)? {
        (header, payload) = recompress(&append.batch, codec, level)?;
        check_size(config, header.size_bytes())?;
    }
    let mut log_append_time_ms = -1;
    match config.message_timestamp_type {
        TimestampType::LogAppendTime => {
            header.set_log_append_time(append.now_ms);
            log_append_time_ms = append.now_ms;
            changed = true;
        }
        TimestampType::CreateTime => {
            let wrong_type = header.timestamp_type() != BatchTime::CreateTime;
            if wrong_type || header.max_timestamp != summary.max_timestamp {
                header.set_create_time(summary.max_timestamp);
                changed = true;
            }
        }
    }
    if changed {
        header.seal(&payload);
    }
    Ok(Prepared {
        header,
        payload,
        max_timestamp_ms: header.max_timestamp,
        log_append_time_ms,
    })
}

fn check_size(config: &LogConfig, size: usize) -> Result<(), LogError> {
    let limit = config.max_message_bytes;
    if usize::try_from(limit).is_ok_and(|limit| size > limit) {
        return Err(LogError::MessageTooLarge { size, limit });
    }
    if usize::try_from(config.segment_bytes).is_ok_and(|limit| size > limit) {
        return Err(LogError::RecordListTooLarge {
            size,
            limit: config.segment_bytes,
        });
    }
    Ok(())
}

fn check_time(config: &LogConfig, now_ms: i64, min: i64, max: i64) -> Result<(), LogError> {
    let too_old = min != NO_TIMESTAMP && now_ms.saturating_sub(min) > config.message_timestamp_before_max_ms;
    let too_new = max != NO_TIMESTAMP && max.saturating_sub(now_ms) > config.message_timestamp_after_max_ms;
    match (too_old, too_new) {
        (true, _) => Err(LogError::InvalidTimestamp { timestamp_ms: min }),
        (_, true) => Err(LogError::InvalidTimestamp { timestamp_ms: max }),
        _ => Ok(()),
    }
}

/// The codec to compress with, if it is another than the batch's.
fn recompression(
    config: &LogConfig,
    header: &BatchHeader,
) -> Result<Option<(Compression, Option<i32>)>, LogError> {
    let wanted = match config.compression_type {
        CompressionType::Producer => return Ok(None),
        CompressionType::Uncompressed => (Compression::None, None),
        CompressionType::Gzip(level) => (Compression::Gzip, Some(level)),
        CompressionType::Snappy => (Compression::Snappy, None),
        CompressionType::Lz4(level) => (Compression::Lz4, Some(level)),
        CompressionType::Zstd(level) => (Compression::Zstd, Some(level)),
    };
    let codec = header.compression().map_err(of_record)?;
    Ok((codec != wanted.0).then_some(wanted))
}

fn recompress(
    validated: &Validated,
    codec: Compression,
    level: Option<i32>,
) -> Result<(BatchHeader, Bytes), LogError> {
    let old = validated.batch.header;
    let mut builder = BatchBuilder::new()
        .compression(codec, level)
        .attributes(old.attributes);
    for record in validated
        .batch
        .records(MOST_RECOMPRESSED_BYTES)
        .map_err(of_record)?
    {
        builder.push(&NewRecord::from(record.map_err(of_record)?));
    }
    if old.has_producer_id() {
        builder = builder.producer(old.producer_id, old.producer_epoch, old.base_sequence);
    }
    let bytes = builder
        .build()
        .map_err(|error| LogError::InvalidRecord(error.to_string()))?;
    let header = BatchHeader::parse(&bytes).map_err(of_record)?;
    Ok((header, bytes.slice(milena_protocol::records::HEADER_BYTES..)))
}

fn of_record(error: RecordError) -> LogError {
    match error {
        RecordError::TooLarge { limit } => LogError::MessageTooLarge {
            size: limit,
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
        },
        other => LogError::InvalidRecord(other.to_string()),
    }
}
