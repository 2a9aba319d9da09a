//! Has the states of share groups' partitions made and removed when their coordinator asks for it, and tells it what
//! became of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_protocol::messages::delete_share_group_state_response::DeleteStateResult;
use milena_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};
use tracing::warn;

use crate::broker::Broker;

type TopicPartitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// Partitions whose state could not be made, with the error and its sentence.
pub(crate) type Failures = BTreeMap<(Uuid, i32), (ErrorCode, Option<Str>)>;

/// Kafka's sentence of COORDINATOR_NOT_AVAILABLE and its like.
const NOT_REACHED: &str = "The state of the partition could not be stored.";

/// Initializes states that the coordinator asked for, and tells it which are there and which are not.
pub(crate) async fn initialize(broker: &Arc<Broker>, request: InitializeShareGroupStateRequest) -> Failures {
    let group_id = request.group_id.clone();
    let mut made = TopicPartitions::new();
    for topic in &request.topics {
        let of_topic = made.entry(topic.topic_id).or_default();
        of_topic.extend(topic.partitions.iter().map(|one| one.partition));
    }
    let mut failures = Failures::new();
    match broker.share.initialize(&broker.topics, request).await {
        Ok(response) => {
            for topic in response.results {
                for one in topic.partitions.into_iter().filter(|one| one.error_code != 0) {
                    let error = ErrorCode::from_code(one.error_code);
                    failures.insert((topic.topic_id, one.partition), (error, one.error_message));
                }
            }
        }
        Err(error) => {
            let all = made
                .iter()
                .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)));
            failures.extend(all.map(|partition| (partition, (error, Some(Str::from(NOT_REACHED))))));
        }
    }
    let mut not_made = TopicPartitions::new();
    for (topic, partition) in failures.keys() {
        if let Some(of_topic) = made.get_mut(topic) {
            of_topic.remove(partition);
        }
        not_made.entry(*topic).or_default().insert(*partition);
    }
    made.retain(|_, partitions| !partitions.is_empty());
    tell(broker, &group_id, &made, &not_made).await;
    failures
}

async fn tell(broker: &Broker, group_id: &Str, made: &TopicPartitions, not_made: &TopicPartitions) {
    if !not_made.is_empty() {
        warn!("states of partitions could not be initialized for the share group {group_id}");
    }
    let image = broker.topics.image();
    let told = broker.groups.change(group_id, |groups, now_ms| {
        groups.see_topics(&image);
        let mut effects = milena_coordinator::Effects::default();
        if !made.is_empty() {
            let changed = groups.share_states_initialized(now_ms, group_id, made);
            effects.facts.extend(changed.facts);
        }
        if !not_made.is_empty() {
            let changed = groups.share_states_not_initialized(now_ms, group_id, not_made);
            effects.facts.extend(changed.facts);
        }
        effects
    });
    if let Err(error) = told.await {
        // A heartbeat asks for them again.
        warn!(
            error = error.name(),
            "the share group {group_id} was not told of initialized states"
        );
    }
}

/// Removes states; gives for each topic whether all of them are gone, in the order of the request.
pub(crate) async fn delete(
    broker: &Arc<Broker>,
    request: DeleteShareGroupStateRequest,
) -> Vec<(Uuid, Result<(), ErrorCode>)> {
    let topics: Vec<Uuid> = request.topics.iter().map(|topic| topic.topic_id).collect();
    match broker.share.delete(&broker.topics, request).await {
        Ok(response) => {
            let failed = failed_topics(response);
            let outcome = |topic: Uuid| (topic, failed.get(&topic).map_or(Ok(()), |error| Err(*error)));
            topics.into_iter().map(outcome).collect()
        }
        Err(error) => topics.into_iter().map(|topic| (topic, Err(error))).collect(),
    }
}

fn failed_topics(response: DeleteShareGroupStateResponse) -> BTreeMap<Uuid, ErrorCode> {
    let first_error = |topic: DeleteStateResult| {
        let failed = topic.partitions.iter().find(|one| one.error_code != 0)?;
        Some((topic.topic_id, ErrorCode::from_code(failed.error_code)))
    };
    response.results.into_iter().filter_map(first_error).collect()
}

/// What Kafka says of an error where a whole request of share groups is refused without a reason of its own.
pub(crate) fn sentence(error: ErrorCode) -> Option<Str> {
    let sentence = match error {
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
        ErrorCode::InvalidGroupId => "The group id is invalid.",
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        ErrorCode::CoordinatorLoadInProgress => {
            "The coordinator is loading and hence can't process requests."
        }
        ErrorCode::NotCoordinator => "This is not the correct coordinator.",
        ErrorCode::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ErrorCode::UnknownServerError => {
            "The server experienced an unexpected error when processing the request."
        }
        _ => return None,
    };
    Some(Str::from(sentence))
}
