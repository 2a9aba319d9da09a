//! Share partitions, one rule at a time. What must hold over whole lives is in `share_simulation`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use milena_coordinator::{
    AcknowledgementBatch, Acquire, FetchStart, LogBatch, LogView, Reply, SharePartitionConfig,
    SharePartitionKey, SharePartitions, Ticket, TopicImage, TopicInfo,
};
use milena_protocol::messages::initialize_share_group_state_request as initialize;
use milena_protocol::{ErrorCode, Str, Uuid};

const CONFIG: SharePartitionConfig = SharePartitionConfig {
    partition_max_record_locks: 100,
    delivery_count_limit: 5,
    record_lock_duration_ms: 30_000,
    renewals_enabled: true,
};

struct Test {
    machine: SharePartitions,
    key: SharePartitionKey,
    now_ms: i64,
}

impl Test {
    fn new() -> Self {
        let key = SharePartitionKey {
            group: Str::from("g"),
            topic_id: Uuid::from_bytes([1; 16]),
            partition: 0,
        };
        let mut topics = TopicImage::default();
        topics.put(TopicInfo {
            id: key.topic_id,
            name: Str::from("t"),
            partitions: 1,
            is_internal: false,
        });
        let request = initialize::InitializeShareGroupStateRequest {
            group_id: key.group.clone(),
            topics: vec![initialize::InitializeStateData {
                topic_id: key.topic_id,
                partitions: vec![initialize::PartitionData::default()],
                ..initialize::InitializeStateData::default()
            }],
            ..initialize::InitializeShareGroupStateRequest::default()
        };
        let mut machine = SharePartitions::new();
        let _ = machine.initialize(0, Ticket(0), &topics, &request);
        Self {
            machine,
            key,
            now_ms: 0,
        }
    }

    /// Fetches from a log of batches of ten records; gives first, last and count of what is acquired.
    fn fetch(&mut self, member: &str, strictly_limited: bool, max_records: i32) -> Vec<(i64, i64, i16)> {
        let view = LogView {
            start: 0,
            leader_epoch: 0,
        };
        let effects = self
            .machine
            .fetch_start(self.now_ms, Ticket(1), &self.key, &CONFIG, view, None);
        let fetch_offset = match effects.replies.first() {
            Some((_, Reply::ShareFetchStart(Ok(FetchStart::At(offset))))) => *offset,
            _ => return Vec::new(),
        };
        let base = fetch_offset / 10 * 10;
        let ask = Acquire {
            member: Str::from(member.to_owned()),
            strictly_limited,
            batch_size: 10,
            max_records,
            fetch_offset,
            batches: (0..5)
                .map(|at| LogBatch {
                    base: base + at * 10,
                    last: base + at * 10 + 9,
                })
                .collect(),
            aborted: Vec::new(),
        };
        let effects = self
            .machine
            .acquire(self.now_ms, Ticket(2), &self.key, &CONFIG, &ask);
        self.machine.check_invariants();
        match effects.replies.into_iter().next() {
            Some((_, Reply::ShareAcquire(acquired))) => acquired
                .into_iter()
                .map(|one| (one.first, one.last, one.delivery_count))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn acknowledge(&mut self, member: &str, first: i64, last: i64, kind: i8) -> Result<bool, ErrorCode> {
        let batches = [AcknowledgementBatch {
            first,
            last,
            types: vec![kind],
        }];
        let effects = self
            .machine
            .acknowledge(self.now_ms, Ticket(3), &self.key, &CONFIG, member, &batches);
        self.machine.check_invariants();
        match effects.replies.first() {
            Some((_, Reply::ShareAcknowledge(done))) => done
                .map(|()| !effects.facts.is_empty())
                .map_err(|(error, _)| error),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn whole_batches_are_acquired_unless_the_number_of_records_is_strict() {
    let mut test = Test::new();
    assert_eq!(test.fetch("a", false, 15), [(0, 9, 1), (10, 19, 1)]);
    assert_eq!(test.fetch("b", true, 3), [(20, 22, 1)]);
    assert_eq!(test.fetch("c", true, 3), [(23, 25, 1)]);
}

#[test]
fn a_lock_that_ends_gives_back_and_one_that_was_renewed_does_not() {
    let mut test = Test::new();
    assert_eq!(test.fetch("a", false, 20), [(0, 9, 1), (10, 19, 1)]);
    test.now_ms = 20_000;
    assert_eq!(
        test.acknowledge("a", 10, 19, 4),
        Ok(false),
        "a renewal is not stored"
    );
    test.now_ms = 30_000;
    assert_eq!(test.machine.next_deadline_ms(), Some(30_000));
    assert!(
        !test.machine.tick(30_000).facts.is_empty(),
        "what was given back is stored"
    );
    assert_eq!(test.machine.next_deadline_ms(), Some(50_000));
    assert_eq!(test.fetch("b", false, 10), [(0, 9, 2)]);
    assert_eq!(test.acknowledge("a", 0, 9, 1), Err(ErrorCode::InvalidRecordState));
    assert_eq!(test.acknowledge("a", 10, 19, 1), Ok(true));
}

#[test]
fn a_record_that_was_delivered_as_often_as_allowed_is_archived_and_came_alone_last() {
    let mut test = Test::new();
    for delivery in 1..=4_i16 {
        let acquired = test.fetch("a", true, 2);
        let records: i64 = acquired.iter().map(|(first, last, _)| last - first + 1).sum();
        assert_eq!((acquired[0].0, acquired[0].2, records), (0, delivery, 2));
        assert_eq!(test.acknowledge("a", 0, 1, 2), Ok(true));
    }
    assert_eq!(test.fetch("a", true, 2), [(0, 0, 5)]);
    assert_eq!(test.acknowledge("a", 0, 0, 2), Ok(true));
    assert_eq!(test.machine.start_offset(&test.key), Some(1));
    assert_eq!(test.fetch("a", true, 2), [(1, 1, 5)]);
}

#[test]
fn no_more_is_acquired_than_may_be_in_flight() {
    let mut test = Test::new();
    for _ in 0..10 {
        assert_eq!(test.fetch("a", false, 10).len(), 1);
    }
    assert_eq!(test.fetch("a", false, 10), []);
    assert_eq!(test.acknowledge("a", 0, 9, 1), Ok(true));
    assert_eq!(test.fetch("a", false, 10), [(100, 109, 1)]);
}

#[test]
fn all_that_is_said_of_a_partition_counts_or_nothing() {
    let mut test = Test::new();
    assert_eq!(test.fetch("a", false, 10), [(0, 9, 1)]);
    assert_eq!(test.fetch("b", false, 10), [(10, 19, 1)]);
    assert_eq!(
        test.acknowledge("a", 0, 19, 1),
        Err(ErrorCode::InvalidRecordState)
    );
    assert_eq!(test.acknowledge("a", 0, 25, 1), Err(ErrorCode::InvalidRequest));
    assert_eq!(test.acknowledge("a", 0, 9, 1), Ok(true));
}
