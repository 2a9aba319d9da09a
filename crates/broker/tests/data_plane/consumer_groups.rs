//! ConsumerGroupHeartbeat and ConsumerGroupDescribe: what the broker adds to the coordinator's decisions.

use milena_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::update_features_request::FeatureUpdateKey;
use milena_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, IncrementalAlterConfigsRequest,
    UpdateFeaturesRequest,
};
use milena_protocol::{ErrorCode, Str};

use crate::harness::{Client, TestBroker, error, text};

const GROUP: i8 = 32;
const UNSAFE_DOWNGRADE: i8 = 3;

fn join(topic: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: text("g"),
        member_id: text("m"),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![text(topic)]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn partitions(response: &ConsumerGroupHeartbeatResponse) -> Vec<i32> {
    let assignment = response.assignment.iter();
    assignment
        .flat_map(|assignment| &assignment.topic_partitions)
        .flat_map(|topic| topic.partitions.clone())
        .collect()
}

async fn describe(client: &mut Client) -> (ErrorCode, Str, i32) {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![text("g")],
        ..ConsumerGroupDescribeRequest::default()
    };
    let group = client.call(&request, 1).await.groups.remove(0);
    (error(group.error_code), group.group_state, group.group_epoch)
}

#[tokio::test]
async fn a_group_follows_topics_and_its_configs_and_survives_a_restart() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let mut going = join("t");
    let joined = client.call(&going, 1).await;
    assert_eq!(
        (error(joined.error_code), partitions(&joined)),
        (ErrorCode::None, vec![0, 1])
    );
    assert_eq!(joined.heartbeat_interval_ms, 5_000);
    let config = AlterableConfig {
        name: text("consumer.heartbeat.interval.ms"),
        value: Some(text("6000")),
        ..AlterableConfig::default()
    };
    let alter = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: text("g"),
            configs: vec![config],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    assert_eq!(client.call(&alter, 1).await.responses[0].error_code, 0);
    let before = describe(&mut client).await;
    assert_eq!((before.0, &*before.1), (ErrorCode::None, "Stable"));

    broker.restart().await;
    let mut client = broker.connect().await;
    assert_eq!(describe(&mut client).await, before);
    going.member_epoch = joined.member_epoch;
    let gone_on = client.call(&going, 1).await;
    assert_eq!(
        partitions(&gone_on),
        [0, 1],
        "who says everything hears everything"
    );
    going.topic_partitions = None;
    going.subscribed_topic_names = None;
    let gone_on = client.call(&going, 1).await;
    assert_eq!(
        (gone_on.member_epoch, gone_on.assignment),
        (joined.member_epoch, None)
    );
    assert_eq!(gone_on.heartbeat_interval_ms, 6_000);
    broker.delete_topic("t").await;
    let without = client.call(&going, 1).await;
    assert!(partitions(&without).is_empty() && without.assignment.is_some());
}

#[tokio::test]
async fn without_the_feature_there_are_no_consumer_groups() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let update = UpdateFeaturesRequest {
        timeout_ms: 10_000,
        feature_updates: vec![FeatureUpdateKey {
            feature: text("group.version"),
            max_version_level: 0,
            upgrade_type: UNSAFE_DOWNGRADE,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    };
    assert_eq!(client.call(&update, 2).await.error_code, 0);
    let refused = client.call(&join("t"), 1).await;
    assert_eq!(error(refused.error_code), ErrorCode::UnsupportedVersion);
    assert_eq!(describe(&mut client).await.0, ErrorCode::UnsupportedVersion);

    let classic_only = [("group.coordinator.rebalance.protocols", "classic")];
    let broker = TestBroker::with(&classic_only).await;
    let refused = broker.connect().await.call(&join("t"), 1).await;
    assert_eq!(error(refused.error_code), ErrorCode::UnsupportedVersion);
}
