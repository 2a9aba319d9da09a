//! Records inside a batch: the lazy iterator that hands out slices, and the scan that checks them
//! without keeping any.

use std::io::{self, BufRead};

use bytes::Bytes;

use super::batch::{BatchHeader, TimestampType};
use super::compression::{self, Compression};
use super::{RecordError, varint};

/// The scan walks through no more decompressed bytes than this, so that a small batch cannot keep a
/// worker busy for long.
const MOST_SCANNED_BYTES: usize = 1 << 30;

/// Fewest bytes of a record: length, attributes, two deltas, key, value and header counts.
const LEAST_RECORD_BYTES: usize = 7;

/// One record. Key, value and headers are slices of the batch, or of its decompressed records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds since the Unix epoch; the batch's time where the log sets it.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Iterates over a batch's records. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    rest: Bytes,
    left: i32,
}

impl Records {
    pub(super) fn new(header: BatchHeader, payload: Bytes) -> Self {
        Self {
            header,
            left: header.record_count,
            rest: payload,
        }
    }

    fn read(&mut self) -> io::Result<Record> {
        let mut body = self.sized()?;
        varint::byte(&mut body.as_reader())?;
        let timestamp_delta = varint::long(&mut body.as_reader())?;
        let offset_delta = varint::int(&mut body.as_reader())?;
        let key = body.nullable()?;
        let value = body.nullable()?;
        let count = varint::int(&mut body.as_reader())?;
        let count =
            usize::try_from(count).map_err(|_| invalid("a record has a negative number of headers"))?;
        // A header has two lengths, so it takes two bytes at least.
        if count > body.0.len() / 2 {
            return Err(invalid("a record announces more headers than it can hold"));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = body
                .nullable()?
                .ok_or_else(|| invalid("a header's key is null"))?;
            headers.push(RecordHeader {
                key,
                value: body.nullable()?,
            });
        }
        if !body.0.is_empty() {
            return Err(invalid("a record is longer than its content"));
        }
        let timestamp = match self.header.timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp,
            TimestampType::CreateTime => self.header.base_timestamp.saturating_add(timestamp_delta),
        };
        Ok(Record {
            offset: self.header.base_offset.saturating_add(i64::from(offset_delta)),
            timestamp,
            key,
            value,
            headers,
        })
    }

    fn sized(&mut self) -> io::Result<Slice> {
        let mut slice = Slice(std::mem::take(&mut self.rest));
        let length = varint::int(&mut slice.as_reader())?;
        let body = slice.take(length)?;
        self.rest = slice.0;
        Ok(Slice(body))
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let record = self
            .read()
            .map_err(|error| RecordError::Invalid(error.to_string()));
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

/// A buffer that is read from the front in slices.
struct Slice(Bytes);

impl Slice {
    fn as_reader(&mut self) -> SliceReader<'_> {
        SliceReader(&mut self.0)
    }

    fn take(&mut self, length: i32) -> io::Result<Bytes> {
        let length = usize::try_from(length).map_err(|_| invalid("a length is negative"))?;
        if length > self.0.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.0.split_to(length))
    }

    fn nullable(&mut self) -> io::Result<Option<Bytes>> {
        match varint::int(&mut self.as_reader())? {
            -1 => Ok(None),
            length => self.take(length).map(Some),
        }
    }
}

struct SliceReader<'a>(&'a mut Bytes);

impl io::Read for SliceReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(self.0.len());
        out[..length].copy_from_slice(&self.0.split_to(length));
        Ok(length)
    }
}

impl BufRead for SliceReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.0)
    }

    fn consume(&mut self, amount: usize) {
        bytes::Buf::advance(self.0, amount);
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// What a scan of a batch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Over the records' own timestamps, in ms.
    pub min_timestamp: i64,
    pub max_timestamp: i64,
    /// Offset delta of the first record with the largest timestamp.
    pub max_timestamp_at: i32,
    /// Index of the first record that has no key.
    pub first_without_key: Option<i32>,
}

/// Counts what is read, and says so where more is asked for than there may be.
struct Bounded<'a> {
    inner: &'a mut dyn BufRead,
    left: usize,
}

impl Bounded<'_> {
    fn skip(&mut self, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let there = self.inner.fill_buf()?.len();
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = there.min(length);
            self.inner.consume(step);
            self.spend(step)?;
            length -= step;
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| invalid("the records are too large decompressed"))?;
        Ok(())
    }
}

impl io::Read for Bounded<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.spend(read)?;
        Ok(read)
    }
}

impl BufRead for Bounded<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let there = self.inner.fill_buf()?;
        // Whoever reads byte by byte asks here before it consumes, so this is where it is stopped.
        if self.left == 0 && !there.is_empty() {
            return Err(invalid("the records are too large decompressed"));
        }
        Ok(there)
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.left = self.left.saturating_sub(amount);
    }
}

pub(super) fn scan(header: &BatchHeader, payload: &[u8]) -> Result<Summary, RecordError> {
    let codec = header.compression()?;
    if codec == Compression::None {
        return scan_slice(header, payload).map_err(|error| explain(header, &error));
    }
    compression::with_decompressed(codec, payload, |reader| {
        scan_stream(
            header,
            &mut Bounded {
                inner: reader,
                left: MOST_SCANNED_BYTES,
            },
        )
        .map_err(|error| explain(header, &error))
    })
}

fn explain(header: &BatchHeader, error: &io::Error) -> RecordError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        RecordError::Invalid(format!(
            "Incorrect declared batch size, premature EOF reached: {} records announced",
            header.record_count
        ))
    } else {
        RecordError::Invalid(format!("Found invalid record structure: {error}"))
    }
}

struct Scan {
    summary: Summary,
    base_timestamp: i64,
}

impl Scan {
    fn new(header: &BatchHeader) -> Self {
        let summary = Summary {
            min_timestamp: i64::MAX,
            max_timestamp: i64::MIN,
            max_timestamp_at: 0,
            first_without_key: None,
        };
        Self {
            summary,
            base_timestamp: header.base_timestamp,
        }
    }

    fn record(
        &mut self,
        index: i32,
        timestamp_delta: i64,
        offset_delta: i32,
        has_key: bool,
    ) -> io::Result<()> {
        if offset_delta != index {
            return Err(invalid(&format!(
                "inner record {index} has offset delta {offset_delta}"
            )));
        }
        let timestamp = self.base_timestamp.saturating_add(timestamp_delta);
        self.summary.min_timestamp = self.summary.min_timestamp.min(timestamp);
        if timestamp > self.summary.max_timestamp {
            self.summary.max_timestamp = timestamp;
            self.summary.max_timestamp_at = offset_delta;
        }
        if !has_key && self.summary.first_without_key.is_none() {
            self.summary.first_without_key = Some(index);
        }
        Ok(())
    }
}

/// The records of an uncompressed batch: all lengths are checked against the slice.
fn scan_slice(header: &BatchHeader, mut payload: &[u8]) -> io::Result<Summary> {
    let mut scan = Scan::new(header);
    if usize::try_from(header.record_count).map_or(true, |count| count > payload.len() / LEAST_RECORD_BYTES) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for index in 0..header.record_count {
        let length = varint::int(&mut payload)?;
        let length = usize::try_from(length).map_err(|_| invalid("a record's length is negative"))?;
        let (mut body, rest) = payload
            .split_at_checked(length)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        payload = rest;
        let body = &mut body;
        scan_body(&mut scan, index, body, |body, length| {
            *body = body
                .get(length..)
                .ok_or_else(|| invalid("a record is shorter than its content"))?;
            Ok(())
        })?;
        if !body.is_empty() {
            return Err(invalid("a record is longer than its content"));
        }
    }
    if !payload.is_empty() {
        return Err(invalid(
            "Incorrect declared batch size, records still remaining in file",
        ));
    }
    Ok(scan.summary)
}

/// The same over a stream of decompressed bytes, of which nothing is kept.
fn scan_stream(header: &BatchHeader, reader: &mut Bounded<'_>) -> io::Result<Summary> {
    let mut scan = Scan::new(header);
    for index in 0..header.record_count {
        let length = varint::int(reader)?;
        let length = usize::try_from(length).map_err(|_| invalid("a record's length is negative"))?;
        let before = reader.left;
        scan_body(&mut scan, index, reader, |reader, length| reader.skip(length))?;
        if before - reader.left != length {
            return Err(invalid("a record's length is not that of its content"));
        }
    }
    if !reader.fill_buf()?.is_empty() {
        return Err(invalid(
            "Incorrect declared batch size, records still remaining in file",
        ));
    }
    Ok(scan.summary)
}

/// What follows a record's length.
#[inline]
fn scan_body<R: BufRead>(
    scan: &mut Scan,
    index: i32,
    body: &mut R,
    skip: impl Fn(&mut R, usize) -> io::Result<()>,
) -> io::Result<()> {
    varint::byte(body)?;
    let timestamp_delta = varint::long(body)?;
    let offset_delta = varint::int(body)?;
    let nullable = |body: &mut R, what: &str| -> io::Result<bool> {
        match varint::int(body)? {
            -1 => Ok(false),
            length => {
                skip(
                    body,
                    usize::try_from(length)
                        .map_err(|_| invalid(&format!("a {what} has a negative length")))?,
                )?;
                Ok(true)
            }
        }
    };
    let has_key = nullable(body, "key")?;
    nullable(body, "value")?;
    let headers = varint::int(body)?;
    if headers < 0 {
        return Err(invalid("a record has a negative number of headers"));
    }
    for _ in 0..headers {
        if !nullable(body, "header's key")? {
            return Err(invalid("a header's key is null"));
        }
        nullable(body, "header's value")?;
    }
    scan.record(index, timestamp_delta, offset_delta, has_key)
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, HEADER_BYTES, NewRecord};
    use super::*;

    /// Scans this record within a limit.
    fn scan_within(record: &NewRecord, limit: usize) -> io::Result<Summary> {
        let mut builder = BatchBuilder::new();
        builder.push(record);
        let batch = builder.build().unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let mut payload = &batch[HEADER_BYTES..];
        scan_stream(
            &header,
            &mut Bounded {
                inner: &mut payload,
                left: limit,
            },
        )
    }

    #[test]
    fn a_scan_stops_at_its_limit_in_a_value_and_among_headers() {
        let long_value = NewRecord {
            value: Some(Bytes::from(vec![0; 1000])),
            ..NewRecord::default()
        };
        let header = RecordHeader {
            key: Bytes::new(),
            value: None,
        };
        let many_headers = NewRecord {
            headers: vec![header; 500],
            ..NewRecord::default()
        };
        for record in [long_value, many_headers] {
            assert!(scan_within(&record, 1020).is_ok());
            let error = scan_within(&record, 900).unwrap_err();
            assert!(error.to_string().contains("too large"), "{error}");
        }
    }
}
