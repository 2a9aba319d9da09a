//! The committed offsets of one group: OffsetCommit, OffsetFetch, OffsetDelete and expiry; in `pending`
//! those that wait for the end of a transaction.

pub(crate) mod pending;

use std::collections::BTreeMap;

use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use milena_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use milena_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use milena_protocol::stored::OffsetCommitValue;
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::facts;
use crate::group::{Group, UnusedSince};
use crate::limits::MAX_NAME_BYTES;
use crate::step::Step;
use crate::{Effects, GroupConfig};

const NO_OFFSET: i64 = -1;
const NO_LEADER_EPOCH: i32 = -1;
/// OffsetCommit's retention time of clients that leave it to the broker.
const DEFAULT_RETENTION_TIME: i64 = -1;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Committed {
    offset: i64,
    leader_epoch: i32,
    metadata: Str,
    commit_timestamp_ms: i64,
    /// Only from clients that set a retention time (OffsetCommit v2 to v4).
    expire_timestamp_ms: Option<i64>,
    /// Zero when the client named the topic instead (before OffsetCommit v10).
    topic_id: Uuid,
}

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    topics: Topics,
    /// By producer id: what is committed when the producer's transaction is.
    pending: BTreeMap<i64, Topics>,
}

type Topics = BTreeMap<Str, BTreeMap<i32, Committed>>;

impl Offsets {
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn load(&mut self, topic: Str, partition: i32, value: OffsetCommitValue) {
        let committed = Committed::from(value);
        self.topics.entry(topic).or_default().insert(partition, committed);
    }

    fn get(&self, topic: &Str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)
    }

    fn remove(&mut self, topic: &Str, partition: i32) -> bool {
        let Some(partitions) = self.topics.get_mut(topic) else {
            return false;
        };
        let removed = partitions.remove(&partition).is_some();
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
        removed
    }

    /// Forgets every offset, and says so in the facts.
    pub(crate) fn clear(&mut self, group: &Str, effects: &mut Effects) {
        for (topic, partitions) in std::mem::take(&mut self.topics) {
            for partition in partitions.into_keys() {
                effects.remove(facts::offset_key(group, &topic, partition));
            }
        }
        self.clear_pending(group, effects);
    }

    /// Forgets the offsets of a topic that is gone.
    pub(crate) fn forget_topic(&mut self, group: &Str, topic: &Str, effects: &mut Effects) {
        for partition in self.topics.remove(topic).unwrap_or_default().into_keys() {
            effects.remove(facts::offset_key(group, topic, partition));
        }
        self.forget_pending_topic(group, topic, effects);
    }
}

impl Group {
    pub(crate) fn commit_offsets(
        &mut self,
        step: &mut Step<'_>,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        if let Err(error) = self.validate_offset_commit(step.topics, version, request) {
            return commit_error(request, error);
        }
        self.keep_alive(step, &request.member_id);
        let retention = request.retention_time_ms;
        let expire_timestamp_ms =
            (retention != DEFAULT_RETENTION_TIME).then(|| step.now_ms.saturating_add(retention));
        let mut response = OffsetCommitResponse::default();
        for topic in &request.topics {
            let mut answered = commit_response_topic(topic);
            for partition in &topic.partitions {
                let error = self.commit_offset(step, topic, partition, expire_timestamp_ms);
                answered
                    .partitions
                    .push(commit_response_partition(partition, error));
            }
            response.topics.push(answered);
        }
        response
    }

    fn commit_offset(
        &mut self,
        step: &mut Step<'_>,
        topic: &OffsetCommitRequestTopic,
        partition: &OffsetCommitRequestPartition,
        expire_timestamp_ms: Option<i64>,
    ) -> ErrorCode {
        let metadata = partition.committed_metadata.clone().unwrap_or_default();
        if is_too_large(&metadata, step.config) {
            return ErrorCode::OffsetMetadataTooLarge;
        }
        let committed = Committed {
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: metadata.detached(),
            commit_timestamp_ms: self.offsets.after_pending_ms(
                step.now_ms,
                None,
                &topic.name,
                partition.partition_index,
            ),
            expire_timestamp_ms,
            topic_id: topic.topic_id,
        };
        let key = facts::offset_key(&self.id, &topic.name, partition.partition_index);
        step.effects.put(key, facts::encode_offset(&committed.stored()));
        insert(
            &mut self.offsets.topics,
            &topic.name,
            partition.partition_index,
            committed,
        );
        ErrorCode::None
    }

    pub(crate) fn delete_offsets(
        &mut self,
        effects: &mut Effects,
        request: &OffsetDeleteRequest,
    ) -> OffsetDeleteResponse {
        let mut response = OffsetDeleteResponse::default();
        if let Err(error) = self.validate_offset_delete() {
            response.error_code = error.code();
            return response;
        }
        for topic in &request.topics {
            let subscribed = self.is_subscribed_to(&topic.name);
            let mut answered = OffsetDeleteResponseTopic {
                name: topic.name.clone(),
                ..OffsetDeleteResponseTopic::default()
            };
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let mut result = OffsetDeleteResponsePartition {
                    partition_index: index,
                    ..OffsetDeleteResponsePartition::default()
                };
                if subscribed {
                    result.error_code = ErrorCode::GroupSubscribedToTopic.code();
                } else {
                    if self.offsets.remove(&topic.name, index) {
                        effects.remove(facts::offset_key(&self.id, &topic.name, index));
                    }
                    // What a transaction has pending goes as well; its commit does not bring it back.
                    self.offsets.forget_pending(&self.id, &topic.name, index, effects);
                }
                answered.partitions.push(result);
            }
            response.topics.push(answered);
        }
        response
    }

    /// Forgets the offsets whose time has passed (KIP-211); true if none is left.
    pub(crate) fn expire_offsets(&mut self, step: &mut Step<'_>) -> bool {
        if self.offsets.is_empty() {
            return true;
        }
        if self.offsets.has_pending() {
            // A group is in use as long as a transaction may commit offsets to it.
            return false;
        }
        let unused_since = self.offsets_unused_since();
        if unused_since == UnusedSince::InUse {
            return false;
        }
        let mut expired = Vec::new();
        for (topic, partitions) in &self.offsets.topics {
            if self.is_subscribed_to(topic) {
                continue;
            }
            for (partition, committed) in partitions {
                let unused_since_ms = match unused_since {
                    UnusedSince::Time(time_ms) => time_ms,
                    _ => committed.commit_timestamp_ms,
                };
                if committed.is_expired(unused_since_ms, step.now_ms, step.config.offsets_retention_ms) {
                    expired.push((topic.clone(), *partition));
                }
            }
        }
        for (topic, partition) in expired {
            self.offsets.remove(&topic, partition);
            step.effects
                .remove(facts::offset_key(&self.id, &topic, partition));
        }
        self.offsets.is_empty()
    }
}

fn insert(topics: &mut Topics, topic: &Str, partition: i32, committed: Committed) {
    match topics.get_mut(topic) {
        Some(partitions) => {
            partitions.insert(partition, committed);
        }
        None => {
            topics.insert(topic.detached(), BTreeMap::from([(partition, committed)]));
        }
    }
}

impl From<OffsetCommitValue> for Committed {
    fn from(value: OffsetCommitValue) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: Some(value.expire_timestamp).filter(|at| *at != -1),
            topic_id: value.topic_id,
        }
    }
}

impl Committed {
    fn is_expired(&self, unused_since_ms: i64, now_ms: i64, retention_ms: i64) -> bool {
        match self.expire_timestamp_ms {
            Some(at) => now_ms >= at,
            None => now_ms.saturating_sub(unused_since_ms) >= retention_ms,
        }
    }

    fn stored(&self) -> OffsetCommitValue {
        OffsetCommitValue {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            commit_timestamp: self.commit_timestamp_ms,
            expire_timestamp: self.expire_timestamp_ms.unwrap_or(-1),
            topic_id: self.topic_id,
            ..OffsetCommitValue::default()
        }
    }
}

/// Kafka counts the characters of a Java string: UTF-16 units.
fn is_too_large(metadata: &Str, config: &GroupConfig) -> bool {
    let limit = usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0);
    metadata.len() > MAX_NAME_BYTES || (metadata.len() > limit && metadata.encode_utf16().count() > limit)
}

/// The same error for every partition of a commit.
pub(crate) fn commit_error(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    let mut response = OffsetCommitResponse::default();
    for topic in &request.topics {
        let mut answered = commit_response_topic(topic);
        answered.partitions = topic
            .partitions
            .iter()
            .map(|partition| commit_response_partition(partition, error))
            .collect();
        response.topics.push(answered);
    }
    response
}

fn commit_response_topic(topic: &OffsetCommitRequestTopic) -> OffsetCommitResponseTopic {
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        ..OffsetCommitResponseTopic::default()
    }
}

fn commit_response_partition(
    partition: &OffsetCommitRequestPartition,
    error: ErrorCode,
) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: error.code(),
        ..OffsetCommitResponsePartition::default()
    }
}

/// What a group has committed, for the partitions asked for or (no topics given) for all. A group
/// that does not exist has committed nothing; that is no error.
pub(crate) fn fetch(
    offsets: Option<&Offsets>,
    request: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let is_unstable = |topic: &Str, partition: i32| {
        require_stable && offsets.is_some_and(|offsets| offsets.is_pending(topic, partition))
    };
    let mut response = OffsetFetchResponseGroup {
        group_id: request.group_id.clone(),
        ..OffsetFetchResponseGroup::default()
    };
    match &request.topics {
        None => {
            for (name, partitions) in offsets.iter().flat_map(|offsets| &offsets.topics) {
                let topic = OffsetFetchResponseTopics {
                    name: name.clone(),
                    partitions: partitions
                        .iter()
                        .map(|(index, committed)| match is_unstable(name, *index) {
                            true => unstable(*index),
                            false => fetched(*index, Some(committed)),
                        })
                        .collect(),
                    ..OffsetFetchResponseTopics::default()
                };
                response.topics.push(topic);
            }
        }
        Some(topics) => {
            for asked in topics {
                let mut topic = OffsetFetchResponseTopics {
                    name: asked.name.clone(),
                    topic_id: asked.topic_id,
                    ..OffsetFetchResponseTopics::default()
                };
                for index in &asked.partition_indexes {
                    if is_unstable(&asked.name, *index) {
                        topic.partitions.push(unstable(*index));
                        continue;
                    }
                    let committed = offsets.and_then(|offsets| offsets.get(&asked.name, *index));
                    // An offset of a topic that was deleted since is none of its namesake's.
                    let committed = committed.filter(|one| !differ(one.topic_id, asked.topic_id));
                    topic.partitions.push(fetched(*index, committed));
                }
                response.topics.push(topic);
            }
        }
    }
    response
}

fn differ(committed: Uuid, asked: Uuid) -> bool {
    committed != Uuid::ZERO && asked != Uuid::ZERO && committed != asked
}

fn unstable(index: i32) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        error_code: ErrorCode::UnstableOffsetCommit.code(),
        ..fetched(index, None)
    }
}

fn fetched(index: i32, committed: Option<&Committed>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: committed.map_or(NO_OFFSET, |one| one.offset),
        committed_leader_epoch: committed.map_or(NO_LEADER_EPOCH, |one| one.leader_epoch),
        metadata: Some(committed.map(|one| one.metadata.clone()).unwrap_or_default()),
        ..OffsetFetchResponsePartitions::default()
    }
}
