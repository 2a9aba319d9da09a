//! `--describe`: offsets and lag, members, or state of streams groups.

use std::collections::BTreeSet;
use std::fmt::Write;

use milena_client::Client;
use milena_protocol::Str;
use milena_protocol::messages::streams_group_describe_response::{Assignment, Member, TaskIds};

use super::GROUP_TYPE;
use super::group::{self, Group};
use crate::group_admin::{
    self, EARLIEST, LATEST, MISSING, TopicPartition, coordinator_address, offsets_at, print_error,
};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let verbose = options.has("verbose");
    for id in group_admin::wanted(client, options, GROUP_TYPE).await? {
        let group = group::describe(client, &id).await?;
        let group = group.map_err(|fault| ToolError::Failed(fault.exception()))?;
        if options.has("members") {
            members(&group, verbose);
        } else if options.has("state") {
            state(client, &group, verbose).await?;
        } else {
            offsets(client, &group, verbose).await?;
        }
    }
    Ok(())
}

/// Says that there is no group, or nobody in it.
fn announce(group: &Group) {
    let id = &group.described.group_id;
    match &*group.described.group_state {
        "Dead" => print_error(&format!("Streams group '{id}' does not exist.")),
        "Empty" => print_error(&format!("Streams group '{id}' has no active members.")),
        _ => {}
    }
}

/// Whether there are rows to show.
fn has_rows(group: &Group) -> bool {
    group.described.group_state != "Dead" && !group.described.members.is_empty()
}

fn width<'a>(texts: impl Iterator<Item = &'a Str>) -> usize {
    texts.map(|text| text.len()).max().unwrap_or(0).max(15)
}

fn members(group: &Group, verbose: bool) {
    if !has_rows(group) {
        return;
    }
    announce(group);
    let described = &group.described;
    let ids = width(described.members.iter().map(|member| &member.member_id));
    let processes = width(described.members.iter().map(|member| &member.process_id));
    let clients = width(described.members.iter().map(|member| &member.client_id));
    let groups = described.group_id.len().max(15);
    let print = |id: &str, epochs: [&str; 2], member: [&str; 3], who: [&str; 3]| {
        let [target, topology] = epochs;
        let [member, protocol, epoch] = member;
        let [process, client, tasks] = who;
        print!("{id:<groups$} ");
        if verbose {
            // Nothing stands between these two columns in Kafka's either.
            print!("{target:<25} {topology:<15}{member:<ids$} {protocol:<15} {epoch:<15}");
        } else {
            print!("{member:<ids$}");
        }
        println!(" {process:<processes$} {client:<clients$} {tasks}");
    };
    let epochs = ["TARGET-ASSIGNMENT-EPOCH", "TOPOLOGY-EPOCH"];
    let member = ["MEMBER", "MEMBER-PROTOCOL", "MEMBER-EPOCH"];
    print("GROUP", epochs, member, ["PROCESS", "CLIENT-ID", "ASSIGNMENTS"]);
    let epochs = [described.assignment_epoch, group.topology.epoch].map(|epoch| epoch.to_string());
    for member in &described.members {
        let protocol = if member.is_classic { "classic" } else { "streams" };
        let epoch = member.member_epoch.to_string();
        let tasks = tasks_text(member, verbose);
        print(
            &described.group_id,
            epochs.each_ref().map(|text| &**text),
            [&member.member_id, protocol, &epoch],
            [&member.process_id, &member.client_id, &tasks],
        );
    }
}

/// `ACTIVE: 0:[0,1]; STANDBY: 1:[2]; `, with the tasks that the member is to have if so wished.
fn tasks_text(member: &Member, with_target: bool) -> String {
    let mut text = String::new();
    let mut add = |prefix: &str, assignment: &Assignment| {
        let kinds: [(&str, &[TaskIds]); 3] = [
            ("ACTIVE", &assignment.active_tasks),
            ("STANDBY", &assignment.standby_tasks),
            ("WARMUP", &assignment.warmup_tasks),
        ];
        for (kind, tasks) in kinds.into_iter().filter(|(_, tasks)| !tasks.is_empty()) {
            let _ = write!(text, "{prefix}{kind}: ");
            for task in tasks {
                let partitions: Vec<String> = task.partitions.iter().map(ToString::to_string).collect();
                let _ = write!(text, "{}:[{}]; ", task.subtopology_id, partitions.join(","));
            }
        }
    };
    add("", &member.assignment);
    if with_target {
        add("TARGET-", &member.target_assignment);
    }
    text
}

async fn state(client: &mut Client, group: &Group, verbose: bool) -> ToolResult {
    announce(group);
    let described = &group.described;
    let address = coordinator_address(client, group.coordinator).await?;
    let coordinator = format!("{address} ({})", group.coordinator);
    let (groups, width) = (described.group_id.len().max(15), coordinator.len().max(25));
    let print = |id: &str, coordinator: &str, state: &str, [epoch, target]: [&str; 2], count: &str| {
        let epochs = if verbose {
            format!("{epoch:<15} {target:<25} ")
        } else {
            String::new()
        };
        println!("{id:<groups$} {coordinator:<width$} {state:<25} {epochs}{count}");
    };
    let epochs = ["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"];
    print("GROUP", "COORDINATOR (ID)", "STATE", epochs, "#MEMBERS");
    let epochs = [described.group_epoch, described.assignment_epoch].map(|epoch| epoch.to_string());
    print(
        &described.group_id,
        &coordinator,
        &described.group_state,
        epochs.each_ref().map(|text| &**text),
        &described.members.len().to_string(),
    );
    Ok(())
}

/// The partitions that the active tasks of the group's members read.
fn assigned(group: &Group) -> ToolResult<BTreeSet<TopicPartition>> {
    let mut found = BTreeSet::new();
    let members = group.described.members.iter();
    for task in members.flat_map(|member| &member.assignment.active_tasks) {
        let id = &task.subtopology_id;
        let subtopology = group
            .subtopologies()
            .iter()
            .find(|subtopology| subtopology.subtopology_id == *id)
            .ok_or_else(|| ToolError::Usage(format!("Subtopology {id} not found in group description!")))?;
        let repartitioned = subtopology.repartition_source_topics.iter();
        let topics = subtopology
            .source_topics
            .iter()
            .chain(repartitioned.map(|topic| &topic.name));
        for topic in topics {
            let partitions = task.partitions.iter();
            found.extend(partitions.map(|partition| (topic.clone(), *partition)));
        }
    }
    Ok(found)
}

async fn offsets(client: &mut Client, group: &Group, verbose: bool) -> ToolResult {
    if !has_rows(group) {
        return Ok(());
    }
    let partitions = assigned(group)?;
    let starts = offsets_at(client, &partitions, EARLIEST).await?;
    let ends = offsets_at(client, &partitions, LATEST).await?;
    let committed = group.committed(client, true).await?;
    announce(group);
    let id = &group.described.group_id;
    let groups = id.len().max(15);
    let topics = width(partitions.iter().map(|(topic, _)| topic));
    let print = |group: &str, topic: &str, partition: &str, [offset, epoch, end, lag]: [&str; 4]| {
        print!("{group:<groups$} {topic:<topics$} {partition:<10} ");
        if verbose {
            println!("{offset:<15} {epoch:<15} {end:<15} {lag:<15}");
        } else {
            println!("{lag}");
        }
    };
    let numbers = ["CURRENT-OFFSET", "LEADER-EPOCH", "LOG-END-OFFSET", "OFFSET-LAG"];
    print("GROUP", "TOPIC", "PARTITION", numbers);
    for one in &partitions {
        let (Some(start), Some(end)) = (starts.get(one), ends.get(one)) else {
            continue;
        };
        let committed = committed.get(one);
        // What nobody has committed is read from the start.
        let lag = end - committed.map_or(*start, |committed| committed.offset);
        let offset = committed.map_or(MISSING.to_owned(), |committed| committed.offset.to_string());
        let epoch = committed
            .map(|committed| committed.leader_epoch)
            .filter(|epoch| *epoch >= 0)
            .map_or(MISSING.to_owned(), |epoch| epoch.to_string());
        let numbers = [offset, epoch, end.to_string(), lag.to_string()];
        let numbers = numbers.each_ref().map(|text| &**text);
        print(id, &one.0, &one.1.to_string(), numbers);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_named_by_kind_subtopology_and_partitions() {
        let tasks = |id: &'static str, partitions: &[i32]| TaskIds {
            subtopology_id: Str::from(id),
            partitions: partitions.to_vec(),
            ..TaskIds::default()
        };
        let member = Member {
            assignment: Assignment {
                active_tasks: vec![tasks("0", &[0, 1]), tasks("1", &[2])],
                standby_tasks: vec![tasks("0", &[3])],
                ..Assignment::default()
            },
            target_assignment: Assignment {
                warmup_tasks: vec![tasks("2", &[0])],
                ..Assignment::default()
            },
            ..Member::default()
        };
        let current = "ACTIVE: 0:[0,1]; 1:[2]; STANDBY: 0:[3]; ";
        assert_eq!(tasks_text(&member, false), current);
        assert_eq!(
            tasks_text(&member, true),
            format!("{current}TARGET-WARMUP: 2:[0]; ")
        );
        assert_eq!(tasks_text(&Member::default(), true), "");
    }
}
