//! One answer of many partitions, in which pieces that are copied stand beside pieces of files.

use bytes::Bytes;
use milena_protocol::ErrorCode;
use milena_protocol::messages::fetch_request::FetchRequest;

use crate::engine::{
    Expected, FETCH, batch, batch_of_size, fetch, fill, patiently, records, started, tempdir, whole_batches,
};
use crate::harness::error;

const PARTITIONS: i32 = 70;
/// Up to this the engine copies, and beyond it the socket takes from the file.
const MOST_COPIED: usize = 16 * 1024;

/// What a partition gets: nothing, little, just what is copied, just not, much, and several batches
/// that are copied one by one but not together.
fn batches_of(partition: i32) -> Vec<Bytes> {
    let seed = 100 * u64::from(partition.unsigned_abs());
    match partition % 7 {
        0 => Vec::new(),
        1 => vec![batch(seed, 1, 10)],
        2 => vec![batch_of_size(seed, MOST_COPIED)],
        3 => vec![batch_of_size(seed, MOST_COPIED + 1)],
        4 => vec![batch(seed, 5, 20_000)],
        5 => (0..3).map(|number| batch(seed + number, 2, 4_000)).collect(),
        // Below what the encoder copies into its own buffer.
        _ => (0..3).map(|number| batch(seed + number, 1, 200)).collect(),
    }
}

#[tokio::test]
async fn an_answer_of_small_and_large_pieces_is_what_was_produced() {
    let dir = tempdir();
    let (broker, _logs) = started(&dir).await;
    let id = broker.topic("t", PARTITIONS).await;
    let mut expected: Vec<Expected> = Vec::new();
    for partition in 0..PARTITIONS {
        expected.push(fill(&broker, "t", partition, batches_of(partition)).await);
    }
    let every: Vec<(i32, i64)> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    let by_name = fetch("t", &every);
    let mut by_id = fetch("", &every);
    by_id.topics[0].topic_id = id;
    let mut client = broker.connect().await;
    // Several at a time, so that one answer begins wherever the socket stopped taking the last.
    let mut sent = Vec::new();
    for _ in 0..3 {
        for (request, version) in [(&by_name, 4), (&by_name, FETCH), (&by_id, 13), (&by_id, 17)] {
            sent.push((version, client.send(request, version).await));
        }
    }
    for (version, correlation_id) in sent {
        let response = patiently(client.receive::<FetchRequest>(version, correlation_id)).await;
        assert_eq!(error(response.error_code), ErrorCode::None);
        assert_eq!(response.responses.len(), 1);
        let answers = &response.responses[0].partitions;
        assert_eq!(answers.len(), expected.len());
        for (data, expected) in answers.iter().zip(&expected) {
            let partition = data.partition_index;
            let records = records(data);
            assert!(
                records == expected.bytes,
                "version {version}, partition {partition}: other bytes"
            );
            assert_eq!(whole_batches(&records).len(), expected.batches.len());
            assert_eq!(data.high_watermark, expected.next_offset);
        }
    }
}
