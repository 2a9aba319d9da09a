//! What a producer's records must be before a log takes them.

use bytes::Bytes;

use super::batch::{Batch, BatchHeader, HEADER_BYTES};
use super::{RecordError, Summary};

/// A batch that passed every check that needs nothing but the batch.
#[derive(Debug, Clone)]
pub struct Validated {
    pub batch: Batch,
    pub summary: Summary,
}

fn invalid(text: impl Into<String>) -> RecordError {
    RecordError::Invalid(text.into())
}

/// Checks what a producer sent for one partition: exactly one batch, whole, of magic 2, with the
/// right CRC, whose records are as its header says. Bytes after the batch that cannot be a batch
/// are an error too.
///
/// # Errors
/// See [`RecordError::code`]; `CORRUPT_MESSAGE` when lengths or CRC are wrong, `INVALID_RECORD` for
/// everything else.
pub fn validate(records: &Bytes) -> Result<Validated, RecordError> {
    if records.is_empty() {
        return Err(invalid(
            "Produce requests must have at least one record batch per partition",
        ));
    }
    let batch = Batch::parse(records)?;
    if records.len() != batch.bytes.len() {
        return Err(invalid(
            "Produce requests are only allowed to contain exactly one record batch per partition",
        ));
    }
    check_header(&batch.header)?;
    batch.check_crc()?;
    let summary = batch.scan()?;
    Ok(Validated { batch, summary })
}

fn check_header(header: &BatchHeader) -> Result<(), RecordError> {
    if header.base_offset != 0 {
        return Err(invalid(format!(
            "The baseOffset of the record batch should be 0, but it is {}",
            header.base_offset
        )));
    }
    if header.record_count <= 0 {
        return Err(invalid(format!(
            "Invalid reported count for record batch: {}",
            header.record_count
        )));
    }
    if i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        return Err(invalid(format!(
            "Inconsistent batch offset range [0, {}] and count of records {}",
            header.last_offset_delta, header.record_count
        )));
    }
    if header.is_control() {
        return Err(invalid("Clients are not allowed to write control records"));
    }
    if header.has_delete_horizon() {
        return Err(invalid("Clients are not allowed to set a delete horizon"));
    }
    if header.has_producer_id() {
        if header.base_sequence < 0 {
            return Err(invalid(format!(
                "Invalid sequence number {} in record batch with producerId {}",
                header.base_sequence, header.producer_id
            )));
        }
        if header.producer_epoch < 0 {
            return Err(invalid(format!(
                "Invalid producer epoch {}",
                header.producer_epoch
            )));
        }
    } else if header.is_transactional() {
        return Err(invalid("A transactional batch must have a producer id"));
    }
    debug_assert!(header.size_bytes() >= HEADER_BYTES);
    Ok(())
}
