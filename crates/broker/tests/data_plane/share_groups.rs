//! ShareGroupHeartbeat, ShareGroupDescribe and the offsets of share groups: what the broker adds to the coordinator's
//! decisions.

use milena_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use milena_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use milena_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use milena_protocol::messages::update_features_request::FeatureUpdateKey;
use milena_protocol::messages::{
    AlterShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest, ShareGroupDescribeRequest,
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, UpdateFeaturesRequest,
};
use milena_protocol::{ErrorCode, Str};

use crate::harness::{Client, TestBroker, error, text};

const UNSAFE_DOWNGRADE: i8 = 3;

fn heartbeat(epoch: i32, topic: Option<&str>) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: text("g"),
        member_id: text("m"),
        member_epoch: epoch,
        subscribed_topic_names: topic.map(|name| vec![text(name)]),
        ..ShareGroupHeartbeatRequest::default()
    }
}

fn partitions(response: &ShareGroupHeartbeatResponse) -> Vec<i32> {
    let assignment = response.assignment.iter();
    assignment
        .flat_map(|assignment| &assignment.topic_partitions)
        .flat_map(|topic| topic.partitions.clone())
        .collect()
}

/// Goes on until the member has this many partitions, and gives its epoch.
async fn until_assigned(client: &mut Client, mut epoch: i32, count: usize) -> i32 {
    loop {
        let response = client.call(&heartbeat(epoch, Some("t")), 1).await;
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        epoch = response.member_epoch;
        if partitions(&response).len() == count {
            return epoch;
        }
        tokio::task::yield_now().await;
    }
}

async fn describe(client: &mut Client) -> (ErrorCode, Str, i32) {
    let request = ShareGroupDescribeRequest {
        group_ids: vec![text("g")],
        ..ShareGroupDescribeRequest::default()
    };
    let group = client.call(&request, 1).await.groups.remove(0);
    (error(group.error_code), group.group_state, group.group_epoch)
}

/// Where the group stands: partition, start offset and lag.
async fn offsets(client: &mut Client) -> Vec<(i32, i64, i64)> {
    let request = DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: text("g"),
            topics: None,
            ..DescribeShareGroupOffsetsRequestGroup::default()
        }],
        ..DescribeShareGroupOffsetsRequest::default()
    };
    let group = client.call(&request, 1).await.groups.remove(0);
    assert_eq!(group.error_code, 0);
    let partitions = group.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions
        .map(|one| (one.partition_index, one.start_offset, one.lag))
        .collect()
}

async fn delete(client: &mut Client) -> ErrorCode {
    let request = DeleteGroupsRequest {
        groups_names: vec![text("g")],
        ..DeleteGroupsRequest::default()
    };
    error(client.call(&request, 2).await.results[0].error_code)
}

#[tokio::test]
async fn states_are_initialized_for_a_heartbeat_and_survive_a_restart_with_the_group() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let joined = client.call(&heartbeat(0, Some("t")), 1).await;
    assert_eq!((joined.error_code, partitions(&joined)), (0, vec![]));
    let epoch = until_assigned(&mut client, joined.member_epoch, 2).await;
    assert_eq!(offsets(&mut client).await, [(0, -1, -1), (1, -1, -1)]);
    let before = describe(&mut client).await;
    assert_eq!(before, (ErrorCode::None, text("Stable"), epoch));

    broker.restart().await;
    let mut client = broker.connect().await;
    assert_eq!(describe(&mut client).await, before);
    let gone_on = client.call(&heartbeat(epoch, None), 1).await;
    assert_eq!((gone_on.error_code, gone_on.assignment), (0, None));
    assert_eq!(delete(&mut client).await, ErrorCode::NonEmptyGroup);
    client.call(&heartbeat(-1, None), 1).await;
    assert_eq!(delete(&mut client).await, ErrorCode::None);
    assert_eq!(describe(&mut client).await.0, ErrorCode::GroupIdNotFound);
    assert_eq!(offsets(&mut client).await, []);
}

#[tokio::test]
async fn altered_offsets_are_told_at_once_and_go_with_the_group() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let request = AlterShareGroupOffsetsRequest {
        group_id: text("g"),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: text("t"),
            partitions: vec![AlterShareGroupOffsetsRequestPartition {
                partition_index: 1,
                start_offset: 3,
                ..AlterShareGroupOffsetsRequestPartition::default()
            }],
            ..AlterShareGroupOffsetsRequestTopic::default()
        }],
        ..AlterShareGroupOffsetsRequest::default()
    };
    let altered = client.call(&request, 0).await;
    assert_eq!(altered.responses[0].partitions[0].error_code, 0);
    // The log is empty, and so behind what was said.
    assert_eq!(offsets(&mut client).await, [(1, 3, -3)]);
    assert_eq!(delete(&mut client).await, ErrorCode::None);
    assert_eq!(offsets(&mut client).await, []);
}

#[tokio::test]
async fn there_are_no_share_groups_where_their_feature_is_off() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let request = UpdateFeaturesRequest {
        feature_updates: vec![FeatureUpdateKey {
            feature: text("share.version"),
            max_version_level: 0,
            upgrade_type: UNSAFE_DOWNGRADE,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    };
    assert_eq!(client.call(&request, 1).await.error_code, 0);
    let refused = client.call(&heartbeat(0, Some("t")), 1).await;
    assert_eq!(error(refused.error_code), ErrorCode::UnsupportedVersion);
    assert_eq!(describe(&mut client).await.0, ErrorCode::UnsupportedVersion);
}
