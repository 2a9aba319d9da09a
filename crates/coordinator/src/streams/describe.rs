//! What StreamsGroupDescribe tells of a group.

use std::collections::BTreeSet;

use milena_protocol::Str;
use milena_protocol::messages::streams_group_describe_response::{
    Assignment, DescribedGroup, Endpoint as DescribedEndpoint, KeyValue, Member as DescribedMember,
    Subtopology as DescribedSubtopology, TaskIds, TopicInfo as DescribedTopic, Topology as DescribedTopology,
};
use milena_protocol::stored::streams_group_topology_value::{Subtopology, TopicInfo};

use super::StreamsGroup;
use super::configure::Configured;
use super::member::Member;
use super::tasks::{Target, Tasks, without_epochs};
use super::topology::Topology;

impl StreamsGroup {
    pub(crate) fn describe(&self) -> DescribedGroup {
        let configured = self
            .configured
            .as_ref()
            .filter(|configured| configured.is_ready());
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from(self.state_name()),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            topology: self
                .topology
                .as_ref()
                .map(|topology| describe_topology(topology, configured)),
            members: self
                .members
                .values()
                .map(|member| self.describe_member(member))
                .collect(),
            ..DescribedGroup::default()
        }
    }

    fn describe_member(&self, member: &Member) -> DescribedMember {
        let no_target = Target::default();
        let target = self.target.get(&member.id).unwrap_or(&no_target);
        let said = &member.said;
        let tags = said.client_tags.iter();
        DescribedMember {
            member_id: member.id.clone(),
            member_epoch: member.epoch,
            rack_id: said.rack_id.clone(),
            client_id: said.client_id.clone(),
            client_host: said.client_host.clone(),
            topology_epoch: said.topology_epoch,
            process_id: said.process_id.clone(),
            user_endpoint: said.endpoint.as_ref().map(|endpoint| DescribedEndpoint {
                host: endpoint.host.clone(),
                port: endpoint.port,
                ..DescribedEndpoint::default()
            }),
            client_tags: tags.map(|(key, value)| pair(key, value)).collect(),
            assignment: assignment(
                &without_epochs(&member.assigned.active),
                &member.assigned.standby,
                &member.assigned.warmup,
            ),
            target_assignment: assignment(&target.active, &target.standby, &target.warmup),
            ..DescribedMember::default()
        }
    }
}

fn pair(key: &Str, value: &Str) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: value.clone(),
        ..KeyValue::default()
    }
}

fn assignment(active: &Tasks, standby: &Tasks, warmup: &Tasks) -> Assignment {
    let ids = |tasks: &Tasks| {
        let of_subtopology = |(subtopology, partitions): (&Str, &BTreeSet<i32>)| TaskIds {
            subtopology_id: subtopology.clone(),
            partitions: partitions.iter().copied().collect(),
            ..TaskIds::default()
        };
        tasks.iter().map(of_subtopology).collect()
    };
    Assignment {
        active_tasks: ids(active),
        standby_tasks: ids(standby),
        warmup_tasks: ids(warmup),
        ..Assignment::default()
    }
}

/// As it is configured, once it is; until then as it was brought.
fn describe_topology(topology: &Topology, configured: Option<&Configured>) -> DescribedTopology {
    let described = |subtopology: &Subtopology| {
        let names = |names: &[Str]| {
            let mut names = names.to_vec();
            names.sort();
            if configured.is_some() {
                names.dedup();
            }
            names
        };
        DescribedSubtopology {
            subtopology_id: subtopology.subtopology_id.clone(),
            source_topics: names(&subtopology.source_topics),
            repartition_sink_topics: names(&subtopology.repartition_sink_topics),
            state_changelog_topics: describe_topics(&subtopology.state_changelog_topics, configured),
            repartition_source_topics: describe_topics(&subtopology.repartition_source_topics, configured),
            ..DescribedSubtopology::default()
        }
    };
    DescribedTopology {
        epoch: topology.epoch(),
        subtopologies: Some(topology.subtopologies().iter().map(described).collect()),
        ..DescribedTopology::default()
    }
}

fn describe_topics(topics: &[TopicInfo], configured: Option<&Configured>) -> Vec<DescribedTopic> {
    let decided = |topic: &TopicInfo| configured?.partitions.get(&topic.name).copied();
    let described = |topic: &TopicInfo| DescribedTopic {
        name: topic.name.clone(),
        partitions: match topic.partitions {
            0 => decided(topic).unwrap_or(0),
            fixed => fixed,
        },
        replication_factor: topic.replication_factor,
        topic_configs: topic
            .topic_configs
            .iter()
            .map(|config| pair(&config.key, &config.value))
            .collect(),
        ..DescribedTopic::default()
    };
    let mut topics: Vec<DescribedTopic> = topics.iter().map(described).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}
