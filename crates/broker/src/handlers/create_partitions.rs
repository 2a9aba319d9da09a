//! CreatePartitions (key 37, versions 0-3; KIP-195): grows topics to a number of partitions.
//!
//! Authorisation: ALTER on the topic (none yet). Forwardable. Versions differ only in form.
//! Checks are those of Kafka's controller, in its order and words.
//!
//! Differences: more partitions than one request may create are refused with CreateTopics' sentence
//! (Kafka answers UNKNOWN_SERVER_ERROR), and `timeoutMs` is not waited for, since partitions that
//! are answered are usable at once.

use std::collections::HashMap;
use std::sync::Arc;

use milena_protocol::messages::CreatePartitionsRequest;
use milena_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use milena_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use milena_protocol::{ErrorCode, Str};

use super::{MAX_PARTITIONS_PER_REQUEST, assignments, create_topics};
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::quotas::MutationQuota;
use crate::topics::Topic;

/// The first version whose clients know THROTTLING_QUOTA_EXCEEDED (KIP-599).
const FIRST_VERSION_WITH_STRICT_QUOTA: i16 = 3;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut counts: HashMap<Str, usize> = HashMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.clone()).or_insert(0) += 1;
    }
    let is_strict = context.api_version >= FIRST_VERSION_WITH_STRICT_QUOTA;
    let mut quota = broker.quotas.mutation(context, is_strict, broker.clock.now_ms());
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        match counts.get(&topic.name) {
            Some(1) => {
                let grown = grow(broker, topic, request.validate_only, &mut quota).await;
                results.push(answer(topic.name.clone(), grown.err()));
            }
            Some(_) => {
                counts.remove(&topic.name);
                let error = ApiError::invalid_request("Duplicate topic name.");
                results.push(answer(topic.name.clone(), Some(error)));
            }
            // Told already, once for all its occurrences.
            None => {}
        }
    }
    CreatePartitionsResponse {
        throttle_time_ms: quota.throttle_ms(),
        results,
        ..Default::default()
    }
}

async fn grow(
    broker: &Arc<Broker>,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
    quota: &mut MutationQuota<'_>,
) -> Result<(), ApiError> {
    let node_id = broker.config.node_id;
    let existing = broker.topics.get(&topic.name);
    let existing = existing.ok_or_else(|| ApiError::bare(ErrorCode::UnknownTopicOrPartition))?;
    check(&existing, topic, node_id)?;
    if topic.assignments.is_none() && broker.topics.settings().current().is_cordoned() {
        let sentence = create_topics::ALL_CORDONED;
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, sentence));
    }
    if !validate_only {
        let more = usize::try_from(topic.count)
            .unwrap_or(0)
            .saturating_sub(existing.partitions.len());
        quota.take(more)?;
        broker
            .topics
            .add_partitions(&topic.name, topic.count, |now| check(now, topic, node_id))
            .await?;
    }
    Ok(())
}

fn check(existing: &Topic, topic: &CreatePartitionsTopic, node_id: i32) -> Result<(), ApiError> {
    let has = existing.partitions.len();
    let refuse = |sentence: String| Err(ApiError::new(ErrorCode::InvalidPartitions, sentence));
    let count = match usize::try_from(topic.count) {
        Ok(count) if count == has => return refuse(format!("Topic already has {has} partition(s).")),
        Ok(count) if count > has => count,
        _ => {
            return refuse(format!(
                "The topic {} currently has {has} partition(s); {} would not be an increase.",
                topic.name, topic.count
            ));
        }
    };
    let additional = count - has;
    if let Some(assigned) = &topic.assignments {
        if assigned.len() != additional {
            let sentence = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assigned.len()
            );
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, sentence));
        }
        for assignment in assigned {
            assignments::check(&assignment.broker_ids, node_id, Some(1))?;
        }
    }
    if additional > MAX_PARTITIONS_PER_REQUEST {
        Err(create_topics::too_many())
    } else {
        Ok(())
    }
}

fn answer(name: Str, error: Option<ApiError>) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult {
        name,
        error_code: error.as_ref().map_or(ErrorCode::None, |error| error.code).code(),
        error_message: error.and_then(|error| error.wire_message()),
        ..Default::default()
    }
}
