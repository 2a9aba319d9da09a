//! The topology of a streams group, as a member brought it: subtopologies with the topics that they read, write and keep
//! their state in.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use milena_protocol::messages::streams_group_heartbeat_request::{
    CopartitionGroup as SaidCopartitionGroup, Subtopology as SaidSubtopology, TopicInfo as SaidTopic,
    Topology as SaidTopology,
};
use milena_protocol::stored::StreamsGroupTopologyValue;
use milena_protocol::stored::streams_group_topology_value::{
    CopartitionGroup, Subtopology, TopicConfig, TopicInfo,
};
use milena_protocol::{ErrorCode, Str};

use crate::facts::{self, LoadError};
use crate::limits::MAX_TOPOLOGY_BYTES;
use crate::modern::Refusal;

/// The only version of the stored value.
const VERSION: i16 = 0;

#[derive(Debug, Clone)]
pub(super) struct Topology {
    /// In the order of ids, each once.
    value: StreamsGroupTopologyValue,
    /// Which of them reads a topic.
    by_source: HashMap<Str, usize>,
}

impl Topology {
    /// What a member says, in a buffer of its own.
    pub(super) fn said(said: &SaidTopology) -> Result<Self, Refusal> {
        if said.epoch < 0 {
            return Err(unusable("Topology epoch must be non-negative."));
        }
        let mut subtopologies: Vec<Subtopology> = said.subtopologies.iter().map(subtopology).collect();
        subtopologies.sort_by(|a, b| a.subtopology_id.cmp(&b.subtopology_id));
        let ids = subtopologies.windows(2);
        if let Some(twice) = ids
            .into_iter()
            .find(|pair| pair[0].subtopology_id == pair[1].subtopology_id)
        {
            return Err(unusable(format!(
                "Subtopology {} is there more than once.",
                twice[0].subtopology_id
            )));
        }
        let value = StreamsGroupTopologyValue {
            epoch: said.epoch,
            subtopologies,
            ..StreamsGroupTopologyValue::default()
        };
        let encoded = facts::encode(&value, VERSION);
        if encoded.len() > MAX_TOPOLOGY_BYTES {
            return Err(Refusal::new(
                ErrorCode::StreamsInvalidTopology,
                format!("The topology takes more than {MAX_TOPOLOGY_BYTES} bytes."),
            ));
        }
        Self::load(&Bytes::new(), &encoded).map_err(|error| unusable(error.to_string()))
    }

    pub(super) fn load(key: &Bytes, encoded: &Bytes) -> Result<Self, LoadError> {
        let value: StreamsGroupTopologyValue = facts::decode(key, encoded)?;
        let mut by_source = HashMap::new();
        for (index, subtopology) in value.subtopologies.iter().enumerate() {
            for topic in sources(subtopology) {
                by_source.insert(topic.clone(), index);
            }
        }
        Ok(Self { value, by_source })
    }

    pub(super) fn stored(&self) -> Bytes {
        facts::encode(&self.value, VERSION)
    }

    pub(super) fn epoch(&self) -> i32 {
        self.value.epoch
    }

    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.value == other.value
    }

    pub(super) fn subtopologies(&self) -> &[Subtopology] {
        &self.value.subtopologies
    }

    pub(super) fn get(&self, id: &str) -> Option<&Subtopology> {
        let subtopologies = &self.value.subtopologies;
        let found = subtopologies.binary_search_by(|subtopology| (*subtopology.subtopology_id).cmp(id));
        found.ok().and_then(|index| subtopologies.get(index))
    }

    /// The subtopology that reads a topic.
    pub(super) fn reader_of(&self, topic: &str) -> Option<&Subtopology> {
        self.by_source
            .get(topic)
            .and_then(|index| self.value.subtopologies.get(*index))
    }

    /// All topics that have to be there.
    pub(super) fn required_topics(&self) -> BTreeSet<&Str> {
        let all = self.value.subtopologies.iter();
        all.flat_map(|subtopology| sources(subtopology).chain(changelogs(subtopology)))
            .collect()
    }
}

/// What a subtopology reads.
pub(super) fn sources(subtopology: &Subtopology) -> impl Iterator<Item = &Str> {
    let repartition = subtopology.repartition_source_topics.iter();
    subtopology
        .source_topics
        .iter()
        .chain(repartition.map(|topic| &topic.name))
}

/// What a subtopology keeps its state in.
pub(super) fn changelogs(subtopology: &Subtopology) -> impl Iterator<Item = &Str> {
    subtopology.state_changelog_topics.iter().map(|topic| &topic.name)
}

/// What Kafka fails at without a word for clients.
pub(super) fn unusable(sentence: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::UnknownServerError, sentence)
}

fn subtopology(said: &SaidSubtopology) -> Subtopology {
    Subtopology {
        subtopology_id: said.subtopology_id.clone(),
        source_topics: said.source_topics.clone(),
        source_topic_regex: said.source_topic_regex.clone(),
        state_changelog_topics: said.state_changelog_topics.iter().map(topic).collect(),
        repartition_sink_topics: said.repartition_sink_topics.clone(),
        repartition_source_topics: said.repartition_source_topics.iter().map(topic).collect(),
        copartition_groups: said.copartition_groups.iter().map(copartition_group).collect(),
        ..Subtopology::default()
    }
}

fn topic(said: &SaidTopic) -> TopicInfo {
    let configs = said.topic_configs.iter().map(|config| TopicConfig {
        key: config.key.clone(),
        value: config.value.clone(),
        ..TopicConfig::default()
    });
    TopicInfo {
        name: said.name.clone(),
        partitions: said.partitions,
        replication_factor: said.replication_factor,
        topic_configs: configs.collect(),
        ..TopicInfo::default()
    }
}

fn copartition_group(said: &SaidCopartitionGroup) -> CopartitionGroup {
    CopartitionGroup {
        source_topics: said.source_topics.clone(),
        source_topic_regex: said.source_topic_regex.clone(),
        repartition_source_topics: said.repartition_source_topics.clone(),
        ..CopartitionGroup::default()
    }
}
