//! Round trips on plain sockets: one Fetch request that waits, one Produce request with one record, both answers.
//!
//! kafka-e2e-latency tells its percentiles in whole milliseconds, more than a round trip takes, and a client's own work is
//! part of what it measures. Here are only the broker and the kernel, to the nanosecond. Leaves out everything that a
//! client does besides: versions, metadata and groups.

use super::clients::Shape;
use super::{Values, sampling};
use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Produce version 3 and Fetch version 4 are the oldest that Kafka 4 has, and the shortest to write.
const PRODUCE: (i16, i16) = (0, 3);
const FETCH: (i16, i16) = (1, 4);
/// Longer than any answer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MS: i32 = 30_000;
/// As consumers have it (`fetch.max.wait.ms`).
const FETCH_MAX_WAIT_MS: i32 = 500;
/// A topic that was just created may have no leader yet: not known, none, or not this broker.
pub(super) const NOT_YET: [i16; 3] = [3, 5, 6];
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// A record is in an answer that is longer than this.
const EMPTY_ANSWER_BYTES: usize = 100;
/// The throttle time is in front of the topics.
const FETCH_START: usize = 4;
const FETCH_MAX_BYTES: i32 = 1_048_576;
/// No answer here is longer; a longer one is none that was asked for.
const MOST_ANSWER_BYTES: usize = 2 * 1_048_576;
/// Where the CRC of a batch is, and what it covers.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

/// Makes a round trip of each record, one after the other, on partition 0 of a topic that nobody else writes to and that
/// ends at offset `from`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn make_round_trips(address: SocketAddr, topic: &str, from: u64, shape: Shape) -> Result<Values> {
    let mut producer = Connection::open(address)?;
    let mut consumer = Connection::open(address)?;
    let produce = produce_request(topic, &batch_of_one(usize::try_from(shape.size).unwrap_or(0)));
    wait_for_leader(&mut consumer, topic, i64::try_from(from).unwrap_or(i64::MAX))?;
    let mut times_ms = Vec::new();
    for offset in from..from + shape.records {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let fetch = fetch_request(topic, offset);
        let begin = Instant::now();
        consumer.send(FETCH, &fetch)?;
        producer.send(PRODUCE, &produce)?;
        check_produced(&producer.receive()?, topic, offset)?;
        while !is_fetched(&consumer.receive()?, topic, offset)? {
            consumer.send(FETCH, &fetch)?;
        }
        times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let total_ms: f64 = times_ms.iter().sum();
    let mut values = sampling::percentiles(times_ms);
    values.insert("records_per_second", shape.records as f64 * 1000.0 / total_ms);
    Ok(values)
}

/// Asks for what is not there until the answer is that it is not there.
fn wait_for_leader(consumer: &mut Connection, topic: &str, end: i64) -> Result<()> {
    let begin = Instant::now();
    let fetch = fetch_request(topic, end);
    loop {
        consumer.send(FETCH, &fetch)?;
        let answer = consumer.receive()?;
        match error_and_offset(&answer, FETCH_START, topic) {
            Some((error, _)) if NOT_YET.contains(&error) && begin.elapsed() < TIMEOUT => {
                std::thread::sleep(PAUSE);
            }
            _ => return Ok(()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection(TcpStream);

impl Connection {
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(stream))
    }

    fn send(&mut self, (key, version): (i16, i16), body: &[u8]) -> Result<()> {
        let mut header = Vec::new();
        header.extend(key.to_be_bytes());
        header.extend(version.to_be_bytes());
        header.extend(7i32.to_be_bytes());
        string(&mut header, "round-trip");
        header.extend(body);
        self.send_frame(&header)
    }

    pub(super) fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let mut sent = length(frame.len()).to_be_bytes().to_vec();
        sent.extend(frame);
        Ok(self.0.write_all(&sent)?)
    }

    /// An answer after its correlation id.
    pub(super) fn receive(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 8];
        self.0.read_exact(&mut head)?;
        let [a, b, c, d, ..] = head;
        let bytes = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if !(4..=MOST_ANSWER_BYTES).contains(&bytes) {
            return Err(Error::new(format!("an answer of {bytes} bytes")));
        }
        let mut body = vec![0; bytes - 4];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or(0));
}

/// A batch (magic 2) with one record without key and headers.
fn batch_of_one(size: usize) -> Vec<u8> {
    let mut record = vec![0, 0, 0]; // attributes, timestamp delta, offset delta
    record.push(1); // no key: -1
    varint(&mut record, size);
    record.extend(std::iter::repeat_n(b'v', size));
    record.push(0); // no headers
    let mut records = Vec::new();
    varint(&mut records, record.len());
    records.extend(record);

    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
    let mut batch = vec![0; 8]; // base offset
    batch.extend(length(49 + records.len()).to_be_bytes());
    batch.extend((-1i32).to_be_bytes()); // leader epoch
    batch.push(2); // magic
    batch.extend([0; 4]); // CRC
    batch.extend([0; 2]); // attributes
    batch.extend([0; 4]); // last offset delta
    batch.extend(now_ms.to_be_bytes());
    batch.extend(now_ms.to_be_bytes());
    batch.extend((-1i64).to_be_bytes()); // producer id
    batch.extend((-1i16).to_be_bytes()); // producer epoch
    batch.extend((-1i32).to_be_bytes()); // base sequence
    batch.extend(1i32.to_be_bytes()); // records
    batch.extend(records);
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn one_partition(out: &mut Vec<u8>, topic: &str) {
    out.extend(1i32.to_be_bytes());
    string(out, topic);
    out.extend(1i32.to_be_bytes());
    out.extend(0i32.to_be_bytes());
}

fn produce_request(topic: &str, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1i16).to_be_bytes()); // no transactional id
    body.extend((-1i16).to_be_bytes()); // acks=all
    body.extend(TIMEOUT_MS.to_be_bytes());
    one_partition(&mut body, topic);
    body.extend(length(batch.len()).to_be_bytes());
    body.extend(batch);
    body
}

fn fetch_request(topic: &str, offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1i32).to_be_bytes()); // a consumer
    body.extend(FETCH_MAX_WAIT_MS.to_be_bytes());
    body.extend(1i32.to_be_bytes()); // min bytes
    body.extend(FETCH_MAX_BYTES.to_be_bytes());
    body.push(0); // read_uncommitted
    one_partition(&mut body, topic);
    body.extend(offset.to_be_bytes());
    body.extend(FETCH_MAX_BYTES.to_be_bytes());
    body
}

/// The error code and the offset after it, which follow `[topics] name [partitions] index` from `start` on.
fn error_and_offset(answer: &[u8], start: usize, topic: &str) -> Option<(i16, i64)> {
    let at = start + 4 + 2 + topic.len() + 4 + 4;
    let error = answer.get(at..at + 2)?.try_into().ok()?;
    let offset = answer.get(at + 2..at + 10)?.try_into().ok()?;
    Some((i16::from_be_bytes(error), i64::from_be_bytes(offset)))
}

/// Its base offset is the one that was its turn.
fn check_produced(answer: &[u8], topic: &str, offset: i64) -> Result<()> {
    match error_and_offset(answer, 0, topic) {
        Some((0, base_offset)) if base_offset == offset => Ok(()),
        other => Err(Error::new(format!("record {offset} was produced as {other:?}"))),
    }
}

/// Whether the record is there; it is not when the fetch has waited as long as it may.
fn is_fetched(answer: &[u8], topic: &str, offset: i64) -> Result<bool> {
    match error_and_offset(answer, FETCH_START, topic) {
        Some((0, high_watermark)) if high_watermark <= offset + 1 => Ok(answer.len() > EMPTY_ANSWER_BYTES),
        other => Err(Error::new(format!("record {offset} was fetched as {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_its_own_length() {
        let batch = batch_of_one(100);
        let said = i32::from_be_bytes(batch[8..12].try_into().unwrap());
        assert_eq!(usize::try_from(said).unwrap(), batch.len() - 12);
        assert_eq!(batch.len(), 61 + 2 + 107);
    }

    #[test]
    fn an_answer_that_is_an_error_or_cut_is_no_round_trip() {
        let answer = |error: i16, offset: i64| {
            let mut answer = Vec::new();
            one_partition(&mut answer, "t");
            answer.extend(error.to_be_bytes());
            answer.extend(offset.to_be_bytes());
            answer
        };
        assert!(check_produced(&answer(0, 5), "t", 5).is_ok());
        assert!(check_produced(&answer(0, 4), "t", 5).is_err());
        assert!(check_produced(&answer(56, 5), "t", 5).is_err());
        assert!(check_produced(&answer(0, 5)[..12], "t", 5).is_err());
    }
}
