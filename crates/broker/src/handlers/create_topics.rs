//! CreateTopics (key 19, versions 2-7): new topics, by counts or by a manual assignment.
//!
//! Authorisation: CREATE on the cluster or the topic (none yet). Forwardable.
//!
//! v4 -1 for counts means the broker's default (KIP-464); v5 the answer tells counts and configs
//! (KIP-525); v7 topic ids (KIP-516). Checks come in the order of Kafka's controller: duplicates
//! and the prohibited name, the name, the collision, the existing topic, the configs, the counts.
//!
//! Difference: `timeoutMs` is not waited for, since a topic that is answered is usable at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use milena_protocol::messages::CreateTopicsRequest;
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::{MAX_PARTITIONS_PER_REQUEST, assignments};
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::topics::{self, CLUSTER_METADATA_TOPIC, NewTopic, Overrides};

/// The first version whose clients know THROTTLING_QUOTA_EXCEEDED (KIP-599).
const FIRST_VERSION_WITH_STRICT_QUOTA: i16 = 6;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut seen = HashSet::new();
    let duplicates: HashSet<Str> = request
        .topics
        .iter()
        .filter(|topic| !seen.insert(&topic.name))
        .map(|topic| topic.name.clone())
        .collect();
    let mut answers: Vec<(Str, Result<NewTopic, ApiError>)> = Vec::new();
    let mut refused: Vec<(Str, ApiError)> = Vec::new();
    let partitions: usize = request
        .topics
        .iter()
        .map(|topic| asked_partitions(broker, topic))
        .sum();
    if partitions > MAX_PARTITIONS_PER_REQUEST {
        let error = too_many();
        let all = request
            .topics
            .iter()
            .map(|topic| failure(topic.name.clone(), &error))
            .collect();
        return CreateTopicsResponse {
            topics: all,
            ..Default::default()
        };
    }
    let is_strict = context.api_version >= FIRST_VERSION_WITH_STRICT_QUOTA;
    let mut quota = broker.quotas.mutation(context, is_strict, broker.clock.now_ms());
    for topic in &request.topics {
        if duplicates.contains(&topic.name) {
            continue;
        }
        if *topic.name == *CLUSTER_METADATA_TOPIC {
            let sentence = format!("Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.");
            refused.push((topic.name.clone(), ApiError::invalid_request(sentence)));
            continue;
        }
        let plan = plan(broker, topic).and_then(|plan| {
            if !request.validate_only {
                quota.take(usize::try_from(plan.partitions).unwrap_or(0))?;
            }
            Ok(plan)
        });
        answers.push((topic.name.clone(), plan));
    }
    for name in distinct_in_order(&request.topics, &duplicates) {
        refused.push((name, ApiError::invalid_request("Duplicate topic name.")));
    }
    let mut topics = if request.validate_only {
        validated(broker, answers)
    } else {
        created(broker, answers).await
    };
    topics.extend(refused.into_iter().map(|(name, error)| failure(name, &error)));
    CreateTopicsResponse {
        throttle_time_ms: quota.throttle_ms(),
        topics,
        ..Default::default()
    }
}

fn asked_partitions(broker: &Broker, topic: &CreatableTopic) -> usize {
    let count = match topic.num_partitions {
        _ if !topic.assignments.is_empty() => return topic.assignments.len(),
        -1 => broker.config.num_partitions,
        count => count,
    };
    usize::try_from(count).unwrap_or(0)
}

fn distinct_in_order(topics: &[CreatableTopic], among: &HashSet<Str>) -> Vec<Str> {
    let mut seen = HashSet::new();
    topics
        .iter()
        .filter(|topic| among.contains(&topic.name) && seen.insert(&topic.name))
        .map(|topic| topic.name.clone())
        .collect()
}

pub(super) fn too_many() -> ApiError {
    ApiError::new(
        ErrorCode::PolicyViolation,
        "Excessively large number of partitions per request.",
    )
}

/// Creates the topics that clients named in Metadata (or elsewhere) with the broker's defaults, and
/// tells what went wrong with the others. A topic that exists by now is no error.
pub(crate) async fn auto_create(broker: &Arc<Broker>, names: Vec<Str>) -> HashMap<Str, ErrorCode> {
    let mut failed = HashMap::new();
    let each = usize::try_from(broker.config.num_partitions).unwrap_or(1);
    if names.len().saturating_mul(each) > MAX_PARTITIONS_PER_REQUEST {
        return names
            .into_iter()
            .map(|name| (name, ErrorCode::PolicyViolation))
            .collect();
    }
    let mut new = Vec::new();
    for name in names {
        let topic = CreatableTopic {
            name: name.clone(),
            num_partitions: -1,
            replication_factor: -1,
            ..Default::default()
        };
        match plan(broker, &topic) {
            Ok(plan) => new.push(plan),
            Err(error) => {
                failed.insert(name, error.code);
            }
        }
    }
    let created_names: Vec<Str> = new.iter().map(|topic| topic.name.clone()).collect();
    for (name, result) in created_names.into_iter().zip(broker.topics.create(new).await) {
        if let Err(error) = result
            && error.code != ErrorCode::TopicAlreadyExists
        {
            failed.insert(name, error.code);
        }
    }
    failed.retain(|_, error| *error != ErrorCode::TopicAlreadyExists);
    failed
}

/// Checks everything that can be checked before the topic is created.
fn plan(broker: &Broker, topic: &CreatableTopic) -> Result<NewTopic, ApiError> {
    let invalid_name = topics::validate_name(&topic.name)
        .map_err(|why| ApiError::new(ErrorCode::InvalidTopicException, why));
    if broker.topics.get(&topic.name).is_some() {
        return Err(topics::already_exists(&topic.name));
    }
    invalid_name?;
    if let Some(existing) = broker.topics.colliding(&topic.name) {
        return Err(topics::collides(&topic.name, &existing));
    }
    let overrides = overrides(broker, topic)?;
    let partitions = partition_count(broker, topic)?;
    // A copy: the request's own slice would keep its whole frame in memory as long as the topic.
    Ok(NewTopic {
        name: Str::from(topic.name.to_string()),
        partitions,
        overrides,
    })
}

fn overrides(broker: &Broker, topic: &CreatableTopic) -> Result<Overrides, ApiError> {
    let without_value: Vec<&str> = topic
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| &*config.name)
        .collect();
    if !without_value.is_empty() {
        let sentence = format!(
            "Null value not supported for topic configs: {}",
            without_value.join(",")
        );
        return Err(ApiError::new(ErrorCode::InvalidConfig, sentence));
    }
    let set = topic.configs.iter().filter_map(|config| {
        config
            .value
            .as_ref()
            .map(|value| (config.name.to_string(), value.to_string()))
    });
    let overrides: Overrides = set.collect();
    broker.topics.settings().validate_topic(&overrides)?;
    Ok(overrides)
}

/// Why a partition that names no broker cannot be placed (KIP-1066).
pub(super) const ALL_CORDONED: &str =
    "All brokers are currently fenced, or have all their log directories cordoned.";

fn partition_count(broker: &Broker, topic: &CreatableTopic) -> Result<i32, ApiError> {
    if !topic.assignments.is_empty() {
        return assigned_partition_count(broker.config.node_id, topic);
    }
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ));
    }
    let factor = match topic.replication_factor {
        -1 => broker.config.default_replication_factor,
        factor => i32::from(factor),
    };
    if factor > 1 {
        let sentence = format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
             reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
        );
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, sentence));
    }
    if broker.topics.settings().current().is_cordoned() {
        let sentence = format!("Unable to replicate the partition 1 time(s): {ALL_CORDONED}");
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, sentence));
    }
    Ok(if topic.num_partitions == -1 {
        broker.config.num_partitions
    } else {
        topic.num_partitions
    })
}

fn assigned_partition_count(node_id: i32, topic: &CreatableTopic) -> Result<i32, ApiError> {
    let counts = [
        (i32::from(topic.replication_factor), "replication factor"),
        (topic.num_partitions, "numPartitions"),
    ];
    for (count, name) in counts {
        if count != -1 {
            return Err(ApiError::invalid_request(format!(
                "A manual partition assignment was specified, but {name} was not set to -1."
            )));
        }
    }
    let refuse = |sentence: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, sentence));
    let mut indexes = HashSet::new();
    let mut factor = None;
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if !indexes.insert(index) {
            return refuse(format!(
                "Found multiple manual partition assignments for partition {index}"
            ));
        }
        assignments::check(&assignment.broker_ids, node_id, factor)?;
        factor = Some(assignment.broker_ids.len());
    }
    let count = i32::try_from(indexes.len()).unwrap_or(i32::MAX);
    if !(0..count).all(|index| indexes.contains(&index)) {
        return refuse("partitions should be a consecutive 0-based integer sequence".to_owned());
    }
    Ok(count)
}

fn failure(name: Str, error: &ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code.code(),
        error_message: error.wire_message(),
        ..Default::default()
    }
}

fn success(broker: &Broker, topic: &NewTopic, topic_id: Uuid) -> CreatableTopicResult {
    let mut configs: Vec<CreatableTopicConfigs> = broker
        .topics
        .settings()
        .describe_topic(&topic.overrides)
        .into_iter()
        .map(|entry| CreatableTopicConfigs {
            name: entry.name.into(),
            value: entry.value.map(Str::from),
            read_only: entry.read_only,
            config_source: entry.source.code(),
            is_sensitive: entry.is_sensitive,
            ..Default::default()
        })
        .collect();
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id,
        error_message: None,
        num_partitions: topic.partitions,
        replication_factor: 1,
        configs: Some(configs),
        ..Default::default()
    }
}

/// Kafka's `validateOnly` draws a topic id, too, and throws it away.
fn validated(broker: &Broker, answers: Vec<(Str, Result<NewTopic, ApiError>)>) -> Vec<CreatableTopicResult> {
    let answer = |(name, plan): (Str, Result<NewTopic, ApiError>)| match plan {
        Ok(plan) => success(broker, &plan, topics::new_id()),
        Err(error) => failure(name, &error),
    };
    answers.into_iter().map(answer).collect()
}

async fn created(
    broker: &Arc<Broker>,
    answers: Vec<(Str, Result<NewTopic, ApiError>)>,
) -> Vec<CreatableTopicResult> {
    let new: Vec<NewTopic> = answers
        .iter()
        .filter_map(|(_, plan)| plan.as_ref().ok().cloned())
        .collect();
    let mut results = broker.topics.create(new).await.into_iter();
    let mut topics = Vec::with_capacity(answers.len());
    for (name, plan) in answers {
        let created = match plan {
            Ok(plan) => match results.next() {
                Some(Ok(topic)) => Ok(success(broker, &plan, topic.id)),
                Some(Err(error)) => Err(error),
                None => Err(ApiError::bare(ErrorCode::UnknownServerError)),
            },
            Err(error) => Err(error),
        };
        topics.push(created.unwrap_or_else(|error| failure(name, &error)));
    }
    topics
}
