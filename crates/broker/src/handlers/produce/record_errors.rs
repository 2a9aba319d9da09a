//! Which records of a refused batch were wrong (KIP-467), in Kafka's words: a producer fails those
//! with their own reason, and tells the others that they were in bad company.

use milena_log::{LogConfig, LogError, TimestampType};
use milena_protocol::messages::produce_response::BatchIndexAndErrorMessage;
use milena_protocol::records::{Record, Validated};
use milena_protocol::{ErrorCode, Str};

use crate::partitions::Partition;

/// Record errors in one answer. Kafka names all; a producer cannot use more than a batch has.
const MAX_RECORD_ERRORS: usize = 10_000;
/// Of these the batch's own message tells.
const SHOWN_RECORD_ERRORS: usize = 3;
/// A batch that is looked through again may take this much decompressed.
const MAX_DECOMPRESSED_BYTES: usize = 128 << 20;
/// The timestamp of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// What a producer is told about a batch that the log refused for its records.
pub(super) struct RecordErrors {
    pub(super) message: Str,
    pub(super) records: Vec<BatchIndexAndErrorMessage>,
}

/// `None` when the log refused the batch for another reason.
pub(super) fn explain(
    error: &LogError,
    partition: &Partition,
    batch: &Validated,
    now_ms: i64,
) -> Option<RecordErrors> {
    if !matches!(
        error.code(),
        ErrorCode::InvalidRecord | ErrorCode::InvalidTimestamp
    ) {
        return None;
    }
    let config = partition.config();
    let wrong = |record: &Record| {
        wrong_key(&config, partition, record).or_else(|| wrong_time(&config, record, now_ms))
    };
    let records: Vec<BatchIndexAndErrorMessage> = batch
        .batch
        .records(MAX_DECOMPRESSED_BYTES)
        .ok()?
        .map_while(Result::ok)
        .zip(0_i32..)
        .filter_map(|(record, index)| wrong(&record).map(|message| (index, message)))
        .take(MAX_RECORD_ERRORS)
        .map(|(batch_index, message)| BatchIndexAndErrorMessage {
            batch_index,
            batch_index_error_message: Some(Str::from(message)),
            ..BatchIndexAndErrorMessage::default()
        })
        .collect();
    if records.is_empty() {
        return None;
    }
    let message = if error.code() == ErrorCode::InvalidTimestamp {
        "One or more records have been rejected due to invalid timestamp".to_owned()
    } else {
        summary(&records)
    };
    Some(RecordErrors {
        message: Str::from(message),
        records,
    })
}

fn wrong_key(config: &LogConfig, partition: &Partition, record: &Record) -> Option<String> {
    (config.cleanup_policy.compact && record.key.is_none()).then(|| {
        format!(
            "Compacted topic cannot accept message without key in topic partition {}",
            partition.id()
        )
    })
}

fn wrong_time(config: &LogConfig, record: &Record, now_ms: i64) -> Option<String> {
    if config.message_timestamp_type != TimestampType::CreateTime || record.timestamp == NO_TIMESTAMP {
        return None;
    }
    let earliest = now_ms.saturating_sub(config.message_timestamp_before_max_ms);
    let latest = now_ms.saturating_add(config.message_timestamp_after_max_ms);
    (!(earliest..=latest).contains(&record.timestamp)).then(|| {
        format!(
            "Timestamp {} of message with offset {} is out of range. The timestamp should be within [{earliest}, {latest}]",
            record.timestamp, record.offset
        )
    })
}

fn summary(records: &[BatchIndexAndErrorMessage]) -> String {
    let shown: Vec<String> = records
        .iter()
        .take(SHOWN_RECORD_ERRORS)
        .map(|record| {
            let message = record.batch_index_error_message.as_deref().unwrap_or_default();
            format!(
                "RecordError(batchIndex={}, message='{message}')",
                record.batch_index
            )
        })
        .collect();
    format!(
        "One or more records have been rejected due to {} record errors in total, and only showing the first three \
         errors at most: [{}]",
        records.len(),
        shown.join(", ")
    )
}
