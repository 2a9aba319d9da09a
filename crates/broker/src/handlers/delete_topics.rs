//! DeleteTopics (key 20, versions 1-6): deletes topics by name or, from v6, by id (KIP-516).
//!
//! Authorisation: DELETE on the topic (none yet). Forwardable. v5 has error messages.
//! `delete.topic.enable=false` refuses everything.
//!
//! The topic is gone when the answer is there: its name can be created again at once. The offsets
//! that groups have committed for it go, too; the bytes are freed after `file.delete.delay.ms`.

use std::collections::HashMap;
use std::sync::Arc;

use milena_protocol::messages::DeleteTopicsRequest;
use milena_protocol::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;

/// The first version whose clients know THROTTLING_QUOTA_EXCEEDED (KIP-599).
const FIRST_VERSION_WITH_STRICT_QUOTA: i16 = 5;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    if !broker.config.delete_topic_enable {
        return disabled(context.api_version, &request);
    }
    let mut asked = Asked::new(&request);
    let mut answers = std::mem::take(&mut asked.refused);
    let mut found: Vec<(Uuid, Str)> = Vec::new();
    for id in asked.ids {
        match broker.topics.get_by_id(&id) {
            Some(topic) => found.push((id, topic.name.clone())),
            None => answers.push(answer(None, id, Some(unknown(ErrorCode::UnknownTopicId)))),
        }
    }
    for name in asked.names {
        match broker.topics.get(&name) {
            None => {
                answers.push(answer(
                    Some(name),
                    Uuid::ZERO,
                    Some(unknown(ErrorCode::UnknownTopicOrPartition)),
                ));
            }
            Some(topic)
                if asked.duplicate_ids.contains(&topic.id) || found.iter().any(|(id, _)| *id == topic.id) =>
            {
                found.retain(|(id, _)| *id != topic.id);
                let error = ApiError::invalid_request(
                    "The provided topic name maps to an ID that was already supplied.",
                );
                answers.push(answer(Some(name), topic.id, Some(error)));
            }
            Some(topic) => found.push((topic.id, name)),
        }
    }
    let is_strict = context.api_version >= FIRST_VERSION_WITH_STRICT_QUOTA;
    let mut quota = broker.quotas.mutation(context, is_strict, broker.clock.now_ms());
    found.retain(|(id, name)| {
        let partitions = broker
            .topics
            .get_by_id(id)
            .map_or(0, |topic| topic.partitions.len());
        let allowed = quota.take(partitions);
        if let Err(error) = &allowed {
            answers.push(answer(Some(name.clone()), *id, Some(error.clone())));
        }
        allowed.is_ok()
    });
    let ids: Vec<Uuid> = found.iter().map(|(id, _)| *id).collect();
    let results = broker.topics.delete(&ids).await;
    let deleted: Vec<Str> = results.iter().flatten().map(|topic| topic.name.clone()).collect();
    if !deleted.is_empty() {
        broker
            .groups
            .topics_deleted(&broker.topics.image(), &deleted)
            .await;
        let deleted: Vec<Uuid> = results.iter().flatten().map(|topic| topic.id).collect();
        broker.share.topics_deleted(&deleted).await;
    }
    for ((id, name), result) in found.into_iter().zip(results) {
        answers.push(answer(Some(name), id, result.err()));
    }
    DeleteTopicsResponse {
        throttle_time_ms: quota.throttle_ms(),
        responses: answers,
        ..Default::default()
    }
}

/// What the request names, sorted into what is clear and what is refused.
#[derive(Default)]
struct Asked {
    names: Vec<Str>,
    ids: Vec<Uuid>,
    duplicate_ids: Vec<Uuid>,
    refused: Vec<DeletableTopicResult>,
}

impl Asked {
    fn new(request: &DeleteTopicsRequest) -> Self {
        let mut asked = Self::default();
        let mut names: Vec<Str> = request.topic_names.clone();
        let mut ids: Vec<Uuid> = Vec::new();
        for topic in &request.topics {
            match (&topic.name, topic.topic_id) {
                (None, Uuid::ZERO) => {
                    let error = ApiError::invalid_request("Neither topic name nor id were specified.");
                    asked.refused.push(answer(None, Uuid::ZERO, Some(error)));
                }
                (None, id) => ids.push(id),
                (Some(name), Uuid::ZERO) => names.push(name.clone()),
                (Some(name), id) => {
                    let error =
                        ApiError::invalid_request("You may not specify both topic name and topic id.");
                    asked.refused.push(answer(Some(name.clone()), id, Some(error)));
                }
            }
        }
        let duplicate_names;
        (asked.names, duplicate_names) = singles(names);
        (asked.ids, asked.duplicate_ids) = singles(ids);
        for name in duplicate_names {
            let error = ApiError::invalid_request("Duplicate topic name.");
            asked.refused.push(answer(Some(name), Uuid::ZERO, Some(error)));
        }
        for id in &asked.duplicate_ids {
            asked.refused.push(answer(
                None,
                *id,
                Some(ApiError::invalid_request("Duplicate topic id.")),
            ));
        }
        asked
    }
}

/// What occurs once, and what occurs more than once; in the order of first occurrence.
fn singles<T: Clone + Eq + std::hash::Hash>(items: Vec<T>) -> (Vec<T>, Vec<T>) {
    let mut counts: HashMap<T, usize> = HashMap::new();
    let mut order = Vec::new();
    for item in items {
        let count = counts.entry(item.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            order.push(item);
        }
    }
    order.into_iter().partition(|item| counts.get(item) == Some(&1))
}

fn unknown(code: ErrorCode) -> ApiError {
    let sentence = match code {
        ErrorCode::UnknownTopicId => "This server does not host this topic ID.",
        _ => "This server does not host this topic-partition.",
    };
    ApiError::new(code, sentence)
}

fn answer(name: Option<Str>, topic_id: Uuid, error: Option<ApiError>) -> DeletableTopicResult {
    DeletableTopicResult {
        name,
        topic_id,
        error_code: error.as_ref().map_or(ErrorCode::None, |error| error.code).code(),
        error_message: error.and_then(|error| error.wire_message()),
        ..Default::default()
    }
}

fn disabled(version: i16, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
    let error = if version < 3 {
        ErrorCode::InvalidRequest
    } else {
        ErrorCode::TopicDeletionDisabled
    };
    let names = request
        .topic_names
        .iter()
        .map(|name| (Some(name.clone()), Uuid::ZERO));
    let topics = request
        .topics
        .iter()
        .map(|topic| (topic.name.clone(), topic.topic_id));
    let responses = names
        .chain(topics)
        .map(|(name, topic_id)| DeletableTopicResult {
            name,
            topic_id,
            error_code: error.code(),
            ..Default::default()
        })
        .collect();
    DeleteTopicsResponse {
        responses,
        ..Default::default()
    }
}
