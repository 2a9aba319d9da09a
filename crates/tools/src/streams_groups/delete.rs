//! `--delete`, of groups with the topics of their own if so wished, and `--delete-offsets`.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::{Client, ClientError};
use milena_protocol::{ErrorCode, Str};

use super::{GROUP_TYPE, group};
use crate::group_admin::{self, Fault, MISSING, TopicPartition, partitions_named, print_error};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(super) async fn groups(client: &mut Client, options: &Options) -> ToolResult {
    let wanted = group_admin::wanted(client, options, GROUP_TYPE).await?;
    let wanted: BTreeSet<Str> = wanted.into_iter().collect();
    let listed = group_admin::listed(client, &[], &[Str::from(GROUP_TYPE)]).await?;
    let mut failed: BTreeMap<Str, String> = BTreeMap::new();
    for id in &wanted {
        let state = listed
            .iter()
            .find(|group| group.group_id == *id)
            .map(|group| &*group.group_state);
        if let Some(refusal) = refusal(id, state) {
            failed.insert(id.clone(), refusal);
        }
    }
    let ready: Vec<&Str> = wanted.iter().filter(|id| !failed.contains_key(*id)).collect();
    // What a group's topics are is known only while there is the group.
    let mut internal: BTreeMap<Str, Vec<Str>> = BTreeMap::new();
    if options.has("delete-all-internal-topics") {
        internal = internal_topics(client, &ready).await?;
    }
    let mut deleted: BTreeSet<Str> = BTreeSet::new();
    for id in ready {
        match group_admin::delete(client, id).await? {
            Some(fault) => drop(failed.insert(id.clone(), fault.exception())),
            None => drop(deleted.insert(id.clone())),
        }
    }
    let mut kept: BTreeMap<&Str, Fault> = BTreeMap::new();
    for (id, topics) in internal.iter().filter(|(id, _)| deleted.contains(*id)) {
        let faults = group::delete_topics(client, topics).await?;
        for (topic, _) in &faults {
            println!("Failed to delete internal topic: {topic}");
        }
        if let Some((_, fault)) = faults.into_iter().next() {
            kept.insert(id, fault);
        }
    }
    print_outcome(&failed, &deleted);
    if !internal.is_empty() && !deleted.is_empty() {
        let with_topics = deleted.iter().filter(|id| internal.contains_key(*id));
        print_topics_outcome(&kept, with_topics);
    }
    Ok(())
}

/// Why a group, in the state that it is listed with, is not to be deleted.
fn refusal(id: &Str, state: Option<&str>) -> Option<String> {
    match state {
        None => Some(format!(
            "java.lang.IllegalArgumentException: Group '{id}' does not exist or is not a streams group."
        )),
        Some("Dead") => Some(format!(
            "java.lang.IllegalStateException: Streams group '{id}' group state is DEAD."
        )),
        Some("Empty" | "") => None,
        Some(_) => Some(format!(
            "org.apache.kafka.common.errors.GroupNotEmptyException: Streams group '{id}' is not EMPTY."
        )),
    }
}

async fn internal_topics(client: &mut Client, ids: &[&Str]) -> ToolResult<BTreeMap<Str, Vec<Str>>> {
    let mut found = BTreeMap::new();
    for id in ids {
        match group::describe(client, id).await? {
            Ok(group) => {
                let topics = group.internal_topics();
                if !topics.is_empty() {
                    found.insert((*id).clone(), topics);
                }
            }
            Err(fault) => print_error(&format!(
                "Retrieving internal topics failed due to {}",
                fault.exception()
            )),
        }
    }
    Ok(found)
}

/// `'one', 'another'`, and `''` where there is none.
fn quoted<'a>(ids: impl Iterator<Item = &'a Str>) -> String {
    let ids: Vec<&str> = ids.map(|id| &**id).collect();
    format!("'{}'", ids.join("', '"))
}

fn print_outcome(failed: &BTreeMap<Str, String>, deleted: &BTreeSet<Str>) {
    if failed.is_empty() {
        println!(
            "Deletion of requested streams groups ({}) was successful.",
            quoted(deleted.iter())
        );
        return;
    }
    print_error("Deletion of some streams groups failed:");
    for (id, refusal) in failed {
        println!("* Group '{id}' could not be deleted due to: {refusal}");
    }
    if !deleted.is_empty() {
        println!(
            "\nThese streams groups were deleted successfully: {}.",
            quoted(deleted.iter())
        );
    }
}

fn print_topics_outcome<'a>(kept: &BTreeMap<&Str, Fault>, with_topics: impl Iterator<Item = &'a Str>) {
    if kept.is_empty() {
        println!(
            "Deletion of associated internal topics of the streams groups ({}) was successful.",
            quoted(with_topics)
        );
        return;
    }
    println!("Deletion of some associated internal topics failed:");
    for (id, fault) in kept {
        println!(
            "* Internal topics of the streams group '{id}' could not be deleted due to: {}",
            fault.exception()
        );
    }
}

pub(super) async fn offsets(client: &mut Client, options: &Options) -> ToolResult {
    let id = Str::from(options.require("group")?.to_owned());
    let mut results: BTreeMap<TopicPartition, Option<Fault>> = BTreeMap::new();
    let partitions = if options.has("all-input-topics") {
        let group = group::require(client, &id).await?;
        group.committed(client, false).await?.into_keys().collect()
    } else {
        let mut partitions = BTreeSet::new();
        for topic in options.all("input-topic") {
            match partitions_named(client, std::slice::from_ref(topic)).await {
                Ok(named) => partitions.extend(named),
                // A topic that is not there gets a row of its own.
                Err(ToolError::Client(ClientError::Broker(code, _))) => {
                    let topic = Str::from(topic.clone());
                    results.insert((topic, -1), Fault::of(code.code(), None));
                }
                Err(error) => return Err(error),
            }
        }
        partitions
    };
    let deleted = group_admin::delete_offsets(client, &id, &partitions).await?;
    let first = deleted
        .fault
        .as_ref()
        .or_else(|| deleted.partitions.values().flatten().next());
    announce(&id, first);
    results.extend(deleted.partitions);
    let width = results
        .keys()
        .map(|(topic, _)| topic.len())
        .max()
        .unwrap_or(0)
        .max(15);
    print!("\n{:<width$} {:<10} {:<15}", "TOPIC", "PARTITION", "STATUS");
    for ((topic, partition), fault) in &results {
        let partition = if *partition < 0 {
            MISSING.to_owned()
        } else {
            partition.to_string()
        };
        let status = fault.as_ref().map_or_else(
            || "Successful".to_owned(),
            |fault| format!("Error: {}", fault.exception()),
        );
        print!("\n{:<width$} {partition:<10} {status:<15}", &**topic);
    }
    println!();
    Ok(())
}

/// Says what became of the whole.
fn announce(id: &Str, fault: Option<&Fault>) {
    let Some(fault) = fault else {
        println!("Request succeeded for deleting offsets from group {id}.");
        return;
    };
    match fault.code {
        ErrorCode::InvalidGroupId
        | ErrorCode::GroupIdNotFound
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::NonEmptyGroup => print_error(&fault.message()),
        ErrorCode::GroupSubscribedToTopic
        | ErrorCode::TopicAuthorizationFailed
        | ErrorCode::UnknownTopicOrPartition => {
            print_error("Encountered some partition-level error, see the follow-up details.");
        }
        code => print_error(&format!("Encountered some unknown error: {}", code.name())),
    }
}
