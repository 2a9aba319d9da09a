//! ElectLeaders (key 43, versions 0-2; KIP-460): makes the preferred replica the leader again.
//!
//! Authorisation: ALTER on the cluster (none yet). v0 knows only the preferred election; v1 the type
//! of the election and an error for the whole request; v2 flexible. Without a list every partition is
//! meant, and those that need no election are left out of the answer.
//!
//! A partition has one replica, which leads it unless its log directory is offline. So no election
//! is ever needed, or none can be won.

use std::sync::Arc;

use milena_protocol::messages::ElectLeadersRequest;
use milena_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use milena_protocol::{ErrorCode, Str};

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::topics::Topic;

#[derive(Debug, Clone, Copy)]
enum Election {
    Preferred,
    Unclean,
}

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let election = match request.election_type {
        0 => Ok(Election::Preferred),
        1 => Ok(Election::Unclean),
        other => Err(ApiError::invalid_request(format!(
            "Unknown election type {other}"
        ))),
    };
    let refused = election
        .as_ref()
        .err()
        .map_or(ErrorCode::None, |error| error.code);
    let replica_election_results = match (request.topic_partitions, election) {
        (None, Err(_)) => Vec::new(),
        (None, Ok(election)) => broker
            .topics
            .list()
            .iter()
            .filter_map(|topic| everywhere(topic, election))
            .collect(),
        (Some(asked), election) => asked
            .into_iter()
            .map(|asked| {
                let topic = broker.topics.get(&asked.topic);
                let elected = |index: &i32| {
                    let error = match &election {
                        Ok(election) => elect(topic.as_deref(), &asked.topic, *index, *election),
                        Err(error) => error.clone(),
                    };
                    result(*index, &error)
                };
                ReplicaElectionResult {
                    partition_result: asked.partitions.iter().map(elected).collect(),
                    topic: asked.topic.clone(),
                    ..Default::default()
                }
            })
            .collect(),
    };
    ElectLeadersResponse {
        error_code: refused.code(),
        replica_election_results,
        ..Default::default()
    }
}

/// The partitions of a topic whose election failed; `None` if there are none.
fn everywhere(topic: &Topic, election: Election) -> Option<ReplicaElectionResult> {
    let failed: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            let index = partition.index();
            (index, elect(Some(topic), &topic.name, index, election))
        })
        .filter(|(_, error)| error.code != ErrorCode::ElectionNotNeeded)
        .map(|(index, error)| result(index, &error))
        .collect();
    (!failed.is_empty()).then(|| ReplicaElectionResult {
        topic: topic.name.clone(),
        partition_result: failed,
        ..Default::default()
    })
}

/// Why no other leader is elected.
fn elect(topic: Option<&Topic>, name: &Str, index: i32, election: Election) -> ApiError {
    let unknown = |sentence: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, sentence);
    let Some(topic) = topic else {
        return unknown(format!("No such topic as {name}"));
    };
    let Some(partition) = topic.partition(index) else {
        return unknown(format!("No such partition as {name}-{index}"));
    };
    match election {
        _ if !partition.is_offline() => ApiError::new(
            ErrorCode::ElectionNotNeeded,
            "Leader election not needed for topic partition.",
        ),
        Election::Preferred => ApiError::new(
            ErrorCode::PreferredLeaderNotAvailable,
            "The preferred leader was not available.",
        ),
        Election::Unclean => ApiError::new(
            ErrorCode::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.",
        ),
    }
}

fn result(partition_id: i32, error: &ApiError) -> PartitionResult {
    PartitionResult {
        partition_id,
        error_code: error.code.code(),
        error_message: error.wire_message(),
        ..Default::default()
    }
}
