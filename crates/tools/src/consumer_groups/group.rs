//! A group as the tool shows it, whichever protocol its members use.

use std::collections::BTreeSet;

use bytes::Bytes;
use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::messages::consumer_group_describe_response as modern;
use milena_protocol::messages::describe_groups_response as classic;
use milena_protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};
use milena_protocol::{ApiKey, ErrorCode, Reader, Str};

use crate::group_admin::TopicPartition;
use crate::{ToolError, ToolResult, admin};

/// The type of a member that uses the classic protocol in a consumer group (KIP-1099).
const CLASSIC_MEMBER: i8 = 0;

pub(super) struct Group {
    pub(super) coordinator: i32,
    pub(super) id: Str,
    pub(super) state: Str,
    /// The assignor; empty where there is none.
    pub(super) strategy: Str,
    /// The group's epoch and that of its target assignment (KIP-848).
    pub(super) epochs: Option<(i32, i32)>,
    pub(super) members: Vec<Member>,
}

pub(super) struct Member {
    pub(super) id: Str,
    pub(super) instance_id: Option<Str>,
    pub(super) host: Str,
    pub(super) client_id: Str,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) modern: Option<Modern>,
}

/// What only members of consumer groups have (KIP-848).
pub(super) struct Modern {
    pub(super) epoch: i32,
    pub(super) target_epoch: i32,
    pub(super) target: Vec<TopicPartition>,
    /// Whether it uses the new protocol.
    pub(super) is_upgraded: bool,
}

/// Asks for a consumer group first, as Java's tools do, and for a classic one when it is none.
pub(super) async fn describe(client: &mut Client, id: &Str) -> ToolResult<Group> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let key = ApiKey::ConsumerGroupDescribe.code();
    let knows_consumer_groups = client
        .bootstrap()
        .versions()
        .iter()
        .any(|(known, _, _)| *known == key);
    if knows_consumer_groups {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![id.clone()],
            ..ConsumerGroupDescribeRequest::default()
        };
        let response = client.send_to(coordinator, request).await?;
        let group = response
            .groups
            .into_iter()
            .next()
            .ok_or_else(|| not_described(id))?;
        match ErrorCode::from_code(group.error_code) {
            ErrorCode::None => return Ok(of_consumer_group(coordinator, group)),
            ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion => {}
            code => admin::check(code.code(), group.error_message.as_ref())?,
        }
    }
    let request = DescribeGroupsRequest {
        groups: vec![id.clone()],
        ..DescribeGroupsRequest::default()
    };
    let response = client.send_to(coordinator, request).await?;
    let group = response
        .groups
        .into_iter()
        .next()
        .ok_or_else(|| not_described(id))?;
    match ErrorCode::from_code(group.error_code) {
        ErrorCode::None => {}
        ErrorCode::GroupIdNotFound => {
            let message = group.error_message;
            return Err(ToolError::Failed(format!(
                "org.apache.kafka.common.errors.GroupIdNotFoundException: {}",
                message.map_or_else(|| format!("Group {id} not found."), |text| text.to_string())
            )));
        }
        code => admin::check(code.code(), group.error_message.as_ref())?,
    }
    Ok(of_classic_group(coordinator, group))
}

fn not_described(id: &Str) -> ToolError {
    ToolError::Failed(format!("The broker does not describe group {id}."))
}

fn of_classic_group(coordinator: i32, group: classic::DescribedGroup) -> Group {
    let members = group.members.into_iter().map(|member| Member {
        id: member.member_id,
        instance_id: member.group_instance_id,
        host: member.client_host,
        client_id: member.client_id,
        partitions: assignment(&member.member_assignment),
        modern: None,
    });
    Group {
        coordinator,
        id: group.group_id,
        state: group.group_state,
        strategy: group.protocol_data,
        epochs: None,
        members: members.collect(),
    }
}

fn of_consumer_group(coordinator: i32, group: modern::DescribedGroup) -> Group {
    let partitions = |assignment: modern::Assignment| -> Vec<TopicPartition> {
        let topics = assignment.topic_partitions.into_iter();
        let named = topics.flat_map(|topic| {
            let name = topic.topic_name;
            topic
                .partitions
                .into_iter()
                .map(move |partition| (name.clone(), partition))
        });
        // In the order of names, each once.
        named.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let target_epoch = group.assignment_epoch;
    let members = group.members.into_iter().map(|member| Member {
        id: member.member_id,
        instance_id: member.instance_id,
        host: member.client_host,
        client_id: member.client_id,
        partitions: partitions(member.assignment),
        modern: Some(Modern {
            epoch: member.member_epoch,
            target_epoch,
            target: partitions(member.target_assignment),
            is_upgraded: member.member_type != CLASSIC_MEMBER,
        }),
    });
    Group {
        coordinator,
        id: group.group_id,
        state: group.group_state,
        strategy: group.assignor_name,
        epochs: Some((group.group_epoch, group.assignment_epoch)),
        members: members.collect(),
    }
}

/// The partitions in a member's assignment (the consumer protocol's bytes).
fn assignment(bytes: &Bytes) -> Vec<TopicPartition> {
    fn read(bytes: &Bytes) -> Result<Vec<TopicPartition>, milena_protocol::DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        reader.i16()?;
        let topics = reader.array(false, 6, |reader| {
            let topic = reader.string(false)?;
            Ok((topic, reader.array(false, 4, Reader::i32)?))
        })?;
        Ok(topics
            .into_iter()
            .flat_map(|(topic, ids)| ids.into_iter().map(move |id| (topic.clone(), id)))
            .collect())
    }
    if bytes.is_empty() {
        Vec::new()
    } else {
        read(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_lists_its_partitions_and_nonsense_lists_none() {
        let bytes = Bytes::from_static(b"\x00\x01\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff");
        assert_eq!(assignment(&bytes), [(Str::from("t"), 0), (Str::from("t"), 3)]);
        assert!(assignment(&Bytes::from_static(b"\x00\x01\x7f\xff\xff\xff")).is_empty());
        assert!(assignment(&Bytes::new()).is_empty());
    }
}
