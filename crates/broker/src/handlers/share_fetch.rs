//! ShareFetch (API 78), versions 1 and 2: records for a member of a share group, which acquires them for a while; and
//! what it says has become of those that it had acquired before (KIP-932).
//!
//! Versions: 2 how strictly the number of records is limited (KIP-1206), and renewed locks (KIP-1222).
//!
//! Rules: acknowledgements are done before anything is fetched, and their answers come with what was fetched. A fetch
//! waits until there are `min_bytes` to be acquired, by an append, or by records that others give back; then all that
//! the limits allow is acquired. Records are whole batches of the log, which may hold more than what was acquired. A fetch
//! that renews locks fetches nothing.
//!
//! Differences from Kafka, and why:
//! - a fetch that finds that retention took its records reads on at once, where Kafka answers with nothing first;
//! - above a quota the records are answered all the same, with the time to wait: they were acquired already, and Kafka, which
//!   leaves them out, delivers them again only when their locks have ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use milena_coordinator::AcknowledgementBatch;
use milena_protocol::messages::share_fetch_request::ShareFetchRequest;
use milena_protocol::messages::share_fetch_response::{
    PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};
use milena_protocol::{Chunk, ErrorCode, Str};

use super::share_acknowledge::{Acknowledged, Acknowledger, acknowledge, identify};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::{BoxFuture, Outcome};
use crate::share::sessions::{FINAL_EPOCH, FetchRequest, INITIAL_EPOCH, Opened, Told, TopicPartition};
use crate::share::settings::{self, ShareSettings};

mod read;

use read::{Limits, Reading, Waiting};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ShareFetchRequest,
) -> Outcome<ShareFetchResponse> {
    let (group, member) = match identify(broker, request.group_id.as_ref(), request.member_id.as_ref()) {
        Ok(named) => named,
        Err(error) => return Outcome::Now(refused(error)),
    };
    let is_renew = request.is_renew_ack;
    if is_renew && asks_for_records(&request) {
        return Outcome::Now(refused(ErrorCode::InvalidRequest));
    }
    let (named, forgotten) = named_partitions(&request);
    let acknowledges = request
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .any(|partition| !partition.acknowledgement_batches.is_empty());
    let opened = broker.share.sessions.fetch(&FetchRequest {
        group: &group,
        member: &member,
        epoch: request.share_session_epoch,
        partitions: &named,
        forgotten: &forgotten,
        acknowledges,
        connection: &context.connection,
        max_sessions: settings::max_sessions(broker),
    });
    let opened = match opened {
        Ok(opened) => opened,
        Err(ErrorCode::ShareSessionLimitReached) => return limit_reached(broker, request.max_wait_ms),
        Err(error) => return Outcome::Now(refused(error)),
    };
    let settings = settings::of_group(broker, &group);
    let acknowledged: BoxFuture<_> = if acknowledges {
        let acknowledger = Acknowledger {
            group: &group,
            member: &member,
            settings: &settings,
            version: context.api_version,
            is_renew,
        };
        acknowledge(broker, &acknowledger, acknowledgements(&request))
    } else {
        Box::pin(async { Vec::new() })
    };
    if request.share_session_epoch == FINAL_EPOCH {
        // Decided after what was acknowledged.
        broker.share.end_session(&group, &member);
    }
    let fetch = Fetch {
        broker: Arc::clone(broker),
        context: context.clone(),
        group,
        member,
        settings,
        opened,
        acknowledged,
    };
    let limits = fetch.limits(&request);
    let epoch = request.share_session_epoch;
    Outcome::Later(Box::pin(fetch.run(epoch, is_renew, limits)))
}

fn asks_for_records(request: &ShareFetchRequest) -> bool {
    request.max_bytes != 0 || request.min_bytes != 0 || request.max_records != 0 || request.max_wait_ms != 0
}

fn refused(error: ErrorCode) -> ShareFetchResponse {
    ShareFetchResponse {
        error_code: error.code(),
        ..ShareFetchResponse::default()
    }
}

/// A member that finds no place for its session is not told at once, so that it does not ask again and again.
fn limit_reached(broker: &Arc<Broker>, max_wait_ms: i32) -> Outcome<ShareFetchResponse> {
    let stopped = broker.stop.stopped();
    let wait = Duration::from_millis(u64::try_from(max_wait_ms).unwrap_or(0));
    Outcome::Later(Box::pin(async move {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped => {}
        }
        refused(ErrorCode::ShareSessionLimitReached)
    }))
}

fn named_partitions(request: &ShareFetchRequest) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
    let named = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.topic_id, partition.partition_index))
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(|partition| (topic.topic_id, *partition))
    });
    (named.collect(), forgotten.collect())
}

fn acknowledgements(
    request: &ShareFetchRequest,
) -> impl Iterator<Item = (TopicPartition, Vec<AcknowledgementBatch>)> {
    request.topics.iter().flat_map(|topic| {
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
    })
}

/// A fetch whose session is open and whose acknowledgements are decided.
struct Fetch {
    broker: Arc<Broker>,
    context: RequestContext,
    group: Str,
    member: Str,
    settings: ShareSettings,
    opened: Opened,
    acknowledged: BoxFuture<Vec<(TopicPartition, Acknowledged)>>,
}

impl Fetch {
    fn limits(&self, request: &ShareFetchRequest) -> Limits {
        let mut max_bytes = request.max_bytes.min(self.broker.config.fetch_max_bytes).max(0);
        if let Some(quota_bytes) = self.broker.quotas.max_fetch_bytes(&self.context) {
            max_bytes = max_bytes.min(i32::try_from(quota_bytes).unwrap_or(i32::MAX));
        }
        Limits {
            max_bytes: usize::try_from(max_bytes).unwrap_or(0),
            min_bytes: usize::try_from(request.min_bytes.min(max_bytes)).unwrap_or(0),
            max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
            max_records: request.max_records,
            batch_size: request.batch_size,
            strictly_limited: request.share_acquire_mode == 1,
        }
    }

    async fn run(self, epoch: i32, is_renew: bool, limits: Limits) -> ShareFetchResponse {
        let mut fetched = Vec::new();
        if !is_renew {
            let (reading, erroneous) = self.resolve(epoch);
            fetched = erroneous;
            if !reading.is_empty() && limits.max_records > 0 && limits.max_bytes > 0 {
                let mut waiting = Waiting::new(
                    self.broker.clone(),
                    self.member.clone(),
                    self.settings,
                    reading,
                    limits,
                );
                waiting.run().await;
                fetched.extend(waiting.into_answers());
            }
        }
        self.finish(fetched).await
    }

    /// Finds the partitions, beginning with another one each time.
    fn resolve(&self, epoch: i32) -> (Vec<Reading>, Vec<(TopicPartition, PartitionData)>) {
        let mut reading = Vec::new();
        let mut erroneous = Vec::new();
        for at in &self.opened.partitions {
            let (topic_id, index) = *at;
            let error = match self.broker.topics.get_by_id(&topic_id) {
                None => ErrorCode::UnknownTopicId,
                Some(topic) => match topic.partition(index) {
                    None => ErrorCode::UnknownTopicOrPartition,
                    Some(partition) => {
                        reading.push(Reading::new(*at, &self.group, Arc::clone(partition)));
                        continue;
                    }
                },
            };
            erroneous.push((*at, failed(index, error, None)));
        }
        if epoch > INITIAL_EPOCH && !reading.is_empty() {
            let first = usize::try_from(epoch).unwrap_or(0) % reading.len();
            reading.rotate_left(first);
        }
        (reading, erroneous)
    }

    async fn finish(self, fetched: Vec<(TopicPartition, PartitionData)>) -> ShareFetchResponse {
        let told: Vec<(TopicPartition, Told)> = fetched
            .iter()
            .map(|(at, data)| {
                let told = Told {
                    has_records: data.records.as_ref().is_some_and(|records| !records.is_empty()),
                    has_error: data.error_code != 0,
                };
                (*at, told)
            })
            .collect();
        let acknowledged = self.acknowledged.await;
        let sessions = &self.broker.share.sessions;
        let tells = match sessions.answer(&self.group, &self.member, &self.opened, &told) {
            Ok(tells) => tells,
            Err(error) => return refused(error),
        };
        let mut answers = Answers::default();
        for ((at, data), tells) in fetched.into_iter().zip(tells) {
            if tells {
                answers.add(at, data);
            }
        }
        for (at, (error, message)) in acknowledged {
            let data = answers.partition(at);
            data.acknowledge_error_code = error.code();
            data.acknowledge_error_message = message;
        }
        let bytes = answers.bytes();
        ShareFetchResponse {
            throttle_time_ms: self
                .broker
                .quotas
                .fetched(&self.context, bytes, self.broker.clock.now_ms()),
            acquisition_lock_timeout_ms: self.settings.group.record_lock_duration_ms,
            responses: answers.topics,
            ..ShareFetchResponse::default()
        }
    }
}

/// The answers by topic, each partition once.
#[derive(Default)]
struct Answers {
    topics: Vec<ShareFetchableTopicResponse>,
    places: HashMap<TopicPartition, (usize, usize)>,
}

impl Answers {
    fn add(&mut self, at: TopicPartition, data: PartitionData) {
        let topic = self.topics.iter().position(|topic| topic.topic_id == at.0);
        let topic = topic.unwrap_or_else(|| {
            self.topics.push(ShareFetchableTopicResponse {
                topic_id: at.0,
                ..ShareFetchableTopicResponse::default()
            });
            self.topics.len() - 1
        });
        if let Some(answers) = self.topics.get_mut(topic) {
            self.places.insert(at, (topic, answers.partitions.len()));
            answers.partitions.push(data);
        }
    }

    fn partition(&mut self, at: TopicPartition) -> &mut PartitionData {
        if !self.places.contains_key(&at) {
            self.add(at, failed(at.1, ErrorCode::None, None));
        }
        let (topic, partition) = self.places[&at];
        &mut self.topics[topic].partitions[partition]
    }

    fn bytes(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .map(|partition| partition.records.as_ref().map_or(0, Chunk::len))
            .sum()
    }
}

/// The answer for a partition without records.
fn failed(partition_index: i32, error: ErrorCode, message: Option<Str>) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: error.code(),
        error_message: message,
        records: Some(Chunk::default()),
        ..PartitionData::default()
    }
}
