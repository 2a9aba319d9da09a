//! The control batches that end transactions (KIP-98).
//!
//! Such a batch has one record. Its key is a version (2 bytes) and the kind (2 bytes: 0 abort, 1
//! commit); its value is a version (2 bytes) and the epoch of the transaction coordinator (4 bytes).

use bytes::Bytes;

use super::RecordError;
use super::batch::{Batch, BatchHeader, CONTROL, HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC, TRANSACTIONAL};
use super::varint;

const KEY_BYTES: usize = 4;
const VALUE_BYTES: usize = 6;
const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// A marker is a few bytes; nobody compresses it.
const MOST_DECOMPRESSED_BYTES: usize = 64 * 1024;

/// What ends a transaction of one producer in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub commit: bool,
    pub coordinator_epoch: i32,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl EndTransactionMarker {
    /// The marker's batch, without offset and leader epoch: header with its CRC, and records.
    #[must_use]
    pub fn to_batch(&self, producer_id: i64, producer_epoch: i16, timestamp_ms: i64) -> (BatchHeader, Bytes) {
        let kind = if self.commit { COMMIT } else { ABORT };
        // Attributes, timestamp delta, offset delta.
        let mut body = vec![0, 0, 0];
        varint::put(&mut body, KEY_BYTES as i64);
        body.extend_from_slice(&KEY_VERSION.to_be_bytes());
        body.extend_from_slice(&kind.to_be_bytes());
        varint::put(&mut body, VALUE_BYTES as i64);
        body.extend_from_slice(&VALUE_VERSION.to_be_bytes());
        body.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        varint::put(&mut body, 0);
        let mut records = Vec::with_capacity(body.len() + 1);
        varint::put(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: (HEADER_BYTES - LOG_OVERHEAD_BYTES + records.len()) as i32,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: TRANSACTIONAL | CONTROL,
            last_offset_delta: 0,
            base_timestamp: timestamp_ms,
            max_timestamp: timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence: -1,
            record_count: 1,
        };
        header.seal(&records);
        (header, Bytes::from(records))
    }

    /// The marker in a control batch; `None` when compaction emptied the batch, or it is a control batch
    /// of another kind.
    ///
    /// # Errors
    /// When the record is not as the format says.
    pub fn of(batch: &Batch) -> Result<Option<Self>, RecordError> {
        if !batch.header.is_control() {
            return Ok(None);
        }
        let Some(record) = batch.records(MOST_DECOMPRESSED_BYTES)?.next() else {
            return Ok(None);
        };
        let record = record?;
        let invalid = || RecordError::Invalid("a control record is too short".to_owned());
        let key = record.key.as_deref().unwrap_or_default();
        let commit = match i16::from_be_bytes(number(key, 2).ok_or_else(invalid)?) {
            ABORT => false,
            COMMIT => true,
            _ => return Ok(None),
        };
        let value = record.value.as_deref().unwrap_or_default();
        Ok(Some(Self {
            commit,
            coordinator_epoch: i32::from_be_bytes(number(value, 2).ok_or_else(invalid)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(marker: EndTransactionMarker) -> Batch {
        let (header, records) = marker.to_batch(9, 3, 1_000);
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&records);
        Batch::parse(&Bytes::from(bytes)).unwrap()
    }

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        for commit in [true, false] {
            let marker = EndTransactionMarker {
                commit,
                coordinator_epoch: 77,
            };
            let batch = batch(marker);
            batch.check_crc().unwrap();
            assert_eq!(batch.bytes.len(), 78, "as long as Kafka's");
            assert!(batch.header.is_control() && batch.header.is_transactional());
            assert_eq!(batch.header.base_sequence, -1);
            assert_eq!(EndTransactionMarker::of(&batch).unwrap(), Some(marker));
        }
    }

    #[test]
    fn an_emptied_control_batch_ends_nothing() {
        let marker = EndTransactionMarker {
            commit: true,
            coordinator_epoch: 1,
        };
        let emptied = batch(marker).header.emptied();
        let emptied = Batch::parse(&Bytes::copy_from_slice(&emptied.to_bytes())).unwrap();
        assert_eq!(EndTransactionMarker::of(&emptied).unwrap(), None);
    }

    #[test]
    fn a_control_record_that_is_cut_short_is_an_error() {
        let mut builder = super::super::BatchBuilder::new()
            .attributes(TRANSACTIONAL | CONTROL)
            .producer(9, 0, -1);
        builder.push(&super::super::NewRecord {
            key: Some(Bytes::from_static(&[0, 0, 0, 1])),
            value: Some(Bytes::from_static(&[0, 0, 1])),
            ..Default::default()
        });
        let batch = Batch::parse(&builder.build().unwrap()).unwrap();
        assert!(EndTransactionMarker::of(&batch).is_err());
    }
}
