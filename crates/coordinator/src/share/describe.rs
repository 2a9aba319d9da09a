//! What ShareGroupDescribe tells of a group.

use milena_protocol::Str;
use milena_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions as DescribedPartitions,
};

use super::member::Member;
use super::{SHARE_ASSIGNOR, ShareGroup};
use crate::modern::TopicPartitions;
use crate::topics::TopicImage;

impl ShareGroup {
    pub(crate) fn describe(&self, topics: &TopicImage) -> DescribedGroup {
        let members = self.members.values();
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from(self.state_name()),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: Str::from(SHARE_ASSIGNOR),
            members: members.map(|member| describe_member(member, topics)).collect(),
            ..DescribedGroup::default()
        }
    }

    /// The partitions whose state is initialized: those that DescribeShareGroupOffsets tells of.
    pub(crate) fn initialized_partitions(&self) -> TopicPartitions {
        self.states.initialized_partitions()
    }
}

fn describe_member(member: &Member, topics: &TopicImage) -> DescribedMember {
    // Topics that are gone have no name to give.
    let assigned = member.assigned.iter().filter_map(|(id, partitions)| {
        Some(DescribedPartitions {
            topic_id: *id,
            topic_name: topics.get_by_id(id)?.name.clone(),
            partitions: partitions.iter().copied().collect(),
            ..DescribedPartitions::default()
        })
    });
    DescribedMember {
        member_id: member.id.clone(),
        rack_id: member.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: member.topics.iter().cloned().collect(),
        assignment: Assignment {
            topic_partitions: assigned.collect(),
            ..Assignment::default()
        },
        ..DescribedMember::default()
    }
}
