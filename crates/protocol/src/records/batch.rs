//! Batch headers, and the split of a buffer into batches.

use bytes::Bytes;

use super::compression::Compression;
use super::scan::{Records, Summary, scan};
use super::{RecordError, compression};

pub const HEADER_BYTES: usize = 61;
/// Where the batch length stands.
pub const LENGTH_AT: usize = 8;
/// Base offset and batch length: what the batch length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
pub const MAGIC: i8 = 2;

const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Who set the batch's timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The 61 bytes in front of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after the length field; the whole batch has 12 more ([`Self::size_bytes`]).
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    /// Milliseconds since the Unix epoch; or the delete horizon, if that attribute is set (KIP-534).
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    /// -1 for none.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header that `bytes` start with. Checks its own plausibility only: length and magic.
    ///
    /// # Errors
    /// When there are fewer than 61 bytes, the length is impossible, or the magic is not 2.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() < HEADER_BYTES {
            return Err(RecordError::BatchTooShort {
                length: bytes.len() as i64,
            });
        }
        let header = Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)),
            batch_length: i32::from_be_bytes(array(bytes, LENGTH_AT)),
            partition_leader_epoch: i32::from_be_bytes(array(bytes, 12)),
            magic: bytes[16] as i8,
            crc: u32::from_be_bytes(array(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(array(bytes, CRC_COVERS_FROM)),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)),
            producer_id: i64::from_be_bytes(array(bytes, 43)),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            record_count: i32::from_be_bytes(array(bytes, 57)),
        };
        if header.magic != MAGIC {
            return Err(RecordError::Magic(header.magic));
        }
        if header.batch_length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
            return Err(RecordError::BatchTooShort {
                length: i64::from(header.batch_length),
            });
        }
        Ok(header)
    }

    /// The header's bytes, with the CRC as it stands in `self`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Sets the CRC to that of this header and the records after it.
    pub fn seal(&mut self, records: &[u8]) {
        let header = self.to_bytes();
        self.crc = crc32c::crc32c_append(crc32c::crc32c(&header[CRC_COVERS_FROM..]), records);
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// # Errors
    /// When the attributes name no codec.
    pub fn compression(&self) -> Result<Compression, RecordError> {
        let id = self.attributes & COMPRESSION_MASK;
        Compression::from_id(id).ok_or(RecordError::UnknownCompression(id))
    }

    pub fn set_compression(&mut self, compression: Compression) {
        self.attributes = (self.attributes & !COMPRESSION_MASK) | compression.id();
    }

    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Makes all records count as written at `now_ms`. The CRC must be set anew after it.
    pub fn set_log_append_time(&mut self, now_ms: i64) {
        self.attributes |= LOG_APPEND_TIME;
        self.max_timestamp = now_ms;
    }

    /// Makes the records' own timestamps count. The CRC must be set anew after it.
    pub fn set_create_time(&mut self, max_timestamp: i64) {
        self.attributes &= !LOG_APPEND_TIME;
        self.max_timestamp = max_timestamp;
    }

    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is a delete horizon (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// When the batch's tombstones may go, in ms since the Unix epoch (KIP-534).
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// The CRC must be set anew after it, and so must the records' timestamps, which are relative to it.
    pub fn set_delete_horizon(&mut self, horizon_ms: Option<i64>) {
        match horizon_ms {
            Some(horizon_ms) => {
                self.attributes |= DELETE_HORIZON;
                self.base_timestamp = horizon_ms;
            }
            None => self.attributes &= !DELETE_HORIZON,
        }
    }

    /// What compaction leaves of a batch whose records are all gone but which says where its producer,
    /// or the log, ends.
    #[must_use]
    pub fn emptied(mut self) -> Self {
        self.batch_length = (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32;
        self.set_compression(Compression::None);
        self.set_delete_horizon(None);
        self.base_timestamp = -1;
        self.record_count = 0;
        self.seal(&[]);
        self
    }

    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }

    /// Sequence of the last record; sequences go from 2147483647 on to 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        ((i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) & i64::from(i32::MAX)) as i32
    }
}

/// One whole batch: its header, and its bytes with the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub header: BatchHeader,
    pub bytes: Bytes,
}

impl Batch {
    /// The batch that `bytes` start with.
    ///
    /// # Errors
    /// When the header is wrong, or the bytes are fewer than it announces.
    pub fn parse(bytes: &Bytes) -> Result<Self, RecordError> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size_bytes();
        if bytes.len() < size {
            return Err(RecordError::BatchTooShort {
                length: bytes.len() as i64,
            });
        }
        Ok(Self {
            header,
            bytes: bytes.slice(..size),
        })
    }

    /// # Errors
    /// When the stored CRC is not that of the bytes.
    pub fn check_crc(&self) -> Result<(), RecordError> {
        let computed = crc32c::crc32c(&self.bytes[CRC_COVERS_FROM..]);
        let stored = self.header.crc;
        if computed == stored {
            Ok(())
        } else {
            Err(RecordError::Crc { stored, computed })
        }
    }

    /// The records as they are stored, perhaps compressed.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// The records one by one. A compressed batch is decompressed into one buffer of at most
    /// `limit` bytes; an uncompressed one costs nothing.
    ///
    /// # Errors
    /// When the codec is unknown or the records cannot be decompressed within the limit.
    pub fn records(&self, limit: usize) -> Result<Records, RecordError> {
        let payload = match self.header.compression()? {
            Compression::None => self.payload(),
            codec => compression::decompress(codec, &self.bytes[HEADER_BYTES..], limit)?,
        };
        Ok(Records::new(self.header, payload))
    }

    /// Walks through all records without keeping any: checks their structure, and tells what the
    /// log wants to know of them. A compressed batch is decompressed as a stream.
    ///
    /// # Errors
    /// When a record is not as the format says, or the batch's count lies.
    pub fn scan(&self) -> Result<Summary, RecordError> {
        scan(&self.header, &self.bytes[HEADER_BYTES..])
    }
}

/// The batches in a buffer, one after the other. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

/// Splits a buffer into batches by their lengths. What follows the last whole batch is an error,
/// [`RecordError::BatchTooShort`]: whoever reads a part of a log expects it there.
#[must_use]
pub fn batches(bytes: &Bytes) -> Batches {
    Batches { rest: bytes.clone() }
}

impl Iterator for Batches {
    type Item = Result<Batch, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = Batch::parse(&self.rest);
        match &batch {
            Ok(batch) => drop(self.rest.split_to(batch.bytes.len())),
            Err(_) => self.rest.clear(),
        }
        Some(batch)
    }
}
