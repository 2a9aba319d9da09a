//! Record batches of cases, written field by field so that each can be wrong, and the batches of an answer, shown.
//!
//! A batch in a case is an object; every key has a default: `records` (each `{"key", "value"}`), `base_offset`,
//! `leader_epoch`, `magic`, `attributes`, `last_offset_delta`, `base_timestamp`, `max_timestamp`, `producer_id`, `producer_epoch`, `base_sequence`,
//! `count`; `"crc": "wrong"` spoils the checksum, `"length": N` lies about the length.

use super::codec::{from_hex, to_hex};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// A time that does not move, so that both brokers get the same bytes.
const TIMESTAMP: i64 = 1_000_000_000_000;
const HEADER: usize = 61;
const KEYS: &[&str] = &[
    "records",
    "base_offset",
    "leader_epoch",
    "magic",
    "attributes",
    "last_offset_delta",
    "base_timestamp",
    "max_timestamp",
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "count",
    "crc",
    "length",
    "raw",
];

pub(super) fn build(list: &[Value]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for one in list {
        out.extend(batch(one)?);
    }
    Ok(out)
}

fn batch(value: &Value) -> Result<Vec<u8>> {
    let given = value
        .as_object()
        .ok_or_else(|| Error::new(format!("a batch is an object, not {value}")))?;
    if let Some(unknown) = given.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(Error::new(format!("a batch has no '{unknown}'")));
    }
    let number = |key: &str, default: i64| given.get(key).and_then(Value::as_i64).unwrap_or(default);
    let no_records = Vec::new();
    let records = given
        .get("records")
        .and_then(Value::as_array)
        .unwrap_or(&no_records);
    let mut content = Vec::new();
    for (at, one) in records.iter().enumerate() {
        record(&mut content, at as i64, one);
    }
    if let Some(raw) = given.get("raw").and_then(Value::as_str) {
        content = from_hex(raw)?;
    }
    let count = records.len() as i64;
    let base_timestamp = number("base_timestamp", TIMESTAMP);
    let mut checked = Vec::new();
    checked.extend((number("attributes", 0) as i16).to_be_bytes());
    checked.extend((number("last_offset_delta", count - 1) as i32).to_be_bytes());
    checked.extend(base_timestamp.to_be_bytes());
    checked.extend(number("max_timestamp", base_timestamp + (count - 1).max(0)).to_be_bytes());
    checked.extend(number("producer_id", -1).to_be_bytes());
    checked.extend((number("producer_epoch", -1) as i16).to_be_bytes());
    checked.extend((number("base_sequence", -1) as i32).to_be_bytes());
    checked.extend((number("count", count) as i32).to_be_bytes());
    checked.extend(content);
    let spoil = u32::from(given.get("crc").is_some());
    let length = number("length", checked.len() as i64 + 9) as i32;
    let mut out = Vec::new();
    out.extend(number("base_offset", 0).to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend((number("leader_epoch", -1) as i32).to_be_bytes());
    out.push(number("magic", 2) as u8);
    out.extend((crc32c::crc32c(&checked) ^ spoil).to_be_bytes());
    out.extend(checked);
    Ok(out)
}

fn record(out: &mut Vec<u8>, at: i64, value: &Value) {
    let mut body = vec![0];
    zigzag(&mut body, at); // a millisecond apart
    zigzag(&mut body, at);
    for key in ["key", "value"] {
        match value.get(key).and_then(Value::as_str) {
            Some(text) => {
                zigzag(&mut body, text.len() as i64);
                body.extend(text.bytes());
            }
            None => zigzag(&mut body, -1),
        }
    }
    zigzag(&mut body, 0); // no headers
    zigzag(out, body.len() as i64);
    out.extend(body);
}

fn zigzag(out: &mut Vec<u8>, number: i64) {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    while bits >= 0x80 {
        out.push((bits as u8 & 0x7f) | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// The headers of the batches, and the checksum of what they hold.
pub(super) fn show(mut bytes: &[u8]) -> Value {
    let mut shown = Vec::new();
    while let Some((header, _)) = bytes.split_at_checked(HEADER) {
        let number = |at: usize, width: usize| {
            let field = header.get(at..at + width).unwrap_or_default();
            let start = if field.first().is_some_and(|first| first & 0x80 != 0) {
                -1
            } else {
                0
            };
            field
                .iter()
                .fold(start, |number: i64, byte| (number << 8) | i64::from(*byte))
        };
        let size = usize::try_from(number(8, 4))
            .unwrap_or(0)
            .saturating_add(12)
            .max(HEADER);
        let (batch, rest) = bytes.split_at(size.min(bytes.len()));
        let content = batch.get(HEADER..).unwrap_or_default();
        shown.push(json!({
            "BaseOffset": number(0, 8), "Length": number(8, 4), "PartitionLeaderEpoch": number(12, 4),
            "Magic": number(16, 1), "Attributes": number(21, 2), "LastOffsetDelta": number(23, 4),
            "BaseTimestamp": number(27, 8), "MaxTimestamp": number(35, 8), "ProducerId": number(43, 8),
            "ProducerEpoch": number(51, 2), "BaseSequence": number(53, 4), "Count": number(57, 4),
            "Records": format!("{} bytes, crc {:08x}", content.len(), crc32c::crc32c(content)),
        }));
        bytes = rest;
    }
    if !bytes.is_empty() {
        shown.push(Value::from(to_hex(bytes)));
    }
    Value::Array(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shown_as_it_was_built() {
        let records = json!([{"value": "a"}, {"key": "k", "value": "b"}]);
        let bytes = build(&[json!({"records": records, "producer_id": 7, "base_sequence": 3})]).unwrap();
        let shown = show(&bytes);
        assert_eq!(shown[0]["ProducerId"], 7);
        assert_eq!(shown[0]["BaseSequence"], 3);
        assert_eq!(shown[0]["Count"], 2);
        assert_eq!(shown[0]["Length"], bytes.len() as i64 - 12);
        assert_eq!(shown.as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(build(&[json!({"record": []})]).is_err());
    }
}
