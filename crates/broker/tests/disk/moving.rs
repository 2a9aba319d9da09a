//! Replicas that move between log directories while clients use them.

use std::sync::Arc;

use milena_log::LogStore;
use milena_log_disk::{CommitMode, DiskLogStore, DiskOptions, MoveMode};
use milena_protocol::ErrorCode;
use milena_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use milena_protocol::messages::fetch_request::FetchRequest;
use milena_protocol::messages::produce_request::ProduceRequest;
use milena_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::batches::produce_request;
use crate::engine::{
    FETCH, LONG_WAIT_MS, SEGMENT_BYTES, batch, fetch, fetched, fill, open, options, patiently, records,
    tempdir, until, whole_batches,
};
use crate::faults::{TwoDisks, What};
use crate::harness::{Client, TestBroker, error, text};

const ALTER: i16 = 2;
const DESCRIBE: i16 = 5;
const PRODUCE: i16 = 9;

fn path(dir: &TempDir) -> &str {
    dir.path().to_str().unwrap()
}

/// A broker on two directories whose replicas move when the test says so.
async fn two_dirs(commit: CommitMode) -> (TestBroker, Arc<DiskLogStore>, [TempDir; 2]) {
    let dirs = [tempdir(), tempdir()];
    let logs = open(
        &[&dirs[0], &dirs[1]],
        DiskOptions {
            commit,
            moving: MoveMode::Manual,
            ..options()
        },
    );
    let broker = TestBroker::on(logs.clone()).await;
    let segment_bytes = SEGMENT_BYTES.to_string();
    let config = [("segment.bytes", segment_bytes.as_str())];
    broker.topic_with("t", 1, &config).await;
    (broker, logs, dirs)
}

async fn alter(client: &mut Client, wanted: &[(&str, &str, i32)]) -> Vec<(String, i32, ErrorCode)> {
    let dir = |(path, topic, partition): &(&str, &str, i32)| AlterReplicaLogDir {
        path: text(path),
        topics: vec![AlterReplicaLogDirTopic {
            name: text(topic),
            partitions: vec![*partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = AlterReplicaLogDirsRequest {
        dirs: wanted.iter().map(dir).collect(),
        ..Default::default()
    };
    let response = patiently(client.call(&request, ALTER)).await;
    let results = response.results.iter().flat_map(|topic| {
        let name = topic.topic_name.to_string();
        let of = move |it: &_| {
            let it: &milena_protocol::messages::alter_replica_log_dirs_response::AlterReplicaLogDirPartitionResult = it;
            (name.clone(), it.partition_index, error(it.error_code))
        };
        topic.partitions.iter().map(of)
    });
    results.collect()
}

async fn described(client: &mut Client) -> DescribeLogDirsResponse {
    let request = DescribeLogDirsRequest {
        topics: None,
        ..Default::default()
    };
    patiently(client.call(&request, DESCRIBE)).await
}

/// `(index of the directory, is it a future one, lag)` of each replica.
async fn replicas(client: &mut Client) -> Vec<(usize, bool, i64)> {
    let described = described(client).await;
    let mut found = Vec::new();
    for (at, dir) in described.results.iter().enumerate() {
        let partitions = dir.topics.iter().flat_map(|topic| &topic.partitions);
        found.extend(partitions.map(|it| (at, it.is_future_key, it.offset_lag)));
    }
    found
}

#[tokio::test]
async fn a_replica_moves_while_it_is_written_and_read() {
    let (broker, logs, dirs) = two_dirs(CommitMode::Thread).await;
    let mut client = broker.connect().await;
    let batches = (0..40).map(|seed| batch(seed, 4, 20_000));
    let expected = fill(&broker, "t", 0, batches).await;
    assert_eq!(replicas(&mut client).await, [(0, false, 0)]);
    let moved = alter(&mut client, &[(path(&dirs[1]), "t", 0)]).await;
    assert_eq!(moved, [("t".to_owned(), 0, ErrorCode::None)]);
    logs.step_moves(300_000);
    let seen = replicas(&mut client).await;
    assert_eq!((seen[0], seen[1].0, seen[1].1), ((0, false, 0), 1, true));
    assert!(seen[1].2 > 0 && seen[1].2 < 160, "{seen:?}");
    // A range of a file that the socket is still to be given, and a reader that waits at the end.
    let all = fetch("t", &[(0, 0)]);
    let large = client.send(&all, FETCH).await;
    let mut waiting = fetch("t", &[(0, expected.next_offset)]);
    waiting.max_wait_ms = LONG_WAIT_MS;
    let mut waiter = broker.connect().await;
    let sent = waiter.send(&waiting, FETCH).await;
    while logs.step_moves(1_000_000) > 0 {}
    let found = patiently(client.receive::<FetchRequest>(FETCH, large)).await;
    let found = records(&found.responses[0].partitions[0]);
    assert_eq!(found[..], expected.bytes[..found.len()]);
    assert!(found.len() >= SEGMENT_BYTES / 2);
    assert_eq!(replicas(&mut client).await, [(1, false, 0)]);
    let produce = produce_request("t", 0, batch(41, 1, 100));
    patiently(client.call(&produce, PRODUCE)).await;
    let woken = patiently(waiter.receive::<FetchRequest>(FETCH, sent)).await;
    let woken = whole_batches(&records(&woken.responses[0].partitions[0]));
    assert_eq!(woken[0].header.base_offset, expected.next_offset);
    // Byte for byte what it was, in the other directory.
    let mut read = Vec::new();
    while read.len() < expected.bytes.len() {
        let offset = expected
            .batches
            .iter()
            .find(|(position, _)| *position >= read.len());
        let request = fetch("t", &[(0, offset.unwrap().1)]);
        let more = fetched(&mut client, &request).await;
        let whole: usize = whole_batches(&more).iter().map(|batch| batch.bytes.len()).sum();
        read.extend_from_slice(&more[..whole]);
    }
    assert_eq!(read[..expected.bytes.len()], expected.bytes[..]);
    assert!(dirs[1].path().join("t-0").is_dir() && !dirs[0].path().join("t-0").exists());
}

#[tokio::test]
async fn whoever_waits_for_a_commit_is_answered_after_the_move() {
    let (broker, logs, dirs) = two_dirs(CommitMode::Manual).await;
    let mut client = broker.connect().await;
    alter(&mut client, &[(path(&dirs[1]), "t", 0)]).await;
    let produce = ProduceRequest {
        acks: -1,
        timeout_ms: LONG_WAIT_MS,
        ..produce_request("t", 0, batch(1, 3, 100))
    };
    let mut producer = broker.connect().await;
    let sent = producer.send(&produce, PRODUCE).await;
    let end = || {
        let dirs = logs.log_dirs();
        dirs.iter()
            .flat_map(|dir| &dir.replicas)
            .any(|it| !it.is_future && it.size_bytes > 0)
    };
    until(end).await;
    while logs.step_moves(1_000_000) > 0 {}
    assert_eq!(replicas(&mut client).await, [(1, false, 0)]);
    logs.commit();
    let answer = patiently(producer.receive::<ProduceRequest>(PRODUCE, sent)).await;
    let answer = &answer.responses[0].partition_responses[0];
    assert_eq!(
        (error(answer.error_code), answer.base_offset),
        (ErrorCode::None, 0)
    );
}

#[tokio::test]
async fn what_cannot_be_moved_is_answered_as_kafka_answers_it() {
    let (broker, _logs, dirs) = two_dirs(CommitMode::Thread).await;
    let mut client = broker.connect().await;
    let (first, second) = (path(&dirs[0]), path(&dirs[1]));
    let long = "x".repeat(230);
    let trailing = format!("{first}/");
    for (path, topic, partition, code) in [
        ("/nowhere", "t", 0, ErrorCode::LogDirNotFound),
        ("any", "t", 0, ErrorCode::LogDirNotFound),
        (&trailing, "t", 0, ErrorCode::LogDirNotFound),
        ("/nowhere", "none", 0, ErrorCode::LogDirNotFound),
        (second, "t", 1, ErrorCode::UnknownTopicOrPartition),
        (second, "t", -1, ErrorCode::UnknownTopicOrPartition),
        (second, "bad name!", 0, ErrorCode::UnknownTopicOrPartition),
        (second, &long, 0, ErrorCode::InvalidTopicException),
        (first, "t", 0, ErrorCode::None),
    ] {
        let found = alter(&mut client, &[(path, topic, partition)]).await;
        assert_eq!(found, [(topic.to_owned(), partition, code)], "{path}");
    }
    assert_eq!(replicas(&mut client).await, [(0, false, 0)], "nothing moves");
    // What was wanted of a topic that was not there is done when it is.
    for partition in 0..3 {
        alter(&mut client, &[(first, "later", partition)]).await;
    }
    broker.topic_with("later", 3, &[]).await;
    assert_eq!(replicas(&mut client).await, [(0, false, 0); 4]);
    // The last directory that is named counts.
    let both = alter(&mut client, &[(second, "t", 0), (first, "t", 0)]).await;
    assert_eq!(both, [("t".to_owned(), 0, ErrorCode::None)]);
    assert_eq!(replicas(&mut client).await, [(0, false, 0); 4]);
}

#[tokio::test]
async fn nothing_moves_to_or_from_a_directory_that_is_offline() {
    let disks = TwoDisks::start(CommitMode::Thread).await;
    let mut client = disks.broker.connect().await;
    disks.fail_first(What::Syncs, Errno::IO);
    let mut producer = disks.broker.connect().await;
    let produce = produce_request("t", 0, batch(1, 1, 100));
    patiently(producer.call(&produce, PRODUCE)).await;
    let (first, second) = (path(&disks.dirs[0]), path(&disks.dirs[1]));
    for (path, partition) in [(first, 1), (second, 0), (first, 0), (first, 9)] {
        let found = alter(&mut client, &[(path, "t", partition)]).await;
        assert_eq!(found[0].2, ErrorCode::KafkaStorageError, "{partition} to {path}");
    }
    let described = described(&mut client).await;
    assert_eq!(
        error(described.results[0].error_code),
        ErrorCode::KafkaStorageError
    );
    assert_eq!(error(described.results[1].error_code), ErrorCode::None);
}
