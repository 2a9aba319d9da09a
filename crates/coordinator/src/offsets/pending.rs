//! Offsets that are part of a transaction (KIP-98, KIP-447): TxnOffsetCommit, and the transaction's end.
//!
//! They are facts of the group from the moment they are answered, and take effect in one batch with
//! the removal of what was pending. The newest wins, as in Kafka: what a transaction commits counts for
//! nothing where a plain commit or another transaction's offset came after it; until the transaction ends, the
//! partition is unstable all the same. A clock that is set back changes nothing of that.

use milena_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use milena_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use milena_protocol::stored::OffsetCommitValue;
use milena_protocol::{ErrorCode, Str, Uuid};

use super::{Committed, Offsets, insert, is_too_large};
use crate::Effects;
use crate::facts;
use crate::group::Group;
use crate::limits::MAX_PENDING_PRODUCERS_PER_GROUP;
use crate::step::Step;

impl Offsets {
    pub(crate) fn load_pending(
        &mut self,
        producer_id: i64,
        topic: Str,
        partition: i32,
        value: OffsetCommitValue,
    ) {
        let topics = self.pending.entry(producer_id).or_default();
        topics
            .entry(topic)
            .or_default()
            .insert(partition, Committed::from(value));
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_pending(&self, topic: &Str, partition: i32) -> bool {
        let has =
            |partitions: &std::collections::BTreeMap<i32, Committed>| partitions.contains_key(&partition);
        self.pending
            .values()
            .any(|topics| topics.get(topic).is_some_and(has))
    }

    /// Forgets what is pending for which `is_gone` holds.
    fn drop_pending(&mut self, group: &Str, effects: &mut Effects, is_gone: impl Fn(&Str, i32) -> bool) {
        self.pending.retain(|producer_id, topics| {
            topics.retain(|topic, partitions| {
                partitions.retain(|partition, _| {
                    let gone = is_gone(topic, *partition);
                    if gone {
                        effects.remove(facts::pending_key(group, *producer_id, topic, *partition));
                    }
                    !gone
                });
                !partitions.is_empty()
            });
            !topics.is_empty()
        });
    }

    /// A time for an offset that is given now: later than what other producers have pending for the
    /// partition, so that the newest is known by it.
    pub(super) fn after_pending_ms(
        &self,
        now_ms: i64,
        producer_id: Option<i64>,
        topic: &Str,
        partition: i32,
    ) -> i64 {
        self.pending
            .iter()
            .filter(|(other, _)| Some(**other) != producer_id)
            .filter_map(|(_, topics)| topics.get(topic)?.get(&partition))
            .map(|other| other.commit_timestamp_ms.saturating_add(1))
            .fold(now_ms, i64::max)
    }

    /// The same for an offset that becomes pending: later than what is committed, too.
    fn pending_timestamp_ms(&self, now_ms: i64, producer_id: i64, topic: &Str, partition: i32) -> i64 {
        let committed = self.get(topic, partition);
        let least_ms = committed.map_or(now_ms, |committed| {
            committed.commit_timestamp_ms.saturating_add(1)
        });
        self.after_pending_ms(now_ms.max(least_ms), Some(producer_id), topic, partition)
    }

    pub(super) fn clear_pending(&mut self, group: &Str, effects: &mut Effects) {
        self.drop_pending(group, effects, |_, _| true);
    }

    pub(super) fn forget_pending_topic(&mut self, group: &Str, topic: &Str, effects: &mut Effects) {
        self.drop_pending(group, effects, |pending, _| pending == topic);
    }

    pub(super) fn forget_pending(&mut self, group: &Str, topic: &Str, partition: i32, effects: &mut Effects) {
        if self.is_pending(topic, partition) {
            self.drop_pending(group, effects, |pending, at| pending == topic && at == partition);
        }
    }
}

impl Group {
    pub(crate) fn commit_transactional_offsets(
        &mut self,
        step: &mut Step<'_>,
        request: &TxnOffsetCommitRequest,
    ) -> TxnOffsetCommitResponse {
        let is_new = !self.offsets.pending.contains_key(&request.producer_id);
        if is_new && self.offsets.pending.len() >= MAX_PENDING_PRODUCERS_PER_GROUP {
            return refuse(request, ErrorCode::CoordinatorNotAvailable);
        }
        if let Err(error) = self.validate_transactional_commit(step.topics, request) {
            return refuse(request, error);
        }
        let mut response = refuse(request, ErrorCode::None);
        for (topic, answered) in request.topics.iter().zip(&mut response.topics) {
            for (partition, answered) in topic.partitions.iter().zip(&mut answered.partitions) {
                let metadata = partition.committed_metadata.clone().unwrap_or_default();
                if is_too_large(&metadata, step.config) {
                    answered.error_code = ErrorCode::OffsetMetadataTooLarge.code();
                    continue;
                }
                let index = partition.partition_index;
                let committed = Committed {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: metadata.detached(),
                    commit_timestamp_ms: self.offsets.pending_timestamp_ms(
                        step.now_ms,
                        request.producer_id,
                        &topic.name,
                        index,
                    ),
                    expire_timestamp_ms: None,
                    topic_id: Uuid::ZERO,
                };
                let key = facts::pending_key(&self.id, request.producer_id, &topic.name, index);
                step.effects.put(key, facts::encode_offset(&committed.stored()));
                let topics = self.offsets.pending.entry(request.producer_id).or_default();
                insert(topics, &topic.name, index, committed);
            }
        }
        response
    }

    pub(crate) fn end_transaction(&mut self, effects: &mut Effects, producer_id: i64, commit: bool) {
        for (topic, partitions) in self.offsets.pending.remove(&producer_id).unwrap_or_default() {
            for (partition, committed) in partitions {
                effects.remove(facts::pending_key(&self.id, producer_id, &topic, partition));
                if !commit {
                    continue;
                }
                let is_newer =
                    |existing: &Committed| existing.commit_timestamp_ms > committed.commit_timestamp_ms;
                if self.offsets.get(&topic, partition).is_some_and(is_newer) {
                    continue;
                }
                let key = facts::offset_key(&self.id, &topic, partition);
                effects.put(key, facts::encode_offset(&committed.stored()));
                insert(&mut self.offsets.topics, &topic, partition, committed);
            }
        }
    }
}

/// The same error for every partition.
pub(crate) fn refuse(request: &TxnOffsetCommitRequest, error: ErrorCode) -> TxnOffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.code(),
                ..TxnOffsetCommitResponsePartition::default()
            })
            .collect(),
        ..TxnOffsetCommitResponseTopic::default()
    });
    TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..TxnOffsetCommitResponse::default()
    }
}
