//! CreateTopics, DeleteTopics, CreatePartitions, and what a restart finds.

use milena_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use milena_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use milena_protocol::messages::create_topics_response::CreatableTopicResult;
use milena_protocol::messages::delete_topics_request::DeleteTopicState;
use milena_protocol::messages::metadata_request::MetadataRequestTopic;
use milena_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
};
use milena_protocol::{ApiKey, ErrorCode, Uuid};

use crate::harness::{TestBroker, error, text};

fn topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: text(name),
        num_partitions: partitions,
        replication_factor: factor,
        ..CreatableTopic::default()
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *index,
        broker_ids: brokers.to_vec(),
        ..CreatableReplicaAssignment::default()
    };
    CreatableTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..topic(name, -1, -1)
    }
}

fn with_config(name: &str, config: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig {
        name: text(config),
        value: value.map(text),
        ..CreatableTopicConfig::default()
    };
    CreatableTopic {
        configs: vec![config],
        ..topic(name, 1, 1)
    }
}

async fn create(broker: &TestBroker, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    };
    broker.connect().await.call(&request, 7).await.topics
}

async fn partition_count(broker: &TestBroker, name: &str) -> usize {
    let asked = MetadataRequestTopic {
        name: Some(text(name)),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![asked]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    broker.connect().await.call(&request, 9).await.topics[0]
        .partitions
        .len()
}

/// Code and sentence for one topic that is refused. All sentences are those of Kafka 4.3.1.
async fn refused(broker: &TestBroker, topic: CreatableTopic) -> (ErrorCode, String) {
    let result = create(broker, vec![topic]).await.remove(0);
    (
        error(result.error_code),
        result.error_message.unwrap_or_default().to_string(),
    )
}

#[tokio::test]
async fn every_version_of_create_and_delete_topics_works() {
    let broker = TestBroker::start().await;
    for version in ApiKey::CreateTopics.stable_versions() {
        let name = format!("v{version}");
        let request = CreateTopicsRequest {
            topics: vec![topic(&name, 2, 1)],
            ..CreateTopicsRequest::default()
        };
        let response = broker.connect().await.call(&request, version).await;
        assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
        assert_eq!(partition_count(&broker, &name).await, 2);
    }
    for version in ApiKey::DeleteTopics.stable_versions() {
        let name = format!("d{version}");
        broker.topic(&name, 1).await;
        let mut request = DeleteTopicsRequest::default();
        if version < 6 {
            request.topic_names.push(text(&name));
        } else {
            let state = DeleteTopicState {
                name: Some(text(&name)),
                ..DeleteTopicState::default()
            };
            request.topics.push(state);
        }
        let response = broker.connect().await.call(&request, version).await;
        assert_eq!(error(response.responses[0].error_code), ErrorCode::None);
        assert_eq!(partition_count(&broker, &name).await, 0);
    }
}

#[tokio::test]
async fn wrong_topics_are_refused_in_kafkas_words() {
    let broker = TestBroker::start().await;
    broker.topic("there", 1).await;
    broker.topic("x.y", 1).await;
    let cases = [
        (
            topic("there", 1, 1),
            ErrorCode::TopicAlreadyExists,
            "Topic 'there' already exists.",
        ),
        (
            topic("x_y", 1, 1),
            ErrorCode::InvalidTopicException,
            "Topic 'x_y' collides with existing topic: x.y",
        ),
        (
            topic("", 1, 1),
            ErrorCode::InvalidTopicException,
            "Topic name is invalid: the empty string is not allowed",
        ),
        (
            topic("z", 0, 1),
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("z", 0, 0),
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            topic("z", 1, 3),
            ErrorCode::InvalidReplicationFactor,
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because \
             only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (
            assigned("z", &[(0, &[])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            assigned("z", &[(0, &[9])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            assigned("z", &[(1, &[1])]),
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            CreatableTopic {
                replication_factor: 1,
                ..assigned("z", &[(0, &[1])])
            },
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
        (
            topic("__cluster_metadata", 1, 1),
            ErrorCode::InvalidRequest,
            "Creation of internal topic __cluster_metadata is prohibited.",
        ),
        (
            with_config("z", "foo", Some("1")),
            ErrorCode::InvalidConfig,
            "Unknown topic config name: foo",
        ),
        (
            with_config("z", "retention.ms", None),
            ErrorCode::InvalidConfig,
            "Null value not supported for topic configs: retention.ms",
        ),
        (
            with_config("z", "retention.ms", Some("x")),
            ErrorCode::InvalidConfig,
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        (
            topic("z", 10_001, 1),
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        ),
    ];
    for (asked, code, sentence) in cases {
        assert_eq!(refused(&broker, asked).await, (code, sentence.to_owned()));
    }
    let twice = create(&broker, vec![topic("z", 1, 1), topic("z", 2, 1)]).await;
    assert_eq!(twice.len(), 1);
    assert_eq!(error(twice[0].error_code), ErrorCode::InvalidRequest);
    assert_eq!(
        partition_count(&broker, "z").await,
        0,
        "nothing of all this was created"
    );
}

#[tokio::test]
async fn a_created_topic_tells_its_counts_and_configs() {
    let broker = TestBroker::with(&[("num.partitions", "3")]).await;
    let result = create(&broker, vec![topic("t", -1, -1)]).await.remove(0);
    assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
    assert_ne!(result.topic_id, Uuid::ZERO);
    let configs = result.configs.unwrap();
    let policy = configs
        .iter()
        .find(|config| &*config.name == "cleanup.policy")
        .unwrap();
    assert_eq!(policy.value.as_deref(), Some("delete"));
    assert!(configs.is_sorted_by_key(|config| config.name.clone()));
}

#[tokio::test]
async fn validate_only_creates_nothing() {
    let broker = TestBroker::start().await;
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 2, 1)],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let response = broker.connect().await.call(&request, 7).await;
    assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    assert_eq!(response.topics[0].num_partitions, 2);
    assert_eq!(partition_count(&broker, "t").await, 0);
}

/// Trap 6, of CreatePartitions.
#[tokio::test]
async fn trap_6_create_partitions_creates_them() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let grow = |count, assignments: Option<Vec<Vec<i32>>>| {
        let assignments = assignments.map(|lists| {
            let list = |broker_ids| CreatePartitionsAssignment {
                broker_ids,
                ..CreatePartitionsAssignment::default()
            };
            lists.into_iter().map(list).collect()
        });
        let topic = CreatePartitionsTopic {
            name: text("t"),
            count,
            assignments,
            ..CreatePartitionsTopic::default()
        };
        CreatePartitionsRequest {
            topics: vec![topic],
            ..CreatePartitionsRequest::default()
        }
    };
    let mut client = broker.connect().await;
    for (count, version) in [(3, 0), (4, 1), (5, 2), (6, 3)] {
        let response = client.call(&grow(count, None), version).await;
        assert_eq!(error(response.results[0].error_code), ErrorCode::None);
        assert_eq!(
            partition_count(&broker, "t").await,
            usize::try_from(count).unwrap()
        );
    }
    let cases = [
        (
            grow(6, None),
            ErrorCode::InvalidPartitions,
            "Topic already has 6 partition(s).",
        ),
        (
            grow(1, None),
            ErrorCode::InvalidPartitions,
            "The topic t currently has 6 partition(s); 1 would not be an increase.",
        ),
        (
            grow(8, Some(vec![vec![1]])),
            ErrorCode::InvalidReplicaAssignment,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            grow(7, Some(vec![vec![7]])),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 7, but no such broker is registered.",
        ),
    ];
    for (request, code, sentence) in cases {
        let result = client.call(&request, 3).await.results.remove(0);
        assert_eq!(
            (error(result.error_code), result.error_message.as_deref()),
            (code, Some(sentence))
        );
    }
    let validated = CreatePartitionsRequest {
        validate_only: true,
        ..grow(9, None)
    };
    assert_eq!(
        error(client.call(&validated, 3).await.results[0].error_code),
        ErrorCode::None
    );
    assert_eq!(partition_count(&broker, "t").await, 6);
}

#[tokio::test]
async fn topics_are_deleted_by_name_or_id_and_never_by_both() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let state = |name: Option<&str>, topic_id| DeleteTopicState {
        name: name.map(text),
        topic_id,
        ..DeleteTopicState::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![
            state(None, Uuid::ZERO),
            state(Some("x"), id),
            state(Some("nope"), Uuid::ZERO),
            state(None, Uuid::from_bytes([3; 16])),
            state(Some("t"), Uuid::ZERO),
            state(None, id),
        ],
        ..DeleteTopicsRequest::default()
    };
    let response = client.call(&request, 6).await;
    let codes: Vec<ErrorCode> = response
        .responses
        .iter()
        .map(|result| error(result.error_code))
        .collect();
    assert_eq!(
        codes
            .iter()
            .filter(|code| **code == ErrorCode::InvalidRequest)
            .count(),
        3,
        "{codes:?}"
    );
    assert!(
        codes.contains(&ErrorCode::UnknownTopicOrPartition) && codes.contains(&ErrorCode::UnknownTopicId)
    );
    assert_eq!(
        partition_count(&broker, "t").await,
        1,
        "named twice, so not deleted"
    );
    let request = DeleteTopicsRequest {
        topics: vec![state(None, id)],
        ..DeleteTopicsRequest::default()
    };
    let response = client.call(&request, 6).await;
    assert_eq!(response.responses[0].name.as_deref(), Some("t"));
    let again = broker.topic("t", 1).await;
    assert_ne!(again, id, "a new topic of the same name has another id");
}

#[tokio::test]
async fn deletion_can_be_switched_off() {
    let broker = TestBroker::with(&[("delete.topic.enable", "false")]).await;
    broker.topic("t", 1).await;
    let request = DeleteTopicsRequest {
        topic_names: vec![text("t")],
        ..DeleteTopicsRequest::default()
    };
    let mut client = broker.connect().await;
    let response = client.call(&request, 5).await;
    assert_eq!(
        error(response.responses[0].error_code),
        ErrorCode::TopicDeletionDisabled
    );
    let response = client.call(&request, 1).await;
    assert_eq!(error(response.responses[0].error_code), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_restart_finds_topics_as_they_were_with_a_higher_leader_epoch() {
    let mut broker = TestBroker::start().await;
    let id = broker.topic_with("t", 3, &[("retention.ms", "1234")]).await;
    assert_eq!(broker.leader_epoch("t").await, 0);
    broker.restart().await;
    assert_eq!(partition_count(&broker, "t").await, 3);
    assert_eq!(broker.leader_epoch("t").await, 1);
    let asked = MetadataRequestTopic {
        topic_id: id,
        name: None,
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![asked]),
        ..MetadataRequest::default()
    };
    let response = broker.connect().await.call(&request, 12).await;
    assert_eq!(response.topics[0].name.as_deref(), Some("t"));
    broker.restart().await;
    assert_eq!(broker.leader_epoch("t").await, 2);
}
