//! Trap 1: some clients take the version of every call from one number, so each version of each
//! range is answered, and decodes as what it claims to be.

use milena_protocol::messages::*;
use milena_protocol::{ApiKey, ErrorCode, Request, Uuid};

use crate::batches::{Batch, produce_by_id, produce_request};
use crate::fetch::{partition, request};
use crate::harness::{Client, TestBroker, error, text};

async fn every_version<R: Request>(
    client: &mut Client,
    mut make: impl FnMut(i16) -> R,
    check: impl Fn(i16, &R::Response),
) {
    let versions = R::KEY.stable_versions();
    assert!(!versions.is_empty());
    for version in versions {
        let response = client.call(&make(version), version).await;
        check(version, &response);
    }
}

#[tokio::test]
async fn trap_1_produce_and_fetch_answer_every_version() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let records = Batch::of(&["a"]).encode();
    every_version(
        &mut client,
        |version| {
            if version >= 13 {
                produce_by_id(id, 0, records.clone())
            } else {
                produce_request("t", 0, records.clone())
            }
        },
        |version, response| {
            assert_eq!(
                error(response.responses[0].partition_responses[0].error_code),
                ErrorCode::None,
                "v{version}"
            );
        },
    )
    .await;
    every_version(
        &mut client,
        |version| {
            let mut request = request(if version >= 13 { "" } else { "t" }, vec![partition(0, 0)]);
            request.topics[0].topic_id = if version >= 13 { id } else { Uuid::ZERO };
            request
        },
        |version, response| {
            let data = &response.responses[0].partitions[0];
            assert_eq!(error(data.error_code), ErrorCode::None, "v{version}");
            assert!(!data.records.as_ref().unwrap().is_empty(), "v{version}");
        },
    )
    .await;
}

#[tokio::test]
async fn trap_1_errors_of_produce_and_fetch_can_be_said_in_every_version() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    for version in ApiKey::Produce.stable_versions() {
        let response = client
            .call(&produce_request("", 7, Batch::of(&["a"]).encode()), version)
            .await;
        assert_ne!(
            error(response.responses[0].partition_responses[0].error_code),
            ErrorCode::None,
            "v{version}"
        );
    }
    let lying = Batch {
        count_lie: 1,
        ..Batch::of(&["a"])
    };
    for version in 3..=12 {
        let response = client
            .call(&produce_request("t", 0, lying.encode()), version)
            .await;
        let refused = &response.responses[0].partition_responses[0];
        assert_eq!(error(refused.error_code), ErrorCode::InvalidRecord, "v{version}");
        assert_eq!(refused.error_message.is_some(), version >= 8, "v{version}");
    }
    for version in ApiKey::Fetch.stable_versions() {
        let mut wanted = request("", vec![partition(3, 0)]);
        wanted.topics[0].partitions[0].current_leader_epoch = 99;
        let response = client.call(&wanted, version).await;
        assert_ne!(
            error(response.responses[0].partitions[0].error_code),
            ErrorCode::None,
            "v{version}"
        );
        let unknown_session = FetchRequest {
            session_id: 5,
            session_epoch: 5,
            ..FetchRequest::default()
        };
        let response = client.call(&unknown_session, version).await;
        let expected = if version >= 7 {
            ErrorCode::FetchSessionIdNotFound
        } else {
            ErrorCode::None
        };
        assert_eq!(error(response.error_code), expected, "v{version}");
    }
}

#[tokio::test]
async fn trap_1_offset_apis_answer_every_version() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    every_version(
        &mut client,
        |_| {
            let partition = list_offsets_request::ListOffsetsPartition {
                timestamp: -1,
                ..Default::default()
            };
            let topic = list_offsets_request::ListOffsetsTopic {
                name: text("t"),
                partitions: vec![partition],
                ..Default::default()
            };
            ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                ..Default::default()
            }
        },
        |version, response| {
            let partition = &response.topics[0].partitions[0];
            assert_eq!(
                (error(partition.error_code), partition.offset),
                (ErrorCode::None, 0),
                "v{version}"
            );
        },
    )
    .await;
    every_version(
        &mut client,
        |_| {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: text("t"),
                partitions: vec![partition],
                ..Default::default()
            };
            OffsetForLeaderEpochRequest {
                topics: vec![topic],
                ..Default::default()
            }
        },
        |version, response| {
            assert_eq!(
                error(response.topics[0].partitions[0].error_code),
                ErrorCode::None,
                "v{version}"
            );
        },
    )
    .await;
    every_version(
        &mut client,
        |_| {
            let partition = delete_records_request::DeleteRecordsPartition {
                offset: -1,
                ..Default::default()
            };
            let topic = delete_records_request::DeleteRecordsTopic {
                name: text("t"),
                partitions: vec![partition],
                ..Default::default()
            };
            DeleteRecordsRequest {
                topics: vec![topic],
                ..Default::default()
            }
        },
        |version, response| {
            assert_eq!(
                error(response.topics[0].partitions[0].error_code),
                ErrorCode::None,
                "v{version}"
            );
        },
    )
    .await;
    every_version(
        &mut client,
        |_| DescribeProducersRequest::default(),
        |_, response| assert!(response.topics.is_empty()),
    )
    .await;
    every_version(
        &mut client,
        |_| InitProducerIdRequest {
            transactional_id: None,
            ..Default::default()
        },
        |version, response| assert_eq!(error(response.error_code), ErrorCode::None, "v{version}"),
    )
    .await;
}

#[tokio::test]
async fn trap_1_group_apis_answer_every_version() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    for key_type in 0..=3 {
        every_version(
            &mut client,
            |version| FindCoordinatorRequest {
                key: if version < 4 { text("g") } else { text("") },
                key_type: if version == 0 { 0 } else { key_type },
                coordinator_keys: if version >= 4 { vec![text("g")] } else { Vec::new() },
                ..Default::default()
            },
            |version, response| {
                let code = response
                    .coordinators
                    .first()
                    .map_or(response.error_code, |one| one.error_code);
                let expected = match key_type {
                    2.. if version > 0 => ErrorCode::InvalidRequest,
                    _ => ErrorCode::None,
                };
                assert_eq!(error(code), expected, "v{version} key type {key_type}");
            },
        )
        .await;
    }
    every_version(
        &mut client,
        |_| JoinGroupRequest {
            group_id: text(""),
            session_timeout_ms: 10_000,
            ..Default::default()
        },
        |version, response| {
            assert_eq!(
                error(response.error_code),
                ErrorCode::InvalidGroupId,
                "v{version}"
            )
        },
    )
    .await;
    every_version(
        &mut client,
        |version| SyncGroupRequest {
            group_id: text("g"),
            protocol_type: (version >= 5).then(|| text("consumer")),
            protocol_name: (version >= 5).then(|| text("range")),
            ..Default::default()
        },
        |version, response| {
            assert_eq!(
                error(response.error_code),
                ErrorCode::UnknownMemberId,
                "v{version}"
            )
        },
    )
    .await;
    every_version(
        &mut client,
        |_| HeartbeatRequest {
            group_id: text("g"),
            ..Default::default()
        },
        |version, response| {
            assert_eq!(
                error(response.error_code),
                ErrorCode::UnknownMemberId,
                "v{version}"
            )
        },
    )
    .await;
    every_version(
        &mut client,
        |version| LeaveGroupRequest {
            group_id: text("g"),
            members: if version >= 3 {
                vec![Default::default()]
            } else {
                Vec::new()
            },
            ..Default::default()
        },
        |version, response| {
            let code = response
                .members
                .first()
                .map_or(response.error_code, |one| one.error_code);
            assert_eq!(error(code), ErrorCode::UnknownMemberId, "v{version}");
        },
    )
    .await;
    every_version(
        &mut client,
        |version| {
            let partition = offset_commit_request::OffsetCommitRequestPartition {
                committed_offset: i64::from(version),
                committed_metadata: Some(text("m")),
                ..Default::default()
            };
            let topic = offset_commit_request::OffsetCommitRequestTopic {
                name: if version >= 10 { text("") } else { text("t") },
                topic_id: if version >= 10 { id } else { Uuid::ZERO },
                partitions: vec![partition],
                ..Default::default()
            };
            OffsetCommitRequest {
                group_id: text("g"),
                generation_id_or_member_epoch: -1,
                topics: vec![topic],
                ..Default::default()
            }
        },
        |version, response| {
            assert_eq!(
                error(response.topics[0].partitions[0].error_code),
                ErrorCode::None,
                "v{version}"
            );
        },
    )
    .await;
    offset_fetch_answers_every_version(&mut client, id).await;
    administration_answers_every_version(&mut client).await;
}

async fn offset_fetch_answers_every_version(client: &mut Client, id: Uuid) {
    every_version(
        client,
        |version| {
            let topic = offset_fetch_request::OffsetFetchRequestTopic {
                name: text("t"),
                partition_indexes: vec![0],
                ..Default::default()
            };
            let group_topic = offset_fetch_request::OffsetFetchRequestTopics {
                name: if version >= 10 { text("") } else { text("t") },
                topic_id: if version >= 10 { id } else { Uuid::ZERO },
                partition_indexes: vec![0],
                ..Default::default()
            };
            let group = offset_fetch_request::OffsetFetchRequestGroup {
                group_id: text("g"),
                topics: Some(vec![group_topic]),
                ..Default::default()
            };
            OffsetFetchRequest {
                group_id: if version < 8 { text("g") } else { text("") },
                topics: Some(if version < 8 { vec![topic] } else { Vec::new() }),
                groups: if version >= 8 { vec![group] } else { Vec::new() },
                ..Default::default()
            }
        },
        |version, response| {
            let (code, offset, metadata) = match response.groups.first() {
                Some(group) => {
                    assert_eq!(
                        group.topics[0].topic_id,
                        if version >= 10 { id } else { Uuid::ZERO }
                    );
                    let partition = &group.topics[0].partitions[0];
                    (
                        partition.error_code,
                        partition.committed_offset,
                        partition.metadata.clone(),
                    )
                }
                None => {
                    let partition = &response.topics[0].partitions[0];
                    (
                        partition.error_code,
                        partition.committed_offset,
                        partition.metadata.clone(),
                    )
                }
            };
            assert_eq!((error(code), offset), (ErrorCode::None, 10), "v{version}");
            assert_eq!(metadata, Some(text("m")), "v{version}");
        },
    )
    .await;
}

async fn administration_answers_every_version(client: &mut Client) {
    every_version(
        client,
        |_| ListGroupsRequest::default(),
        |version, response| {
            assert_eq!(response.groups.len(), 1, "v{version}");
            assert_eq!(
                response.groups[0].group_state.is_empty(),
                version < 4,
                "v{version}"
            );
            assert_eq!(
                response.groups[0].group_type.is_empty(),
                version < 5,
                "v{version}"
            );
        },
    )
    .await;
    every_version(
        client,
        |_| DescribeGroupsRequest {
            groups: vec![text("g"), text("unknown")],
            ..Default::default()
        },
        |version, response| {
            assert_eq!(&*response.groups[0].group_state, "Empty", "v{version}");
            assert_eq!(&*response.groups[1].group_state, "Dead", "v{version}");
            let expected = if version >= 6 {
                ErrorCode::GroupIdNotFound
            } else {
                ErrorCode::None
            };
            assert_eq!(error(response.groups[1].error_code), expected, "v{version}");
        },
    )
    .await;
    every_version(
        client,
        |_| OffsetDeleteRequest {
            group_id: text("unknown"),
            ..Default::default()
        },
        |version, response| {
            assert_eq!(
                error(response.error_code),
                ErrorCode::GroupIdNotFound,
                "v{version}"
            )
        },
    )
    .await;
    every_version(
        client,
        |_| DeleteGroupsRequest {
            groups_names: vec![text("unknown"), text("unknown")],
            ..Default::default()
        },
        |version, response| {
            assert_eq!(response.results.len(), 1, "v{version}");
            assert_eq!(
                error(response.results[0].error_code),
                ErrorCode::GroupIdNotFound,
                "v{version}"
            );
        },
    )
    .await;
}
