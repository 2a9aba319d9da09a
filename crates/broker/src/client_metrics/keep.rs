//! What becomes of pushed metrics: records of a topic.

use std::sync::Arc;

use bytes::Bytes;
use milena_log::Append;
use milena_protocol::records::{self, BatchBuilder, Compression, NewRecord, RecordHeader};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::{TOPIC, Who};
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::topics::{NewTopic, Topic};

/// What of a push there may be when it is decompressed.
pub(crate) const MAX_METRICS_BYTES: usize = 8 << 20;
/// What is kept unless the topic's settings say otherwise: a day, and no more than 64 MiB.
const TOPIC_SETTINGS: [(&str, &str); 3] = [
    ("retention.ms", "86400000"),
    ("retention.bytes", "67108864"),
    ("segment.bytes", "8388608"),
];

/// Appends a client's metrics, which are decompressed.
///
/// # Errors
/// INVALID_RECORD for what is no OTLP; those of an append.
pub(crate) async fn keep(
    broker: &Arc<Broker>,
    instance_id: &Uuid,
    who: &Who,
    metrics: Bytes,
) -> Result<(), ApiError> {
    if !is_protobuf(&metrics) {
        return Err(ApiError::bare(ErrorCode::InvalidRecord));
    }
    let topic = topic(broker).await?;
    let count = topic.partitions.len().max(1);
    let place = crc32c::crc32c(instance_id.as_bytes()) as usize % count;
    let partition = topic
        .partitions
        .get(place)
        .ok_or_else(|| ApiError::bare(ErrorCode::UnknownTopicOrPartition))?;
    let header = |(name, value): (&&'static str, &String)| RecordHeader {
        key: Bytes::from_static(name.as_bytes()),
        value: Some(Bytes::from(value.clone())),
    };
    let now_ms = broker.clock.now_ms();
    let mut batch = BatchBuilder::new().compression(Compression::Zstd, None);
    batch.push(&NewRecord {
        timestamp: now_ms,
        key: Some(Bytes::from(instance_id.to_string())),
        value: Some(metrics),
        headers: who.attributes.iter().map(header).collect(),
    });
    let unusable = |error: &dyn std::fmt::Display| ApiError::new(ErrorCode::InvalidRecord, error.to_string());
    let batch = batch.build().map_err(|error| unusable(&error))?;
    let batch = records::validate(&batch).map_err(|error| unusable(&error))?;
    let append = Append {
        batch,
        leader_epoch: partition.leader_epoch(),
        now_ms,
        verification: None,
    };
    partition.log().append(append).await?;
    Ok(())
}

async fn topic(broker: &Arc<Broker>) -> Result<Arc<Topic>, ApiError> {
    if let Some(topic) = broker.topics.get(TOPIC) {
        return Ok(topic);
    }
    let setting = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let new = NewTopic {
        name: Str::from(TOPIC),
        partitions: 1,
        overrides: TOPIC_SETTINGS.into_iter().map(setting).collect(),
    };
    match broker.topics.create(vec![new]).await.pop() {
        Some(Ok(topic)) => Ok(topic),
        // Another push was faster.
        Some(Err(error)) => broker.topics.get(TOPIC).ok_or(error),
        None => Err(ApiError::bare(ErrorCode::UnknownServerError)),
    }
}

/// Whether the bytes are fields of a protobuf message, one behind the other. What is in them is the readers' matter.
fn is_protobuf(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some(tag) = varint(&mut bytes) else {
            return false;
        };
        let length = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut bytes),
            5 => Some(4),
            _ => None,
        };
        let rest = length
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| bytes.get(length..));
        match rest {
            Some(rest) if tag >> 3 != 0 => bytes = rest,
            _ => return false,
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_from_other_bytes() {
        for good in [
            &b""[..],
            b"\x0a\x02ab",
            b"\x0a\x00\x10\x96\x01",
            b"\x0d1234\x0912345678",
        ] {
            assert!(is_protobuf(good), "{good:?}");
        }
        for bad in [
            &b"nonsense"[..],
            b"\x0a\x05ab",
            b"\x0a",
            b"\x02\x00",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(!is_protobuf(bad), "{bad:?}");
        }
    }
}
