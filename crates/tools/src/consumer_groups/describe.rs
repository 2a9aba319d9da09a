//! `--describe`: offsets and lag, members, or state.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::Client;

use super::group::{self, Group};
use super::wanted_groups;
use crate::ToolResult;
use crate::group_admin::{Committed, LATEST, MISSING, TopicPartition, committed, offsets_at, print_error};
use crate::options::Options;

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let ids = wanted_groups(client, options).await?;
    let mut groups = Vec::new();
    for id in &ids {
        groups.push(group::describe(client, id).await?);
    }
    let verbose = options.has("verbose");
    for group in &groups {
        if options.has("members") {
            members(group, verbose);
        } else if options.has("state") {
            state(client, group, verbose).await?;
        } else {
            offsets(client, group, verbose).await?;
        }
    }
    Ok(())
}

/// Says what there is to say about the group's state; whether rows should follow.
fn announce(group: &Group, rows: usize) -> bool {
    let id = &group.id;
    match &*group.state {
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

async fn offset_rows(client: &mut Client, group: &Group) -> ToolResult<Vec<OffsetRow>> {
    let committed = committed(client, &group.id).await?;
    let mut members: Vec<(Vec<TopicPartition>, [String; 3])> = group
        .members
        .iter()
        .map(|member| {
            let who = [
                member.id.to_string(),
                member.host.to_string(),
                member.client_id.to_string(),
            ];
            (member.partitions.clone(), who)
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

async fn offsets(client: &mut Client, group: &Group, verbose: bool) -> ToolResult {
    let rows = offset_rows(client, group).await?;
    if !announce(group, rows.len()) {
        return Ok(());
    }
    let group = &*group.id;
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

fn members(group: &Group, verbose: bool) {
    let shown = announce(group, group.members.len());
    let width =
        |least: usize, lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).max(least);
    // Kafka's command measures the group's name only where rows follow.
    let groups = if shown { group.id.len().max(15) } else { 15 };
    let consumers = width(15, &mut group.members.iter().map(|member| member.id.len()));
    let hosts = width(15, &mut group.members.iter().map(|member| member.host.len()));
    let clients = width(15, &mut group.members.iter().map(|member| member.client_id.len()));
    let instance = |id: &Option<milena_protocol::Str>| id.as_deref().unwrap_or_default().to_owned();
    let instances = width(
        17,
        &mut group
            .members
            .iter()
            .map(|member| instance(&member.instance_id).len()),
    );
    let has_instances = group.members.iter().any(|member| member.instance_id.is_some());
    let currents: Vec<String> = group
        .members
        .iter()
        .map(|member| assignment_text(&member.partitions))
        .collect();
    let targets: Vec<String> = group
        .members
        .iter()
        .map(|member| {
            member
                .modern
                .as_ref()
                .map_or_else(|| MISSING.to_owned(), |modern| assignment_text(&modern.target))
        })
        .collect();
    let current_width = width(20, &mut currents.iter().map(String::len));
    let target_width = width(20, &mut targets.iter().map(String::len));
    // The last column is for groups that are changing their protocol alone.
    let upgraded = |wanted: bool| {
        let mut members = group.members.iter().filter_map(|member| member.modern.as_ref());
        members.any(|modern| modern.is_upgraded == wanted)
    };
    let is_migrating = upgraded(false) && upgraded(true);
    let print = |id: &str, consumer: &str, instance: &str, host: &str, client: &str, count: &str| {
        print!("{id:<groups$} {consumer:<consumers$} ");
        if has_instances {
            print!("{instance:<instances$} ");
        }
        print!("{host:<hosts$} {client:<clients$} {count:<15} ");
    };
    let more = |[epoch, current, target_epoch, target, upgraded]: [&str; 5]| {
        if verbose {
            print!("{epoch:<15} {current:<current_width$} {target_epoch:<15} {target:<target_width$}");
            if is_migrating {
                print!(" {upgraded}");
            }
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
    more([
        "CURRENT-EPOCH",
        "CURRENT-ASSIGNMENT",
        "TARGET-EPOCH",
        "TARGET-ASSIGNMENT",
        "UPGRADED",
    ]);
    for ((member, current), target) in group.members.iter().zip(&currents).zip(&targets) {
        let count = member.partitions.len().to_string();
        let instance = instance(&member.instance_id);
        print(
            &group.id,
            &member.id,
            &instance,
            &member.host,
            &member.client_id,
            &count,
        );
        match &member.modern {
            None => more([MISSING, current, MISSING, target, MISSING]),
            Some(modern) => more([
                &modern.epoch.to_string(),
                current,
                &modern.target_epoch.to_string(),
                target,
                &modern.is_upgraded.to_string(),
            ]),
        }
    }
}

async fn state(client: &mut Client, group: &Group, verbose: bool) -> ToolResult {
    if !announce(group, 1) {
        return Ok(());
    }
    let metadata = client.metadata(Some(&[])).await?;
    let broker = metadata
        .brokers
        .iter()
        .find(|broker| broker.node_id == group.coordinator);
    let coordinator = broker.map_or(MISSING.to_owned(), |broker| {
        format!("{}:{}  ({})", broker.host, broker.port, broker.node_id)
    });
    let width = coordinator.len().max(25);
    let groups = group.id.len().max(15);
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
    let missing = || (MISSING.to_owned(), MISSING.to_owned());
    let texts = |(epoch, target): (i32, i32)| (epoch.to_string(), target.to_string());
    let (epoch, target) = group.epochs.map_or_else(missing, texts);
    print(
        &group.id,
        &coordinator,
        if group.strategy.is_empty() {
            MISSING
        } else {
            &group.strategy
        },
        &group.state,
        [&epoch, &target],
        &count,
    );
    println!();
    Ok(())
}
