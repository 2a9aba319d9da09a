//! One member of a consumer group, and its stored forms.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::stored::consumer_group_current_member_assignment_value::TopicPartitions as StoredPartitions;
use milena_protocol::stored::consumer_group_member_metadata_value::{ClassicMemberMetadata, ClassicProtocol};
use milena_protocol::stored::{ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue};
use milena_protocol::{Str, Uuid};

use crate::classic::Protocol;

/// Partitions by topic, each with the member epoch in which it was assigned (KIP-1251).
pub(crate) type Assigned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Where a member is on its way to the target. The numbers are those that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MemberState {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable = 0,
    /// It was told to give up partitions and has not said that it has.
    UnrevokedPartitions = 1,
    /// It waits for partitions that others have.
    UnreleasedPartitions = 2,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Member {
    pub(crate) id: Str,
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) topics: BTreeSet<Str>,
    pub(crate) regex: Option<Str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) assignor: Option<Str>,
    pub(crate) assigned: Assigned,
    pub(crate) revoking: Assigned,
    /// Of a member that uses the classic protocol.
    pub(crate) classic: Option<Classic>,
}

/// What a member said by JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Classic {
    pub(crate) session_timeout_ms: i32,
    /// In the member's order of preference; not empty.
    pub(crate) protocols: Vec<Protocol>,
}

impl Member {
    pub(crate) fn new(id: Str) -> Self {
        Self {
            id,
            rebalance_timeout_ms: -1,
            ..Self::default()
        }
    }

    /// Goes to an epoch; the one before it is still accepted from the member, whose reply may be lost.
    pub(super) fn reach(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    pub(crate) fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == assignment_epoch
    }

    /// A pattern that is empty subscribes to nothing.
    pub(super) fn pattern(&self) -> Option<&Str> {
        self.regex.as_ref().filter(|regex| !regex.is_empty())
    }

    /// What the names of its topics and its protocols take in memory, so that many small ones count too.
    pub(super) fn said_bytes(&self) -> usize {
        let names: usize = self.topics.iter().map(|name| size_of::<Str>() + name.len()).sum();
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        names + protocols.map(Protocol::size_bytes).sum::<usize>()
    }

    /// What the member said of itself, which is stored apart from what it was given.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.instance_id == other.instance_id
            && self.rack_id == other.rack_id
            && self.client_id == other.client_id
            && self.client_host == other.client_host
            && self.topics == other.topics
            && self.regex == other.regex
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.assignor == other.assignor
            && self.classic == other.classic
    }

    pub(super) fn metadata(&self) -> ConsumerGroupMemberMetadataValue {
        ConsumerGroupMemberMetadataValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.topics.iter().cloned().collect(),
            subscribed_topic_regex: self.regex.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            server_assignor: self.assignor.clone(),
            classic_member_metadata: self.classic.as_ref().map(Classic::stored),
            ..ConsumerGroupMemberMetadataValue::default()
        }
    }

    pub(super) fn load_metadata(&mut self, value: ConsumerGroupMemberMetadataValue) {
        self.instance_id = value.instance_id;
        self.rack_id = value.rack_id;
        self.client_id = value.client_id;
        self.client_host = value.client_host;
        self.topics = value.subscribed_topic_names.into_iter().collect();
        self.regex = value.subscribed_topic_regex;
        self.rebalance_timeout_ms = value.rebalance_timeout_ms;
        self.assignor = value.server_assignor;
        self.classic = value.classic_member_metadata.map(Classic::load);
    }

    pub(super) fn current(&self) -> ConsumerGroupCurrentMemberAssignmentValue {
        ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state as i8,
            assigned_partitions: stored(&self.assigned),
            partitions_pending_revocation: stored(&self.revoking),
            ..ConsumerGroupCurrentMemberAssignmentValue::default()
        }
    }

    pub(super) fn load_current(&mut self, value: ConsumerGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = match value.state {
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Stable,
        };
        self.assigned = loaded(value.assigned_partitions, self.epoch);
        self.revoking = loaded(value.partitions_pending_revocation, self.epoch);
    }
}

impl Classic {
    fn stored(&self) -> ClassicMemberMetadata {
        let protocols = self.protocols.iter().map(|protocol| ClassicProtocol {
            name: protocol.name.clone(),
            metadata: protocol.metadata.clone(),
            ..ClassicProtocol::default()
        });
        ClassicMemberMetadata {
            session_timeout_ms: self.session_timeout_ms,
            supported_protocols: protocols.collect(),
            ..ClassicMemberMetadata::default()
        }
    }

    fn load(stored: ClassicMemberMetadata) -> Self {
        let protocols = stored.supported_protocols.into_iter().map(|protocol| Protocol {
            name: protocol.name,
            metadata: protocol.metadata,
        });
        Self {
            session_timeout_ms: stored.session_timeout_ms,
            protocols: protocols.collect(),
        }
    }
}

fn stored(assigned: &Assigned) -> Vec<StoredPartitions> {
    let topic = |(topic, partitions): (&Uuid, &BTreeMap<i32, i32>)| StoredPartitions {
        topic_id: *topic,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..StoredPartitions::default()
    };
    assigned.iter().map(topic).collect()
}

fn loaded(stored: Vec<StoredPartitions>, epoch: i32) -> Assigned {
    let topic = |topic: StoredPartitions| {
        let epochs = topic.assignment_epochs.unwrap_or_default();
        let since = |index: usize| epochs.get(index).copied().unwrap_or(epoch);
        let partitions = topic.partitions.into_iter().enumerate();
        let partitions = partitions
            .map(|(index, partition)| (partition, since(index)))
            .collect();
        (topic.topic_id, partitions)
    };
    stored.into_iter().map(topic).collect()
}
