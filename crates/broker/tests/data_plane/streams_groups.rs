//! StreamsGroupHeartbeat and StreamsGroupDescribe: what the broker adds to the coordinator's decisions.

use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::metadata_request::MetadataRequestTopic;
use milena_protocol::messages::streams_group_heartbeat_request::{
    KeyValue, Subtopology, TopicInfo as InternalTopic, Topology,
};
use milena_protocol::messages::update_features_request::FeatureUpdateKey;
use milena_protocol::messages::{
    IncrementalAlterConfigsRequest, MetadataRequest, StreamsGroupDescribeRequest,
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, UpdateFeaturesRequest,
};
use milena_protocol::{ErrorCode, Str};

use crate::harness::{Client, TestBroker, error, text};

const GROUP: i8 = 32;
const UNSAFE_DOWNGRADE: i8 = 3;
const NO_DELAY: [(&str, &str); 2] = [
    ("group.streams.initial.rebalance.delay.ms", "0"),
    ("group.streams.assignment.interval.ms", "0"),
];

/// It reads `source` and keeps its state in `changelog`, which has one config.
fn join(source: &str, changelog: &str, config: (&str, &str)) -> StreamsGroupHeartbeatRequest {
    let config = KeyValue {
        key: text(config.0),
        value: text(config.1),
        ..KeyValue::default()
    };
    let changelog = InternalTopic {
        name: text(changelog),
        topic_configs: vec![config],
        ..InternalTopic::default()
    };
    let subtopology = Subtopology {
        subtopology_id: text("0"),
        source_topics: vec![text(source)],
        state_changelog_topics: vec![changelog],
        ..Subtopology::default()
    };
    StreamsGroupHeartbeatRequest {
        group_id: text("g"),
        member_id: text("m"),
        rebalance_timeout_ms: 60_000,
        topology: Some(Topology {
            subtopologies: vec![subtopology],
            ..Topology::default()
        }),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        process_id: Some(text("p")),
        ..StreamsGroupHeartbeatRequest::default()
    }
}

fn going(epoch: i32) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: text("g"),
        member_id: text("m"),
        member_epoch: epoch,
        ..StreamsGroupHeartbeatRequest::default()
    }
}

fn details(response: &StreamsGroupHeartbeatResponse) -> Vec<&str> {
    let statuses = response.status.iter().flatten();
    statuses.map(|status| &*status.status_detail).collect()
}

async fn describe(client: &mut Client) -> (ErrorCode, Str, i32) {
    let request = StreamsGroupDescribeRequest {
        group_ids: vec![text("g")],
        ..StreamsGroupDescribeRequest::default()
    };
    let group = client.call(&request, 0).await.groups.remove(0);
    (error(group.error_code), group.group_state, group.group_epoch)
}

async fn partitions_of(client: &mut Client, topic: &str) -> usize {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(text(topic)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    client.call(&request, 12).await.topics[0].partitions.len()
}

#[tokio::test]
async fn internal_topics_are_there_when_the_next_heartbeat_comes_and_the_group_survives_a_restart() {
    let mut broker = TestBroker::with(&NO_DELAY).await;
    broker.topic("in", 3).await;
    let mut client = broker.connect().await;
    let joined = client
        .call(&join("in", "g-changelog", ("cleanup.policy", "compact")), 0)
        .await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    assert_eq!(details(&joined), ["Internal topics are missing: g-changelog"]);
    assert_eq!(partitions_of(&mut client, "g-changelog").await, 3);
    assert_eq!(describe(&mut client).await.1, *"NotReady");
    let assigned = client.call(&going(joined.member_epoch), 0).await;
    assert_eq!(details(&assigned), [""; 0]);
    assert_eq!(assigned.active_tasks.unwrap()[0].partitions, [0, 1, 2]);
    let before = describe(&mut client).await;
    assert_eq!((before.0, &*before.1), (ErrorCode::None, "Stable"));

    broker.restart().await;
    let mut client = broker.connect().await;
    assert_eq!(describe(&mut client).await, before);
    let gone_on = client.call(&going(assigned.member_epoch), 0).await;
    assert_eq!(
        (gone_on.member_epoch, gone_on.active_tasks),
        (assigned.member_epoch, None)
    );
}

#[tokio::test]
async fn why_an_internal_topic_cannot_be_created_is_told_with_the_next_heartbeat() {
    let broker = TestBroker::with(&NO_DELAY).await;
    broker.topic("in", 1).await;
    let mut client = broker.connect().await;
    let joined = client.call(&join("in", "g-changelog", ("no.such", "1")), 0).await;
    assert_eq!(details(&joined), ["Internal topics are missing: g-changelog"]);
    let told = client.call(&going(joined.member_epoch), 0).await;
    let sentence = "Internal topics are missing: g-changelog; Creation failed: g-changelog (Unknown topic config name: no.such).";
    assert_eq!(details(&told), [sentence]);
    assert_eq!(partitions_of(&mut client, "g-changelog").await, 0);
}

#[tokio::test]
async fn names_that_no_topic_of_an_application_can_have_are_refused() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let cases = [
        (
            "__consumer_offsets",
            "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is prohibited.",
        ),
        ("a b", "Topic names a b are not valid topic names."),
    ];
    for (source, sentence) in cases {
        let refused = client
            .call(&join(source, "g-changelog", ("cleanup.policy", "compact")), 0)
            .await;
        assert_eq!(error(refused.error_code), ErrorCode::StreamsInvalidTopology);
        assert_eq!(refused.error_message.as_deref(), Some(sentence));
    }
    assert_eq!(describe(&mut client).await.0, ErrorCode::GroupIdNotFound);
}

#[tokio::test]
async fn a_groups_own_configs_hold_for_it() {
    let broker = TestBroker::with(&NO_DELAY).await;
    broker.topic("in", 1).await;
    let mut client = broker.connect().await;
    let set = [
        ("streams.heartbeat.interval.ms", "6000"),
        ("streams.initial.rebalance.delay.ms", "60000"),
    ];
    let configs = set.map(|(name, value)| AlterableConfig {
        name: text(name),
        value: Some(text(value)),
        ..AlterableConfig::default()
    });
    let alter = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: text("g"),
            configs: configs.into(),
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    assert_eq!(client.call(&alter, 1).await.responses[0].error_code, 0);
    let joined = client
        .call(&join("in", "in-2", ("cleanup.policy", "compact")), 0)
        .await;
    assert_eq!(joined.heartbeat_interval_ms, 6_000);
    let sentence = "Assignment delayed due to the configured initial rebalance delay.";
    assert_eq!(details(&joined)[0], sentence);
}

#[tokio::test]
async fn without_the_feature_there_are_no_streams_groups() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let update = UpdateFeaturesRequest {
        timeout_ms: 10_000,
        feature_updates: vec![FeatureUpdateKey {
            feature: text("streams.version"),
            max_version_level: 0,
            upgrade_type: UNSAFE_DOWNGRADE,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    };
    assert_eq!(client.call(&update, 2).await.error_code, 0);
    let request = join("in", "g-changelog", ("cleanup.policy", "compact"));
    let refused = client.call(&request, 0).await;
    assert_eq!(error(refused.error_code), ErrorCode::UnsupportedVersion);
    assert_eq!(describe(&mut client).await.0, ErrorCode::UnsupportedVersion);

    let without = [("group.coordinator.rebalance.protocols", "classic,consumer")];
    let broker = TestBroker::with(&without).await;
    let refused = broker.connect().await.call(&request, 0).await;
    assert_eq!(error(refused.error_code), ErrorCode::UnsupportedVersion);
}
