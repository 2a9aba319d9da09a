use milena_protocol::ErrorCode;
use milena_protocol::messages::fetch_request::{FetchRequest, ForgottenTopic};
use milena_protocol::messages::fetch_response::FetchResponse;

use crate::batches::{Batch, produce};
use crate::fetch::{LONG_WAIT_MS, partition, request};
use crate::harness::{TestBroker, error, text};

/// A request that goes on with a session and names nothing.
fn next(session_id: i32, epoch: i32) -> FetchRequest {
    FetchRequest {
        session_id,
        session_epoch: epoch,
        min_bytes: 1,
        ..FetchRequest::default()
    }
}

fn first(partitions: i32) -> FetchRequest {
    let mut request = request("t", (0..partitions).map(|index| partition(index, 0)).collect());
    request.session_epoch = 0;
    request
}

fn indexes(response: &FetchResponse) -> Vec<i32> {
    response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|data| data.partition_index)
        .collect()
}

#[tokio::test]
async fn an_incremental_fetch_gives_only_the_partitions_that_changed() {
    let broker = TestBroker::start().await;
    broker.topic("t", 3).await;
    let mut client = broker.connect().await;
    let full = client.call(&first(3), 12).await;
    assert_ne!(full.session_id, 0);
    assert_eq!(indexes(&full), [0, 1, 2]);
    produce(&mut client, "t", 1, &Batch::of(&["a"])).await;
    let changed = client.call(&next(full.session_id, 1), 12).await;
    assert_eq!(
        (changed.session_id, indexes(&changed)),
        (full.session_id, vec![1])
    );
    // The consumer goes on behind the record: nothing is new.
    let mut moved = request("t", vec![partition(1, 1)]);
    (moved.session_id, moved.session_epoch) = (full.session_id, 2);
    assert!(indexes(&client.call(&moved, 12).await).is_empty());
}

#[tokio::test]
async fn an_incremental_fetch_waits_for_the_partitions_of_its_session() {
    let broker = TestBroker::start().await;
    broker.topic("t", 3).await;
    let mut client = broker.connect().await;
    let full = client.call(&first(3), 12).await;
    let mut waiting = next(full.session_id, 1);
    waiting.max_wait_ms = LONG_WAIT_MS;
    let sent = client.send(&waiting, 12).await;
    let mut producer = broker.connect().await;
    produce(&mut producer, "t", 2, &Batch::of(&["a"])).await;
    assert_eq!(indexes(&client.receive::<FetchRequest>(12, sent).await), [2]);
}

#[tokio::test]
async fn forgotten_partitions_are_not_fetched_any_more() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let full = client.call(&first(2), 12).await;
    for index in 0..2 {
        produce(&mut client, "t", index, &Batch::of(&["a"])).await;
    }
    let mut forgetting = next(full.session_id, 1);
    let forgotten = ForgottenTopic {
        topic: text("t"),
        partitions: vec![0],
        ..ForgottenTopic::default()
    };
    forgetting.forgotten_topics_data = vec![forgotten];
    assert_eq!(indexes(&client.call(&forgetting, 12).await), [1]);
}

#[tokio::test]
async fn session_errors_are_kafkas() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let unknown = client.call(&next(12345, 1), 12).await;
    assert_eq!(error(unknown.error_code), ErrorCode::FetchSessionIdNotFound);
    let id = client.call(&first(1), 12).await.session_id;
    let early = client.call(&next(id, 2), 12).await;
    assert_eq!(error(early.error_code), ErrorCode::InvalidFetchSessionEpoch);
    let by_id = client.call(&next(id, 1), 13).await;
    assert_eq!(error(by_id.error_code), ErrorCode::FetchSessionTopicIdError);
    assert_eq!(
        error(client.call(&next(id, 1), 12).await.error_code),
        ErrorCode::None
    );
}

#[tokio::test]
async fn a_broker_without_slots_answers_without_sessions() {
    let broker = TestBroker::with(&[("max.incremental.fetch.session.cache.slots", "0")]).await;
    broker.topic("t", 1).await;
    let response = broker.connect().await.call(&first(1), 12).await;
    assert_eq!(
        (error(response.error_code), response.session_id),
        (ErrorCode::None, 0)
    );
    assert_eq!(indexes(&response), [0]);
}

#[tokio::test]
async fn a_topic_that_is_created_later_comes_into_a_session_by_itself() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let full = client.call(&first(1), 12).await;
    assert_eq!(
        error(full.responses[0].partitions[0].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    broker.topic("t", 1).await;
    let later = client.call(&next(full.session_id, 1), 12).await;
    assert_eq!(
        error(later.responses[0].partitions[0].error_code),
        ErrorCode::None
    );
}
