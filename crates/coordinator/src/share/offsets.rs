//! What administrators do with where a share group reads from, and what the broker says of the states that it was
//! told to make or to remove.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic;
use milena_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use milena_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use milena_protocol::messages::delete_share_group_state_request::{
    DeleteStateData, PartitionData as DeletedPartition,
};
use milena_protocol::messages::initialize_share_group_state_request::{InitializeStateData, PartitionData};
use milena_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse, DeleteShareGroupStateRequest, InitializeShareGroupStateRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::ShareGroup;
use super::state_partitions::OfTopic;
use crate::modern::TopicPartitions;
use crate::step::Step;

/// Kafka's sentences of these errors.
pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: &str = "This server does not host this topic-partition.";
const NOTHING_TO_DELETE: &str = "There is no offset information to delete.";

impl ShareGroup {
    // --- where it reads from ------------------------------------------------------------------

    /// AlterShareGroupOffsets of a group that nobody is in: the answer if all goes well, and the states to initialize.
    pub(crate) fn alter_offsets(
        &mut self,
        step: &mut Step<'_>,
        request: &AlterShareGroupOffsetsRequest,
    ) -> (
        AlterShareGroupOffsetsResponse,
        Option<InitializeShareGroupStateRequest>,
    ) {
        let mut response = AlterShareGroupOffsetsResponse::default();
        let mut begun = Vec::new();
        for topic in &request.topics {
            let (answered, initialize) = self.alter_topic(step, topic);
            response.responses.push(answered);
            begun.extend(initialize.filter(|topic| !topic.partitions.is_empty()));
        }
        if begun.is_empty() {
            return (response, None);
        }
        self.settled_image = None;
        self.store_states(step.effects);
        let initialize = InitializeShareGroupStateRequest {
            group_id: self.id.clone(),
            topics: begun,
            ..InitializeShareGroupStateRequest::default()
        };
        (response, Some(initialize))
    }

    fn alter_topic(
        &mut self,
        step: &Step<'_>,
        asked: &AlterShareGroupOffsetsRequestTopic,
    ) -> (AlterShareGroupOffsetsResponseTopic, Option<InitializeStateData>) {
        let topic = step.topics.get(&asked.topic_name);
        let exists = |partition: i32| topic.is_some_and(|topic| (0..topic.partitions).contains(&partition));
        let answered = AlterShareGroupOffsetsResponseTopic {
            topic_name: asked.topic_name.clone(),
            topic_id: topic.map(|topic| topic.id).unwrap_or_default(),
            partitions: asked
                .partitions
                .iter()
                .map(|partition| match exists(partition.partition_index) {
                    true => AlterShareGroupOffsetsResponsePartition {
                        partition_index: partition.partition_index,
                        ..AlterShareGroupOffsetsResponsePartition::default()
                    },
                    false => unknown_partition(partition.partition_index),
                })
                .collect(),
            ..AlterShareGroupOffsetsResponseTopic::default()
        };
        let Some(topic) = topic else {
            return (answered, None);
        };
        // Of a partition that is named twice the last counts.
        let offsets: BTreeMap<i32, i64> = asked
            .partitions
            .iter()
            .filter(|partition| exists(partition.partition_index))
            .map(|partition| (partition.partition_index, partition.start_offset))
            .collect();
        let initialize = InitializeStateData {
            topic_id: topic.id,
            partitions: offsets
                .iter()
                .map(|(partition, start_offset)| PartitionData {
                    partition: *partition,
                    state_epoch: self.epoch,
                    start_offset: *start_offset,
                    ..PartitionData::default()
                })
                .collect(),
            ..InitializeStateData::default()
        };
        let of_topic = OfTopic {
            name: topic.name.clone(),
            partitions: offsets.into_keys().collect(),
            since_ms: step.now_ms,
        };
        if !of_topic.partitions.is_empty() {
            self.states.begin(topic.id, of_topic);
        }
        (answered, Some(initialize))
    }

    /// DeleteShareGroupOffsets of a group that nobody is in: the topics that have nothing to delete, and the states
    /// to remove.
    pub(crate) fn delete_offsets(
        &mut self,
        step: &mut Step<'_>,
        request: &DeleteShareGroupOffsetsRequest,
    ) -> (
        DeleteShareGroupOffsetsResponse,
        Option<DeleteShareGroupStateRequest>,
    ) {
        let mut response = DeleteShareGroupOffsetsResponse::default();
        if !self.states.is_used() {
            return (response, None);
        }
        let mut removed: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        for asked in &request.topics {
            let refuse = |sentence: &'static str| DeleteShareGroupOffsetsResponseTopic {
                topic_name: asked.topic_name.clone(),
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                error_message: Some(Str::from(sentence)),
                ..DeleteShareGroupOffsetsResponseTopic::default()
            };
            let Some(topic) = step.topics.get(&asked.topic_name) else {
                response.responses.push(refuse(UNKNOWN_TOPIC_OR_PARTITION));
                continue;
            };
            if let Some(of_topic) = self.states.initialized.remove(&topic.id) {
                self.states.deleting.insert(topic.id, of_topic.name);
                removed.insert(topic.id, of_topic.partitions);
            } else if self.states.deleting.contains_key(&topic.id) {
                // What was tried before did not come to its end.
                removed
                    .entry(topic.id)
                    .or_insert_with(|| (0..topic.partitions).collect());
            } else {
                response.responses.push(refuse(NOTHING_TO_DELETE));
            }
        }
        if removed.is_empty() {
            return (response, None);
        }
        for topic in removed.keys() {
            // It is asked for again by the next heartbeat of one who subscribes to it.
            self.states.initializing.remove(topic);
        }
        self.settled_image = None;
        self.store_states(step.effects);
        (response, Some(self.deletion(removed)))
    }

    /// All states, because the group is to be deleted; `None` if there are none.
    pub(crate) fn delete_all_states(&mut self, step: &mut Step<'_>) -> Option<DeleteShareGroupStateRequest> {
        let states = std::mem::take(&mut self.states);
        let mut removed: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        for topic in states.deleting.keys() {
            // Of a topic that is gone nothing is left to remove.
            let partitions = step.topics.get_by_id(topic).map_or(0, |topic| topic.partitions);
            removed.insert(*topic, (0..partitions).collect());
        }
        self.states.deleting = states.deleting;
        for (topic, of_topic) in states.initialized.into_iter().chain(states.initializing) {
            removed.entry(topic).or_default().extend(of_topic.partitions);
            self.states.deleting.insert(topic, of_topic.name);
        }
        removed.retain(|_, partitions| !partitions.is_empty());
        self.settled_image = None;
        if removed.is_empty() {
            return None;
        }
        self.store_states(step.effects);
        Some(self.deletion(removed))
    }

    fn deletion(&self, removed: BTreeMap<Uuid, BTreeSet<i32>>) -> DeleteShareGroupStateRequest {
        let topics = removed.into_iter().map(|(topic_id, partitions)| DeleteStateData {
            topic_id,
            partitions: partitions
                .into_iter()
                .map(|partition| DeletedPartition {
                    partition,
                    ..DeletedPartition::default()
                })
                .collect(),
            ..DeleteStateData::default()
        });
        DeleteShareGroupStateRequest {
            group_id: self.id.clone(),
            topics: topics.collect(),
            ..DeleteShareGroupStateRequest::default()
        }
    }

    // --- what the broker says of states -------------------------------------------------------

    /// The states are initialized: their partitions may be assigned.
    pub(crate) fn states_initialized(&mut self, step: &mut Step<'_>, partitions: &TopicPartitions) {
        for (topic, partitions) in partitions {
            // A topic that has gone meanwhile has none.
            if let Some(topic) = step.topics.get_by_id(topic) {
                let of_topic = OfTopic {
                    name: topic.name.clone(),
                    partitions: partitions.clone(),
                    since_ms: step.now_ms,
                };
                self.states.finish(topic.id, of_topic);
            } else {
                self.states.fail(*topic, partitions);
            }
        }
        self.settled_image = None;
        self.store_states(step.effects);
    }

    /// They could not be: the next heartbeat asks again.
    pub(crate) fn states_not_initialized(&mut self, step: &mut Step<'_>, partitions: &TopicPartitions) {
        for (topic, partitions) in partitions {
            self.states.fail(*topic, partitions);
        }
        self.settled_image = None;
        self.store_states(step.effects);
    }

    /// The states of topics are removed.
    pub(crate) fn states_deleted(&mut self, step: &mut Step<'_>, topics: &[Uuid]) {
        for topic in topics {
            self.states.deleting.remove(topic);
        }
        self.store_states(step.effects);
    }

    /// Forgets the topics that are no more.
    pub(crate) fn forget_missing_topics(&mut self, step: &mut Step<'_>) {
        let topics = step.topics;
        if self.states.keep(|topic| topics.get_by_id(topic).is_some()) {
            self.settled_image = None;
            self.store_states(step.effects);
        }
    }
}

fn unknown_partition(partition_index: i32) -> AlterShareGroupOffsetsResponsePartition {
    AlterShareGroupOffsetsResponsePartition {
        partition_index,
        error_code: ErrorCode::UnknownTopicOrPartition.code(),
        error_message: Some(Str::from(UNKNOWN_TOPIC_OR_PARTITION)),
        ..AlterShareGroupOffsetsResponsePartition::default()
    }
}
