use bytes::Bytes;
use milena_log::{Append, MemoryLogStore};
use milena_protocol::records::{BatchBuilder, NewRecord, validate};
use milena_protocol::{Str, Uuid};

use super::*;

async fn partition() -> Arc<Partition> {
    let logs: Arc<dyn LogStore> = Arc::new(MemoryLogStore::default());
    let id = PartitionId {
        topic: Str::from("t"),
        topic_id: Uuid::from_bytes([1; 16]),
        partition: 0,
    };
    Partition::open(&logs, id, LogConfig::default(), 5).await.unwrap()
}

async fn append(partition: &Partition) {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        value: Some(Bytes::from_static(b"x")),
        ..NewRecord::default()
    });
    let batch = validate(&builder.build().unwrap()).unwrap();
    partition
        .log()
        .append(Append {
            batch,
            leader_epoch: 5,
            now_ms: 0,
            verification: None,
        })
        .await
        .unwrap();
}

fn seen(reached: i64, offset: i64) -> Seen {
    Seen {
        bound: ReadBound::HighWatermark,
        reached,
        offset,
    }
}

/// Whether the wait has been told, without waiting.
async fn is_told(wait: &Wait) -> bool {
    tokio::select! {
        biased;
        changed = wait.changed() => !changed.is_empty(),
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn what_moved_before_the_wait_was_armed_is_told_at_once() {
    let partition = partition().await;
    let before = partition.log().watermarks().high_watermark;
    append(&partition).await;
    let mut wait = Wait::new();
    wait.arm(3, &partition, seen(before, 0));
    assert_eq!(wait.changed().await, [3]);
}

#[tokio::test]
async fn a_wait_is_told_once_until_it_is_armed_again() {
    let partition = partition().await;
    let mut wait = Wait::new();
    wait.arm(0, &partition, seen(0, 0));
    assert!(!is_told(&wait).await);
    append(&partition).await;
    append(&partition).await;
    assert_eq!(wait.changed().await, [0]);
    assert!(!is_told(&wait).await);
    wait.arm(0, &partition, seen(2, 0));
    assert!(!is_told(&wait).await);
    append(&partition).await;
    assert!(is_told(&wait).await);
}

#[tokio::test]
async fn a_reader_whose_offset_was_deleted_is_told() {
    let partition = partition().await;
    append(&partition).await;
    let mut wait = Wait::new();
    wait.arm(0, &partition, seen(1, 0));
    assert!(!is_told(&wait).await);
    partition.log().delete_records(1).await.unwrap();
    assert!(is_told(&wait).await);
}

#[tokio::test]
async fn whoever_waits_on_a_deleted_partition_is_told_also_when_it_comes_late() {
    let partition = partition().await;
    let mut early = Wait::new();
    early.arm(0, &partition, seen(0, 0));
    partition.mark_deleted();
    let mut late = Wait::new();
    late.arm(0, &partition, seen(0, 0));
    assert!(is_told(&early).await && is_told(&late).await);
}

#[tokio::test]
async fn a_wait_that_ends_leaves_nothing_behind() {
    let partition = partition().await;
    let mut wait = Wait::new();
    wait.arm(0, &partition, seen(0, 0));
    wait.arm(0, &partition, seen(0, 0));
    wait.arm(1, &partition, seen(0, 0));
    assert_eq!(partition.waiters.count.load(Ordering::SeqCst), 2);
    drop(wait);
    assert_eq!(partition.waiters.count.load(Ordering::SeqCst), 0);
    assert!(lock(&partition.waiters.entries).is_empty());
}

#[tokio::test]
async fn epochs_are_answered_as_if_each_had_been_noted_when_it_began() {
    let partition = partition().await;
    let end = |epoch| {
        partition
            .end_offset_for_epoch(epoch)
            .map(|end| (end.leader_epoch, end.end_offset))
    };
    assert_eq!((end(-1), end(6)), (None, None));
    // Nothing was written yet: this epoch, and every one before it, ends here.
    assert_eq!((end(5), end(3)), (Some((5, 0)), Some((3, 0))));
    append(&partition).await;
    assert_eq!((end(5), end(3)), (Some((5, 1)), Some((3, 0))));
}
