//! What producers and consumers see of an engine whose high watermark comes later.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::fetch_request::FetchRequest;
use milena_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use milena_protocol::messages::produce_request::ProduceRequest;

use crate::batches::{Batch, decode, produce_request};
use crate::fetch::{self, LONG_WAIT_MS, fetch_all, partition, request};
use crate::harness::{Client, TestBroker, error, text};
use crate::lagging::LaggingLogStore;

async fn started() -> (TestBroker, Arc<LaggingLogStore>) {
    let logs = Arc::new(LaggingLogStore::default());
    let broker = TestBroker::on(logs.clone()).await;
    broker.topic("t", 1).await;
    (broker, logs)
}

fn with_acks(acks: i16, timeout_ms: i32) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms,
        ..produce_request("t", 0, Batch::of(&["a"]).encode())
    }
}

fn list_offsets(name: &str, partition: i32, timestamp: i64) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition {
        partition_index: partition,
        timestamp,
        ..ListOffsetsPartition::default()
    };
    let topic = ListOffsetsTopic {
        name: text(name),
        partitions: vec![partition],
        ..ListOffsetsTopic::default()
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..ListOffsetsRequest::default()
    }
}

async fn latest(client: &mut Client) -> i64 {
    client.call(&list_offsets("t", 0, -1), 7).await.topics[0].partitions[0].offset
}

#[tokio::test]
async fn acks_all_is_answered_when_the_high_watermark_has_passed_the_batch() {
    let (broker, logs) = started().await;
    let mut producer = broker.connect().await;
    let first = producer.send(&with_acks(-1, LONG_WAIT_MS), 9).await;
    // acks=1 does not wait, and its answer comes behind the one that does.
    let mut hasty = broker.connect().await;
    let quick = hasty.call(&with_acks(1, LONG_WAIT_MS), 9).await;
    assert_eq!(
        error(quick.responses[0].partition_responses[0].error_code),
        ErrorCode::None
    );
    assert!(
        fetch_all(&mut hasty, "t", 0, 0).await.is_empty(),
        "nothing below the high watermark yet"
    );
    logs.allow(2);
    let answer = producer.receive::<ProduceRequest>(9, first).await;
    assert_eq!(
        error(answer.responses[0].partition_responses[0].error_code),
        ErrorCode::None
    );
    assert_eq!(decode(&fetch_all(&mut hasty, "t", 0, 0).await).len(), 2);
    assert_eq!(latest(&mut hasty).await, 2);
}

#[tokio::test]
async fn acks_all_times_out_when_the_high_watermark_does_not_come() {
    let (broker, _logs) = started().await;
    let mut producer = broker.connect().await;
    let answer = producer.call(&with_acks(-1, 5), 9).await;
    assert_eq!(
        error(answer.responses[0].partition_responses[0].error_code),
        ErrorCode::RequestTimedOut
    );
}

#[tokio::test]
async fn requests_behind_a_producer_that_waits_are_handled_meanwhile() {
    let (broker, logs) = started().await;
    let mut producer = broker.connect().await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(producer.send(&with_acks(-1, LONG_WAIT_MS), 9).await);
    }
    let mut observer = broker.connect().await;
    logs.allow(4);
    // All five were appended before any was answered: the fifth still waits.
    while latest(&mut observer).await != 4 {
        tokio::task::yield_now().await;
    }
    for (offset, correlation_id) in sent.iter().take(4).enumerate() {
        let answer = producer.receive::<ProduceRequest>(9, *correlation_id).await;
        let base_offset = answer.responses[0].partition_responses[0].base_offset;
        assert_eq!(base_offset, i64::try_from(offset).unwrap());
    }
    logs.allow(5);
    producer.receive::<ProduceRequest>(9, sent[4]).await;
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_the_high_watermark_and_not_by_the_append() {
    let (broker, logs) = started().await;
    let mut consumer = broker.connect().await;
    let mut wanted: FetchRequest = request("t", vec![partition(0, 0)]);
    wanted.max_wait_ms = LONG_WAIT_MS;
    let sent = consumer.send(&wanted, 12).await;
    let mut producer = broker.connect().await;
    producer.call(&with_acks(1, LONG_WAIT_MS), 9).await;
    logs.allow(1);
    let answer = consumer.receive::<FetchRequest>(12, sent).await;
    let data = &answer.responses[0].partitions[0];
    assert_eq!(decode(data.records.as_ref().unwrap()).len(), 1);
    assert_eq!(data.high_watermark, 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_takes_only_its_partition_offline() {
    let logs = Arc::new(LaggingLogStore::default());
    logs.allow(i64::MAX);
    let mut broker = TestBroker::on(logs.clone()).await;
    broker.topic("t", 2).await;
    logs.damage(1);
    broker.restart().await;
    let mut client = broker.connect().await;
    for (partition, expected) in [(0, ErrorCode::None), (1, ErrorCode::KafkaStorageError)] {
        let batch = Batch::of(&["a"]).encode();
        let produced = client.call(&produce_request("t", partition, batch), 9).await;
        let answer = &produced.responses[0].partition_responses[0];
        assert_eq!(error(answer.error_code), expected, "produce to {partition}");
        let wanted = request("t", vec![fetch::partition(partition, 0)]);
        let fetched = client.call(&wanted, 12).await;
        let answer = &fetched.responses[0].partitions[0];
        assert_eq!(error(answer.error_code), expected, "fetch from {partition}");
        for timestamp in [-1, -2, 0] {
            let listed = client.call(&list_offsets("t", partition, timestamp), 7).await;
            let answer = &listed.topics[0].partitions[0];
            assert_eq!(error(answer.error_code), expected, "offsets of {partition}");
        }
    }
    // The topic can still be deleted.
    broker.delete_topic("t").await;
}
