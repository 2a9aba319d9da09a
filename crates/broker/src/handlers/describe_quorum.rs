//! DescribeQuorum (key 55, versions 0-2; KIP-595, KIP-836, KIP-853): who leads and who votes on the
//! cluster's metadata.
//!
//! Authorisation: DESCRIBE on the cluster (none yet). v1 when a replica fetched and caught up last;
//! v2 directory ids, nodes with their listeners, and sentences.
//!
//! The answer is that of a quorum of one, which is this broker: facts have one writer. Differences:
//! facts are rows and no log, so log end and high watermark are 0; the epoch is the number of the
//! broker's starts; there is no listener for controllers, so the node shows the one that was asked.

use std::sync::Arc;

use milena_protocol::messages::DescribeQuorumRequest;
use milena_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::topics::CLUSTER_METADATA_TOPIC;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let asks_for_metadata = match request.topics.as_slice() {
        [topic] => {
            &*topic.topic_name == CLUSTER_METADATA_TOPIC
                && matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0)
        }
        _ => false,
    };
    if !asks_for_metadata {
        return unknown(&request);
    }
    let now_ms = broker.clock.now_ms();
    let voter = ReplicaState {
        replica_id: broker.config.node_id,
        log_end_offset: 0,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    let metadata = PartitionData {
        partition_index: 0,
        leader_id: broker.config.node_id,
        leader_epoch: i32::try_from(broker.topics.starts()).unwrap_or(i32::MAX),
        high_watermark: 0,
        current_voters: vec![voter],
        ..Default::default()
    };
    let listener = |endpoint: crate::net::Endpoint| Listener {
        name: Str::from(context.connection.listener.to_string()),
        host: endpoint.host,
        port: endpoint.port,
        ..Default::default()
    };
    DescribeQuorumResponse {
        topics: vec![TopicData {
            topic_name: Str::from(CLUSTER_METADATA_TOPIC),
            partitions: vec![metadata],
            ..Default::default()
        }],
        // The field is not there before.
        nodes: if context.api_version < 2 {
            Vec::new()
        } else {
            vec![Node {
                node_id: broker.config.node_id,
                listeners: broker.endpoint(context).map(listener).into_iter().collect(),
                ..Default::default()
            }]
        },
        ..Default::default()
    }
}

/// Anything but the one partition of the cluster's metadata.
fn unknown(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                error_message: Some(Str::from("This server does not host this topic-partition.")),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}
