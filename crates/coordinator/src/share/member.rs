//! One member of a share group, and its stored forms.

use std::collections::BTreeSet;

use milena_protocol::Str;
use milena_protocol::stored::share_group_current_member_assignment_value::TopicPartitions as StoredPartitions;
use milena_protocol::stored::{ShareGroupCurrentMemberAssignmentValue, ShareGroupMemberMetadataValue};

use crate::modern::TopicPartitions;

/// The only state that a member of a share group is stored in: nobody waits for what another has.
const STABLE: i8 = 0;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Member {
    pub(crate) id: Str,
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) topics: BTreeSet<Str>,
    pub(crate) assigned: TopicPartitions,
}

impl Member {
    pub(crate) fn new(id: Str) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    /// What the names of its topics take in memory, so that many small ones count too.
    pub(super) fn said_bytes(&self) -> usize {
        self.topics.iter().map(|name| size_of::<Str>() + name.len()).sum()
    }

    /// What the member said of itself, which is stored apart from what it was given.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.rack_id == other.rack_id
            && self.client_id == other.client_id
            && self.client_host == other.client_host
            && self.topics == other.topics
    }

    pub(super) fn metadata(&self) -> ShareGroupMemberMetadataValue {
        ShareGroupMemberMetadataValue {
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.topics.iter().cloned().collect(),
            ..ShareGroupMemberMetadataValue::default()
        }
    }

    pub(super) fn load_metadata(&mut self, value: ShareGroupMemberMetadataValue) {
        self.rack_id = value.rack_id;
        self.client_id = value.client_id;
        self.client_host = value.client_host;
        self.topics = value.subscribed_topic_names.into_iter().collect();
    }

    pub(super) fn current(&self) -> ShareGroupCurrentMemberAssignmentValue {
        let assigned = self.assigned.iter().map(|(topic, partitions)| StoredPartitions {
            topic_id: *topic,
            partitions: partitions.iter().copied().collect(),
            ..StoredPartitions::default()
        });
        ShareGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: STABLE,
            assigned_partitions: assigned.collect(),
            ..ShareGroupCurrentMemberAssignmentValue::default()
        }
    }

    pub(super) fn load_current(&mut self, value: ShareGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        let assigned = value.assigned_partitions.into_iter();
        self.assigned = assigned
            .map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()))
            .collect();
    }
}
