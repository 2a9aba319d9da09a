//! What is stored of a share group, in Kafka's formats; the keys are in [`crate::facts`].

use bytes::Bytes;
use milena_protocol::Str;
use milena_protocol::stored::share_group_target_assignment_member_value::TopicPartition as StoredTarget;
use milena_protocol::stored::{
    ShareGroupCurrentMemberAssignmentValue, ShareGroupMemberMetadataValue, ShareGroupMetadataValue,
    ShareGroupStatePartitionMetadataValue, ShareGroupTargetAssignmentMemberValue,
    ShareGroupTargetAssignmentMetadataValue,
};

use super::ShareGroup;
use super::member::Member;
use super::state_partitions::StatePartitions;
use crate::Effects;
use crate::facts::{self, LoadError, Part, PartsOf};
use crate::modern::TopicPartitions;

/// The only version of each of the values.
const VERSION: i16 = 0;

impl ShareGroup {
    /// Takes one of the stored facts, in any order. [`Self::loaded`] must follow the last.
    pub(crate) fn load(&mut self, part: Part, key: &Bytes, value: &Bytes) -> Result<(), LoadError> {
        match part {
            Part::Group => {
                let value: ShareGroupMetadataValue = facts::decode(key, value)?;
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            Part::Assignment => {
                let value: ShareGroupTargetAssignmentMetadataValue = facts::decode(key, value)?;
                self.assignment_epoch = value.assignment_epoch;
                self.assigned_at_ms = value.assignment_timestamp;
            }
            Part::States => {
                let value: ShareGroupStatePartitionMetadataValue = facts::decode(key, value)?;
                self.states = StatePartitions::load(value);
            }
            Part::Member(id) => {
                let value: ShareGroupMemberMetadataValue = facts::decode(key, value)?;
                self.member_to_load(id).load_metadata(value);
            }
            Part::Current(id) => {
                let value: ShareGroupCurrentMemberAssignmentValue = facts::decode(key, value)?;
                self.member_to_load(id).load_current(value);
            }
            Part::Target(id) => {
                let value: ShareGroupTargetAssignmentMemberValue = facts::decode(key, value)?;
                let topics = value.topic_partitions.into_iter();
                let target = topics.map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()));
                self.target.insert(id, target.collect());
            }
            Part::Topology | Part::Regex(_) => return Err(LoadError::UnknownKey(key.clone())),
        }
        Ok(())
    }

    fn member_to_load(&mut self, id: Str) -> &mut Member {
        self.members.entry(id.clone()).or_insert_with(|| Member::new(id))
    }

    /// Everything stored has been taken.
    pub(crate) fn loaded(&mut self) {
        self.said_bytes = self.members.values().map(Member::said_bytes).sum();
    }

    pub(super) fn store_group(&self, effects: &mut Effects) {
        let value = ShareGroupMetadataValue {
            epoch: self.epoch,
            metadata_hash: self.metadata_hash,
            ..ShareGroupMetadataValue::default()
        };
        effects.put(self.key(&Part::Group), facts::encode(&value, VERSION));
    }

    pub(super) fn store_assignment(&self, effects: &mut Effects) {
        let value = ShareGroupTargetAssignmentMetadataValue {
            assignment_epoch: self.assignment_epoch,
            assignment_timestamp: self.assigned_at_ms,
            ..ShareGroupTargetAssignmentMetadataValue::default()
        };
        effects.put(self.key(&Part::Assignment), facts::encode(&value, VERSION));
    }

    pub(super) fn store_states(&self, effects: &mut Effects) {
        effects.put(
            self.key(&Part::States),
            facts::encode(&self.states.stored(), VERSION),
        );
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
        let value = ShareGroupTargetAssignmentMemberValue {
            topic_partitions: topics.collect(),
            ..ShareGroupTargetAssignmentMemberValue::default()
        };
        let key = self.key(&Part::Target(member_id.clone()));
        effects.put(key, facts::encode(&value, VERSION));
    }

    pub(super) fn forget_member(&self, effects: &mut Effects, member_id: &Str) {
        effects.remove(self.key(&Part::Current(member_id.clone())));
        effects.remove(self.key(&Part::Target(member_id.clone())));
        effects.remove(self.key(&Part::Member(member_id.clone())));
    }

    /// Removes everything that is stored of the group, whose members have gone.
    pub(crate) fn forget(&self, effects: &mut Effects) {
        for member in self.members.keys() {
            self.forget_member(effects, member);
        }
        effects.remove(self.key(&Part::Assignment));
        effects.remove(self.key(&Part::States));
        effects.remove(self.key(&Part::Group));
    }

    fn key(&self, part: &Part) -> Bytes {
        facts::part_key(PartsOf::Share, &self.id, part)
    }
}
