//! Quotas: who is above one is told for how long to wait, and waits.

use milena_protocol::messages::alter_client_quotas_request::{self, OpData};
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::describe_client_quotas_request::ComponentData;
use milena_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use milena_protocol::messages::{
    AlterClientQuotasRequest, CreateTopicsRequest, DescribeClientQuotasRequest, FetchRequest,
    ListGroupsRequest, ProduceRequest, fetch_request,
};
use milena_protocol::records::{BatchBuilder, NewRecord};
use milena_protocol::{Chunk, ErrorCode};

use crate::harness::{Client, TestBroker, error, text};

async fn alter(
    client: &mut Client,
    entity: &[(&str, Option<&str>)],
    key: &str,
    value: Option<f64>,
) -> ErrorCode {
    let part = |(kind, name): &(&str, Option<&str>)| alter_client_quotas_request::EntityData {
        entity_type: text(kind),
        entity_name: name.map(text),
        ..alter_client_quotas_request::EntityData::default()
    };
    let request = AlterClientQuotasRequest {
        entries: vec![alter_client_quotas_request::EntryData {
            entity: entity.iter().map(part).collect(),
            ops: vec![OpData {
                key: text(key),
                value: value.unwrap_or(0.0),
                remove: value.is_none(),
                ..OpData::default()
            }],
            ..alter_client_quotas_request::EntryData::default()
        }],
        ..AlterClientQuotasRequest::default()
    };
    error(client.call(&request, 1).await.entries[0].error_code)
}

/// All quotas of entities with a user: user, client, quota, value.
async fn described(client: &mut Client, strict: bool) -> Vec<(Option<String>, usize, f64)> {
    let request = DescribeClientQuotasRequest {
        components: vec![ComponentData {
            entity_type: text("user"),
            match_type: 2,
            r#match: None,
            ..ComponentData::default()
        }],
        strict,
        ..DescribeClientQuotasRequest::default()
    };
    let response = client.call(&request, 1).await;
    let entries = response.entries.unwrap();
    entries
        .iter()
        .map(|entry| {
            let user = entry
                .entity
                .iter()
                .find(|part| &*part.entity_type == "user")
                .and_then(|part| part.entity_name.as_ref().map(ToString::to_string));
            (user, entry.entity.len(), entry.values[0].value)
        })
        .collect()
}

async fn produce(client: &mut Client, bytes: usize) -> i32 {
    let mut batch = BatchBuilder::new();
    batch.push(&NewRecord {
        timestamp: 1,
        value: Some(vec![b'x'; bytes].into()),
        ..NewRecord::default()
    });
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: text("t"),
            partition_data: vec![PartitionProduceData {
                records: Some(batch.build().unwrap()),
                ..PartitionProduceData::default()
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let response = client.call(&request, 9).await;
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(error(partition.error_code), ErrorCode::None);
    response.throttle_time_ms
}

/// The bytes that a fetch gives, and how long it asks to wait.
async fn fetch(client: &mut Client) -> (usize, i32) {
    let request = FetchRequest {
        max_wait_ms: 10,
        max_bytes: 1 << 30,
        topics: vec![fetch_request::FetchTopic {
            topic: text("t"),
            partitions: vec![fetch_request::FetchPartition {
                partition_max_bytes: 1 << 30,
                ..fetch_request::FetchPartition::default()
            }],
            ..fetch_request::FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let response = client.call(&request, 12).await;
    let records = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.records.as_ref().map_or(0, Chunk::len));
    (records.sum(), response.throttle_time_ms)
}

#[tokio::test]
async fn quotas_are_kept_and_described_by_filters() {
    let mut broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let alice = [("user", Some("alice"))];
    let both = [("user", Some("alice")), ("client-id", None)];
    assert_eq!(
        alter(&mut client, &alice, "producer_byte_rate", Some(1e6)).await,
        ErrorCode::None
    );
    assert_eq!(
        alter(&mut client, &both, "request_percentage", Some(12.5)).await,
        ErrorCode::None
    );
    assert_eq!(
        alter(
            &mut client,
            &[("ip", Some("10.0.0.1"))],
            "connection_creation_rate",
            Some(5.0)
        )
        .await,
        ErrorCode::None
    );
    assert_eq!(
        alter(&mut client, &alice, "no_such_quota", Some(1.0)).await,
        ErrorCode::InvalidRequest
    );
    broker.restart().await;
    let mut client = broker.connect().await;
    let name = Some("alice".to_owned());
    assert_eq!(described(&mut client, true).await, [(name.clone(), 1, 1e6)]);
    assert_eq!(
        described(&mut client, false).await,
        [(name.clone(), 2, 12.5), (name, 1, 1e6)]
    );
    assert_eq!(
        alter(&mut client, &alice, "producer_byte_rate", None).await,
        ErrorCode::None
    );
    assert!(described(&mut client, true).await.is_empty());
}

#[tokio::test]
async fn a_producer_above_its_quota_is_told_to_wait_and_is_not_read_meanwhile() {
    let broker = TestBroker::with(&[("quota.window.num", "2")]).await;
    broker.topic("t", 1).await;
    let mut admin = broker.connect().await;
    // What a window before would have allowed is free: 20,000 bytes.
    let everybody = [("user", None)];
    assert_eq!(
        alter(&mut admin, &everybody, "producer_byte_rate", Some(20_000.0)).await,
        ErrorCode::None
    );
    let mut client = broker.connect().await;
    let begin = std::time::Instant::now();
    let throttle_ms = produce(&mut client, 30_000).await;
    assert!((500..=600).contains(&throttle_ms), "{throttle_ms}");
    produce(&mut client, 1).await;
    let waited = begin.elapsed().as_millis();
    assert!(
        waited >= u128::try_from(throttle_ms).unwrap(),
        "{waited} {throttle_ms}"
    );
    // Who reads has no quota.
    assert!(fetch(&mut admin).await.0 > 30_000);
    assert_eq!(
        alter(&mut admin, &everybody, "producer_byte_rate", None).await,
        ErrorCode::None
    );
    assert_eq!(produce(&mut client, 100_000).await, 0);
}

#[tokio::test]
async fn a_consumer_above_its_quota_gets_nothing_until_it_has_waited() {
    let broker = TestBroker::with(&[("quota.window.num", "2")]).await;
    broker.topic("t", 1).await;
    let mut admin = broker.connect().await;
    produce(&mut admin, 1_000).await;
    produce(&mut admin, 1_000).await;
    let everybody = [("client-id", None)];
    assert_eq!(
        alter(&mut admin, &everybody, "consumer_byte_rate", Some(1_100.0)).await,
        ErrorCode::None
    );
    let mut client = broker.connect().await;
    // No answer is larger than the quota of a window: one batch of two.
    let (first, throttle_ms) = fetch(&mut client).await;
    assert!(
        (1_000..2_000).contains(&first) && throttle_ms == 0,
        "{first} {throttle_ms}"
    );
    let (bytes, throttle_ms) = fetch(&mut client).await;
    assert!(bytes == 0 && throttle_ms > 0, "{bytes} {throttle_ms}");
    let (bytes, _) = fetch(&mut client).await;
    assert_eq!(bytes, first, "what was not given does not count");
}

#[tokio::test]
async fn time_of_requests_is_a_quota_too() {
    let broker = TestBroker::with(&[("quota.window.num", "1")]).await;
    let mut client = broker.connect().await;
    // A hundred thousandth of a thread: less than one request takes.
    assert_eq!(
        alter(
            &mut client,
            &[("user", None)],
            "request_percentage",
            Some(0.000_1)
        )
        .await,
        ErrorCode::None
    );
    let response = client.call(&ListGroupsRequest::default(), 3).await;
    assert!((1..=1_000).contains(&response.throttle_time_ms));
}

#[tokio::test]
async fn partitions_above_the_quota_are_refused_or_slow_down_old_clients() {
    let broker = TestBroker::with(&[("controller.quota.window.num", "1")]).await;
    let mut client = broker.connect().await;
    assert_eq!(
        alter(
            &mut client,
            &[("user", None)],
            "controller_mutation_rate",
            Some(2.0)
        )
        .await,
        ErrorCode::None
    );
    let create = |name: &str, partitions| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: text(name),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let response = client.call(&create("a", 20), 7).await;
    assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    let response = client.call(&create("b", 1), 7).await;
    assert_eq!(
        error(response.topics[0].error_code),
        ErrorCode::ThrottlingQuotaExceeded
    );
    assert!(response.throttle_time_ms > 0);
    // Old clients only wait.
    let mut old = broker.connect().await;
    let response = old.call(&create("c", 4), 5).await;
    assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    assert!(response.throttle_time_ms > 0);
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_held_and_closed() {
    let broker = TestBroker::with(&[("quota.window.num", "2"), ("quota.window.size.seconds", "1")]).await;
    let mut admin = broker.connect().await;
    let here = [("ip", Some("127.0.0.1"))];
    assert_eq!(
        alter(&mut admin, &here, "connection_creation_rate", Some(1.0)).await,
        ErrorCode::None
    );
    let mut held = false;
    for _ in 0..10 {
        let mut client = broker.connect().await;
        client.send(&ListGroupsRequest::default(), 3).await;
        held = client.frame().await.is_none();
        if held {
            break;
        }
    }
    assert!(held, "ten connections at once are more than one a second");
    let response = admin.call(&ListGroupsRequest::default(), 3).await;
    assert_eq!(response.error_code, 0, "connections that are open go on");
}
