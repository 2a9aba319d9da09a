//! `--describe`: offsets, members or state of share groups.

use std::collections::BTreeMap;

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::Str;
use milena_protocol::messages::DescribeShareGroupOffsetsRequest;
use milena_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use milena_protocol::messages::share_group_describe_response::{Assignment, DescribedGroup};

use super::{described, wanted_groups};
use crate::group_admin::{Fault, MISSING, TopicPartition, coordinator_address, print_error};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let mut groups = Vec::new();
    for id in wanted_groups(client, options).await? {
        let group = described(client, &id).await?;
        groups.push(group.map_err(|fault| ToolError::Failed(fault.exception()))?);
    }
    let verbose = options.has("verbose");
    if options.has("members") {
        for (_, group) in groups {
            members(group, verbose);
        }
    } else if options.has("state") {
        for (coordinator, group) in &groups {
            state(client, *coordinator, group, verbose).await?;
        }
    } else {
        let mut offsets = Vec::new();
        for (_, group) in &groups {
            offsets.push((group.group_id.clone(), partitions(client, &group.group_id).await?));
        }
        for (id, rows) in offsets {
            print_offsets(&id, &rows, verbose);
        }
    }
    Ok(())
}

/// Where a share group begins to read a partition.
pub(super) struct Start {
    offset: i64,
    leader_epoch: i32,
    lag: i64,
}

/// The partitions that a group has; those that it has not begun to read have no start.
pub(super) async fn partitions(
    client: &mut Client,
    id: &Str,
) -> ToolResult<BTreeMap<TopicPartition, Option<Start>>> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: id.clone(),
            topics: None,
            ..DescribeShareGroupOffsetsRequestGroup::default()
        }],
        ..DescribeShareGroupOffsetsRequest::default()
    };
    let mut found = BTreeMap::new();
    for group in client.send_to(coordinator, request).await?.groups {
        if let Some(fault) = Fault::of(group.error_code, group.error_message.as_ref()) {
            return Err(ToolError::Failed(format!(
                "java.util.concurrent.ExecutionException: {}",
                fault.exception()
            )));
        }
        for topic in group.topics {
            for one in topic.partitions.into_iter().filter(|one| one.error_code == 0) {
                let start = (one.start_offset >= 0).then_some(Start {
                    offset: one.start_offset,
                    leader_epoch: one.leader_epoch,
                    lag: one.lag,
                });
                found.insert((topic.topic_name.clone(), one.partition_index), start);
            }
        }
    }
    Ok(found)
}

fn print_offsets(id: &str, rows: &BTreeMap<TopicPartition, Option<Start>>, verbose: bool) {
    if rows.is_empty() {
        println!("\nShare group '{id}' has no offset information.");
        return;
    }
    let groups = id.len().max(15);
    let topics = rows
        .keys()
        .map(|(topic, _)| topic.len())
        .max()
        .unwrap_or(0)
        .max(15);
    let print = |group: &str, topic: &str, partition: &str, [epoch, offset, lag]: [&str; 3]| {
        let epoch = if verbose {
            format!("{epoch:<13} ")
        } else {
            String::new()
        };
        print!("\n{group:<groups$} {topic:<topics$} {partition:<10} {epoch}{offset:<13} {lag}");
    };
    print(
        "GROUP",
        "TOPIC",
        "PARTITION",
        ["LEADER-EPOCH", "START-OFFSET", "LAG"],
    );
    for ((topic, partition), start) in rows {
        // What is negative the broker does not know.
        let text = |get: fn(&Start) -> i64| {
            let number = start.as_ref().map(get).filter(|number| *number >= 0);
            number.map_or(MISSING.to_owned(), |number| number.to_string())
        };
        let columns = [
            text(|start| i64::from(start.leader_epoch)),
            text(|start| start.offset),
            text(|start| start.lag),
        ];
        print(
            id,
            topic,
            &partition.to_string(),
            columns.each_ref().map(|text| &**text),
        );
    }
    println!();
}

/// Says what there is to say about the group's state; whether rows should follow.
fn announce(group: &DescribedGroup, rows: usize) -> bool {
    let id = &group.group_id;
    match &*group.group_state {
        "Dead" => {
            print_error(&format!("Share group '{id}' does not exist."));
            return false;
        }
        "Empty" => eprintln!("\nShare group '{id}' has no active members."),
        _ => {}
    }
    rows > 0
}

async fn state(client: &mut Client, node_id: i32, group: &DescribedGroup, verbose: bool) -> ToolResult {
    announce(group, 1);
    let address = coordinator_address(client, node_id).await?;
    let coordinator = format!("{address}  ({node_id})");
    let (groups, width) = (group.group_id.len().max(15), coordinator.len().max(25));
    let print = |id: &str, coordinator: &str, state: &str, [epoch, target]: [&str; 2], count: &str| {
        let epochs = if verbose {
            format!("{epoch:<12} {target:<17} ")
        } else {
            String::new()
        };
        print!("\n{id:<groups$} {coordinator:<width$} {state:<15} {epochs}{count}");
    };
    let epochs = ["GROUP-EPOCH", "ASSIGNMENT-EPOCH"];
    print("GROUP", "COORDINATOR (ID)", "STATE", epochs, "#MEMBERS");
    let epochs = [group.group_epoch.to_string(), group.assignment_epoch.to_string()];
    let count = group.members.len().to_string();
    let epochs = epochs.each_ref().map(|text| &**text);
    print(&group.group_id, &coordinator, &group.group_state, epochs, &count);
    println!();
    Ok(())
}

fn members(mut group: DescribedGroup, verbose: bool) {
    if !announce(&group, group.members.len()) {
        return;
    }
    group
        .members
        .sort_by(|one, other| one.member_id.cmp(&other.member_id));
    let groups = group.group_id.len().max(15);
    let width = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).max(15);
    let consumers = width(&mut group.members.iter().map(|member| member.member_id.len()));
    let hosts = width(&mut group.members.iter().map(|member| member.client_host.len()));
    let clients = width(&mut group.members.iter().map(|member| member.client_id.len()));
    let print = |id: &str,
                 [consumer, host, client]: [&str; 3],
                 count: &str,
                 epoch: &str,
                 assignment: &str| {
        let epoch = if verbose {
            format!("{epoch:<13} ")
        } else {
            String::new()
        };
        print!(
            "\n{id:<groups$} {consumer:<consumers$} {host:<hosts$} {client:<clients$} {count:<12} {epoch}{assignment}"
        );
    };
    let who = ["CONSUMER-ID", "HOST", "CLIENT-ID"];
    print("GROUP", who, "#PARTITIONS", "MEMBER-EPOCH", "ASSIGNMENT");
    for member in &group.members {
        let (count, assignment) = assignment_columns(&member.assignment);
        let epoch = member.member_epoch.to_string();
        let who = [&*member.member_id, &*member.client_host, &*member.client_id];
        print(&group.group_id, who, &count.to_string(), &epoch, &assignment);
    }
    println!();
}

/// How many partitions an assignment has, and which: `topic:0,1;other:2`.
fn assignment_columns(assignment: &Assignment) -> (usize, String) {
    let mut texts = Vec::new();
    let mut count = 0;
    for topic in &assignment.topic_partitions {
        let mut partitions = topic.partitions.clone();
        partitions.sort_unstable();
        count += partitions.len();
        let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        texts.push(format!("{}:{}", topic.topic_name, partitions.join(",")));
    }
    texts.sort();
    (count, texts.join(";"))
}

#[cfg(test)]
mod tests {
    use milena_protocol::messages::share_group_describe_response::TopicPartitions;

    use super::*;

    #[test]
    fn an_assignment_names_topics_and_partitions_in_order() {
        let topic = |name: &'static str, partitions: &[i32]| TopicPartitions {
            topic_name: Str::from(name),
            partitions: partitions.to_vec(),
            ..TopicPartitions::default()
        };
        let assignment = Assignment {
            topic_partitions: vec![topic("b", &[10, 2]), topic("a", &[0])],
            ..Assignment::default()
        };
        assert_eq!(assignment_columns(&assignment), (3, "a:0;b:2,10".to_owned()));
        assert_eq!(assignment_columns(&Assignment::default()), (0, String::new()));
    }
}
