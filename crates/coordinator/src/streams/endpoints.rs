//! Where the state of which partitions can be asked for: what members with an endpoint of their own have (KIP-535).

use std::collections::BTreeSet;

use milena_protocol::Str;
use milena_protocol::messages::streams_group_heartbeat_response::{
    Endpoint as GivenEndpoint, EndpointToPartitions, TopicPartition,
};

use super::StreamsGroup;
use super::member::Member;
use super::tasks::{Tasks, without_epochs};
use super::topology::sources;
use crate::topics::TopicImage;

impl StreamsGroup {
    /// Of all members that have an endpoint.
    pub(super) fn partitions_by_endpoint(&self, topics: &TopicImage) -> Vec<EndpointToPartitions> {
        let members = self.members.values();
        members
            .filter_map(|member| self.partitions_of_endpoint(member, topics))
            .collect()
    }

    fn partitions_of_endpoint(&self, member: &Member, topics: &TopicImage) -> Option<EndpointToPartitions> {
        let endpoint = member.said.endpoint.as_ref()?;
        let active = without_epochs(&member.assigned.active);
        Some(EndpointToPartitions {
            user_endpoint: GivenEndpoint {
                host: endpoint.host.clone(),
                port: endpoint.port,
                ..GivenEndpoint::default()
            },
            active_partitions: self.partitions_of(&active, topics),
            standby_partitions: self.partitions_of(&member.assigned.standby, topics),
            ..EndpointToPartitions::default()
        })
    }

    /// The partitions of the topics that the tasks read. A topic may have fewer partitions than its subtopology has tasks.
    fn partitions_of(&self, tasks: &Tasks, topics: &TopicImage) -> Vec<TopicPartition> {
        let mut all = Vec::new();
        for (subtopology, partitions) in tasks {
            let subtopology = self
                .topology
                .as_ref()
                .and_then(|topology| topology.get(subtopology));
            let names: BTreeSet<&Str> = subtopology.into_iter().flat_map(sources).collect();
            for topic in names.into_iter().filter_map(|name| topics.get(name)) {
                let most = usize::try_from(topic.partitions).unwrap_or(0);
                all.push(TopicPartition {
                    topic: topic.name.clone(),
                    partitions: partitions.iter().copied().take(most).collect(),
                    ..TopicPartition::default()
                });
            }
        }
        all
    }
}
