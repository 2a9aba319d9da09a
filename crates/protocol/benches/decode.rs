//! What the two requests that matter cost before anything is done for them: decoding, and checking a produced batch (CRC
//! and structure).

// What fails here is a mistake in the benchmark, which should stop.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use milena_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use milena_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use milena_protocol::messages::{FetchRequest, ProduceRequest};
use milena_protocol::records::{BatchBuilder, NewRecord, validate};
use milena_protocol::{Message, Reader, Uuid, Writer};

fn main() {
    divan::main();
}

fn batch(records: usize, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(&NewRecord {
            timestamp: 1_700_000_000_000,
            value: Some(Bytes::from(vec![b'v'; size])),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap()
}

fn written<M: Message>(message: &M) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, *M::VERSIONS.end()).unwrap();
    writer.finish_contiguous()
}

fn decode<M: Message>(bencher: Bencher<'_, '_>, bytes: &Bytes) {
    bencher.bench(|| M::decode(&mut Reader::new(black_box(bytes).clone()), *M::VERSIONS.end()).unwrap());
}

/// Batches of 16 KiB for one partition, and for many.
#[divan::bench(args = [1, 100])]
fn produce_request(bencher: Bencher<'_, '_>, partitions: i32) {
    let records = batch(16, 1024);
    let partition_data = (0..partitions).map(|index| PartitionProduceData {
        index,
        records: Some(records.clone()),
        ..PartitionProduceData::default()
    });
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            topic_id: Uuid::from_bytes([7; 16]),
            partition_data: partition_data.collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    decode::<ProduceRequest>(bencher, &written(&request));
}

/// The first request of a fetch session names all its partitions; later ones name none.
#[divan::bench(args = [0, 1, 100, 10_000])]
fn fetch_request(bencher: Bencher<'_, '_>, partitions: i32) {
    let fetched = (0..partitions).map(|partition| FetchPartition {
        partition,
        fetch_offset: i64::from(partition) * 1000,
        partition_max_bytes: 1_048_576,
        ..FetchPartition::default()
    });
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 52_428_800,
        topics: vec![FetchTopic {
            topic_id: Uuid::from_bytes([7; 16]),
            partitions: fetched.collect(),
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    decode::<FetchRequest>(bencher, &written(&request));
}

/// (records, bytes of each): one record, a usual batch, many small records, and a large batch.
#[divan::bench(args = [(1, 100), (16, 1024), (600, 100), (1000, 1024)])]
fn check_batch(bencher: Bencher<'_, '_>, (records, size): (usize, usize)) {
    let bytes = batch(records, size);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| validate(black_box(&bytes)).unwrap());
}
