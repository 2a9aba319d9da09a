//! Where an answer ends: at the consumer's limit, also within a batch, as Kafka's do; but the first
//! batch is given whole, and nothing is given that may not be seen yet.

use bytes::Bytes;
use milena_log_disk::{CommitMode, DiskOptions};
use milena_protocol::messages::fetch_request::FetchRequest;
use tempfile::TempDir;

use crate::batches::produce_request;
use crate::engine::{
    Expected, FETCH, batch, fetch, fetched, fill, open, options, patiently, records, started, tempdir,
    whole_batches,
};
use crate::harness::TestBroker;

fn limited(partition: i32, offset: i64, max_bytes: usize) -> FetchRequest {
    let mut request = fetch("t", &[(partition, offset)]);
    request.topics[0].partitions[0].partition_max_bytes = i32::try_from(max_bytes).unwrap();
    request
}

impl Expected {
    /// What Kafka gives from `offset` on: `max_bytes` of what is there, but the batch with the offset
    /// whole, which is given to the first partition alone if it is larger.
    fn answer(&self, offset: i64, max_bytes: usize, is_first: bool) -> &[u8] {
        let at = self.batches.partition_point(|(_, base)| *base <= offset) - 1;
        let (start, _) = self.batches[at];
        let end = self
            .batches
            .get(at + 1)
            .map_or(self.bytes.len(), |(next, _)| *next);
        let there = &self.bytes[start..];
        match end - start {
            first if max_bytes >= first => &there[..max_bytes.min(there.len())],
            first if is_first => &there[..first],
            _ => &[],
        }
    }
}

async fn filled(dir: &TempDir, batches: impl IntoIterator<Item = Bytes>) -> (TestBroker, Expected) {
    let (broker, _logs) = started(dir).await;
    broker.topic("t", 1).await;
    let expected = fill(&broker, "t", 0, batches).await;
    (broker, expected)
}

#[tokio::test]
async fn small_answers_end_at_the_byte_that_the_consumer_says() {
    let batches = [(1, 0), (3, 10), (1, 1), (2, 50), (1, 30)];
    let batches = (0..)
        .zip(batches)
        .map(|(seed, (count, size))| batch(seed, count, size));
    let dir = tempdir();
    let (broker, expected) = filled(&dir, batches).await;
    let mut client = broker.connect().await;
    // The second record of the second batch: a batch is given from its start.
    for offset in [0, 2, expected.next_offset - 1] {
        for max_bytes in 0..expected.bytes.len() + 2 {
            let answer = fetched(&mut client, &limited(0, offset, max_bytes)).await;
            assert!(
                answer == expected.answer(offset, max_bytes, true),
                "{max_bytes} bytes from {offset}: {} came",
                answer.len()
            );
        }
    }
}

#[tokio::test]
async fn answers_from_files_end_at_the_byte_that_the_consumer_says() {
    let dir = tempdir();
    let (broker, expected) = filled(&dir, (0..8).map(|seed| batch(seed, 3, 4000))).await;
    let mut client = broker.connect().await;
    // Around the ends of batches, of their lengths and headers, and of what is copied.
    let ends = expected.batches.iter().map(|(start, _)| *start);
    let limits: Vec<usize> = ends
        .chain([16 * 1024, expected.bytes.len()])
        .flat_map(|end| {
            [
                end.saturating_sub(1),
                end,
                end + 1,
                end + 11,
                end + 12,
                end + 60,
                end + 61,
                end + 62,
            ]
        })
        .collect();
    for offset in [0, 4, 12] {
        for max_bytes in &limits {
            let answer = fetched(&mut client, &limited(0, offset, *max_bytes)).await;
            assert!(
                answer == expected.answer(offset, *max_bytes, true),
                "{max_bytes} bytes from {offset}: {} came",
                answer.len()
            );
        }
    }
}

#[tokio::test]
async fn a_consumer_that_throws_cut_batches_away_reads_everything() {
    let batches = (0..40).map(|seed| {
        batch(
            seed,
            1 + seed % 3,
            700 + 150 * usize::try_from(seed % 11).unwrap(),
        )
    });
    let dir = tempdir();
    let (broker, expected) = filled(&dir, batches).await;
    let mut client = broker.connect().await;
    let mut got = Vec::new();
    let mut offset = 0;
    let mut cuts = 0;
    while offset < expected.next_offset {
        let records = fetched(&mut client, &limited(0, offset, 9000)).await;
        let whole = whole_batches(&records);
        offset = whole.last().expect("an answer makes way").header.next_offset();
        let length: usize = whole.iter().map(|batch| batch.bytes.len()).sum();
        cuts += usize::from(length < records.len());
        got.extend_from_slice(&records[..length]);
    }
    assert!(got == expected.bytes);
    assert!(cuts > 3, "the answers were cut {cuts} times");
}

#[tokio::test]
async fn what_one_partition_leaves_of_a_request_s_limit_cuts_the_next() {
    let dir = tempdir();
    let (broker, _logs) = started(&dir).await;
    broker.topic("t", 3).await;
    let mut expected = Vec::new();
    for (partition, seed) in [(0, 10), (1, 20), (2, 30)] {
        // The first is copied, the others come from files.
        let size = if partition == 0 { 500 } else { 9000 };
        let batches = (0..3).map(|number| batch(seed + number, 2, size));
        expected.push(fill(&broker, "t", partition, batches).await);
    }
    let mut client = broker.connect().await;
    let first = expected[0].bytes.len();
    let second = expected[1].bytes.len();
    let batch = second / 3;
    for max_bytes in [
        1,
        first,
        first + 1,
        first + batch - 1,
        first + batch,
        first + batch + 1,
        first + second,
        first + second + batch + 100,
    ] {
        let mut request = fetch("t", &[(0, 0), (1, 0), (2, 0)]);
        request.max_bytes = i32::try_from(max_bytes).unwrap();
        let response = patiently(client.call(&request, FETCH)).await;
        let mut left = max_bytes;
        for (data, expected) in response.responses[0].partitions.iter().zip(&expected) {
            let expected = expected.answer(0, left, data.partition_index == 0);
            let records = records(data);
            assert!(
                records == expected,
                "a limit of {max_bytes}, partition {}: {} bytes, not {}",
                data.partition_index,
                records.len(),
                expected.len()
            );
            left = left.saturating_sub(expected.len());
        }
    }
}

#[tokio::test]
async fn an_answer_ends_where_records_wait_for_their_sync() {
    let dir = tempdir();
    let logs = open(
        &[&dir],
        DiskOptions {
            commit: CommitMode::Manual,
            ..options()
        },
    );
    let broker = TestBroker::on(logs.clone()).await;
    broker.topic("t", 1).await;
    let leader_epoch = broker.leader_epoch("t").await;
    let mut client = broker.connect().await;
    let mut expected = Expected::default();
    for number in 0..4 {
        let visible = expected.bytes.clone();
        let batch = batch(number, 2, 6000);
        let mut request = produce_request("t", 0, batch.clone());
        request.acks = 1;
        patiently(client.call(&request, 9)).await;
        expected.push(&batch, leader_epoch);
        for max_bytes in [visible.len(), visible.len() + 1, 1 << 20] {
            let answer = fetched(&mut client, &limited(0, 0, max_bytes)).await;
            assert!(answer == visible, "{} bytes, not {}", answer.len(), visible.len());
        }
        logs.commit();
    }
    assert!(fetched(&mut client, &limited(0, 0, 1 << 20)).await == expected.bytes);
}
