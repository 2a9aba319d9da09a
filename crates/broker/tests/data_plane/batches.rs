//! Record batches by hand, so that each field can be wrong.

use bytes::{BufMut, Bytes, BytesMut};
use milena_protocol::Chunk;
use milena_protocol::Str;
use milena_protocol::Uuid;
use milena_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use milena_protocol::messages::produce_response::PartitionProduceResponse;

use crate::harness::Client;

/// A batch of magic 2 with records of these values, and what a producer writes into it.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) first_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) attributes: i16,
    pub(crate) magic: u8,
    /// Added to the count of records.
    pub(crate) count_lie: i32,
}

impl Batch {
    pub(crate) fn of(values: &[&str]) -> Self {
        Self {
            values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
            key: None,
            first_timestamp: now_ms(),
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            attributes: 0,
            magic: 2,
            count_lie: 0,
        }
    }

    pub(crate) fn idempotent(mut self, producer_id: i64, epoch: i16, sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = epoch;
        self.base_sequence = sequence;
        self
    }

    pub(crate) fn encode(&self) -> Bytes {
        let count = i32::try_from(self.values.len()).unwrap();
        let mut crc_part = BytesMut::new();
        crc_part.put_i16(self.attributes);
        crc_part.put_i32(count - 1);
        crc_part.put_i64(self.first_timestamp);
        crc_part.put_i64(self.first_timestamp + i64::from(count - 1));
        crc_part.put_i64(self.producer_id);
        crc_part.put_i16(self.producer_epoch);
        crc_part.put_i32(self.base_sequence);
        crc_part.put_i32(count + self.count_lie);
        for (index, value) in self.values.iter().enumerate() {
            let record = self.record(i64::try_from(index).unwrap(), value);
            varint(&mut crc_part, i64::try_from(record.len()).unwrap());
            crc_part.put_slice(&record);
        }
        let mut batch = BytesMut::new();
        batch.put_i64(0);
        batch.put_i32(i32::try_from(crc_part.len() + 9).unwrap());
        batch.put_i32(-1);
        batch.put_u8(self.magic);
        batch.put_u32(crc32c(&crc_part));
        batch.put_slice(&crc_part);
        batch.freeze()
    }

    fn record(&self, index: i64, value: &[u8]) -> BytesMut {
        let mut record = BytesMut::new();
        record.put_u8(0);
        varint(&mut record, index);
        varint(&mut record, index);
        match &self.key {
            None => varint(&mut record, -1),
            Some(key) => {
                varint(&mut record, i64::try_from(key.len()).unwrap());
                record.put_slice(key);
            }
        }
        varint(&mut record, i64::try_from(value.len()).unwrap());
        record.put_slice(value);
        varint(&mut record, 0);
        record
    }
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap()
}

fn varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.put_u8(u8::try_from(rest).unwrap());
}

/// CRC-32C by the definition, bit by bit, so that it is not the broker's own.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// One record of a fetch: offset and value.
pub(crate) type Fetched = (i64, String);

/// The records of uncompressed batches.
pub(crate) fn decode(records: &Chunk) -> Vec<Fetched> {
    let records = records.clone().into_bytes().unwrap();
    let mut found = Vec::new();
    let mut rest = &records[..];
    while !rest.is_empty() {
        let base_offset = i64::from_be_bytes(rest[..8].try_into().unwrap());
        let length = usize::try_from(i32::from_be_bytes(rest[8..12].try_into().unwrap())).unwrap();
        let (batch, after) = rest.split_at(12 + length);
        rest = after;
        let count = i32::from_be_bytes(batch[57..61].try_into().unwrap());
        let mut at = &batch[61..];
        for _ in 0..count {
            read_varint(&mut at);
            at = &at[1..];
            read_varint(&mut at);
            let delta = read_varint(&mut at);
            let key = read_varint(&mut at);
            at = &at[usize::try_from(key.max(0)).unwrap()..];
            let value_length = usize::try_from(read_varint(&mut at)).unwrap();
            found.push((
                base_offset + delta,
                String::from_utf8(at[..value_length].to_vec()).unwrap(),
            ));
            at = &at[value_length..];
            read_varint(&mut at);
        }
    }
    found
}

fn read_varint(at: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = at[0];
        *at = &at[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
        }
    }
}

pub(crate) fn produce_request(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData {
        index: partition,
        records: Some(records),
        ..PartitionProduceData::default()
    };
    let topic = TopicProduceData {
        name: Str::from(topic.to_owned()),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    }
}

pub(crate) fn produce_by_id(id: Uuid, partition: i32, records: Bytes) -> ProduceRequest {
    let mut request = produce_request("", partition, records);
    request.topic_data[0].topic_id = id;
    request
}

pub(crate) async fn produce(
    client: &mut Client,
    topic: &str,
    partition: i32,
    batch: &Batch,
) -> PartitionProduceResponse {
    produce_bytes(client, topic, partition, batch.encode()).await
}

pub(crate) async fn produce_bytes(
    client: &mut Client,
    topic: &str,
    partition: i32,
    records: Bytes,
) -> PartitionProduceResponse {
    let response = client.call(&produce_request(topic, partition, records), 9).await;
    response.responses[0].partition_responses[0].clone()
}
