//! A disk without room: producers are refused, and nobody else is. When there is room again producers
//! go on, without a start and without a gap.

use milena_log_disk::CommitMode;
use milena_protocol::ErrorCode;
use milena_protocol::messages::DescribeLogDirsRequest;
use rustix::io::Errno;

use crate::batches::{Batch, produce, produce_bytes};
use crate::engine::{SEGMENT_BYTES, batch, fetch, fetched, patiently, segments, whole_batches};
use crate::faults::{TwoDisks, What};
use crate::harness::{Client, error};

/// Appends a batch to the first directory, with acks=all.
async fn append(client: &mut Client, seed: u64, value_bytes: usize) -> (ErrorCode, i64) {
    let answer = patiently(produce_bytes(client, "t", 0, batch(seed, 1, value_bytes))).await;
    (error(answer.error_code), answer.base_offset)
}

async fn offsets(client: &mut Client, offset: i64) -> Vec<i64> {
    let records = fetched(client, &fetch("t", &[(0, offset)])).await;
    let batches = whole_batches(&records);
    batches.iter().map(|batch| batch.header.base_offset).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_producers_and_nobody_else_and_recovers_by_itself() {
    let disks = TwoDisks::start(CommitMode::Thread).await;
    let mut client = disks.broker.connect().await;
    for number in 0..3 {
        assert_eq!(append(&mut client, number, 100).await.0, ErrorCode::None);
    }
    disks.fail_first(What::Writes, Errno::NOSPC);
    for number in 0..3 {
        let refused = append(&mut client, 10 + number, 100).await;
        assert_eq!(refused, (ErrorCode::KafkaStorageError, -1));
        assert_eq!(offsets(&mut client, 0).await, [0, 1, 2]);
    }
    let elsewhere = produce(&mut client, "t", 1, &Batch::of(&["a"])).await;
    assert_eq!(error(elsewhere.error_code), ErrorCode::None);
    let dirs = patiently(client.call(&DescribeLogDirsRequest::default(), 4)).await;
    for dir in &dirs.results {
        assert_eq!(error(dir.error_code), ErrorCode::None, "no room is no failure");
    }
    disks.faults.end();
    assert_eq!(append(&mut client, 20, 100).await, (ErrorCode::None, 3));
    assert_eq!(offsets(&mut client, 0).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_disk_that_is_full_when_a_segment_is_to_be_begun_recovers_too() {
    let disks = TwoDisks::start(CommitMode::Thread).await;
    let mut client = disks.broker.connect().await;
    let half = SEGMENT_BYTES / 2 + 1;
    assert_eq!(append(&mut client, 0, half).await.0, ErrorCode::None);
    disks.fail_first(What::Writes, Errno::NOSPC);
    for number in 0..3 {
        let refused = append(&mut client, 10 + number, half).await;
        assert_eq!(refused, (ErrorCode::KafkaStorageError, -1));
        assert_eq!(offsets(&mut client, 0).await, [0]);
    }
    disks.faults.end();
    for offset in 1..4_i64 {
        let seed = 20 + offset.unsigned_abs();
        assert_eq!(append(&mut client, seed, half).await, (ErrorCode::None, offset));
        assert_eq!(offsets(&mut client, offset).await, [offset]);
    }
    assert_eq!(segments(&disks.dirs[0], "t-0").len(), 4);
}

#[tokio::test]
async fn topics_are_deleted_from_a_full_disk_and_made_anew_when_there_is_room() {
    let disks = TwoDisks::start(CommitMode::Thread).await;
    let mut client = disks.broker.connect().await;
    assert_eq!(append(&mut client, 0, 100).await, (ErrorCode::None, 0));
    disks.fail_first(What::Writes, Errno::NOSPC);
    disks.broker.delete_topic("t").await;
    for partition in [0, 2] {
        assert!(segments(&disks.dirs[0], &format!("t-{partition}")).is_empty());
    }
    disks.faults.end();
    disks.broker.topic("t", 4).await;
    assert_eq!(append(&mut client, 1, 100).await, (ErrorCode::None, 0));
    assert_eq!(offsets(&mut client, 0).await, [0]);
}
