//! What every engine does to a batch before it can be written: the topic's own rules, the broker's
//! time, and compression anew where the topic asks for it. Needs no lock and no disk.

use bytes::Bytes;
use milena_protocol::records::{
    BatchBuilder, BatchHeader, Compression, EndTransactionMarker, NewRecord, Record, RecordError,
    TimestampType as BatchTime, Validated,
};

use crate::{Append, CompressionType, EndTransaction, LogConfig, LogError, TimestampType};

/// A batch that is compressed anew, or whose records are looked at, is held decompressed; it may take
/// this much.
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

/// The batch of a marker. The topic's limits are for producers.
#[must_use]
pub fn prepare_marker(config: &LogConfig, end: &EndTransaction) -> Prepared {
    let (mut header, payload) = marker_of(end).to_batch(end.producer_id, end.producer_epoch, end.now_ms);
    let mut log_append_time_ms = -1;
    if config.message_timestamp_type == TimestampType::LogAppendTime {
        header.set_log_append_time(end.now_ms);
        header.seal(&payload);
        log_append_time_ms = end.now_ms;
    }
    Prepared {
        header,
        payload,
        max_timestamp_ms: end.now_ms,
        log_append_time_ms,
    }
}

/// What the marker says.
#[must_use]
pub fn marker_of(end: &EndTransaction) -> EndTransactionMarker {
    EndTransactionMarker {
        commit: end.commit,
        coordinator_epoch: end.coordinator_epoch,
    }
}

/// What a topic has against a single record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// Compaction needs keys.
    WithoutKey,
    /// `message.timestamp.before.max.ms` or `message.timestamp.after.max.ms`.
    TimestampOutOfRange,
    /// Only the log may say that a time is its own.
    TimestampType,
}

/// What is wrong with a record of a batch with this header, if anything. A record without a key is not
/// asked for its time, as in Kafka.
#[must_use]
pub fn record_fault(
    config: &LogConfig,
    header: &BatchHeader,
    record: &Record,
    now_ms: i64,
) -> Option<RecordFault> {
    if config.cleanup_policy.compact && record.key.is_none() {
        return Some(RecordFault::WithoutKey);
    }
    let log_sets_time = config.message_timestamp_type == TimestampType::LogAppendTime;
    if !log_sets_time && record.timestamp != NO_TIMESTAMP {
        let wrong = !is_within(config, now_ms, record.timestamp);
        return wrong.then_some(RecordFault::TimestampOutOfRange);
    }
    let wrong = header.timestamp_type() == BatchTime::LogAppendTime;
    wrong.then_some(RecordFault::TimestampType)
}

/// Applies the topic's settings to a batch.
///
/// # Errors
/// When the batch is too large, has no key on a compacted topic, or is outside the time bounds.
pub fn prepare(config: &LogConfig, append: &Append) -> Result<Prepared, LogError> {
    let batch = &append.batch.batch;
    check_message_size(config, batch.bytes.len())?;
    let (min_timestamp, max_timestamp) = timestamps(&append.batch);
    if may_be_faulty(config, append, min_timestamp, max_timestamp) {
        check_records(config, append)?;
    }
    let mut header = batch.header;
    let mut payload = batch.payload();
    let mut changed = false;
    if let Some((codec, level)) = recompression(config, &header)? {
        (header, payload) = recompress(&append.batch, codec, level)?;
        check_message_size(config, header.size_bytes())?;
    }
    // A batch must fit as it is stored, whatever it was before.
    check_segment_size(config, header.size_bytes())?;
    let mut log_append_time_ms = -1;
    match config.message_timestamp_type {
        TimestampType::LogAppendTime => {
            header.set_log_append_time(append.now_ms);
            log_append_time_ms = append.now_ms;
            changed = true;
        }
        TimestampType::CreateTime => {
            let wrong_type = header.timestamp_type() != BatchTime::CreateTime;
            if wrong_type || header.max_timestamp != max_timestamp {
                header.set_create_time(max_timestamp);
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

fn check_message_size(config: &LogConfig, size: usize) -> Result<(), LogError> {
    let limit = config.max_message_bytes;
    if usize::try_from(limit).is_ok_and(|limit| size > limit) {
        return Err(LogError::MessageTooLarge { size, limit });
    }
    Ok(())
}

fn check_segment_size(config: &LogConfig, size: usize) -> Result<(), LogError> {
    let limit = config.segment_bytes;
    if usize::try_from(limit).is_ok_and(|limit| size > limit) {
        return Err(LogError::RecordListTooLarge { size, limit });
    }
    Ok(())
}

fn is_within(config: &LogConfig, now_ms: i64, timestamp: i64) -> bool {
    now_ms.saturating_sub(timestamp) <= config.message_timestamp_before_max_ms
        && timestamp.saturating_sub(now_ms) <= config.message_timestamp_after_max_ms
}

/// The smallest and the largest time of the records, as readers of the batch would see them.
fn timestamps(validated: &Validated) -> (i64, i64) {
    let header = &validated.batch.header;
    match header.timestamp_type() {
        BatchTime::LogAppendTime => (header.max_timestamp, header.max_timestamp),
        BatchTime::CreateTime => (validated.summary.min_timestamp, validated.summary.max_timestamp),
    }
}

/// Whether the records have to be looked at one by one. That is rare: a good batch is told from its
/// summary.
fn may_be_faulty(config: &LogConfig, append: &Append, min: i64, max: i64) -> bool {
    let Validated { batch, summary } = &append.batch;
    let within = |timestamp| is_within(config, append.now_ms, timestamp);
    let log_sets_time = config.message_timestamp_type == TimestampType::LogAppendTime;
    (config.cleanup_policy.compact && summary.first_without_key.is_some())
        || !(log_sets_time || within(min) && within(max))
        || batch.header.timestamp_type() == BatchTime::LogAppendTime
}

/// A wrong time outweighs a missing key: Kafka answers a batch that has both with INVALID_TIMESTAMP.
fn check_records(config: &LogConfig, append: &Append) -> Result<(), LogError> {
    let batch = &append.batch.batch;
    let mut without_key = None;
    for (index, record) in batch
        .records(MOST_RECOMPRESSED_BYTES)
        .map_err(of_record)?
        .enumerate()
    {
        let record = record.map_err(of_record)?;
        match record_fault(config, &batch.header, &record, append.now_ms) {
            None => {}
            Some(RecordFault::WithoutKey) => without_key = without_key.or(Some(index)),
            Some(RecordFault::TimestampOutOfRange | RecordFault::TimestampType) => {
                return Err(LogError::InvalidTimestamp {
                    timestamp_ms: record.timestamp,
                });
            }
        }
    }
    match without_key {
        Some(index) => Err(LogError::InvalidRecord(format!(
            "Compacted topic cannot accept message without key (record {index})"
        ))),
        None => Ok(()),
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

#[cfg(test)]
mod tests {
    use milena_protocol::records::{RecordHeader, validate};

    use super::*;
    use crate::CleanupPolicy;

    const NOW_MS: i64 = 1_000_000;

    fn record(timestamp: i64, key: Option<&'static str>) -> NewRecord {
        NewRecord {
            timestamp,
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
            value: Some(Bytes::from(vec![b'v'; 100])),
            headers: vec![RecordHeader {
                key: Bytes::from_static(b"h"),
                value: None,
            }],
        }
    }

    fn append_of(builder: BatchBuilder, records: &[NewRecord]) -> Append {
        let mut builder = builder;
        for record in records {
            builder.push(record);
        }
        Append {
            batch: validate(&builder.build().unwrap()).unwrap(),
            leader_epoch: 0,
            now_ms: NOW_MS,
            verification: None,
        }
    }

    fn at(timestamps: &[i64]) -> Append {
        let records: Vec<NewRecord> = timestamps.iter().map(|time| record(*time, Some("k"))).collect();
        append_of(BatchBuilder::new(), &records)
    }

    fn bounded() -> LogConfig {
        LogConfig {
            message_timestamp_before_max_ms: 100,
            message_timestamp_after_max_ms: 10,
            ..LogConfig::default()
        }
    }

    fn refused_time(config: &LogConfig, append: &Append) -> Option<i64> {
        match prepare(config, append) {
            Err(LogError::InvalidTimestamp { timestamp_ms }) => Some(timestamp_ms),
            _ => None,
        }
    }

    #[test]
    fn times_at_the_bounds_are_taken_and_those_beyond_them_are_not() {
        assert!(prepare(&bounded(), &at(&[NOW_MS - 100, NOW_MS + 10])).is_ok());
        assert_eq!(refused_time(&bounded(), &at(&[NOW_MS - 101])), Some(NOW_MS - 101));
        assert_eq!(refused_time(&bounded(), &at(&[NOW_MS + 11])), Some(NOW_MS + 11));
        let unbounded = LogConfig {
            message_timestamp_after_max_ms: i64::MAX,
            ..LogConfig::default()
        };
        assert!(prepare(&unbounded, &at(&[0, i64::MAX / 2])).is_ok());
    }

    #[test]
    fn records_without_a_time_do_not_hide_one_that_is_too_old() {
        assert!(prepare(&bounded(), &at(&[-1, NOW_MS])).is_ok());
        assert_eq!(refused_time(&bounded(), &at(&[-1, 5, NOW_MS])), Some(5));
    }

    #[test]
    fn a_batch_with_a_missing_key_and_a_wrong_time_is_answered_for_its_time() {
        let config = LogConfig {
            cleanup_policy: CleanupPolicy {
                delete: false,
                compact: true,
            },
            ..bounded()
        };
        let both = append_of(BatchBuilder::new(), &[record(NOW_MS, None), record(5, Some("k"))]);
        assert_eq!(refused_time(&config, &both), Some(5));
        // A record that lacks its key is not asked for its time.
        let one = append_of(BatchBuilder::new(), &[record(5, None)]);
        assert!(matches!(prepare(&config, &one), Err(LogError::InvalidRecord(_))));
    }

    #[test]
    fn a_producer_must_not_say_that_its_time_is_the_logs() {
        let config = LogConfig {
            message_timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        };
        let plain = prepare(&config, &at(&[5, 6])).unwrap();
        assert_eq!(
            (plain.max_timestamp_ms, plain.log_append_time_ms),
            (NOW_MS, NOW_MS)
        );
        assert_eq!(plain.header.timestamp_type(), BatchTime::LogAppendTime);
        let append = append_of(BatchBuilder::new().attributes(8), &[record(5, None)]);
        assert_eq!(refused_time(&config, &append), Some(5));
        // Where the producer's time counts, the flag is taken away.
        let stored = prepare(&LogConfig::default(), &append).unwrap();
        assert_eq!(stored.header.timestamp_type(), BatchTime::CreateTime);
        assert_eq!(stored.max_timestamp_ms, 5);
    }

    #[test]
    fn the_time_of_the_log_needs_no_other_payload() {
        let config = LogConfig {
            message_timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        };
        let records = [record(5, None), record(6, None)];
        let append = append_of(BatchBuilder::new().compression(Compression::Zstd, None), &records);
        let sent = append.batch.batch.payload();
        let stored = prepare(&config, &append).unwrap();
        assert_eq!(stored.payload.as_ptr(), sent.as_ptr(), "nothing was copied");
        let mut header = stored.header;
        header.seal(&stored.payload);
        assert_eq!(header.crc, stored.header.crc);
    }

    #[test]
    fn compression_anew_keeps_everything_but_the_codec() {
        let records: Vec<NewRecord> = (0..50)
            .map(|at| record(NOW_MS - at, (at % 2 == 0).then_some("key")))
            .collect();
        for source in Compression::ALL {
            let builder = BatchBuilder::new()
                .compression(source, None)
                .producer(77, 3, 12)
                .attributes(16);
            let append = append_of(builder, &records);
            for (target, codec) in [
                (CompressionType::Uncompressed, Compression::None),
                (CompressionType::Gzip(9), Compression::Gzip),
                (CompressionType::Snappy, Compression::Snappy),
                (CompressionType::Lz4(17), Compression::Lz4),
                (CompressionType::Zstd(-5), Compression::Zstd),
            ] {
                let config = LogConfig {
                    compression_type: target,
                    ..LogConfig::default()
                };
                let stored = prepare(&config, &append).unwrap();
                let header = stored.header;
                assert_eq!(header.compression().unwrap(), codec, "{source:?}");
                assert_eq!(
                    (header.producer_id, header.producer_epoch, header.base_sequence),
                    (77, 3, 12)
                );
                assert!(header.is_transactional());
                let mut bytes = header.to_bytes().to_vec();
                bytes.extend_from_slice(&stored.payload);
                let read = validate(&Bytes::from(bytes)).unwrap();
                let read: Vec<NewRecord> = read
                    .batch
                    .records(1 << 20)
                    .unwrap()
                    .map(|it| NewRecord::from(it.unwrap()))
                    .collect();
                assert_eq!(read, records, "{source:?} {target:?}");
                let same = source == codec;
                let untouched = stored.payload.as_ptr() == append.batch.batch.payload().as_ptr();
                assert_eq!(same, untouched, "its own codec is left as it is");
            }
        }
    }

    #[test]
    fn a_batch_must_fit_as_it_came_and_as_it_is_stored() {
        let records = vec![record(NOW_MS, None); 50];
        let plain = append_of(BatchBuilder::new(), &records);
        let packed = append_of(BatchBuilder::new().compression(Compression::Zstd, None), &records);
        let (large, small) = (plain.batch.batch.bytes.len(), packed.batch.batch.bytes.len());
        let config = |max, segment, compression_type| LogConfig {
            max_message_bytes: i32::try_from(max).unwrap(),
            segment_bytes: i32::try_from(segment).unwrap(),
            compression_type,
            ..LogConfig::default()
        };
        use CompressionType::{Producer, Uncompressed, Zstd};
        assert!(prepare(&config(large, large, Producer), &plain).is_ok());
        let too_large = |config: &LogConfig, append: &Append| match prepare(config, append) {
            Err(LogError::MessageTooLarge { size, .. }) => size,
            other => panic!("{other:?}"),
        };
        assert_eq!(too_large(&config(large - 1, large, Zstd(3)), &plain), large);
        assert!(too_large(&config(small, large, Uncompressed), &packed) > small);
        assert!(
            prepare(&config(large, small, Zstd(3)), &plain).is_ok(),
            "it shrinks"
        );
        assert!(matches!(
            prepare(&config(large, small, Producer), &plain),
            Err(LogError::RecordListTooLarge { .. })
        ));
    }
}
