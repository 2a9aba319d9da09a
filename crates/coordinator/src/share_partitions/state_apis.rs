//! InitializeShareGroupState, ReadShareGroupState, WriteShareGroupState, DeleteShareGroupState and
//! ReadShareGroupStateSummary: what brokers ask a share coordinator in Kafka, and what its tools may ask here.
//!
//! A request without a group, without topics, or with a topic without partitions is answered with nothing, as in Kafka.
//! Each partition is decided by itself, in the order of the request. Whatever a request changes here takes the place of
//! what is in flight: the share partition is read anew by the next who fetches from it.

use std::collections::BTreeMap;

use milena_protocol::messages::delete_share_group_state_response as delete;
use milena_protocol::messages::initialize_share_group_state_response as initialize;
use milena_protocol::messages::read_share_group_state_response as read;
use milena_protocol::messages::read_share_group_state_summary_response as summary;
use milena_protocol::messages::write_share_group_state_request::PartitionData as Write;
use milena_protocol::messages::write_share_group_state_response as write;
use milena_protocol::messages::{
    DeleteShareGroupStateRequest, InitializeShareGroupStateRequest, ReadShareGroupStateRequest,
    ReadShareGroupStateSummaryRequest, WriteShareGroupStateRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::batches::StateBatch;
use super::stored::{NO_DELIVERY_COMPLETE_COUNT, NO_EPOCH, NO_START_OFFSET, SharePartitionKey, StoredState};
use super::{SharePartition, SharePartitions};
use crate::facts::share_state_key;
use crate::limits::{MAX_NAME_BYTES, MAX_SHARE_PARTITIONS_PER_SHARD, MAX_STATE_BATCHES_PER_SHARE_PARTITION};
use crate::topics::TopicImage;
use crate::{Effects, Reply, Ticket};

const NEGATIVE_PARTITION: &str = "The partition id cannot be a negative number.";
const WRITE_UNINITIALIZED: &str = "Write operation on uninitialized share partition not allowed.";
const READ_UNINITIALIZED: &str = "Read operation on uninitialized share partition not allowed.";
const UNKNOWN_PARTITION: &str = "This server does not host this topic-partition.";
const FENCED_LEADER_EPOCH: &str = "The leader epoch in the request is older than the epoch on the broker.";
const FENCED_STATE_EPOCH: &str =
    "The share coordinator rejected the request because the share-group state epoch did not match.";

/// An error and Kafka's sentence.
type Refused = (ErrorCode, &'static str);

/// Answers for the partitions that a request named, each topic once, each partition once with its latest answer.
struct Answers<T> {
    topics: Vec<(Uuid, BTreeMap<i32, T>)>,
}

impl<T> Answers<T> {
    fn of(asked: impl IntoIterator<Item = (Uuid, i32, T)>) -> Self {
        let mut topics: Vec<(Uuid, BTreeMap<i32, T>)> = Vec::new();
        for (topic_id, partition, answer) in asked {
            // Kafka's clients name a topic once; a linear look from the end finds it at once.
            match topics.iter_mut().rev().find(|(id, _)| *id == topic_id) {
                Some((_, partitions)) => {
                    partitions.insert(partition, answer);
                }
                None => topics.push((topic_id, BTreeMap::from([(partition, answer)]))),
            }
        }
        Self { topics }
    }

    fn into_results<R>(self, result: impl Fn(Uuid, Vec<T>) -> R) -> Vec<R> {
        self.topics
            .into_iter()
            .map(|(id, partitions)| result(id, partitions.into_values().collect()))
            .collect()
    }
}

/// Whether a request asks for nothing that could be answered.
fn asks_nothing<T, P>(group: &str, topics: &[T], partitions: impl Fn(&T) -> &Vec<P>) -> bool {
    group.is_empty() || topics.is_empty() || topics.iter().any(|topic| partitions(topic).is_empty())
}

fn check_partition(partition: i32) -> Result<(), Refused> {
    match partition {
        ..0 => Err((ErrorCode::InvalidRequest, NEGATIVE_PARTITION)),
        _ => Ok(()),
    }
}

fn check_exists(topics: &TopicImage, key: &SharePartitionKey) -> Result<(), Refused> {
    match topics.get_by_id(&key.topic_id) {
        Some(topic) if key.partition < topic.partitions => Ok(()),
        _ => Err((ErrorCode::UnknownTopicOrPartition, UNKNOWN_PARTITION)),
    }
}

fn told((error, message): Refused) -> (i16, Option<Str>) {
    (error.code(), Some(Str::from(message)))
}

impl SharePartitions {
    /// InitializeShareGroupState.
    pub fn initialize(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        topics: &TopicImage,
        request: &InitializeShareGroupStateRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut response = initialize::InitializeShareGroupStateResponse::default();
        // Other than its neighbours, Kafka does not mind a topic without partitions here.
        if !request.group_id.is_empty() {
            let mut asked = Vec::new();
            for topic in &request.topics {
                for one in &topic.partitions {
                    let key = key_of(&request.group_id, topic.topic_id, one.partition);
                    let done = self.initialize_one(
                        now_ms,
                        &mut effects,
                        topics,
                        key,
                        one.state_epoch,
                        one.start_offset,
                    );
                    let (error_code, error_message) = done.err().map_or((0, None), told);
                    let answer = initialize::PartitionResult {
                        partition: one.partition,
                        error_code,
                        error_message,
                        ..initialize::PartitionResult::default()
                    };
                    asked.push((topic.topic_id, one.partition, answer));
                }
            }
            response.results =
                Answers::of(asked).into_results(|topic_id, partitions| initialize::InitializeStateResult {
                    topic_id,
                    partitions,
                    ..initialize::InitializeStateResult::default()
                });
        }
        effects.reply(ticket, Reply::InitializeShareGroupState(response));
        effects
    }

    fn initialize_one(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        topics: &TopicImage,
        key: SharePartitionKey,
        state_epoch: i32,
        start_offset: i64,
    ) -> Result<(), Refused> {
        check_partition(key.partition)?;
        let known = self.partitions.get(&key).map(|partition| &partition.stored);
        if let Some(known) = known
            && state_epoch != NO_EPOCH
            && known.state_epoch > state_epoch
        {
            return Err((ErrorCode::FencedStateEpoch, FENCED_STATE_EPOCH));
        }
        check_exists(topics, &key)?;
        if known.is_none() && self.partitions.len() >= MAX_SHARE_PARTITIONS_PER_SHARD
            || key.group.len() > MAX_NAME_BYTES
        {
            return Err((
                ErrorCode::CoordinatorNotAvailable,
                "The coordinator is not available.",
            ));
        }
        let state = StoredState::initialized(known, now_ms, state_epoch, start_offset);
        self.replace(key, state, effects);
        Ok(())
    }

    /// ReadShareGroupState. A reader with a newer leader epoch makes that known.
    pub fn read(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        topics: &TopicImage,
        request: &ReadShareGroupStateRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut response = read::ReadShareGroupStateResponse::default();
        if !asks_nothing(&request.group_id, &request.topics, |topic| &topic.partitions) {
            let mut asked = Vec::new();
            for topic in &request.topics {
                for one in &topic.partitions {
                    let key = key_of(&request.group_id, topic.topic_id, one.partition);
                    let mut answer = self
                        .read_one(now_ms, &mut effects, topics, &key, one.leader_epoch)
                        .unwrap_or_else(|refused| {
                            let (error_code, error_message) = told(refused);
                            read::PartitionResult {
                                error_code,
                                error_message,
                                ..read::PartitionResult::default()
                            }
                        });
                    answer.partition = one.partition;
                    asked.push((topic.topic_id, one.partition, answer));
                }
            }
            response.results =
                Answers::of(asked).into_results(|topic_id, partitions| read::ReadStateResult {
                    topic_id,
                    partitions,
                    ..read::ReadStateResult::default()
                });
        }
        effects.reply(ticket, Reply::ReadShareGroupState(response));
        effects
    }

    fn read_one(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        topics: &TopicImage,
        key: &SharePartitionKey,
        leader_epoch: i32,
    ) -> Result<read::PartitionResult, Refused> {
        check_partition(key.partition)?;
        let partition = self
            .partitions
            .get_mut(key)
            .ok_or((ErrorCode::InvalidRequest, READ_UNINITIALIZED))?;
        let state = &partition.stored;
        if leader_epoch != NO_EPOCH && state.highest_leader_epoch > leader_epoch {
            return Err((ErrorCode::FencedLeaderEpoch, FENCED_LEADER_EPOCH));
        }
        check_exists(topics, key)?;
        let answer = read::PartitionResult {
            state_epoch: state.state_epoch,
            start_offset: state.start_offset,
            state_batches: state
                .batches
                .iter()
                .map(|batch| read::StateBatch {
                    first_offset: batch.first,
                    last_offset: batch.last,
                    delivery_state: batch.state,
                    delivery_count: batch.delivery_count,
                    ..read::StateBatch::default()
                })
                .collect(),
            ..read::PartitionResult::default()
        };
        if leader_epoch != NO_EPOCH && state.highest_leader_epoch != leader_epoch {
            partition.stored = state.with_leader_epoch(now_ms, leader_epoch);
            effects.put(share_state_key(key), partition.stored.encode());
        }
        Ok(answer)
    }

    /// WriteShareGroupState.
    pub fn write(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        topics: &TopicImage,
        request: &WriteShareGroupStateRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut response = write::WriteShareGroupStateResponse::default();
        if !asks_nothing(&request.group_id, &request.topics, |topic| &topic.partitions) {
            let mut asked = Vec::new();
            for topic in &request.topics {
                for one in &topic.partitions {
                    let key = key_of(&request.group_id, topic.topic_id, one.partition);
                    let done = self.write_one(now_ms, &mut effects, topics, key, one);
                    let (error_code, error_message) = done.err().map_or((0, None), told);
                    let answer = write::PartitionResult {
                        partition: one.partition,
                        error_code,
                        error_message,
                        ..write::PartitionResult::default()
                    };
                    asked.push((topic.topic_id, one.partition, answer));
                }
            }
            response.results =
                Answers::of(asked).into_results(|topic_id, partitions| write::WriteStateResult {
                    topic_id,
                    partitions,
                    ..write::WriteStateResult::default()
                });
        }
        effects.reply(ticket, Reply::WriteShareGroupState(response));
        effects
    }

    fn write_one(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        topics: &TopicImage,
        key: SharePartitionKey,
        data: &Write,
    ) -> Result<(), Refused> {
        check_partition(key.partition)?;
        let partition = self
            .partitions
            .get(&key)
            .ok_or((ErrorCode::InvalidRequest, WRITE_UNINITIALIZED))?;
        let known = &partition.stored;
        if data.leader_epoch != NO_EPOCH && known.highest_leader_epoch > data.leader_epoch {
            return Err((ErrorCode::FencedLeaderEpoch, FENCED_LEADER_EPOCH));
        }
        if data.state_epoch != NO_EPOCH && known.state_epoch > data.state_epoch {
            return Err((ErrorCode::FencedStateEpoch, FENCED_STATE_EPOCH));
        }
        check_exists(topics, &key)?;
        let batches: Vec<StateBatch> = data
            .state_batches
            .iter()
            .map(|batch| StateBatch {
                first: batch.first_offset,
                last: batch.last_offset,
                state: batch.delivery_state,
                delivery_count: batch.delivery_count,
            })
            .collect();
        let state = known
            .written(
                now_ms,
                data.start_offset,
                data.delivery_complete_count,
                &batches,
                MAX_STATE_BATCHES_PER_SHARE_PARTITION,
            )
            .ok_or((
                ErrorCode::UnknownServerError,
                "Unable to write share group state: there are too many state batches.",
            ))?;
        self.replace(key, state, effects);
        Ok(())
    }

    /// DeleteShareGroupState. What is not there is deleted already.
    pub fn delete(
        &mut self,
        ticket: Ticket,
        topics: &TopicImage,
        request: &DeleteShareGroupStateRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut response = delete::DeleteShareGroupStateResponse::default();
        if !asks_nothing(&request.group_id, &request.topics, |topic| &topic.partitions) {
            let mut asked = Vec::new();
            for topic in &request.topics {
                for one in &topic.partitions {
                    let key = key_of(&request.group_id, topic.topic_id, one.partition);
                    let allowed = check_partition(key.partition).and_then(|()| check_exists(topics, &key));
                    if allowed.is_ok() {
                        self.forget(&key, &mut effects);
                    }
                    let (error_code, error_message) = allowed.err().map_or((0, None), told);
                    let answer = delete::PartitionResult {
                        partition: one.partition,
                        error_code,
                        error_message,
                        ..delete::PartitionResult::default()
                    };
                    asked.push((topic.topic_id, one.partition, answer));
                }
            }
            response.results =
                Answers::of(asked).into_results(|topic_id, partitions| delete::DeleteStateResult {
                    topic_id,
                    partitions,
                    ..delete::DeleteStateResult::default()
                });
        }
        effects.reply(ticket, Reply::DeleteShareGroupState(response));
        effects
    }

    /// ReadShareGroupStateSummary.
    pub fn read_summary(
        &self,
        ticket: Ticket,
        topics: &TopicImage,
        request: &ReadShareGroupStateSummaryRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut response = summary::ReadShareGroupStateSummaryResponse::default();
        if !asks_nothing(&request.group_id, &request.topics, |topic| &topic.partitions) {
            let asked = request.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|one| {
                    let key = key_of(&request.group_id, topic.topic_id, one.partition);
                    (topic.topic_id, one.partition, self.summary_of(topics, &key))
                })
            });
            response.results =
                Answers::of(asked).into_results(|topic_id, partitions| summary::ReadStateSummaryResult {
                    topic_id,
                    partitions,
                    ..summary::ReadStateSummaryResult::default()
                });
        }
        effects.reply(ticket, Reply::ReadShareGroupStateSummary(response));
        effects
    }

    fn summary_of(&self, topics: &TopicImage, key: &SharePartitionKey) -> summary::PartitionResult {
        let mut answer = summary::PartitionResult {
            partition: key.partition,
            ..summary::PartitionResult::default()
        };
        if let Err(refused) = check_partition(key.partition).and_then(|()| check_exists(topics, key)) {
            (answer.error_code, answer.error_message) = told(refused);
            return answer;
        }
        let known = self.partitions.get(key).map(|partition| &partition.stored);
        answer.state_epoch = known.map_or(0, |state| state.state_epoch);
        answer.leader_epoch = known.map_or(0, |state| state.leader_epoch);
        answer.start_offset = known.map_or(NO_START_OFFSET, |state| state.start_offset);
        answer.delivery_complete_count =
            known.map_or(NO_DELIVERY_COMPLETE_COUNT, |state| state.delivery_complete_count);
        answer
    }

    /// Puts a state in the place of what is stored and of what is in flight.
    fn replace(&mut self, key: SharePartitionKey, state: StoredState, effects: &mut Effects) {
        effects.put(share_state_key(&key), state.encode());
        self.let_go(&key);
        self.partitions.insert(key, SharePartition::stored(state));
    }

    pub(super) fn forget(&mut self, key: &SharePartitionKey, effects: &mut Effects) {
        self.let_go(key);
        if self.partitions.remove(key).is_some() {
            effects.remove(share_state_key(key));
        }
    }
}

fn key_of(group: &Str, topic_id: Uuid, partition: i32) -> SharePartitionKey {
    SharePartitionKey {
        group: group.detached(),
        topic_id,
        partition,
    }
}
