//! What is stored of a consumer group, in Kafka's formats; the keys are in [`crate::facts`].

use bytes::Bytes;
use milena_protocol::Str;
use milena_protocol::stored::consumer_group_target_assignment_member_value::TopicPartition as StoredTarget;
use milena_protocol::stored::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataValue,
    ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataValue,
};

use super::member::Member;
use super::{ConsumerGroup, Resolved};
use crate::Effects;
use crate::facts::{self, LoadError, Part, PartsOf};
use crate::modern::TopicPartitions;

/// The only version of each of the values.
const VERSION: i16 = 0;

impl ConsumerGroup {
    /// Takes one of the stored facts, in any order. [`Self::loaded`] must follow the last.
    pub(crate) fn load(&mut self, part: Part, key: &Bytes, value: &Bytes) -> Result<(), LoadError> {
        match part {
            Part::Group => {
                let value: ConsumerGroupMetadataValue = facts::decode(key, value)?;
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            Part::Assignment => {
                let value: ConsumerGroupTargetAssignmentMetadataValue = facts::decode(key, value)?;
                self.assignment_epoch = value.assignment_epoch;
                self.assigned_at_ms = value.assignment_timestamp;
            }
            Part::Member(id) => {
                let value: ConsumerGroupMemberMetadataValue = facts::decode(key, value)?;
                self.member_to_load(id).load_metadata(value);
            }
            Part::Current(id) => {
                let value: ConsumerGroupCurrentMemberAssignmentValue = facts::decode(key, value)?;
                self.member_to_load(id).load_current(value);
            }
            Part::Target(id) => {
                let value: ConsumerGroupTargetAssignmentMemberValue = facts::decode(key, value)?;
                let topics = value.topic_partitions.into_iter();
                let target = topics.map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()));
                self.target.insert(id, target.collect());
            }
            Part::Regex(pattern) => {
                let value: ConsumerGroupRegularExpressionValue = facts::decode(key, value)?;
                let resolved = Resolved {
                    topics: value.topics.into_iter().collect(),
                    image_version: 0,
                };
                self.regexes.insert(pattern, resolved);
            }
            Part::Topology | Part::States => return Err(LoadError::UnknownKey(key.clone())),
        }
        Ok(())
    }

    fn member_to_load(&mut self, id: Str) -> &mut Member {
        self.members.entry(id.clone()).or_insert_with(|| Member::new(id))
    }

    /// Everything stored has been taken.
    pub(crate) fn loaded(&mut self) {
        for member in std::mem::take(&mut self.members).into_values() {
            self.put_member(member);
        }
    }

    pub(super) fn store_group(&self, effects: &mut Effects) {
        let value = ConsumerGroupMetadataValue {
            epoch: self.epoch,
            metadata_hash: self.metadata_hash,
            ..ConsumerGroupMetadataValue::default()
        };
        effects.put(self.key(&Part::Group), facts::encode(&value, VERSION));
    }

    pub(super) fn store_assignment(&self, effects: &mut Effects) {
        let value = ConsumerGroupTargetAssignmentMetadataValue {
            assignment_epoch: self.assignment_epoch,
            assignment_timestamp: self.assigned_at_ms,
            ..ConsumerGroupTargetAssignmentMetadataValue::default()
        };
        effects.put(self.key(&Part::Assignment), facts::encode(&value, VERSION));
    }

    pub(super) fn store_member(&self, effects: &mut Effects, member: &Member) {
        let key = self.key(&Part::Member(member.id.clone()));
        effects.put(key, facts::encode(&member.metadata(), VERSION));
    }

    pub(super) fn store_current(&self, effects: &mut Effects, member: &Member) {
        let key = self.key(&Part::Current(member.id.clone()));
        effects.put(key, facts::encode(&member.current(), VERSION));
    }

    pub(super) fn store_target(&self, effects: &mut Effects, member_id: &Str, target: &TopicPartitions) {
        let topics = target.iter().map(|(topic, partitions)| StoredTarget {
            topic_id: *topic,
            partitions: partitions.iter().copied().collect(),
            ..StoredTarget::default()
        });
        let value = ConsumerGroupTargetAssignmentMemberValue {
            topic_partitions: topics.collect(),
            ..ConsumerGroupTargetAssignmentMemberValue::default()
        };
        let key = self.key(&Part::Target(member_id.clone()));
        effects.put(key, facts::encode(&value, VERSION));
    }

    pub(super) fn store_regex(&self, effects: &mut Effects, pattern: &Str, resolved: &Resolved, now_ms: i64) {
        let value = ConsumerGroupRegularExpressionValue {
            topics: resolved.topics.iter().cloned().collect(),
            version: i64::try_from(resolved.image_version).unwrap_or(i64::MAX),
            timestamp: now_ms,
            ..ConsumerGroupRegularExpressionValue::default()
        };
        let key = self.key(&Part::Regex(pattern.clone()));
        effects.put(key, facts::encode(&value, VERSION));
    }

    pub(super) fn forget_member(&self, effects: &mut Effects, member_id: &Str) {
        effects.remove(self.key(&Part::Current(member_id.clone())));
        effects.remove(self.key(&Part::Target(member_id.clone())));
        effects.remove(self.key(&Part::Member(member_id.clone())));
    }

    pub(super) fn forget_regex(&self, effects: &mut Effects, pattern: &Str) {
        effects.remove(self.key(&Part::Regex(pattern.clone())));
    }

    /// Removes everything that is stored.
    pub(crate) fn forget(&self, effects: &mut Effects) {
        for member in self.members.keys() {
            self.forget_member(effects, member);
        }
        for pattern in self.regexes.keys() {
            self.forget_regex(effects, pattern);
        }
        effects.remove(self.key(&Part::Assignment));
        effects.remove(self.key(&Part::Group));
    }

    fn key(&self, part: &Part) -> Bytes {
        facts::part_key(PartsOf::Consumer, &self.id, part)
    }
}
