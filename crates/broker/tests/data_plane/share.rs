//! ShareFetch, ShareAcknowledge and the state APIs: what the broker adds to the coordinator's decisions.

use milena_protocol::messages::share_acknowledge_request as acknowledge;
use milena_protocol::messages::share_fetch_request as fetch;
use milena_protocol::messages::{
    InitializeShareGroupStateRequest, ReadShareGroupStateSummaryRequest, ShareAcknowledgeRequest,
    ShareFetchRequest, ShareFetchResponse, initialize_share_group_state_request as initialize,
    read_share_group_state_summary_request as summary,
};
use milena_protocol::{Chunk, ErrorCode, Uuid};

use crate::batches::{Batch, produce};
use crate::harness::{Client, TestBroker, error, text};

/// Longer than any test takes.
const LONG_WAIT_MS: i32 = 60_000;

async fn initialize(client: &mut Client, topic_id: Uuid) {
    let partition = initialize::PartitionData {
        start_offset: 0,
        state_epoch: 1,
        ..initialize::PartitionData::default()
    };
    let request = InitializeShareGroupStateRequest {
        group_id: text("g"),
        topics: vec![initialize::InitializeStateData {
            topic_id,
            partitions: vec![partition],
            ..initialize::InitializeStateData::default()
        }],
        ..InitializeShareGroupStateRequest::default()
    };
    let response = client.call(&request, 0).await;
    assert_eq!(
        error(response.results[0].partitions[0].error_code),
        ErrorCode::None
    );
}

fn share_fetch(member: &str, epoch: i32, topic_id: Uuid, max_wait_ms: i32) -> ShareFetchRequest {
    ShareFetchRequest {
        group_id: Some(text("g")),
        member_id: Some(text(member)),
        share_session_epoch: epoch,
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_records: 100,
        batch_size: 100,
        topics: vec![fetch::FetchTopic {
            topic_id,
            partitions: vec![fetch::FetchPartition::default()],
            ..fetch::FetchTopic::default()
        }],
        ..ShareFetchRequest::default()
    }
}

fn share_acknowledge(
    member: &str,
    epoch: i32,
    topic_id: Uuid,
    last: i64,
    kind: i8,
) -> ShareAcknowledgeRequest {
    let batch = acknowledge::AcknowledgementBatch {
        first_offset: 0,
        last_offset: last,
        acknowledge_types: vec![kind],
        ..acknowledge::AcknowledgementBatch::default()
    };
    ShareAcknowledgeRequest {
        group_id: Some(text("g")),
        member_id: Some(text(member)),
        share_session_epoch: epoch,
        topics: vec![acknowledge::AcknowledgeTopic {
            topic_id,
            partitions: vec![acknowledge::AcknowledgePartition {
                acknowledgement_batches: vec![batch],
                ..acknowledge::AcknowledgePartition::default()
            }],
            ..acknowledge::AcknowledgeTopic::default()
        }],
        ..ShareAcknowledgeRequest::default()
    }
}

/// What was acquired: first and last offset, and how often it was delivered.
fn acquired(response: &ShareFetchResponse) -> Vec<(i64, i64, i16)> {
    assert_eq!(error(response.error_code), ErrorCode::None);
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .inspect(|partition| {
            assert_eq!(error(partition.error_code), ErrorCode::None);
            let has_records = partition
                .records
                .as_ref()
                .is_some_and(|records: &Chunk| !records.is_empty());
            assert_eq!(has_records, !partition.acquired_records.is_empty());
        })
        .flat_map(|partition| &partition.acquired_records)
        .map(|records| (records.first_offset, records.last_offset, records.delivery_count))
        .collect()
}

#[tokio::test]
async fn a_waiting_share_fetch_is_woken_by_an_append() {
    let broker = TestBroker::start().await;
    let topic_id = broker.topic("t", 1).await;
    let (mut reader, mut writer) = (broker.connect().await, broker.connect().await);
    initialize(&mut reader, topic_id).await;
    let sent = reader.send(&share_fetch("m", 0, topic_id, LONG_WAIT_MS), 2).await;
    produce(&mut writer, "t", 0, &Batch::of(&["a", "b"])).await;
    let response = reader.receive::<ShareFetchRequest>(2, sent).await;
    assert_eq!(acquired(&response), [(0, 1, 1)]);
    assert_eq!(response.acquisition_lock_timeout_ms, 30_000);
}

#[tokio::test]
async fn a_waiting_share_fetch_is_woken_by_what_another_member_releases() {
    let broker = TestBroker::start().await;
    let topic_id = broker.topic("t", 1).await;
    let (mut first, mut second) = (broker.connect().await, broker.connect().await);
    initialize(&mut first, topic_id).await;
    produce(&mut first, "t", 0, &Batch::of(&["a", "b"])).await;
    let response = first.call(&share_fetch("m1", 0, topic_id, LONG_WAIT_MS), 2).await;
    assert_eq!(acquired(&response), [(0, 1, 1)]);
    let sent = second
        .send(&share_fetch("m2", 0, topic_id, LONG_WAIT_MS), 2)
        .await;
    let released = first.call(&share_acknowledge("m1", 1, topic_id, 1, 2), 2).await;
    assert_eq!(
        error(released.responses[0].partitions[0].error_code),
        ErrorCode::None
    );
    let response = second.receive::<ShareFetchRequest>(2, sent).await;
    assert_eq!(acquired(&response), [(0, 1, 2)]);
}

#[tokio::test]
async fn a_connection_that_is_gone_gives_back_what_its_member_had() {
    let broker = TestBroker::start().await;
    let topic_id = broker.topic("t", 1).await;
    let (mut first, mut second) = (broker.connect().await, broker.connect().await);
    initialize(&mut first, topic_id).await;
    produce(&mut first, "t", 0, &Batch::of(&["a"])).await;
    let response = first.call(&share_fetch("m1", 0, topic_id, LONG_WAIT_MS), 1).await;
    assert_eq!(acquired(&response), [(0, 0, 1)]);
    let sent = second
        .send(&share_fetch("m2", 0, topic_id, LONG_WAIT_MS), 1)
        .await;
    drop(first);
    let response = second.receive::<ShareFetchRequest>(1, sent).await;
    assert_eq!(acquired(&response), [(0, 0, 2)]);
}

#[tokio::test]
async fn what_was_acknowledged_is_not_delivered_again_after_a_restart_and_what_was_not_is() {
    let mut broker = TestBroker::start().await;
    let topic_id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    initialize(&mut client, topic_id).await;
    produce(&mut client, "t", 0, &Batch::of(&["a", "b", "c"])).await;
    let response = client.call(&share_fetch("m", 0, topic_id, LONG_WAIT_MS), 2).await;
    assert_eq!(acquired(&response), [(0, 2, 1)]);
    let accepted = client.call(&share_acknowledge("m", 1, topic_id, 1, 1), 2).await;
    assert_eq!(
        error(accepted.responses[0].partitions[0].error_code),
        ErrorCode::None
    );
    broker.restart().await;
    let mut client = broker.connect().await;
    let lost = client.call(&share_acknowledge("m", 2, topic_id, 2, 1), 2).await;
    assert_eq!(error(lost.error_code), ErrorCode::ShareSessionNotFound);
    let response = client.call(&share_fetch("m", 0, topic_id, LONG_WAIT_MS), 2).await;
    let again = acquired(&response);
    assert_eq!((again[0].0, again[0].1), (2, 2), "{again:?}");
}

#[tokio::test]
async fn there_are_as_many_share_sessions_as_the_setting_says() {
    let broker = TestBroker::with(&[
        ("group.share.max.share.sessions", "1"),
        ("group.share.max.size", "1"),
    ])
    .await;
    let topic_id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    initialize(&mut client, topic_id).await;
    let opened = client.call(&share_fetch("m1", 0, topic_id, 0), 2).await;
    assert_eq!(error(opened.error_code), ErrorCode::None);
    let refused = client.call(&share_fetch("m2", 0, topic_id, 0), 2).await;
    assert_eq!(error(refused.error_code), ErrorCode::ShareSessionLimitReached);
    let again = client.call(&share_fetch("m1", 0, topic_id, 0), 2).await;
    assert_eq!(error(again.error_code), ErrorCode::None);
}

#[tokio::test]
async fn a_deleted_topic_takes_the_state_of_share_groups_with_it() {
    let broker = TestBroker::start().await;
    let topic_id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    initialize(&mut client, topic_id).await;
    broker.delete_topic("t").await;
    let request = ReadShareGroupStateSummaryRequest {
        group_id: text("g"),
        topics: vec![summary::ReadStateSummaryData {
            topic_id,
            partitions: vec![summary::PartitionData::default()],
            ..summary::ReadStateSummaryData::default()
        }],
        ..ReadShareGroupStateSummaryRequest::default()
    };
    let answer = &client.call(&request, 1).await.results[0].partitions[0];
    assert_eq!(error(answer.error_code), ErrorCode::UnknownTopicOrPartition);
}
