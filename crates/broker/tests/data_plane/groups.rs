use bytes::Bytes;
use milena_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use milena_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use milena_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use milena_protocol::messages::heartbeat_request::HeartbeatRequest;
use milena_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use milena_protocol::messages::join_group_response::JoinGroupResponse;
use milena_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use milena_protocol::messages::list_groups_request::ListGroupsRequest;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use milena_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use milena_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::harness::{Client, TestBroker, error, text};

const GROUP: &str = "g";

fn join(member_id: &Str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol {
        name: text("range"),
        metadata: Bytes::from_static(b"\xff\x00opaque"),
        ..JoinGroupRequestProtocol::default()
    };
    JoinGroupRequest {
        group_id: text(GROUP),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member_id.clone(),
        group_instance_id: None,
        protocol_type: text("consumer"),
        protocols: vec![protocol],
        reason: None,
        ..JoinGroupRequest::default()
    }
}

/// The two steps of KIP-394.
async fn enter(client: &mut Client) -> JoinGroupResponse {
    let first = client.call(&join(&text("")), 9).await;
    assert_eq!(error(first.error_code), ErrorCode::MemberIdRequired);
    client.call(&join(&first.member_id), 9).await
}

fn sync(joined: &JoinGroupResponse, assignments: &[(&Str, &'static [u8])]) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: text(GROUP),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        assignments: assignments
            .iter()
            .map(|(member, assignment)| SyncGroupRequestAssignment {
                member_id: (*member).clone(),
                assignment: Bytes::from_static(assignment),
                ..SyncGroupRequestAssignment::default()
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

async fn heartbeat(client: &mut Client, joined: &JoinGroupResponse) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: text(GROUP),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        ..HeartbeatRequest::default()
    };
    error(client.call(&request, 4).await.error_code)
}

/// A commit of one partition; `joined` is `None` for a group without members.
async fn commit(
    client: &mut Client,
    joined: Option<&JoinGroupResponse>,
    topic: &str,
    index: i32,
    offset: i64,
) -> ErrorCode {
    let partition = OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: offset,
        committed_metadata: Some(text("where I am")),
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: text(topic),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: text(GROUP),
        generation_id_or_member_epoch: joined.map_or(-1, |joined| joined.generation_id),
        member_id: joined.map(|joined| joined.member_id.clone()).unwrap_or_default(),
        group_instance_id: None,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    error(client.call(&request, 9).await.topics[0].partitions[0].error_code)
}

async fn committed(client: &mut Client, topic: &str, index: i32) -> OffsetFetchResponsePartitions {
    let topic = OffsetFetchRequestTopics {
        name: text(topic),
        partition_indexes: vec![index],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: text(GROUP),
        member_id: None,
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![group],
        ..OffsetFetchRequest::default()
    };
    let response = client.call(&request, 9).await;
    assert_eq!(error(response.groups[0].error_code), ErrorCode::None);
    response.groups[0].topics[0].partitions[0].clone()
}

#[tokio::test]
async fn the_coordinator_is_where_the_client_came_in() {
    let broker = TestBroker::start().await;
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![text("a"), text("b")],
        ..FindCoordinatorRequest::default()
    };
    let response = broker.connect().await.call(&request, 6).await;
    assert_eq!(response.coordinators.len(), 2);
    for coordinator in &response.coordinators {
        assert_eq!(error(coordinator.error_code), ErrorCode::None);
        assert_eq!(coordinator.port, i32::from(broker.address().port()));
    }
}

#[tokio::test]
async fn trap_3_every_member_gets_an_assignment_also_when_the_leader_forgot_it() {
    let broker = TestBroker::start().await;
    let (mut leader, mut other) = (broker.connect().await, broker.connect().await);
    let alone = enter(&mut leader).await;
    assert_eq!(error(alone.error_code), ErrorCode::None);
    let first = leader
        .call(&sync(&alone, &[(&alone.member_id, b"\x00\xfe")]), 5)
        .await;
    assert_eq!(
        first.assignment,
        Bytes::from_static(b"\x00\xfe"),
        "opaque bytes pass through"
    );
    // A second member comes: both join the next generation.
    let given = other.call(&join(&text("")), 9).await;
    let joining = other.send(&join(&given.member_id), 9).await;
    while heartbeat(&mut leader, &alone).await != ErrorCode::RebalanceInProgress {
        tokio::task::yield_now().await;
    }
    let again = leader.call(&join(&alone.member_id), 9).await;
    let joined = other.receive::<JoinGroupRequest>(9, joining).await;
    assert_eq!(again.generation_id, joined.generation_id);
    assert_eq!(again.leader, again.member_id);
    assert_eq!(again.members.len(), 2);
    assert_eq!(again.members[0].metadata, Bytes::from_static(b"\xff\x00opaque"));
    assert!(joined.members.is_empty(), "only the leader hears who is there");
    let waiting = other.send(&sync(&joined, &[]), 5).await;
    let synced = leader.call(&sync(&again, &[(&again.member_id, b"all")]), 5).await;
    assert_eq!(synced.assignment, Bytes::from_static(b"all"));
    let left_out = other.receive::<SyncGroupRequest>(5, waiting).await;
    assert_eq!(
        (error(left_out.error_code), left_out.assignment),
        (ErrorCode::None, Bytes::new())
    );
}

#[tokio::test]
async fn trap_5_clients_that_know_only_one_step_join_with_it() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let joined = client.call(&join(&text("")), 3).await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    assert_eq!((&joined.leader, joined.generation_id), (&joined.member_id, 1));
}

#[tokio::test]
async fn trap_6_commits_come_back_with_their_metadata_after_a_restart() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    assert_eq!(commit(&mut client, None, "t", 1, 42).await, ErrorCode::None);
    broker.restart().await;
    let mut client = broker.connect().await;
    let one = committed(&mut client, "t", 1).await;
    assert_eq!(
        (one.committed_offset, one.metadata),
        (42, Some(text("where I am")))
    );
    assert_eq!(committed(&mut client, "t", 0).await.committed_offset, -1);
}

#[tokio::test]
async fn members_go_on_without_a_rebalance_after_a_restart() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let joined = enter(&mut client).await;
    let synced = client
        .call(&sync(&joined, &[(&joined.member_id, b"mine")]), 5)
        .await;
    assert_eq!(error(synced.error_code), ErrorCode::None);
    broker.restart().await;
    let mut client = broker.connect().await;
    assert_eq!(heartbeat(&mut client, &joined).await, ErrorCode::None);
    let again = client.call(&sync(&joined, &[]), 5).await;
    assert_eq!(again.assignment, Bytes::from_static(b"mine"));
    assert_eq!(
        commit(&mut client, Some(&joined), "t", 0, 7).await,
        ErrorCode::None
    );
}

#[tokio::test]
async fn commits_of_strangers_and_of_old_generations_are_fenced() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let joined = enter(&mut client).await;
    client
        .call(&sync(&joined, &[(&joined.member_id, b"mine")]), 5)
        .await;
    let older = JoinGroupResponse {
        generation_id: joined.generation_id - 1,
        ..joined.clone()
    };
    assert_eq!(
        commit(&mut client, Some(&older), "t", 0, 1).await,
        ErrorCode::IllegalGeneration
    );
    let stranger = JoinGroupResponse {
        member_id: text("who"),
        ..joined.clone()
    };
    assert_eq!(
        commit(&mut client, Some(&stranger), "t", 0, 1).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        commit(&mut client, None, "t", 0, 1).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(committed(&mut client, "t", 0).await.committed_offset, -1);
}

#[tokio::test]
async fn commits_for_what_does_not_exist_are_refused_beside_those_that_do() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let partition = |index: i32| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: 5,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = |id: Uuid| OffsetCommitRequestTopic {
        topic_id: id,
        partitions: vec![partition(0), partition(9)],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: text(GROUP),
        generation_id_or_member_epoch: -1,
        group_instance_id: None,
        topics: vec![topic(id), topic(Uuid::from_bytes([9; 16]))],
        ..OffsetCommitRequest::default()
    };
    let response = client.call(&request, 10).await;
    let mut codes: Vec<(bool, i32, ErrorCode)> = response
        .topics
        .iter()
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(move |partition| (topic.topic_id, partition))
        })
        .map(|(topic, partition)| {
            (
                topic == id,
                partition.partition_index,
                error(partition.error_code),
            )
        })
        .collect();
    codes.sort_by_key(|(known, index, _)| (*known, *index));
    let expected = [
        (false, 0, ErrorCode::UnknownTopicId),
        (false, 9, ErrorCode::UnknownTopicId),
        (true, 0, ErrorCode::None),
        (true, 9, ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected);
    assert_eq!(response.topics.len(), 2, "one entry for each topic");
}

#[tokio::test]
async fn deleting_a_topic_deletes_its_offsets() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.topic("u", 1).await;
    let mut client = broker.connect().await;
    commit(&mut client, None, "t", 0, 5).await;
    commit(&mut client, None, "u", 0, 6).await;
    broker.delete_topic("t").await;
    broker.topic("t", 1).await;
    assert_eq!(committed(&mut client, "t", 0).await.committed_offset, -1);
    assert_eq!(committed(&mut client, "u", 0).await.committed_offset, 6);
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let joined = enter(&mut client).await;
    client
        .call(&sync(&joined, &[(&joined.member_id, b"mine")]), 5)
        .await;
    let listed = client.call(&ListGroupsRequest::default(), 5).await;
    let group = &listed.groups[0];
    assert_eq!(
        (&*group.group_id, &*group.group_state, &*group.group_type),
        (GROUP, "Stable", "classic")
    );
    let describe = DescribeGroupsRequest {
        groups: vec![text(GROUP)],
        include_authorized_operations: true,
        ..DescribeGroupsRequest::default()
    };
    let described = client.call(&describe, 6).await.groups[0].clone();
    assert_eq!(&*described.members[0].client_host, "/127.0.0.1");
    assert_eq!(&*described.members[0].client_id, "test");
    assert_eq!(
        described.members[0].member_assignment,
        Bytes::from_static(b"mine")
    );
    assert_eq!(
        described.authorized_operations, 3400,
        "what Kafka answers without an authorizer"
    );
    let delete = DeleteGroupsRequest {
        groups_names: vec![text(GROUP)],
        ..DeleteGroupsRequest::default()
    };
    let refused = client.call(&delete, 2).await;
    assert_eq!(error(refused.results[0].error_code), ErrorCode::NonEmptyGroup);
    let leave = LeaveGroupRequest {
        group_id: text(GROUP),
        members: vec![MemberIdentity {
            member_id: joined.member_id.clone(),
            group_instance_id: None,
            reason: None,
            ..MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    };
    let left = client.call(&leave, 5).await;
    assert_eq!(error(left.members[0].error_code), ErrorCode::None);
    assert_eq!(
        error(client.call(&delete, 2).await.results[0].error_code),
        ErrorCode::None
    );
    assert!(
        client
            .call(&ListGroupsRequest::default(), 5)
            .await
            .groups
            .is_empty()
    );
}

#[tokio::test]
async fn offsets_are_deleted_one_by_one() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    commit(&mut client, None, "t", 0, 5).await;
    commit(&mut client, None, "t", 1, 6).await;
    let partition = |index| OffsetDeleteRequestPartition {
        partition_index: index,
        ..OffsetDeleteRequestPartition::default()
    };
    let request = OffsetDeleteRequest {
        group_id: text(GROUP),
        topics: vec![OffsetDeleteRequestTopic {
            name: text("t"),
            partitions: vec![partition(0), partition(7)],
            ..OffsetDeleteRequestTopic::default()
        }],
        ..OffsetDeleteRequest::default()
    };
    let response = client.call(&request, 0).await;
    assert_eq!(error(response.error_code), ErrorCode::None);
    let codes: Vec<(i32, ErrorCode)> = response.topics[0]
        .partitions
        .iter()
        .map(|one| (one.partition_index, error(one.error_code)))
        .collect();
    assert_eq!(
        codes,
        [(7, ErrorCode::UnknownTopicOrPartition), (0, ErrorCode::None)]
    );
    assert_eq!(committed(&mut client, "t", 0).await.committed_offset, -1);
    assert_eq!(committed(&mut client, "t", 1).await.committed_offset, 6);
}

#[tokio::test]
async fn a_member_that_waits_is_answered_when_the_broker_stops() {
    let mut broker = TestBroker::with(&[("group.initial.rebalance.delay.ms", "600000")]).await;
    let mut client = broker.connect().await;
    let first = client.call(&join(&text("")), 9).await;
    let sent = client.send(&join(&first.member_id), 9).await;
    // The broker has taken the request when it answers one that came later on another connection
    // about the same group.
    let mut other = broker.connect().await;
    let describe = DescribeGroupsRequest {
        groups: vec![text(GROUP)],
        ..DescribeGroupsRequest::default()
    };
    while other.call(&describe, 6).await.groups[0].members.is_empty() {
        tokio::task::yield_now().await;
    }
    broker.stop().await;
    let response = client.receive::<JoinGroupRequest>(9, sent).await;
    assert_eq!(error(response.error_code), ErrorCode::NotCoordinator);
}

#[tokio::test]
async fn a_member_that_falls_silent_is_out_after_its_session_timeout() {
    let broker = TestBroker::with(&[("group.min.session.timeout.ms", "1")]).await;
    let mut client = broker.connect().await;
    let mut short = join(&text(""));
    short.session_timeout_ms = 50;
    short.member_id = client.call(&short, 9).await.member_id;
    let joined = client.call(&short, 9).await;
    client
        .call(&sync(&joined, &[(&joined.member_id, b"mine")]), 5)
        .await;
    // Nothing is sent for it: only the broker's own timer can end the session.
    let describe = DescribeGroupsRequest {
        groups: vec![text(GROUP)],
        ..DescribeGroupsRequest::default()
    };
    while !client.call(&describe, 6).await.groups[0].members.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(heartbeat(&mut client, &joined).await, ErrorCode::UnknownMemberId);
}
