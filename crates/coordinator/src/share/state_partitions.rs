//! The partitions of a share group that have a state, or are about to: ShareGroupStatePartitionMetadata.
//!
//! A state is *initializing* from the moment that the broker is told to initialize it until it says that it has;
//! *initialized* partitions may be assigned; of *deleting* topics the states are being removed, or could not be. What is
//! here is bounded by the topics that there are: those that are gone are forgotten ([`StatePartitions::keep`]).

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::stored::ShareGroupStatePartitionMetadataValue;
use milena_protocol::stored::share_group_state_partition_metadata_value::{TopicInfo, TopicPartitionsInfo};
use milena_protocol::{Str, Uuid};

use crate::modern::TopicPartitions;

/// Partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OfTopic {
    pub(super) name: Str,
    pub(super) partitions: BTreeSet<i32>,
    /// When it was last added to. Not stored: a restart asks again at once, which does no harm.
    pub(super) since_ms: i64,
}

type Topics = BTreeMap<Uuid, OfTopic>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct StatePartitions {
    pub(super) initializing: Topics,
    pub(super) initialized: Topics,
    /// With the topics' names.
    pub(super) deleting: BTreeMap<Uuid, Str>,
    /// There was something here once.
    is_used: bool,
}

impl StatePartitions {
    /// Whether the group has, or ever had, a state.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Notes that states are being initialized; a topic is deleted no longer then.
    pub(super) fn begin(&mut self, topic: Uuid, new: OfTopic) {
        self.is_used = true;
        self.deleting.remove(&topic);
        add(&mut self.initializing, topic, new);
    }

    /// The states are there.
    pub(super) fn finish(&mut self, topic: Uuid, new: OfTopic) {
        self.is_used = true;
        subtract(&mut self.initializing, topic, &new.partitions);
        add(&mut self.initialized, topic, new);
    }

    /// They could not be initialized: the next heartbeat tries again.
    pub(super) fn fail(&mut self, topic: Uuid, partitions: &BTreeSet<i32>) {
        subtract(&mut self.initializing, topic, partitions);
    }

    /// Partitions that need no initialization: they have been, or it was asked for less than `retry_ms` ago.
    pub(super) fn known(&self, topic: &Uuid, now_ms: i64, retry_ms: i64) -> BTreeSet<i32> {
        let initialized = self.initialized.get(topic);
        // The clock may have gone back; the group must not wait for it.
        let recent = self.initializing.get(topic).filter(|of_topic| {
            (of_topic.since_ms..of_topic.since_ms.saturating_add(retry_ms)).contains(&now_ms)
        });
        let topics = initialized.into_iter().chain(recent);
        topics
            .flat_map(|of_topic| &of_topic.partitions)
            .copied()
            .collect()
    }

    pub(super) fn initialized_partitions(&self) -> TopicPartitions {
        let topics = self.initialized.iter();
        topics
            .map(|(topic, of_topic)| (*topic, of_topic.partitions.clone()))
            .collect()
    }

    /// Forgets the topics that are no more; tells whether there were any.
    pub(super) fn keep(&mut self, exists: impl Fn(&Uuid) -> bool) -> bool {
        let count =
            |states: &Self| states.initializing.len() + states.initialized.len() + states.deleting.len();
        let before = count(self);
        self.initializing.retain(|topic, _| exists(topic));
        self.initialized.retain(|topic, _| exists(topic));
        self.deleting.retain(|topic, _| exists(topic));
        count(self) < before
    }

    pub(super) fn stored(&self) -> ShareGroupStatePartitionMetadataValue {
        let topics = |topics: &Topics| {
            topics
                .iter()
                .map(|(topic, of_topic)| TopicPartitionsInfo {
                    topic_id: *topic,
                    topic_name: of_topic.name.clone(),
                    partitions: of_topic.partitions.iter().copied().collect(),
                    ..TopicPartitionsInfo::default()
                })
                .collect()
        };
        let deleting = self.deleting.iter().map(|(topic, name)| TopicInfo {
            topic_id: *topic,
            topic_name: name.clone(),
            ..TopicInfo::default()
        });
        ShareGroupStatePartitionMetadataValue {
            initializing_topics: topics(&self.initializing),
            initialized_topics: topics(&self.initialized),
            deleting_topics: deleting.collect(),
            ..ShareGroupStatePartitionMetadataValue::default()
        }
    }

    pub(super) fn load(value: ShareGroupStatePartitionMetadataValue) -> Self {
        let topics = |topics: Vec<TopicPartitionsInfo>| {
            topics
                .into_iter()
                .map(|topic| {
                    let of_topic = OfTopic {
                        name: topic.topic_name,
                        partitions: topic.partitions.into_iter().collect(),
                        since_ms: i64::MIN,
                    };
                    (topic.topic_id, of_topic)
                })
                .collect()
        };
        let deleting = value.deleting_topics.into_iter();
        Self {
            initializing: topics(value.initializing_topics),
            initialized: topics(value.initialized_topics),
            deleting: deleting.map(|topic| (topic.topic_id, topic.topic_name)).collect(),
            is_used: true,
        }
    }

    pub(super) fn check_invariants(&self, group: &Str) {
        for topics in [&self.initializing, &self.initialized] {
            assert!(
                topics.values().all(|of_topic| !of_topic.partitions.is_empty()),
                "group {group}: a topic without partitions that have a state"
            );
        }
        assert!(
            self.deleting
                .keys()
                .all(|topic| !self.initializing.contains_key(topic)),
            "group {group}: states that are made and removed at once"
        );
    }
}

fn add(topics: &mut Topics, topic: Uuid, new: OfTopic) {
    if new.partitions.is_empty() {
        return;
    }
    match topics.get_mut(&topic) {
        Some(known) => {
            known.partitions.extend(new.partitions);
            known.since_ms = new.since_ms;
        }
        None => {
            topics.insert(topic, new);
        }
    }
}

fn subtract(topics: &mut Topics, topic: Uuid, partitions: &BTreeSet<i32>) {
    if let Some(known) = topics.get_mut(&topic) {
        known
            .partitions
            .retain(|partition| !partitions.contains(partition));
        if known.partitions.is_empty() {
            topics.remove(&topic);
        }
    }
}
