//! Metadata, DescribeCluster, DescribeTopicPartitions, DescribeLogDirs, ApiVersions.

use milena_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use milena_protocol::messages::metadata_request::MetadataRequestTopic;
use milena_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest,
    MetadataRequest,
};
use milena_protocol::{ApiKey, ErrorCode, Uuid};

use crate::harness::{TestBroker, error, text};

fn named(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic {
        name: Some(text(name)),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        ..MetadataRequest::default()
    }
}

fn without_creation(names: &[&str]) -> MetadataRequest {
    MetadataRequest {
        allow_auto_topic_creation: false,
        ..named(names)
    }
}

#[tokio::test]
async fn every_version_of_metadata_is_answered() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 2).await;
    for version in ApiKey::Metadata.stable_versions() {
        let response = broker.connect().await.call(&named(&["t"]), version).await;
        assert_eq!(response.brokers.len(), 1);
        assert_eq!(
            response.brokers[0].port,
            i32::from(broker.address().port()),
            "port 0 advertises the bound port"
        );
        let topic = &response.topics[0];
        assert_eq!(topic.partitions.len(), 2, "version {version}");
        assert_eq!(topic.partitions[1].leader_id, response.brokers[0].node_id);
        assert_eq!(topic.topic_id, if version >= 10 { id } else { Uuid::ZERO });
        assert_eq!(response.cluster_id.is_some(), version >= 2);
    }
}

#[tokio::test]
async fn all_topics_are_asked_for_by_null_and_in_version_0_by_the_empty_list() {
    let broker = TestBroker::start().await;
    broker.topic("a", 1).await;
    broker.topic("b", 1).await;
    let mut client = broker.connect().await;
    let empty = MetadataRequest {
        topics: Some(Vec::new()),
        ..MetadataRequest::default()
    };
    let null = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    assert_eq!(client.call(&empty, 0).await.topics.len(), 2);
    assert_eq!(client.call(&empty, 1).await.topics.len(), 0);
    assert_eq!(client.call(&null, 1).await.topics.len(), 2);
    assert_eq!(client.call(&null, 13).await.topics.len(), 2);
}

#[tokio::test]
async fn topics_are_found_by_id_and_unknown_ids_are_named() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let unknown = Uuid::from_bytes([9; 16]);
    let by_id = |id| MetadataRequestTopic {
        topic_id: id,
        name: None,
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![by_id(id), by_id(unknown)]),
        ..MetadataRequest::default()
    };
    let response = broker.connect().await.call(&request, 12).await;
    assert_eq!(response.topics[0].name.as_deref(), Some("t"));
    assert_eq!(error(response.topics[1].error_code), ErrorCode::UnknownTopicId);
    assert_eq!(response.topics[1].name, None);
    let early = broker.connect().await.call(&request, 10).await;
    assert!(
        early
            .topics
            .iter()
            .all(|topic| error(topic.error_code) == ErrorCode::InvalidRequest)
    );
}

/// Trap 5.
#[tokio::test]
async fn trap_5_a_topic_that_is_created_on_demand_is_usable_in_the_same_answer() {
    let broker = TestBroker::start().await;
    let response = broker.connect().await.call(&named(&["fresh"]), 9).await;
    assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    assert_eq!(
        error(response.topics[0].partitions[0].error_code),
        ErrorCode::None
    );
    assert_eq!(
        response.topics[0].partitions[0].leader_id,
        response.brokers[0].node_id
    );
}

#[tokio::test]
async fn a_topic_is_created_on_demand_only_where_broker_and_client_agree() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let refused = client.call(&without_creation(&["a"]), 9).await;
    assert_eq!(
        error(refused.topics[0].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let invalid = client.call(&named(&["no/good"]), 9).await;
    assert_eq!(
        error(invalid.topics[0].error_code),
        ErrorCode::InvalidTopicException
    );
    client.call(&named(&["a.b"]), 9).await;
    let colliding = client.call(&named(&["a_b"]), 9).await;
    assert_eq!(
        error(colliding.topics[0].error_code),
        ErrorCode::InvalidTopicException
    );

    let broker = TestBroker::with(&[("auto.create.topics.enable", "false")]).await;
    let response = broker.connect().await.call(&named(&["a"]), 9).await;
    assert_eq!(
        error(response.topics[0].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
}

#[tokio::test]
async fn authorised_operations_are_told_when_asked_for() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let request = MetadataRequest {
        include_cluster_authorized_operations: true,
        include_topic_authorized_operations: true,
        ..named(&["t"])
    };
    let response = broker.connect().await.call(&request, 8).await;
    assert_eq!(response.topics[0].topic_authorized_operations, 3576);
    assert_eq!(response.cluster_authorized_operations, 8096);
    let unasked = broker.connect().await.call(&named(&["t"]), 8).await;
    assert_eq!(unasked.topics[0].topic_authorized_operations, i32::MIN);
}

#[tokio::test]
async fn every_advertised_api_has_the_versions_of_kafka_4_3_1() {
    let broker = TestBroker::start().await;
    let response = broker
        .connect()
        .await
        .call(&ApiVersionsRequest::default(), 0)
        .await;
    let keys: Vec<i16> = response.api_keys.iter().map(|range| range.api_key).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    for range in response.api_keys {
        let api = ApiKey::from_code(range.api_key).unwrap();
        let told = range.min_version..=range.max_version;
        // librdkafka wants to see the versions of Produce that are gone.
        let expected = if api == ApiKey::Produce {
            0..=13
        } else {
            api.stable_versions()
        };
        assert_eq!(told, expected, "{}", api.name());
    }
}

#[tokio::test]
async fn the_cluster_describes_itself_and_refuses_to_speak_for_controllers() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let brokers = DescribeClusterRequest {
        endpoint_type: 1,
        ..DescribeClusterRequest::default()
    };
    for version in ApiKey::DescribeCluster.stable_versions() {
        let response = client.call(&brokers, version).await;
        assert_eq!(response.brokers.len(), 1);
        assert_eq!(response.controller_id, response.brokers[0].broker_id);
    }
    let controllers = DescribeClusterRequest {
        endpoint_type: 2,
        ..DescribeClusterRequest::default()
    };
    let refused = client.call(&controllers, 1).await;
    assert_eq!(error(refused.error_code), ErrorCode::MismatchedEndpointType);
    let unknown = DescribeClusterRequest {
        endpoint_type: 3,
        ..DescribeClusterRequest::default()
    };
    assert_eq!(
        error(client.call(&unknown, 1).await.error_code),
        ErrorCode::UnsupportedEndpointType
    );
}

#[tokio::test]
async fn topic_partitions_come_page_by_page_until_all_are_told() {
    let broker = TestBroker::start().await;
    for (name, partitions) in [("a", 3), ("b", 1), ("c", 4)] {
        broker.topic(name, partitions).await;
    }
    let mut client = broker.connect().await;
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            cursor: cursor.take(),
            ..DescribeTopicPartitionsRequest::default()
        };
        let response = client.call(&request, 0).await;
        let told: usize = response.topics.iter().map(|topic| topic.partitions.len()).sum();
        assert!(told <= 2, "a page of {told}");
        for topic in &response.topics {
            let name = topic.name.clone().unwrap();
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|partition| (name.to_string(), partition.partition_index)),
            );
        }
        match response.next_cursor {
            Some(next) => {
                cursor = Some(Cursor {
                    topic_name: next.topic_name,
                    partition_index: next.partition_index,
                    ..Cursor::default()
                });
            }
            None => break,
        }
    }
    let all = [("a", 3), ("b", 1), ("c", 4)];
    let expected: Vec<(String, i32)> = all
        .iter()
        .flat_map(|(name, count)| (0..*count).map(|index| ((*name).to_owned(), index)))
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_cursor_outside_the_asked_topics_is_invalid() {
    let broker = TestBroker::start().await;
    broker.topic("a", 1).await;
    let request = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest {
            name: text("a"),
            ..TopicRequest::default()
        }],
        cursor: Some(Cursor {
            topic_name: text("b"),
            ..Cursor::default()
        }),
        ..DescribeTopicPartitionsRequest::default()
    };
    let response = broker.connect().await.call(&request, 0).await;
    assert_eq!(error(response.topics[0].error_code), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn log_directories_tell_their_partitions() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    for version in ApiKey::DescribeLogDirs.stable_versions() {
        let all = DescribeLogDirsRequest {
            topics: None,
            ..DescribeLogDirsRequest::default()
        };
        let response = broker.connect().await.call(&all, version).await;
        let partitions: usize = response
            .results
            .iter()
            .flat_map(|dir| &dir.topics)
            .map(|topic| topic.partitions.len())
            .sum();
        assert_eq!(partitions, 2, "version {version}");
    }
}
