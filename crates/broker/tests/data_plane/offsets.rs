use milena_protocol::ErrorCode;
use milena_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use milena_protocol::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use milena_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use milena_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use milena_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use crate::batches::{Batch, decode, now_ms, produce};
use crate::fetch::fetch_all;
use crate::harness::{Client, TestBroker, error, text};

async fn list(client: &mut Client, timestamp: i64, version: i16) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition {
        partition_index: 0,
        timestamp,
        ..ListOffsetsPartition::default()
    };
    let topic = ListOffsetsTopic {
        name: text("t"),
        partitions: vec![partition],
        ..ListOffsetsTopic::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..ListOffsetsRequest::default()
    };
    client.call(&request, version).await.topics[0].partitions[0].clone()
}

async fn delete(client: &mut Client, topic: &str, offset: i64) -> (ErrorCode, i64) {
    let partition = DeleteRecordsPartition {
        partition_index: 0,
        offset,
        ..DeleteRecordsPartition::default()
    };
    let topic = DeleteRecordsTopic {
        name: text(topic),
        partitions: vec![partition],
        ..DeleteRecordsTopic::default()
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        ..DeleteRecordsRequest::default()
    };
    let response = client.call(&request, 2).await;
    let partition = &response.topics[0].partitions[0];
    (error(partition.error_code), partition.low_watermark)
}

#[tokio::test]
async fn trap_6_offsets_by_timestamp_are_those_of_the_records() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let base = now_ms() - 10_000;
    for (number, step) in [0, 1000, 2000].into_iter().enumerate() {
        let batch = Batch {
            first_timestamp: base + step,
            ..Batch::of(&["a", "b"])
        };
        let produced = produce(&mut client, "t", 0, &batch).await;
        assert_eq!(produced.base_offset, i64::try_from(number).unwrap() * 2);
    }
    for (timestamp, offset, found) in [
        (0, 0, base),
        (base, 0, base),
        (base + 1, 1, base + 1),
        (base + 2, 2, base + 1000),
        (base + 1001, 3, base + 1001),
        (base + 2002, -1, -1),
    ] {
        let answer = list(&mut client, timestamp, 7).await;
        assert_eq!(
            (answer.offset, answer.timestamp),
            (offset, found),
            "timestamp {}",
            timestamp - base
        );
    }
    let newest = list(&mut client, -3, 7).await;
    assert_eq!((newest.offset, newest.timestamp), (5, base + 2001));
}

#[tokio::test]
async fn named_places_are_answered_from_the_versions_on_that_have_them() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a", "b", "c"])).await;
    assert_eq!(delete(&mut client, "t", 1).await, (ErrorCode::None, 1));
    for (timestamp, since, offset) in [
        (-1, 1, 3),
        (-2, 1, 1),
        (-3, 7, 2),
        (-4, 8, 1),
        (-5, 9, -1),
        (-6, 11, -1),
    ] {
        for version in 1..=11 {
            let answer = list(&mut client, timestamp, version).await;
            if version < since {
                assert_eq!(
                    error(answer.error_code),
                    ErrorCode::UnsupportedVersion,
                    "{timestamp} v{version}"
                );
            } else {
                assert_eq!(
                    (error(answer.error_code), answer.offset),
                    (ErrorCode::None, offset),
                    "{timestamp}"
                );
            }
        }
    }
    assert_eq!(
        error(list(&mut client, -7, 11).await.error_code),
        ErrorCode::UnsupportedVersion
    );
}

#[tokio::test]
async fn a_partition_that_is_asked_for_twice_is_an_invalid_request() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let partition = ListOffsetsPartition {
        partition_index: 0,
        timestamp: -1,
        ..ListOffsetsPartition::default()
    };
    let topic = ListOffsetsTopic {
        name: text("t"),
        partitions: vec![partition.clone(), partition],
        ..ListOffsetsTopic::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..ListOffsetsRequest::default()
    };
    let response = broker.connect().await.call(&request, 7).await;
    for partition in &response.topics[0].partitions {
        assert_eq!(error(partition.error_code), ErrorCode::InvalidRequest);
    }
}

#[tokio::test]
async fn deleted_records_are_gone_and_the_high_watermark_has_a_name() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker
        .topic_with("compacted", 1, &[("cleanup.policy", "compact")])
        .await;
    let mut client = broker.connect().await;
    for value in ["a", "b", "c"] {
        produce(&mut client, "t", 0, &Batch::of(&[value])).await;
    }
    assert_eq!(
        delete(&mut client, "t", 4).await,
        (ErrorCode::OffsetOutOfRange, -1)
    );
    assert_eq!(
        delete(&mut client, "t", -2).await,
        (ErrorCode::OffsetOutOfRange, -1)
    );
    assert_eq!(delete(&mut client, "t", 1).await, (ErrorCode::None, 1));
    assert_eq!(decode(&fetch_all(&mut client, "t", 0, 1).await).len(), 2);
    assert_eq!(delete(&mut client, "t", 0).await, (ErrorCode::None, 1));
    assert_eq!(delete(&mut client, "t", -1).await, (ErrorCode::None, 3));
    assert_eq!(
        delete(&mut client, "unknown", 0).await,
        (ErrorCode::UnknownTopicOrPartition, -1)
    );
    assert_eq!(
        delete(&mut client, "compacted", 0).await,
        (ErrorCode::PolicyViolation, -1)
    );
}

#[tokio::test]
async fn the_end_of_an_epoch_is_where_the_next_one_starts() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let first = broker.leader_epoch("t").await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a", "b"])).await;
    broker.restart().await;
    let mut client = broker.connect().await;
    let second = broker.leader_epoch("t").await;
    assert!(second > first, "a restart is a new epoch");
    produce(&mut client, "t", 0, &Batch::of(&["c"])).await;
    for (epoch, expected) in [(first, (first, 2)), (second, (second, 3)), (second + 1, (-1, -1))] {
        let partition = OffsetForLeaderPartition {
            partition: 0,
            leader_epoch: epoch,
            ..OffsetForLeaderPartition::default()
        };
        let topic = OffsetForLeaderTopic {
            topic: text("t"),
            partitions: vec![partition],
            ..OffsetForLeaderTopic::default()
        };
        let request = OffsetForLeaderEpochRequest {
            topics: vec![topic],
            ..OffsetForLeaderEpochRequest::default()
        };
        for version in 2..=4 {
            let response = client.call(&request, version).await;
            let end = &response.topics[0].partitions[0];
            assert_eq!(error(end.error_code), ErrorCode::None);
            assert_eq!((end.leader_epoch, end.end_offset), expected, "epoch {epoch}");
        }
    }
}

#[tokio::test]
async fn producers_are_described_as_the_log_knows_them() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    produce(&mut client, "t", 0, &Batch::of(&["a", "b"]).idempotent(42, 3, 0)).await;
    let asked = |name: &str| TopicRequest {
        name: text(name),
        partition_indexes: vec![0, 9],
        ..TopicRequest::default()
    };
    let request = DescribeProducersRequest {
        topics: vec![asked("t"), asked("unknown"), asked("not/valid")],
        ..DescribeProducersRequest::default()
    };
    let response = client.call(&request, 0).await;
    let codes: Vec<ErrorCode> = response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| error(partition.error_code))
        .collect();
    use ErrorCode::{InvalidTopicException, None, UnknownTopicOrPartition};
    let unknown = UnknownTopicOrPartition;
    assert_eq!(
        codes,
        [
            None,
            unknown,
            unknown,
            unknown,
            InvalidTopicException,
            InvalidTopicException
        ]
    );
    let producer = &response.topics[0].partitions[0].active_producers[0];
    assert_eq!(
        (
            producer.producer_id,
            producer.producer_epoch,
            producer.last_sequence
        ),
        (42, 3, 1)
    );
    assert_eq!(producer.current_txn_start_offset, -1);
}
