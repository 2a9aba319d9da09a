//! What one broker answers of a cluster: elections, reassignments, the quorum, registration.

use milena_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use milena_protocol::messages::elect_leaders_request::TopicPartitions;
use milena_protocol::messages::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, DescribeClusterRequest, DescribeQuorumRequest,
    ElectLeadersRequest, ListPartitionReassignmentsRequest, RemoveRaftVoterRequest, UnregisterBrokerRequest,
    describe_quorum_request,
};
use milena_protocol::{ApiKey, ErrorCode, Uuid};

use crate::harness::{TestBroker, error, text};

#[tokio::test]
async fn no_election_is_needed_and_unknown_partitions_are_named() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let asked = |topic: &str, partitions: &[i32]| TopicPartitions {
        topic: text(topic),
        partitions: partitions.to_vec(),
        ..TopicPartitions::default()
    };
    for version in ApiKey::ElectLeaders.stable_versions() {
        let mut request = ElectLeadersRequest {
            topic_partitions: Some(vec![asked("t", &[1, 7]), asked("none", &[0])]),
            ..ElectLeadersRequest::default()
        };
        let response = client.call(&request, version).await;
        assert_eq!(error(response.error_code), ErrorCode::None);
        let found: Vec<_> = response
            .replica_election_results
            .iter()
            .flat_map(|topic| &topic.partition_result)
            .map(|result| (error(result.error_code), result.error_message.clone()))
            .collect();
        let unknown = |sentence| (ErrorCode::UnknownTopicOrPartition, Some(text(sentence)));
        let not_needed = text("Leader election not needed for topic partition.");
        assert_eq!(
            found,
            [
                (ErrorCode::ElectionNotNeeded, Some(not_needed)),
                unknown("No such partition as t-7"),
                unknown("No such topic as none"),
            ]
        );
        request.topic_partitions = None;
        let response = client.call(&request, version).await;
        assert!(response.replica_election_results.is_empty());
        if version >= 1 {
            request.election_type = 5;
            let response = client.call(&request, version).await;
            assert_eq!(error(response.error_code), ErrorCode::InvalidRequest);
        }
    }
}

#[tokio::test]
async fn a_reassignment_to_this_broker_is_complete_at_once_and_any_other_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let node_id = client
        .call(&DescribeClusterRequest::default(), 0)
        .await
        .controller_id;
    let targets = [
        (0, Some(vec![node_id]), ErrorCode::None),
        (1, Some(vec![node_id + 1]), ErrorCode::InvalidReplicaAssignment),
        (
            1,
            Some(vec![node_id, node_id]),
            ErrorCode::InvalidReplicaAssignment,
        ),
        (1, Some(Vec::new()), ErrorCode::InvalidReplicaAssignment),
        (0, None, ErrorCode::NoReassignmentInProgress),
        (2, Some(vec![node_id]), ErrorCode::UnknownTopicOrPartition),
    ];
    for version in ApiKey::AlterPartitionReassignments.stable_versions() {
        let partitions = targets.iter().map(|(index, replicas, _)| ReassignablePartition {
            partition_index: *index,
            replicas: replicas.clone(),
            ..ReassignablePartition::default()
        });
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: text("t"),
                partitions: partitions.collect(),
                ..ReassignableTopic::default()
            }],
            ..AlterPartitionReassignmentsRequest::default()
        };
        let response = client.call(&request, version).await;
        assert_eq!(error(response.error_code), ErrorCode::None);
        let found: Vec<_> = response.responses[0]
            .partitions
            .iter()
            .map(|partition| error(partition.error_code))
            .collect();
        assert_eq!(found, targets.each_ref().map(|(_, _, expected)| *expected));
    }
    let listed = client
        .call(&ListPartitionReassignmentsRequest::default(), 0)
        .await;
    assert_eq!(error(listed.error_code), ErrorCode::None);
    assert!(listed.topics.is_empty());
}

fn quorum_of(topic: &str) -> DescribeQuorumRequest {
    DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: text(topic),
            partitions: vec![describe_quorum_request::PartitionData::default()],
            ..Default::default()
        }],
        ..DescribeQuorumRequest::default()
    }
}

#[tokio::test]
async fn the_quorum_is_this_broker_alone() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let node_id = client
        .call(&DescribeClusterRequest::default(), 0)
        .await
        .controller_id;
    for version in ApiKey::DescribeQuorum.stable_versions() {
        let response = client.call(&quorum_of("__cluster_metadata"), version).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!(error(partition.error_code), ErrorCode::None);
        assert_eq!(partition.leader_id, node_id);
        assert_eq!(partition.leader_epoch, 1, "the broker has started once");
        assert_eq!(partition.current_voters.len(), 1);
        assert_eq!(partition.current_voters[0].replica_id, node_id);
        assert!(partition.observers.is_empty());
        assert_eq!(response.nodes.len(), usize::from(version >= 2));
        let response = client.call(&quorum_of("t"), version).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!(error(partition.error_code), ErrorCode::UnknownTopicOrPartition);
    }
}

#[tokio::test]
async fn the_quorum_takes_no_voters_and_loses_none() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let add = |cluster_id: Option<&str>, voter_directory_id| AddRaftVoterRequest {
        cluster_id: cluster_id.map(text),
        voter_id: 5,
        voter_directory_id,
        ..AddRaftVoterRequest::default()
    };
    let directory = Uuid::from_bytes([3; 16]);
    for version in ApiKey::AddRaftVoter.stable_versions() {
        for (request, expected) in [
            (add(None, directory), ErrorCode::UnsupportedVersion),
            (add(None, Uuid::ZERO), ErrorCode::InvalidRequest),
            (add(Some("another"), directory), ErrorCode::InconsistentClusterId),
        ] {
            let response = client.call(&request, version).await;
            assert_eq!(error(response.error_code), expected);
        }
    }
    let remove = RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: 5,
        voter_directory_id: directory,
        ..RemoveRaftVoterRequest::default()
    };
    let response = client.call(&remove, 0).await;
    let sentence = "Cluster doesn't support removing voter because the kraft.version feature is 0";
    assert_eq!(response.error_message, Some(text(sentence)));
}

#[tokio::test]
async fn neither_a_stranger_nor_the_running_broker_is_unregistered() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let node_id = client
        .call(&DescribeClusterRequest::default(), 0)
        .await
        .controller_id;
    for (broker_id, expected) in [
        (node_id, ErrorCode::InvalidRequest),
        (node_id + 1, ErrorCode::BrokerIdNotRegistered),
    ] {
        let request = UnregisterBrokerRequest {
            broker_id,
            ..UnregisterBrokerRequest::default()
        };
        let response = client.call(&request, 0).await;
        assert_eq!(error(response.error_code), expected);
        assert!(response.error_message.is_some());
    }
}
