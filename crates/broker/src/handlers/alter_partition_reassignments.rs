//! AlterPartitionReassignments (key 45, versions 0-1; KIP-455): moves partitions to other brokers.
//!
//! Authorisation: ALTER on the cluster (none yet). v1 may forbid a change of the replication factor
//! (KIP-860). Replicas of null cancel a reassignment that is under way.
//!
//! There is one broker. A target that is valid names just it, which is where the partition is: the
//! reassignment is complete at once, so none is ever under way to be cancelled. Every other target is
//! refused, also those that would change the replication factor.

use std::sync::Arc;

use milena_protocol::messages::AlterPartitionReassignmentsRequest;
use milena_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use milena_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use milena_protocol::{ErrorCode, Str};

use super::assignments;
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::topics::Topic;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let node_id = broker.config.node_id;
    let responses = request
        .topics
        .into_iter()
        .map(|asked| {
            let topic = broker.topics.get(&asked.name);
            let answer = |target: &ReassignablePartition| {
                let error = reassign(topic.as_deref(), &asked.name, target, node_id).err();
                ReassignablePartitionResponse {
                    partition_index: target.partition_index,
                    error_code: error.as_ref().map_or(ErrorCode::None, |error| error.code).code(),
                    error_message: error.and_then(|error| error.wire_message()),
                    ..Default::default()
                }
            };
            ReassignableTopicResponse {
                partitions: asked.partitions.iter().map(answer).collect(),
                name: asked.name.clone(),
                ..Default::default()
            }
        })
        .collect();
    AlterPartitionReassignmentsResponse {
        error_message: None,
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..Default::default()
    }
}

fn reassign(
    topic: Option<&Topic>,
    name: &Str,
    target: &ReassignablePartition,
    node_id: i32,
) -> Result<(), ApiError> {
    let unknown = |sentence: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, sentence);
    let index = target.partition_index;
    let topic = topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    if topic.partition(index).is_none() {
        return Err(unknown(format!("Unable to find partition {name}:{index}.")));
    }
    match &target.replicas {
        None => Err(ApiError::bare(ErrorCode::NoReassignmentInProgress)),
        Some(replicas) => assignments::check(replicas, node_id, None),
    }
}
