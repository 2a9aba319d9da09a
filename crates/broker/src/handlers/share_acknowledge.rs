//! ShareAcknowledge (API 79), versions 1 and 2: what a member of a share group says has become of records that it has
//! acquired (KIP-932).
//!
//! Versions: 2 renewed locks, and how long a lock holds (KIP-1222).
//!
//! A partition that cannot be acknowledged says so; others are. All that is said of one partition counts, or nothing.

use std::sync::Arc;

use milena_coordinator::{AcknowledgementBatch, SharePartitionKey};
use milena_protocol::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use milena_protocol::messages::share_acknowledge_response::{
    PartitionData, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::settings::share_groups_are_on;
use crate::outcome::{BoxFuture, Outcome};
use crate::share::sessions::{FINAL_EPOCH, TopicPartition};
use crate::share::settings::{self, ShareSettings};

/// The first version with renewed locks.
const RENEW_VERSION: i16 = 2;
/// The longest id of a member.
const MAX_MEMBER_ID_CHARACTERS: usize = 36;
/// The acknowledge type that renews a lock.
const RENEW: i8 = 4;

/// What became of the acknowledgements of one partition, with Kafka's sentence.
pub(super) type Acknowledged = (ErrorCode, Option<Str>);

/// Who acknowledges, and in which form.
pub(super) struct Acknowledger<'a> {
    pub(super) group: &'a Str,
    pub(super) member: &'a Str,
    pub(super) settings: &'a ShareSettings,
    pub(super) version: i16,
    pub(super) is_renew: bool,
}

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ShareAcknowledgeRequest,
) -> Outcome<ShareAcknowledgeResponse> {
    let (group, member) = match identify(broker, request.group_id.as_ref(), request.member_id.as_ref()) {
        Ok(named) => named,
        Err(error) => return Outcome::Now(refused(error)),
    };
    let epoch = request.share_session_epoch;
    if let Err(error) = broker.share.sessions.acknowledge(&group, &member, epoch) {
        return Outcome::Now(refused(error));
    }
    let settings = settings::of_group(broker, &group);
    let acknowledger = Acknowledger {
        group: &group,
        member: &member,
        settings: &settings,
        version: context.api_version,
        is_renew: request.is_renew_ack,
    };
    let given = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let batches = partition
                .acknowledgement_batches
                .iter()
                .map(|batch| AcknowledgementBatch {
                    first: batch.first_offset,
                    last: batch.last_offset,
                    types: batch.acknowledge_types.clone(),
                });
            ((topic.topic_id, partition.partition_index), batches.collect())
        })
    });
    let answers = acknowledge(broker, &acknowledger, given);
    if epoch == FINAL_EPOCH {
        // Decided after what was acknowledged.
        broker.share.end_session(&group, &member);
    }
    Outcome::Later(Box::pin(async move {
        let mut response = ShareAcknowledgeResponse {
            acquisition_lock_timeout_ms: settings.group.record_lock_duration_ms,
            ..ShareAcknowledgeResponse::default()
        };
        for ((topic_id, partition_index), (error, error_message)) in answers.await {
            let answer = PartitionData {
                partition_index,
                error_code: error.code(),
                error_message,
                ..PartitionData::default()
            };
            match response
                .responses
                .iter_mut()
                .rev()
                .find(|topic| topic.topic_id == topic_id)
            {
                Some(topic) => topic.partitions.push(answer),
                None => response.responses.push(ShareAcknowledgeTopicResponse {
                    topic_id,
                    partitions: vec![answer],
                    ..ShareAcknowledgeTopicResponse::default()
                }),
            }
        }
        response
    }))
}

/// Whether share groups are on, and who asks.
pub(super) fn identify(
    broker: &Broker,
    group: Option<&Str>,
    member: Option<&Str>,
) -> Result<(Str, Str), ErrorCode> {
    if !share_groups_are_on(broker) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let group = group.ok_or(ErrorCode::InvalidRequest)?;
    let member = member
        .filter(|id| !id.is_empty() && id.encode_utf16().count() <= MAX_MEMBER_ID_CHARACTERS)
        .ok_or(ErrorCode::InvalidRequest)?;
    Ok((group.detached(), member.detached()))
}

fn refused(error: ErrorCode) -> ShareAcknowledgeResponse {
    ShareAcknowledgeResponse {
        error_code: error.code(),
        ..ShareAcknowledgeResponse::default()
    }
}

/// Acknowledges in the order of the partitions. What was said is decided when this returns; the answers come when that is
/// stored. A partition of which nothing is said is answered only beside others, as in Kafka.
pub(super) fn acknowledge(
    broker: &Broker,
    by: &Acknowledger<'_>,
    given: impl Iterator<Item = (TopicPartition, Vec<AcknowledgementBatch>)>,
) -> BoxFuture<Vec<(TopicPartition, Acknowledged)>> {
    let mut answers: Vec<(TopicPartition, BoxFuture<Acknowledged>)> = Vec::new();
    let mut silent = Vec::new();
    let mut any_done = false;
    for ((topic_id, partition), batches) in given {
        let at = (topic_id, partition);
        let topic = broker.topics.get_by_id(&topic_id);
        let refusal = match &topic {
            None => Some(ErrorCode::UnknownTopicId),
            Some(_) if !are_valid(&batches, by) => Some(ErrorCode::InvalidRequest),
            Some(topic) if topic.partition(partition).is_none() => Some(ErrorCode::UnknownTopicOrPartition),
            Some(_) => None,
        };
        if let Some(error) = refusal {
            answers.push((at, Box::pin(async move { (error, None) })));
            continue;
        }
        if batches.is_empty() {
            silent.push(at);
            continue;
        }
        any_done = true;
        let key = SharePartitionKey {
            group: by.group.clone(),
            topic_id,
            partition,
        };
        let done = broker
            .share
            .acknowledge(&key, &by.settings.group, by.member, &batches);
        let answer: BoxFuture<Acknowledged> = Box::pin(async move {
            match done.await {
                Ok(Ok(())) => (ErrorCode::None, None),
                Ok(Err((error, message))) => (error, Some(Str::from(message))),
                Err(_) => (ErrorCode::CoordinatorNotAvailable, None),
            }
        });
        answers.push((at, answer));
    }
    Box::pin(async move {
        let mut answered = Vec::with_capacity(answers.len() + silent.len());
        for (at, answer) in answers {
            answered.push((at, answer.await));
        }
        if any_done {
            answered.extend(silent.into_iter().map(|at| (at, (ErrorCode::None, None))));
        }
        answered
    })
}

/// Whether batches are in order, with types that fit them.
fn are_valid(batches: &[AcknowledgementBatch], by: &Acknowledger<'_>) -> bool {
    let highest_type = if by.version >= RENEW_VERSION {
        RENEW
    } else {
        RENEW - 1
    };
    let mut previous = -1;
    batches.iter().all(|batch| {
        let in_order = batch.first <= batch.last && batch.first >= previous;
        previous = batch.last;
        let count = i64::try_from(batch.types.len()).unwrap_or(i64::MAX);
        let fits = count == 1 || (count > 1 && batch.last.checked_sub(batch.first) == Some(count - 1));
        let known = batch.types.iter().all(|kind| (0..=highest_type).contains(kind));
        let renews = batch.types.contains(&RENEW);
        in_order && fits && known && (!renews || by.is_renew)
    })
}
