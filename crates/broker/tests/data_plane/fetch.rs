use std::time::{Duration, Instant};

use milena_protocol::Chunk;
use milena_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use milena_protocol::messages::fetch_response::PartitionData;
use milena_protocol::{ErrorCode, Uuid};

use crate::batches::{Batch, decode, produce};
use crate::harness::{Client, TestBroker, error, text};

/// Long enough that a test that waits for it is seen to hang.
pub(crate) const LONG_WAIT_MS: i32 = 120_000;

pub(crate) fn partition(index: i32, offset: i64) -> FetchPartition {
    FetchPartition {
        partition: index,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    }
}

pub(crate) fn request(topic: &str, partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic {
        topic: text(topic),
        partitions,
        ..FetchTopic::default()
    };
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

fn request_by_id(id: Uuid, partitions: Vec<FetchPartition>) -> FetchRequest {
    let mut request = request("", partitions);
    request.topics[0].topic_id = id;
    request
}

async fn fetch_one(client: &mut Client, request: &FetchRequest, version: i16) -> PartitionData {
    let response = client.call(request, version).await;
    assert_eq!(error(response.error_code), ErrorCode::None);
    response.responses[0].partitions[0].clone()
}

/// All that one partition gives at once from an offset on.
pub(crate) async fn fetch_all(client: &mut Client, topic: &str, index: i32, offset: i64) -> Chunk {
    let data = fetch_one(client, &request(topic, vec![partition(index, offset)]), 12).await;
    assert_eq!(error(data.error_code), ErrorCode::None);
    data.records.unwrap()
}

#[tokio::test]
async fn trap_4_a_fetch_from_the_middle_of_a_batch_gives_the_whole_batch() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a", "b", "c"])).await;
    produce(&mut client, "t", 0, &Batch::of(&["d"])).await;
    let records = decode(&fetch_all(&mut client, "t", 0, 1).await);
    assert_eq!(records.first(), Some(&(0, "a".to_owned())));
    assert_eq!(records.last(), Some(&(3, "d".to_owned())));
    assert_eq!(
        decode(&fetch_all(&mut client, "t", 0, 3).await),
        [(3, "d".to_owned())]
    );
}

#[tokio::test]
async fn trap_4_a_fetch_of_existing_data_answers_without_waiting() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a"])).await;
    let mut wanted = request("t", vec![partition(0, 0)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    let data = fetch_one(&mut client, &wanted, 12).await;
    assert_eq!(decode(&data.records.unwrap()).len(), 1);
    assert_eq!(
        (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset
        ),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_an_append() {
    let broker = TestBroker::start().await;
    broker.topic("t", 3).await;
    let mut consumer = broker.connect().await;
    let mut wanted = request("t", vec![partition(0, 0), partition(1, 0), partition(2, 0)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    let sent = consumer.send(&wanted, 12).await;
    let mut producer = broker.connect().await;
    produce(&mut producer, "t", 1, &Batch::of(&["a"])).await;
    let response = consumer.receive::<FetchRequest>(12, sent).await;
    let data: Vec<usize> = response.responses[0]
        .partitions
        .iter()
        .map(|data| data.records.as_ref().unwrap().len())
        .collect();
    assert_eq!(data.iter().filter(|length| **length > 0).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_12_no_wake_up_is_lost_while_appends_race_with_fetches() {
    const RECORDS: i64 = 300;
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut producer = broker.connect().await;
    let appending = tokio::spawn(async move {
        for number in 0..RECORDS {
            let index = i32::try_from(number % 2).unwrap();
            produce(&mut producer, "t", index, &Batch::of(&["x"])).await;
            tokio::task::yield_now().await;
        }
    });
    let mut consumer = broker.connect().await;
    let mut next = [0_i64, 0];
    let started = Instant::now();
    while next.iter().sum::<i64>() < RECORDS {
        let mut wanted = request("t", vec![partition(0, next[0]), partition(1, next[1])]);
        wanted.max_wait_ms = LONG_WAIT_MS;
        let response = consumer.call(&wanted, 12).await;
        for data in &response.responses[0].partitions {
            let records = decode(data.records.as_ref().unwrap());
            let place = &mut next[usize::try_from(data.partition_index).unwrap()];
            for (offset, _) in records {
                assert_eq!(offset, *place, "records come once and in order");
                *place += 1;
            }
        }
        let waited_out = started.elapsed() >= Duration::from_millis(u64::try_from(LONG_WAIT_MS).unwrap());
        assert!(!waited_out, "a fetch waited although data was there");
    }
    appending.await.unwrap();
}

#[tokio::test]
async fn min_bytes_are_waited_for_over_several_appends() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut consumer = broker.connect().await;
    let one = i32::try_from(Batch::of(&["x"]).encode().len()).unwrap();
    let mut wanted = request("t", vec![partition(0, 0), partition(1, 0)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    wanted.min_bytes = 3 * one;
    let sent = consumer.send(&wanted, 12).await;
    let mut producer = broker.connect().await;
    for index in [0, 1, 0] {
        produce(&mut producer, "t", index, &Batch::of(&["x"])).await;
    }
    let response = consumer.receive::<FetchRequest>(12, sent).await;
    let counts: Vec<usize> = response.responses[0]
        .partitions
        .iter()
        .map(|data| decode(data.records.as_ref().unwrap()).len())
        .collect();
    assert_eq!(counts, [2, 1]);
}

#[tokio::test]
async fn when_the_time_is_over_what_there_is_is_given() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a"])).await;
    let mut wanted = request("t", vec![partition(0, 0)]);
    wanted.max_wait_ms = 5;
    wanted.min_bytes = 1 << 20;
    let data = fetch_one(&mut client, &wanted, 12).await;
    assert_eq!(decode(&data.records.unwrap()).len(), 1);
}

#[tokio::test]
async fn the_first_batch_is_whole_however_small_the_limits_are() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    for index in 0..2 {
        produce(&mut client, "t", index, &Batch::of(&["a", "b"])).await;
        produce(&mut client, "t", index, &Batch::of(&["c"])).await;
    }
    let mut wanted = request("t", vec![partition(0, 0), partition(1, 0)]);
    for partition in &mut wanted.topics[0].partitions {
        partition.partition_max_bytes = 1;
    }
    wanted.max_bytes = 1;
    let response = client.call(&wanted, 12).await;
    let partitions = &response.responses[0].partitions;
    assert_eq!(decode(partitions[0].records.as_ref().unwrap()).len(), 2);
    assert!(partitions[1].records.as_ref().unwrap().is_empty());
}

#[tokio::test]
async fn fetch_max_bytes_of_the_broker_bounds_a_fetch() {
    let broker = TestBroker::with(&[("fetch.max.bytes", "1024")]).await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    for _ in 0..100 {
        produce(&mut client, "t", 0, &Batch::of(&["x"])).await;
    }
    let bytes = fetch_all(&mut client, "t", 0, 0).await.len();
    assert!((1..=1024).contains(&bytes), "{bytes} bytes");
}

#[tokio::test]
async fn offsets_out_of_range_are_told_at_once() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    for offset in [-1, 1, i64::MAX] {
        let mut wanted = request("t", vec![partition(0, offset)]);
        wanted.max_wait_ms = LONG_WAIT_MS;
        let data = fetch_one(&mut client, &wanted, 12).await;
        assert_eq!(
            error(data.error_code),
            ErrorCode::OffsetOutOfRange,
            "offset {offset}"
        );
        assert_eq!(data.high_watermark, -1);
    }
}

#[tokio::test]
async fn leader_epochs_fence_and_are_told_the_leader() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    // Restarts make the epoch grow, so that there is an older one.
    broker.restart().await;
    let epoch = broker.leader_epoch("t").await;
    let mut client = broker.connect().await;
    for (given, expected) in [
        (epoch - 1, ErrorCode::FencedLeaderEpoch),
        (epoch, ErrorCode::None),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut wanted = request("t", vec![partition(0, 0)]);
        wanted.topics[0].partitions[0].current_leader_epoch = given;
        let data = fetch_one(&mut client, &wanted, 12).await;
        assert_eq!(error(data.error_code), expected, "epoch {given}");
    }
}

#[tokio::test]
async fn a_last_fetched_epoch_of_another_history_is_told_where_they_part() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let first_epoch = broker.leader_epoch("t").await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a", "b"])).await;
    broker.restart().await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["c"])).await;
    let mut wanted = request("t", vec![partition(0, 3)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    wanted.topics[0].partitions[0].last_fetched_epoch = first_epoch;
    let data = fetch_one(&mut client, &wanted, 12).await;
    assert_eq!(error(data.error_code), ErrorCode::None);
    assert_eq!(
        (data.diverging_epoch.epoch, data.diverging_epoch.end_offset),
        (first_epoch, 2)
    );
    // The same epoch, at an offset that belongs to it, is no divergence.
    wanted.topics[0].partitions[0].fetch_offset = 2;
    let data = fetch_one(&mut client, &wanted, 12).await;
    assert_eq!(decode(&data.records.unwrap()), [(2, "c".to_owned())]);
}

#[tokio::test]
async fn trap_17_a_client_that_says_it_is_a_replica_reads_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a"])).await;
    for replica in [0, 1, 5] {
        let mut wanted = request("t", vec![partition(0, 0)]);
        wanted.replica_id = replica;
        let data = fetch_one(&mut client, &wanted, 12).await;
        assert_eq!(error(data.error_code), ErrorCode::NotLeaderOrFollower);
        assert!(data.records.unwrap().is_empty());
    }
    let id = broker.topic("u", 1).await;
    let mut wanted = request_by_id(id, vec![partition(0, 0)]);
    wanted.replica_state.replica_id = 1;
    wanted.topics[0].partitions[0].current_leader_epoch = broker.leader_epoch("u").await;
    let data = fetch_one(&mut client, &wanted, 17).await;
    assert_eq!(error(data.error_code), ErrorCode::UnknownLeaderEpoch);
}

#[tokio::test]
async fn topics_are_fetched_by_id_and_an_unknown_id_has_its_own_code() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a"])).await;
    for version in 13..=18 {
        let response = client
            .call(&request_by_id(id, vec![partition(0, 0)]), version)
            .await;
        assert_eq!(response.responses[0].topic_id, id);
        assert_eq!(
            decode(response.responses[0].partitions[0].records.as_ref().unwrap()).len(),
            1
        );
        let mut unknown = request_by_id(Uuid::from_bytes([9; 16]), vec![partition(0, 0)]);
        unknown.max_wait_ms = LONG_WAIT_MS;
        let response = client.call(&unknown, version).await;
        assert_eq!(
            error(response.responses[0].partitions[0].error_code),
            ErrorCode::UnknownTopicId
        );
    }
}

#[tokio::test]
async fn a_fetch_that_waits_hears_that_its_topic_was_deleted() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut wanted = request("t", vec![partition(0, 0)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    let sent = client.send(&wanted, 12).await;
    broker.delete_topic("t").await;
    let response = client.receive::<FetchRequest>(12, sent).await;
    let code = error(response.responses[0].partitions[0].error_code);
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test]
async fn a_fetch_that_waits_is_answered_when_the_broker_stops() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    // One answered request first: the broker has taken the connection.
    fetch_all(&mut client, "t", 0, 0).await;
    let mut wanted = request("t", vec![partition(0, 0)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    let sent = client.send(&wanted, 12).await;
    let mut other = broker.connect().await;
    fetch_all(&mut other, "t", 0, 0).await;
    broker.stop().await;
    if let Some(bytes) = client.frame().await {
        assert_eq!(bytes[..4], sent.to_be_bytes());
    }
}
