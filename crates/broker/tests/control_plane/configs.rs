//! DescribeConfigs, IncrementalAlterConfigs, AlterConfigs. Sentences are those of Kafka 4.3.1.

use milena_protocol::messages::ListConfigResourcesRequest;
use milena_protocol::messages::alter_configs_request::{
    AlterConfigsRequest, AlterConfigsResource as LegacyResource, AlterableConfig as LegacyConfig,
};
use milena_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use milena_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use milena_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use milena_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use milena_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use milena_protocol::{ApiKey, ErrorCode};

use crate::harness::{TestBroker, error, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

async fn describe(broker: &TestBroker, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: text(name),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| text(key)).collect()),
        ..DescribeConfigsResource::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    broker.connect().await.call(&request, 4).await.results.remove(0)
}

async fn one(broker: &TestBroker, kind: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
    describe(broker, kind, name, Some(&[key])).await.configs.remove(0)
}

/// Value and source.
async fn value(broker: &TestBroker, kind: i8, name: &str, key: &str) -> (String, i8) {
    let config = one(broker, kind, name, key).await;
    (config.value.unwrap_or_default().to_string(), config.config_source)
}

type Op<'a> = (&'a str, i8, Option<&'a str>);

fn alteration(kind: i8, name: &str, ops: &[Op<'_>]) -> AlterConfigsResource {
    let config = |(name, op, value): &Op<'_>| AlterableConfig {
        name: text(name),
        config_operation: *op,
        value: value.map(text),
        ..AlterableConfig::default()
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: text(name),
        configs: ops.iter().map(config).collect(),
        ..AlterConfigsResource::default()
    }
}

/// Code and sentence.
async fn alter(broker: &TestBroker, kind: i8, name: &str, ops: &[Op<'_>]) -> (ErrorCode, String) {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![alteration(kind, name, ops)],
        ..IncrementalAlterConfigsRequest::default()
    };
    let response = broker.connect().await.call(&request, 1).await.responses.remove(0);
    (
        error(response.error_code),
        response.error_message.unwrap_or_default().to_string(),
    )
}

fn ok() -> (ErrorCode, String) {
    (ErrorCode::None, String::new())
}

/// Trap 6, of DescribeConfigs.
#[tokio::test]
async fn trap_6_describe_configs_tells_every_config_in_every_version() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    for version in ApiKey::DescribeConfigs.stable_versions() {
        for (kind, name, least) in [(TOPIC, "t", 30), (BROKER, "1", 200)] {
            let resource = DescribeConfigsResource {
                resource_type: kind,
                resource_name: text(name),
                configuration_keys: None,
                ..DescribeConfigsResource::default()
            };
            let request = DescribeConfigsRequest {
                resources: vec![resource],
                ..DescribeConfigsRequest::default()
            };
            let response = broker.connect().await.call(&request, version).await;
            let found = response.results[0].configs.len();
            assert!(found >= least, "version {version}, type {kind}: {found} configs");
        }
    }
}

#[tokio::test]
async fn a_topics_config_is_set_deleted_appended_to_and_subtracted_from() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("604800000".into(), 5)
    );
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("retention.ms", SET, Some("5"))]).await,
        ok()
    );
    assert_eq!(value(&broker, TOPIC, "t", "retention.ms").await, ("5".into(), 1));
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("retention.ms", DELETE, None)]).await,
        ok()
    );
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("604800000".into(), 5)
    );
    assert_eq!(
        alter(
            &broker,
            TOPIC,
            "t",
            &[("cleanup.policy", APPEND, Some("compact"))]
        )
        .await,
        ok()
    );
    assert_eq!(
        value(&broker, TOPIC, "t", "cleanup.policy").await,
        ("delete,compact".into(), 1)
    );
    assert_eq!(
        alter(
            &broker,
            TOPIC,
            "t",
            &[("cleanup.policy", SUBTRACT, Some("delete"))]
        )
        .await,
        ok()
    );
    assert_eq!(
        value(&broker, TOPIC, "t", "cleanup.policy").await,
        ("compact".into(), 1)
    );
}

#[tokio::test]
async fn wrong_alterations_are_refused_in_kafkas_words_and_change_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let cases: &[(i8, &str, &[Op<'_>], ErrorCode, &str)] = &[
        (
            TOPIC,
            "t",
            &[("retention.ms", SET, Some("x"))],
            ErrorCode::InvalidConfig,
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", SET, None)],
            ErrorCode::InvalidRequest,
            "Null value not supported for : retention.ms",
        ),
        (
            TOPIC,
            "t",
            &[("foo", SET, Some("1"))],
            ErrorCode::InvalidConfig,
            "Unknown topic config name: foo",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", SET, Some("5")), ("retention.ms", SET, Some("6"))],
            ErrorCode::InvalidRequest,
            "Error due to duplicate config keys",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", APPEND, Some("5"))],
            ErrorCode::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            TOPIC,
            "nope",
            &[("retention.ms", SET, Some("5"))],
            ErrorCode::UnknownTopicOrPartition,
            "The topic 'nope' does not exist.",
        ),
        (
            TOPIC,
            "",
            &[("retention.ms", SET, Some("5"))],
            ErrorCode::InvalidRequest,
            "Default topic resources are not allowed.",
        ),
        (
            BROKER,
            "1",
            &[("node.id", SET, Some("2"))],
            ErrorCode::InvalidRequest,
            "Cannot update these configs dynamically: [node.id]",
        ),
        (
            BROKER,
            "2",
            &[("log.retention.ms", SET, Some("1000"))],
            ErrorCode::InvalidRequest,
            "Unexpected broker id, expected 1, but received 2",
        ),
        (
            BROKER,
            "x",
            &[("log.retention.ms", SET, Some("1000"))],
            ErrorCode::InvalidRequest,
            "Node id must be an integer, but it is: x",
        ),
        (
            BROKER,
            "",
            &[("log.retention.ms", SET, Some("z"))],
            ErrorCode::InvalidRequest,
            "Invalid value z for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            LOGGER,
            "1",
            &[("kafka.x", SET, Some("DEBUG"))],
            ErrorCode::InvalidConfig,
            "Logger kafka.x does not exist!",
        ),
        (
            LOGGER,
            "2",
            &[("root", SET, Some("DEBUG"))],
            ErrorCode::InvalidRequest,
            "Unexpected node id. Expected 1, but received 2",
        ),
        (
            LOGGER,
            "1",
            &[("root", DELETE, None)],
            ErrorCode::InvalidRequest,
            "Removing the log level of the root logger is not allowed",
        ),
        (
            LOGGER,
            "1",
            &[("root", SUBTRACT, Some("DEBUG"))],
            ErrorCode::InvalidRequest,
            "SUBTRACT operation is not allowed for the BROKER_LOGGER resource",
        ),
        (
            GROUP,
            "g",
            &[("foo", SET, Some("1"))],
            ErrorCode::InvalidConfig,
            "Unknown group config name: foo",
        ),
        (
            GROUP,
            "g",
            &[("foo", APPEND, Some("1"))],
            ErrorCode::InvalidConfig,
            "Can't APPEND to key foo because its type is not LIST.",
        ),
        (
            GROUP,
            "",
            &[("foo", SET, Some("1"))],
            ErrorCode::InvalidRequest,
            "Default group resources are not allowed.",
        ),
        (
            0,
            "g",
            &[("foo", SET, Some("1"))],
            ErrorCode::InvalidRequest,
            "Unknown resource type 0",
        ),
    ];
    for (kind, name, ops, code, sentence) in cases {
        let answered = alter(&broker, *kind, name, ops).await;
        assert_eq!(answered, (*code, (*sentence).to_owned()), "{kind} {name} {ops:?}");
    }
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("604800000".into(), 5)
    );
}

/// Trap 13.
#[tokio::test]
async fn trap_13_configs_that_nothing_obeys_are_refused_and_not_stored() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let (code, _) = alter(
        &broker,
        TOPIC,
        "t",
        &[("remote.storage.enable", SET, Some("true"))],
    )
    .await;
    assert_eq!(code, ErrorCode::InvalidConfig);
}

#[tokio::test]
async fn a_groups_configs_are_stored_before_there_is_a_group_and_survive_a_restart() {
    const SESSION: &str = "consumer.session.timeout.ms";
    const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
    let mut broker = TestBroker::start().await;
    // A group's name may be anything.
    let set = [(SESSION, SET, Some("50000")), (HEARTBEAT, SET, Some(" 6000 "))];
    assert_eq!(alter(&broker, GROUP, "a/b c", &set).await, ok());
    let bounds =
        "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms";
    assert_eq!(
        alter(
            &broker,
            GROUP,
            "a/b c",
            &[(SESSION, SET, Some("1")), (HEARTBEAT, DELETE, None)]
        )
        .await,
        (ErrorCode::InvalidConfig, bounds.to_owned())
    );
    broker.restart().await;
    assert_eq!(value(&broker, GROUP, "a/b c", SESSION).await, ("50000".into(), 8));
    assert_eq!(
        value(&broker, GROUP, "a/b c", HEARTBEAT).await,
        ("6000".into(), 8)
    );
    assert_eq!(value(&broker, GROUP, "a/b", SESSION).await, ("45000".into(), 5));
    let config = one(&broker, GROUP, "a/b c", SESSION).await;
    let synonyms: Vec<(&str, i8)> = config
        .synonyms
        .iter()
        .map(|synonym| (&*synonym.name, synonym.source))
        .collect();
    assert_eq!(synonyms, [(SESSION, 8), ("group.consumer.session.timeout.ms", 5)]);
    let listed = ListConfigResourcesRequest {
        resource_types: vec![GROUP],
        ..ListConfigResourcesRequest::default()
    };
    let listed = broker.connect().await.call(&listed, 1).await.config_resources;
    let names: Vec<&str> = listed.iter().map(|resource| &*resource.resource_name).collect();
    assert_eq!(names, ["a/b c"]);
    // AlterConfigs takes what it does not name away.
    let replaced = LegacyResource {
        resource_type: GROUP,
        resource_name: text("a/b c"),
        configs: vec![LegacyConfig {
            name: text("share.isolation.level"),
            value: Some(text("read_committed")),
            ..LegacyConfig::default()
        }],
        ..LegacyResource::default()
    };
    let request = |validate_only| AlterConfigsRequest {
        resources: vec![replaced.clone()],
        validate_only,
        ..AlterConfigsRequest::default()
    };
    let mut client = broker.connect().await;
    client.call(&request(true), 2).await;
    assert_eq!(value(&broker, GROUP, "a/b c", SESSION).await, ("50000".into(), 8));
    client.call(&request(false), 2).await;
    assert_eq!(value(&broker, GROUP, "a/b c", SESSION).await, ("45000".into(), 5));
    assert_eq!(
        value(&broker, GROUP, "a/b c", "share.isolation.level").await,
        ("read_committed".into(), 8)
    );
}

#[tokio::test]
async fn levels_of_loggers_change_until_the_next_start() {
    const NET: &str = "milena_broker.net";
    let mut broker = TestBroker::start().await;
    let described = describe(&broker, LOGGER, "1", None).await.configs;
    assert!(described.iter().all(|logger| logger.config_source == 6));
    assert_eq!(value(&broker, LOGGER, "1", NET).await, ("INFO".into(), 6));
    assert_eq!(
        alter(&broker, LOGGER, "1", &[("root", SET, Some("WARN"))]).await,
        ok()
    );
    assert_eq!(value(&broker, LOGGER, "1", NET).await, ("WARN".into(), 6));
    assert_eq!(
        alter(&broker, LOGGER, "1", &[(NET, SET, Some("DEBUG"))]).await,
        ok()
    );
    let wrong = [(NET, SET, Some("TRACE")), ("no.such", DELETE, None)];
    assert_eq!(
        alter(&broker, LOGGER, "1", &wrong).await,
        (
            ErrorCode::InvalidConfig,
            "Logger no.such does not exist!".to_owned()
        )
    );
    assert_eq!(value(&broker, LOGGER, "1", NET).await, ("DEBUG".into(), 6));
    assert_eq!(
        alter(&broker, LOGGER, "1", &[(NET, DELETE, Some(""))]).await,
        ok()
    );
    assert_eq!(value(&broker, LOGGER, "1", NET).await, ("WARN".into(), 6));
    broker.restart().await;
    assert_eq!(value(&broker, LOGGER, "1", NET).await, ("INFO".into(), 6));
}

#[tokio::test]
async fn broker_configs_reach_topics_that_have_none_of_their_own_and_survive_a_restart() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    assert_eq!(
        alter(&broker, BROKER, "", &[("log.retention.ms", SET, Some("2000"))]).await,
        ok()
    );
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("2000".into(), 3)
    );
    assert_eq!(
        alter(&broker, BROKER, "1", &[("log.retention.ms", SET, Some("1000"))]).await,
        ok()
    );
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("1000".into(), 2)
    );
    broker.restart().await;
    let config = one(&broker, TOPIC, "t", "retention.ms").await;
    let synonyms: Vec<(&str, i8)> = config
        .synonyms
        .iter()
        .map(|synonym| (&*synonym.name, synonym.source))
        .collect();
    assert_eq!(
        synonyms,
        [
            ("log.retention.ms", 2),
            ("log.retention.ms", 3),
            ("log.retention.hours", 5)
        ]
    );
    assert_eq!(
        alter(&broker, BROKER, "1", &[("log.retention.ms", DELETE, None)]).await,
        ok()
    );
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("2000".into(), 3)
    );
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("retention.ms", SET, Some("7"))]).await,
        ok()
    );
    assert_eq!(value(&broker, TOPIC, "t", "retention.ms").await, ("7".into(), 1));
}

#[tokio::test]
async fn no_partition_is_placed_while_all_log_directories_are_cordoned() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let own = value(&broker, BROKER, "1", "node.id").await.0;
    let cordon = |value| [("cordoned.log.dirs", SET, Some(value))];
    for (wrong, sentence) in [
        (
            "*,/a",
            "When cordoned.log.dirs is set to *, it must not contain other values",
        ),
        (
            "/zzz",
            "All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : /zzz",
        ),
    ] {
        let refused = alter(&broker, BROKER, &own, &cordon(wrong)).await;
        assert_eq!(refused.0, ErrorCode::InvalidRequest);
        assert!(refused.1.contains(sentence), "{}", refused.1);
    }
    assert_eq!(alter(&broker, BROKER, &own, &cordon("*")).await, ok());
    let create = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: text("more"),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let grow = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: text("t"),
            count: 2,
            assignments: None,
            ..CreatePartitionsTopic::default()
        }],
        timeout_ms: 10_000,
        ..CreatePartitionsRequest::default()
    };
    let mut client = broker.connect().await;
    for expected in [ErrorCode::InvalidReplicationFactor, ErrorCode::None] {
        let created = client.call(&create, 7).await.topics.remove(0);
        assert_eq!(error(created.error_code), expected, "{:?}", created.error_message);
        let grown = client.call(&grow, 3).await.results.remove(0);
        assert_eq!(error(grown.error_code), expected, "{:?}", grown.error_message);
        let free = [("cordoned.log.dirs", DELETE, None)];
        assert_eq!(alter(&broker, BROKER, &own, &free).await, ok());
    }
}

#[tokio::test]
async fn a_resource_named_twice_is_refused_both_times() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let once = alteration(TOPIC, "t", &[("retention.ms", SET, Some("5"))]);
    let request = IncrementalAlterConfigsRequest {
        resources: vec![once.clone(), once],
        ..IncrementalAlterConfigsRequest::default()
    };
    let response = broker.connect().await.call(&request, 0).await;
    assert_eq!(response.responses.len(), 2);
    for result in response.responses {
        assert_eq!(error(result.error_code), ErrorCode::InvalidRequest);
        assert_eq!(
            result.error_message.as_deref(),
            Some("Each resource must appear at most once.")
        );
    }
}

#[tokio::test]
async fn alter_configs_replaces_everything_and_validate_only_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let request = |validate_only, configs: &[(&str, &str)]| {
        let config = |(name, value): &(&str, &str)| LegacyConfig {
            name: text(name),
            value: Some(text(value)),
            ..LegacyConfig::default()
        };
        let resource = LegacyResource {
            resource_type: TOPIC,
            resource_name: text("t"),
            configs: configs.iter().map(config).collect(),
            ..LegacyResource::default()
        };
        AlterConfigsRequest {
            resources: vec![resource],
            validate_only,
            ..AlterConfigsRequest::default()
        }
    };
    let mut client = broker.connect().await;
    client
        .call(
            &request(false, &[("retention.ms", "8"), ("segment.bytes", "1048576")]),
            0,
        )
        .await;
    assert_eq!(value(&broker, TOPIC, "t", "retention.ms").await, ("8".into(), 1));
    client.call(&request(true, &[("segment.ms", "8000")]), 1).await;
    assert_eq!(value(&broker, TOPIC, "t", "retention.ms").await, ("8".into(), 1));
    client.call(&request(false, &[("segment.ms", "8000")]), 2).await;
    assert_eq!(
        value(&broker, TOPIC, "t", "retention.ms").await,
        ("604800000".into(), 5)
    );
    assert_eq!(value(&broker, TOPIC, "t", "segment.ms").await, ("8000".into(), 1));
}

#[tokio::test]
async fn resources_that_do_not_exist_are_told_so() {
    let broker = TestBroker::start().await;
    let cases = [
        (TOPIC, "nope", ErrorCode::UnknownTopicOrPartition, ""),
        (
            BROKER,
            "x",
            ErrorCode::InvalidRequest,
            "Broker id must be an integer, but it is: x",
        ),
        (
            BROKER,
            "2",
            ErrorCode::InvalidRequest,
            "Unexpected broker id, expected 1 or empty string, but received 2",
        ),
        (
            LOGGER,
            "3",
            ErrorCode::InvalidRequest,
            "Unexpected broker id, expected 1 but received 3",
        ),
        (
            GROUP,
            "",
            ErrorCode::InvalidRequest,
            "Group name must not be empty",
        ),
        (
            CLIENT_METRICS,
            "",
            ErrorCode::InvalidRequest,
            "Client metrics subscription name must not be empty",
        ),
    ];
    for (kind, name, code, sentence) in cases {
        let result = describe(&broker, kind, name, None).await;
        assert_eq!(
            (error(result.error_code), result.error_message.as_deref()),
            (code, Some(sentence))
        );
    }
}
