//! `--describe`: offsets and lag, members, or state.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::Client;

use super::{
    Committed, Described, LATEST, MISSING, TopicPartition, assignment, committed, describe_group, offsets_at,
    print_error, wanted_groups,
};
use crate::ToolResult;
use crate::options::Options;

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let ids = wanted_groups(client, options).await?;
    let mut groups = Vec::new();
    for id in &ids {
        groups.push(describe_group(client, id).await?);
    }
    let verbose = options.has("verbose");
    for described in &groups {
        if options.has("members") {
            members(described, verbose);
        } else if options.has("state") {
            state(client, described, verbose).await?;
        } else {
            offsets(client, described, verbose).await?;
        }
    }
    Ok(())
}

/// Says what there is to say about the group's state; whether rows should follow.
fn announce(described: &Described, rows: usize) -> bool {
    let id = &described.group.group_id;
    match &*described.group.group_state {
        "Dead" => {
            print_error(&format!("Consumer group '{id}' does not exist."));
            return false;
        }
        "Empty" => eprintln!("\nConsumer group '{id}' has no active members."),
        "PreparingRebalance" | "CompletingRebalance" | "Assigning" | "Reconciling" => {
            eprintln!("\nWarning: Consumer group '{id}' is rebalancing.");
        }
        _ => {}
    }
    rows > 0
}

struct OffsetRow {
    topic: String,
    partition: String,
    committed: Option<Committed>,
    end: Option<i64>,
    consumer: String,
    host: String,
    client: String,
}

async fn offset_rows(client: &mut Client, described: &Described) -> ToolResult<Vec<OffsetRow>> {
    let committed = committed(client, &described.group.group_id).await?;
    let mut members: Vec<(Vec<TopicPartition>, [String; 3])> = described
        .group
        .members
        .iter()
        .map(|member| {
            let who = [
                member.member_id.to_string(),
                member.client_host.to_string(),
                member.client_id.to_string(),
            ];
            (assignment(&member.member_assignment), who)
        })
        .filter(|(partitions, _)| !partitions.is_empty())
        .collect();
    members.sort_by_key(|(partitions, _)| std::cmp::Reverse(partitions.len()));
    let assigned: BTreeSet<TopicPartition> = members
        .iter()
        .flat_map(|(partitions, _)| partitions.clone())
        .collect();
    let free: Vec<TopicPartition> = committed
        .keys()
        .filter(|one| !assigned.contains(*one))
        .cloned()
        .collect();
    let every: BTreeSet<TopicPartition> = assigned.iter().chain(&free).cloned().collect();
    let ends: BTreeMap<TopicPartition, i64> = offsets_at(client, &every, LATEST).await?;
    members.push((free, [MISSING; 3].map(str::to_owned)));
    let mut rows = Vec::new();
    for (mut partitions, [consumer, host, client_id]) in members {
        partitions.sort();
        rows.extend(partitions.into_iter().map(|one| OffsetRow {
            topic: one.0.to_string(),
            partition: one.1.to_string(),
            committed: committed.get(&one).copied(),
            end: ends.get(&one).copied(),
            consumer: consumer.clone(),
            host: host.clone(),
            client: client_id.clone(),
        }));
    }
    Ok(rows)
}

async fn offsets(client: &mut Client, described: &Described, verbose: bool) -> ToolResult {
    let rows = offset_rows(client, described).await?;
    if !announce(described, rows.len()) {
        return Ok(());
    }
    let group = &*described.group.group_id;
    let width =
        |get: fn(&OffsetRow) -> &str| rows.iter().map(|row| get(row).len()).max().unwrap_or(0).max(15);
    let (groups, topics) = (group.len().max(15), width(|row| &row.topic));
    let (consumers, hosts) = (width(|row| &row.consumer), width(|row| &row.host));
    let print = |group: &str,
                 topic: &str,
                 partition: &str,
                 epoch: &str,
                 numbers: [&str; 3],
                 who: [&str; 3]| {
        let [offset, end, lag] = numbers;
        let [consumer, host, client] = who;
        let epoch = if verbose {
            format!("{epoch:<15} ")
        } else {
            String::new()
        };
        print!(
            "\n{group:<groups$} {topic:<topics$} {partition:<10} {epoch}{offset:<15} {end:<15} {lag:<15} {consumer:<consumers$} {host:<hosts$} {client}"
        );
    };
    let numbers = ["CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"];
    print(
        "GROUP",
        "TOPIC",
        "PARTITION",
        "LEADER-EPOCH",
        numbers,
        ["CONSUMER-ID", "HOST", "CLIENT-ID"],
    );
    for row in &rows {
        let text = |number: Option<i64>| number.map_or(MISSING.to_owned(), |number| number.to_string());
        let lag = row
            .committed
            .and_then(|committed| Some(row.end? - committed.offset));
        let epoch = row
            .committed
            .map(|committed| i64::from(committed.leader_epoch))
            .filter(|epoch| *epoch >= 0);
        let (offset, end, lag) = (
            text(row.committed.map(|committed| committed.offset)),
            text(row.end),
            text(lag),
        );
        let who = [&*row.consumer, &*row.host, &*row.client];
        print(
            group,
            &row.topic,
            &row.partition,
            &text(epoch),
            [&offset, &end, &lag],
            who,
        );
    }
    println!();
    Ok(())
}

/// `topic:0,1, other:2`, as the verbose list of members has it.
fn assignment_text(partitions: &[TopicPartition]) -> String {
    let mut of_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        of_topic.entry(topic).or_default().push(*partition);
    }
    let topics: Vec<String> = of_topic
        .into_iter()
        .map(|(topic, mut ids)| {
            ids.sort_unstable();
            format!(
                "{topic}:{}",
                ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            )
        })
        .collect();
    if topics.is_empty() {
        MISSING.to_owned()
    } else {
        topics.join(";")
    }
}

fn members(described: &Described, verbose: bool) {
    let group = &described.group;
    let shown = announce(described, group.members.len());
    let width =
        |least: usize, lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).max(least);
    // Kafka's command measures the group's name only where rows follow.
    let groups = if shown { group.group_id.len().max(15) } else { 15 };
    let consumers = width(15, &mut group.members.iter().map(|member| member.member_id.len()));
    let hosts = width(
        15,
        &mut group.members.iter().map(|member| member.client_host.len()),
    );
    let clients = width(15, &mut group.members.iter().map(|member| member.client_id.len()));
    let instance = |id: &Option<milena_protocol::Str>| id.as_deref().unwrap_or_default().to_owned();
    let instances = width(
        17,
        &mut group
            .members
            .iter()
            .map(|member| instance(&member.group_instance_id).len()),
    );
    let has_instances = group
        .members
        .iter()
        .any(|member| member.group_instance_id.is_some());
    let texts: Vec<String> = group
        .members
        .iter()
        .map(|member| assignment_text(&assignment(&member.member_assignment)))
        .collect();
    let assignments = texts.iter().map(String::len).max().unwrap_or(0).max(20);
    let print = |id: &str, consumer: &str, instance: &str, host: &str, client: &str, count: &str| {
        print!("{id:<groups$} {consumer:<consumers$} ");
        if has_instances {
            print!("{instance:<instances$} ");
        }
        print!("{host:<hosts$} {client:<clients$} {count:<15} ");
    };
    let more = |epoch: &str, current: &str, target_epoch: &str, target: &str| {
        if verbose {
            print!("{epoch:<15} {current:<assignments$} {target_epoch:<15} {target:<19} ");
        }
        println!();
    };
    println!();
    print(
        "GROUP",
        "CONSUMER-ID",
        "GROUP-INSTANCE-ID",
        "HOST",
        "CLIENT-ID",
        "#PARTITIONS",
    );
    more(
        "CURRENT-EPOCH",
        "CURRENT-ASSIGNMENT",
        "TARGET-EPOCH",
        "TARGET-ASSIGNMENT",
    );
    for (member, text) in group.members.iter().zip(&texts) {
        let count = assignment(&member.member_assignment).len().to_string();
        let instance = instance(&member.group_instance_id);
        print(
            &group.group_id,
            &member.member_id,
            &instance,
            &member.client_host,
            &member.client_id,
            &count,
        );
        more(MISSING, text, MISSING, MISSING);
    }
}

async fn state(client: &mut Client, described: &Described, verbose: bool) -> ToolResult {
    if !announce(described, 1) {
        return Ok(());
    }
    let group = &described.group;
    let metadata = client.metadata(Some(&[])).await?;
    let broker = metadata
        .brokers
        .iter()
        .find(|broker| broker.node_id == described.coordinator);
    let coordinator = broker.map_or(MISSING.to_owned(), |broker| {
        format!("{}:{}  ({})", broker.host, broker.port, broker.node_id)
    });
    let width = coordinator.len().max(25);
    let groups = group.group_id.len().max(15);
    let print = |id: &str, coordinator: &str, strategy: &str, state: &str, epochs: [&str; 2], count: &str| {
        let [epoch, target] = epochs;
        let epochs = if verbose {
            format!("{epoch:<15} {target:<25} ")
        } else {
            String::new()
        };
        print!("\n{id:<groups$} {coordinator:<width$} {strategy:<20} {state:<20} {epochs}{count}");
    };
    let epochs = ["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"];
    print(
        "GROUP",
        "COORDINATOR (ID)",
        "ASSIGNMENT-STRATEGY",
        "STATE",
        epochs,
        "#MEMBERS",
    );
    let count = group.members.len().to_string();
    print(
        &group.group_id,
        &coordinator,
        if group.protocol_data.is_empty() {
            MISSING
        } else {
            &group.protocol_data
        },
        &group.group_state,
        [MISSING; 2],
        &count,
    );
    println!();
    Ok(())
}
