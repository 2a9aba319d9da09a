//! Which records of a refused batch were wrong (KIP-467), in Kafka's words: a producer fails those
//! with their own reason, and tells the others that they were in bad company.

use milena_log::{LogConfig, LogError, RecordFault, record_fault};
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
    let header = &batch.batch.header;
    let wrong = |record: &Record| {
        record_fault(&config, header, record, now_ms)
            .map(|fault| sentence(fault, &config, partition, record, now_ms))
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

fn sentence(
    fault: RecordFault,
    config: &LogConfig,
    partition: &Partition,
    record: &Record,
    now_ms: i64,
) -> String {
    match fault {
        RecordFault::WithoutKey => format!(
            "Compacted topic cannot accept message without key in topic partition {}",
            partition.id()
        ),
        RecordFault::TimestampOutOfRange => {
            // Java's numbers wrap, and so does Kafka's sentence where a bound is the largest number.
            let earliest = now_ms.wrapping_sub(config.message_timestamp_before_max_ms);
            let latest = now_ms.wrapping_add(config.message_timestamp_after_max_ms);
            format!(
                "Timestamp {} of message with offset {} is out of range. The timestamp should be within [{earliest}, {latest}]",
                record.timestamp, record.offset
            )
        }
        RecordFault::TimestampType => format!(
            "Invalid timestamp type in message with offset {}. Producer should not set timestamp type to LogAppendTime.",
            record.offset
        ),
    }
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
