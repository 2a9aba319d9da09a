//! Builds a batch: what producers do, and the broker where it compresses a batch anew.

use std::io;

use bytes::Bytes;

use super::batch::{BatchHeader, HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC};
use super::compression::{self, Compression};
use super::scan::{Record, RecordHeader};
use super::{RecordError, varint};

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

impl From<Record> for NewRecord {
    fn from(record: Record) -> Self {
        Self {
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }
}

/// Collects records and makes a batch of them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    level: Option<i32>,
    payload: Vec<u8>,
    scratch: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    #[must_use]
    pub fn new() -> Self {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: 0,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        };
        Self {
            header,
            compression: Compression::None,
            level: None,
            payload: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Compresses the records; the level is the codec's own, `None` its default.
    #[must_use]
    pub fn compression(mut self, compression: Compression, level: Option<i32>) -> Self {
        self.compression = compression;
        self.level = level;
        self
    }

    /// Makes it a batch of an idempotent producer (KIP-98).
    #[must_use]
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Offset of the first record; producers leave it 0.
    #[must_use]
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.header.base_offset = offset;
        self
    }

    /// Attributes beside the codec: time, transaction, control.
    #[must_use]
    pub fn attributes(mut self, attributes: i16) -> Self {
        self.header.attributes = attributes;
        self
    }

    /// Number of records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.header.record_count).unwrap_or(0)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// A batch in the place of another: offsets, epoch, producer, attributes and codec are the other's,
    /// the records are those that [`Self::push_at`] brings. With a delete horizon (ms, KIP-534) the
    /// batch says from when on its tombstones may go.
    ///
    /// # Errors
    /// When the other's attributes name no codec.
    pub fn in_place_of(other: &BatchHeader, delete_horizon_ms: Option<i64>) -> Result<Self, RecordError> {
        let mut builder = Self::new();
        builder.compression = other.compression()?;
        builder.header = BatchHeader {
            record_count: 0,
            ..*other
        };
        builder.header.set_delete_horizon(delete_horizon_ms);
        Ok(builder)
    }

    pub fn push(&mut self, record: &NewRecord) {
        self.push_at(self.header.record_count, record);
        self.header.last_offset_delta += 1;
    }

    /// Adds a record at this distance from the base offset, which must grow from one to the next. Leaves
    /// the batch's last offset as it is.
    pub fn push_at(&mut self, offset_delta: i32, record: &NewRecord) {
        let header = &mut self.header;
        if header.record_count == 0 {
            if !header.has_delete_horizon() {
                header.base_timestamp = record.timestamp;
            }
            header.max_timestamp = record.timestamp;
        }
        header.max_timestamp = header.max_timestamp.max(record.timestamp);
        let body = &mut self.scratch;
        body.clear();
        body.push(0);
        varint::put(body, record.timestamp.wrapping_sub(header.base_timestamp));
        varint::put(body, i64::from(offset_delta));
        put_nullable(body, record.key.as_deref());
        put_nullable(body, record.value.as_deref());
        varint::put(body, record.headers.len() as i64);
        for one in &record.headers {
            put_nullable(body, Some(&one.key));
            put_nullable(body, one.value.as_deref());
        }
        self.payload.reserve(body.len() + varint::size(body.len() as i64));
        varint::put(&mut self.payload, body.len() as i64);
        self.payload.extend_from_slice(body);
        header.record_count += 1;
    }

    /// The whole batch, with its CRC.
    ///
    /// # Errors
    /// When compression fails, or the batch is larger than 2 GiB.
    pub fn build(self) -> io::Result<Bytes> {
        let mut header = self.header;
        let payload = match self.compression {
            Compression::None => Bytes::from(self.payload),
            codec => compression::compress(codec, self.level, &self.payload)?,
        };
        header.set_compression(self.compression);
        header.batch_length =
            i32::try_from(payload.len() + HEADER_BYTES - LOG_OVERHEAD_BYTES).map_err(io::Error::other)?;
        header.seal(&payload);
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(&payload);
        Ok(Bytes::from(out))
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, RecordError, Validated, batches, validate};
    use super::*;

    fn record(i: i64) -> NewRecord {
        NewRecord {
            timestamp: 1_000 + i * 10,
            key: (i % 3 != 0).then(|| Bytes::from(format!("key-{i}"))),
            value: (i % 5 != 4).then(|| Bytes::from(vec![b'v'; i as usize * 7])),
            headers: (0..i % 3)
                .map(|h| RecordHeader {
                    key: Bytes::from(format!("h{h}")),
                    value: (h == 0).then(|| Bytes::from_static(b"x")),
                })
                .collect(),
        }
    }

    fn batch(codec: Compression, count: i64) -> Bytes {
        let mut builder = BatchBuilder::new().compression(codec, None).producer(7, 1, 5);
        for i in 0..count {
            builder.push(&record(i));
        }
        builder.build().unwrap()
    }

    #[test]
    fn a_built_batch_is_valid_and_reads_back_with_every_codec() {
        for codec in Compression::ALL {
            let bytes = batch(codec, 40);
            let validated = validate(&bytes).unwrap();
            assert_eq!(validated.summary.max_timestamp, 1_390);
            assert_eq!(validated.summary.max_timestamp_at, 39);
            assert_eq!(validated.summary.min_timestamp, 1_000);
            assert_eq!(validated.summary.first_without_key, Some(0));
            let records: Vec<_> = validated
                .batch
                .records(1 << 20)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(records.len(), 40);
            for (i, read) in records.into_iter().enumerate() {
                assert_eq!(read.offset, i as i64);
                assert_eq!(NewRecord::from(read), record(i as i64), "{codec:?}");
            }
        }
    }

    /// What Kafka 4.3.1's `MemoryRecords.withIdempotentRecords` makes of [`record`] 0 to 39: a codec and
    /// the batch in hexadecimal digits on each line.
    const JAVA_BATCHES: &str = include_str!("java_batches.txt");

    fn from_hex(text: &str) -> Bytes {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn batches_of_the_java_client_are_read_with_every_codec() {
        let mut codecs = Vec::new();
        for line in JAVA_BATCHES.lines() {
            let (codec, hex) = line.split_once(' ').unwrap();
            let bytes = from_hex(hex);
            let Validated { batch: read, summary } = validate(&bytes).unwrap();
            assert_eq!(read.header.compression().unwrap().name(), codec);
            assert_eq!((summary.min_timestamp, summary.max_timestamp), (1_000, 1_390));
            let header = read.header;
            assert_eq!(
                (header.producer_id, header.producer_epoch, header.base_sequence),
                (7, 1, 5)
            );
            let records: Vec<_> = read
                .records(1 << 20)
                .unwrap()
                .map(|it| NewRecord::from(it.unwrap()))
                .collect();
            assert_eq!(records, (0..40).map(record).collect::<Vec<_>>(), "{codec}");
            if codec == "none" {
                let ours = batch(Compression::None, 40);
                assert_eq!(ours, bytes, "what needs no codec is the same to the byte");
            }
            codecs.push(codec);
        }
        assert_eq!(codecs, Compression::ALL.map(Compression::name));
    }

    /// A good batch with another header, and the CRC that fits it.
    fn with_header(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
        let good = batch(Compression::None, 3);
        let mut header = BatchHeader::parse(&good).unwrap();
        change(&mut header);
        header.seal(&good[HEADER_BYTES..]);
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&good[HEADER_BYTES..]);
        Bytes::from(bytes)
    }

    #[test]
    fn a_header_that_no_producer_may_send_is_refused_with_kafkas_code() {
        type Change = fn(&mut BatchHeader);
        let cases: [(Change, crate::ErrorCode); 11] = [
            (|it| it.magic = 0, crate::ErrorCode::InvalidRecord),
            (|it| it.magic = 1, crate::ErrorCode::InvalidRecord),
            (|it| it.base_offset = 1, crate::ErrorCode::InvalidRecord),
            (|it| it.record_count = 0, crate::ErrorCode::InvalidRecord),
            (|it| it.record_count = -1, crate::ErrorCode::InvalidRecord),
            (|it| it.last_offset_delta = 7, crate::ErrorCode::InvalidRecord),
            (|it| it.attributes |= 0x20, crate::ErrorCode::InvalidRecord),
            (|it| it.producer_epoch = -1, crate::ErrorCode::InvalidRecord),
            (|it| it.base_sequence = -1, crate::ErrorCode::InvalidRecord),
            (
                |it| it.attributes |= 5,
                crate::ErrorCode::UnsupportedCompressionType,
            ),
            (
                |it| it.attributes |= 7,
                crate::ErrorCode::UnsupportedCompressionType,
            ),
        ];
        for (at, (change, code)) in cases.into_iter().enumerate() {
            let error = validate(&with_header(change)).unwrap_err();
            assert_eq!(error.code(), code, "case {at}: {error}");
        }
        assert!(validate(&with_header(|_| {})).is_ok());
    }

    /// A batch of one record with these bytes behind its length.
    fn with_record(body: &[u8], codec: Compression) -> Bytes {
        let mut payload = Vec::new();
        varint::put(&mut payload, body.len() as i64);
        payload.extend_from_slice(body);
        let payload = compression::compress(codec, None, &payload).unwrap();
        let mut one = BatchBuilder::new();
        one.push(&record(0));
        let mut header = BatchHeader::parse(&one.build().unwrap()).unwrap();
        header.set_compression(codec);
        header.batch_length = (HEADER_BYTES - LOG_OVERHEAD_BYTES + payload.len()) as i32;
        header.seal(&payload);
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&payload);
        Bytes::from(bytes)
    }

    #[test]
    fn a_record_that_lies_is_an_invalid_record_with_every_codec() {
        // Attributes, timestamp delta, offset delta, key length, value length, header count.
        let good = [0, 0, 0, 1, 1, 0];
        let bad: [&[u8]; 10] = [
            &[0, 0, 2, 1, 1, 0],                                                 // offset delta 1
            &[0, 0, 0, 3, 1, 0],                                                 // key length -2
            &[0, 0, 0, 20, 1, 0],                                                // key longer than the record
            &[0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0],                      // key of 2 GiB
            &[0, 0, 0, 1, 1, 1],                                                 // -1 headers
            &[0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f],                      // 2 billion headers
            &[0, 0, 0, 1, 1, 2, 1, 1],                                           // a header without a key
            &[0, 0, 0, 1, 1, 0, 0],                                              // a byte too many
            &[0, 0, 0, 1, 1],                                                    // a byte too few
            &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], // a varint without end
        ];
        for codec in Compression::ALL {
            assert!(validate(&with_record(&good, codec)).is_ok(), "{codec:?}");
            for (at, body) in bad.iter().enumerate() {
                let bytes = with_record(body, codec);
                let error = validate(&bytes).unwrap_err();
                assert_eq!(
                    error.code(),
                    crate::ErrorCode::InvalidRecord,
                    "{codec:?} {at}: {error}"
                );
                // The lazy iterator does not trust the batch either.
                let read = Batch::parse(&bytes).unwrap().records(1 << 20).unwrap();
                assert!(
                    at == 0 || read.last().is_none_or(|last| last.is_err()),
                    "{codec:?} {at}"
                );
            }
        }
    }

    proptest::proptest! {
        /// Whoever can compute a CRC can send anything.
        #[test]
        fn changed_records_with_a_fitting_crc_never_pass_and_then_fail(
            codec in 0usize..5,
            changes in proptest::collection::vec((0usize..4000, proptest::num::u8::ANY), 1..6),
        ) {
            let good = batch(Compression::ALL[codec], 12);
            let mut payload = good[HEADER_BYTES..].to_vec();
            let length = payload.len();
            for (at, byte) in changes {
                payload[at % length] = byte;
            }
            let mut header = BatchHeader::parse(&good).unwrap();
            header.seal(&payload);
            let mut bytes = header.to_bytes().to_vec();
            bytes.extend_from_slice(&payload);
            if let Ok(validated) = validate(&Bytes::from(bytes)) {
                let records = validated.batch.records(1 << 24).unwrap();
                proptest::prop_assert_eq!(records.filter(Result::is_ok).count(), 12);
            }
        }
    }

    #[test]
    fn a_changed_byte_after_the_crc_is_noticed() {
        let good = batch(Compression::None, 3);
        for at in 17..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert!(validate(&Bytes::from(bad)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_count_that_lies_is_an_invalid_record_with_every_codec() {
        for codec in Compression::ALL {
            for lie in [1, 39, 41, i32::MAX] {
                let bytes = batch(codec, 40);
                let mut header = BatchHeader::parse(&bytes).unwrap();
                header.record_count = lie;
                header.last_offset_delta = lie - 1;
                header.seal(&bytes[HEADER_BYTES..]);
                let mut bad = header.to_bytes().to_vec();
                bad.extend_from_slice(&bytes[HEADER_BYTES..]);
                let error = validate(&Bytes::from(bad)).unwrap_err();
                assert_eq!(
                    error.code(),
                    crate::ErrorCode::InvalidRecord,
                    "{codec:?} {lie}: {error}"
                );
            }
        }
    }

    #[test]
    fn a_cut_batch_is_corrupt_and_nothing_at_all_is_invalid() {
        let good = batch(Compression::None, 3);
        for length in 1..good.len() {
            assert_eq!(
                validate(&good.slice(..length)).unwrap_err().code(),
                crate::ErrorCode::CorruptMessage
            );
        }
        assert_eq!(
            validate(&Bytes::new()).unwrap_err().code(),
            crate::ErrorCode::InvalidRecord
        );
    }

    #[test]
    fn two_batches_for_one_partition_are_invalid() {
        let mut two = batch(Compression::None, 1).to_vec();
        two.extend_from_slice(&batch(Compression::None, 1));
        assert_eq!(
            validate(&Bytes::from(two)).unwrap_err().code(),
            crate::ErrorCode::InvalidRecord
        );
    }

    #[test]
    fn a_negative_batch_length_is_corrupt() {
        let mut bytes = batch(Compression::None, 1).to_vec();
        bytes[8..12].copy_from_slice(&(-1i32).to_be_bytes());
        assert!(matches!(
            Batch::parse(&Bytes::from(bytes)),
            Err(RecordError::BatchTooShort { length: -1 })
        ));
    }

    #[test]
    fn a_buffer_splits_into_its_batches_and_says_when_the_last_is_cut() {
        let one = batch(Compression::None, 2);
        let mut three = Vec::new();
        for _ in 0..3 {
            three.extend_from_slice(&one);
        }
        assert_eq!(
            batches(&Bytes::from(three.clone())).filter(Result::is_ok).count(),
            3
        );
        three.truncate(three.len() - 1);
        let split: Vec<_> = batches(&Bytes::from(three)).collect();
        assert_eq!(split.len(), 3);
        assert!(split[2].is_err());
    }

    #[test]
    fn a_sequence_goes_on_at_zero_after_the_largest() {
        let mut header = BatchHeader::parse(&batch(Compression::None, 3)).unwrap();
        header.base_sequence = i32::MAX - 1;
        assert_eq!(header.last_sequence(), 0);
        header.base_sequence = 5;
        assert_eq!(header.last_sequence(), 7);
    }
}
