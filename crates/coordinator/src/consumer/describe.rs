//! What ConsumerGroupDescribe tells of a group.

use milena_protocol::Str;
use milena_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions as DescribedPartitions,
};

use super::member::Member;
use super::reconcile::partitions_of;
use super::{ConsumerGroup, ConsumerGroupConfig};
use crate::modern::TopicPartitions;
use crate::topics::TopicImage;

/// The types of members by the protocol that they use (KIP-1099).
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerGroup {
    pub(crate) fn describe(&self, config: &ConsumerGroupConfig, topics: &TopicImage) -> DescribedGroup {
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from(self.state_name()),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: Str::from(self.assignor(config).name()),
            members: self
                .members
                .values()
                .map(|member| self.describe_member(member, topics))
                .collect(),
            ..DescribedGroup::default()
        }
    }

    fn describe_member(&self, member: &Member, topics: &TopicImage) -> DescribedMember {
        let no_target = TopicPartitions::new();
        let target = self.target.get(&member.id).unwrap_or(&no_target);
        DescribedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_topic_names: member.topics.iter().cloned().collect(),
            subscribed_topic_regex: Some(member.regex.clone().unwrap_or_default()),
            assignment: described(&partitions_of(&member.assigned), topics),
            target_assignment: described(target, topics),
            member_type: match member.classic {
                Some(_) => CLASSIC_MEMBER,
                None => CONSUMER_MEMBER,
            },
            ..DescribedMember::default()
        }
    }
}

/// Topics that are gone have no name to give.
fn described(partitions: &TopicPartitions, topics: &TopicImage) -> Assignment {
    let topic = |(id, partitions): (&milena_protocol::Uuid, &std::collections::BTreeSet<i32>)| {
        Some(DescribedPartitions {
            topic_id: *id,
            topic_name: topics.get_by_id(id)?.name.clone(),
            partitions: partitions.iter().copied().collect(),
            ..DescribedPartitions::default()
        })
    };
    Assignment {
        topic_partitions: partitions.iter().filter_map(topic).collect(),
        ..Assignment::default()
    }
}
