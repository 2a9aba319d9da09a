//! `--reset-offsets`: where a streams group that is not active goes on reading, without the topics of its own if so wished.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::Client;
use milena_protocol::{ErrorCode, Str};

use super::{GROUP_TYPE, group};
use crate::group_admin::{
    self, TopicPartition, check_partitions, commit, committed, partitions_named, print_error,
};
use crate::group_resets::{Plan, from_file, print_csv, scenario, within_range};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let mut plans: BTreeMap<Str, Plan> = BTreeMap::new();
    for id in group_admin::wanted(client, options, GROUP_TYPE).await? {
        let found = group::describe(client, &id).await?;
        let state = match &found {
            Ok(group) => group.described.group_state.to_string(),
            // A group that is not there may be given offsets before it is.
            Err(fault) if fault.code == ErrorCode::GroupIdNotFound => "Dead".to_owned(),
            Err(fault) => {
                return Err(ToolError::Failed(format!(
                    "java.util.concurrent.ExecutionException: {}",
                    fault.exception()
                )));
            }
        };
        if state != "Empty" && state != "Dead" {
            print_error(&format!(
                "Assignments can only be reset if the group '{id}' is inactive, but the current state is {state}."
            ));
            plans.insert(id, Plan::new());
            continue;
        }
        let plan = plan(client, options, &id).await?;
        if options.has("execute") {
            commit(client, &id, &plan).await?;
            if found.is_ok() {
                delete_internal_topics(client, options, &id).await?;
            }
        }
        plans.insert(id, plan);
    }
    if options.has("export") {
        print_csv(&plans, options.all("group").len() == 1);
    } else {
        print_plans(&plans);
    }
    Ok(())
}

/// The table of the plans; its columns do not grow with what stands in them.
fn print_plans(plans: &BTreeMap<Str, Plan>) {
    let print = |columns: [&str; 4]| {
        let [group, topic, partition, offset] = columns;
        print!("\n{group:<30} {topic:<30} {partition:<10} {offset:<15}");
    };
    if !plans.is_empty() {
        print(["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"]);
    }
    for (id, plan) in plans {
        for ((topic, partition), offset) in plan {
            print([id, topic, &partition.to_string(), &offset.to_string()]);
        }
    }
    println!();
}

async fn plan(client: &mut Client, options: &Options, id: &Str) -> ToolResult<Plan> {
    let partitions = partitions(client, options, id).await?;
    if let Some(path) = options.get("from-file") {
        let wanted = from_file(path, id, options.all("group").len() == 1)?;
        return within_range(client, wanted).await;
    }
    let current = if options.has("shift-by") || options.has("to-current") {
        let group = group::require(client, id).await?;
        group.committed(client, true).await?
    } else {
        BTreeMap::new()
    };
    scenario(client, options, partitions, &current).await
}

async fn partitions(
    client: &mut Client,
    options: &Options,
    id: &Str,
) -> ToolResult<BTreeSet<TopicPartition>> {
    if options.has("all-input-topics") {
        let group = group::require(client, id).await?;
        return Ok(group.committed(client, false).await?.into_keys().collect());
    }
    if !options.has("input-topic") {
        return if options.has("from-file") {
            Ok(BTreeSet::new())
        } else {
            Err(ToolError::Usage(
                "One of the reset scopes should be defined: --all-topics, --topic.".into(),
            ))
        };
    }
    let wanted = partitions_named(client, options.all("input-topic")).await?;
    check_partitions(client, &wanted).await?;
    let known = committed(client, id).await?;
    if wanted.iter().all(|one| known.contains_key(one)) {
        Ok(wanted)
    } else {
        print_error(&format!("One or more topics are not part of the group '{id}'."));
        Ok(BTreeSet::new())
    }
}

async fn delete_internal_topics(client: &mut Client, options: &Options, id: &Str) -> ToolResult {
    let topics: Vec<Str> = if options.has("delete-all-internal-topics") {
        group::require(client, id).await?.internal_topics()
    } else {
        let named = options.all("delete-internal-topic").iter();
        named.map(|topic| Str::from(topic.clone())).collect()
    };
    if topics.is_empty() {
        return Ok(());
    }
    match group::delete_topics(client, &topics).await?.first() {
        None => {}
        Some((_, fault)) if fault.code == ErrorCode::UnknownTopicOrPartition => print_error(&format!(
            "Deleting internal topics for group '{id}' failed because the topics do not exist."
        )),
        Some((_, fault)) => print_error(&format!(
            "Deleting internal topics for group '{id}' failed due to {}",
            fault.exception()
        )),
    }
    Ok(())
}
