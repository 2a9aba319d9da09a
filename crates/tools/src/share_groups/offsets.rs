//! `--reset-offsets` and `--delete-offsets` of share groups.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use milena_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use milena_protocol::messages::{AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest};
use milena_protocol::{ErrorCode, Str};

use super::describe::partitions;
use super::described;
use crate::group_admin::{Fault, TopicPartition, check_partitions, partitions_named, print_error};
use crate::group_resets::{Plan, print_plans, scenario};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(super) async fn reset(client: &mut Client, options: &Options) -> ToolResult {
    let id = Str::from(options.require("group")?.to_owned());
    match described(client, &id).await? {
        Ok((_, group)) if !matches!(&*group.group_state, "Empty" | "Dead") => {
            return Err(ToolError::Refused(format!("Share group '{id}' is not empty.")));
        }
        Ok(_) => {}
        // A group that is not there may be given offsets before it is.
        Err(fault) if fault.code == ErrorCode::GroupIdNotFound => {}
        Err(fault) => return Err(ToolError::Refused(fault.message())),
    }
    let wanted: BTreeSet<TopicPartition> = if options.has("topic") {
        partitions_named(client, options.all("topic")).await?
    } else {
        partitions(client, &id).await?.into_keys().collect()
    };
    check_partitions(client, &wanted).await?;
    let plan = scenario(client, options, wanted, &BTreeMap::new()).await?;
    if options.has("execute") {
        alter(client, &id, &plan).await?;
    }
    print_plans(&BTreeMap::from([(id, plan)]));
    Ok(())
}

async fn alter(client: &mut Client, id: &Str, plan: &Plan) -> ToolResult {
    let mut topics: BTreeMap<Str, Vec<AlterShareGroupOffsetsRequestPartition>> = BTreeMap::new();
    for ((topic, partition_index), start_offset) in plan {
        let partition = AlterShareGroupOffsetsRequestPartition {
            partition_index: *partition_index,
            start_offset: *start_offset,
            ..AlterShareGroupOffsetsRequestPartition::default()
        };
        topics.entry(topic.clone()).or_default().push(partition);
    }
    let topics = topics
        .into_iter()
        .map(|(topic_name, partitions)| AlterShareGroupOffsetsRequestTopic {
            topic_name,
            partitions,
            ..AlterShareGroupOffsetsRequestTopic::default()
        })
        .collect();
    let request = AlterShareGroupOffsetsRequest {
        group_id: id.clone(),
        topics,
        ..AlterShareGroupOffsetsRequest::default()
    };
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let response = client.send_to(coordinator, request).await?;
    let failed: Vec<String> = if response.error_code == 0 {
        let topics = response.responses.iter();
        let partitions =
            topics.flat_map(|topic| topic.partitions.iter().map(move |one| (&topic.topic_name, one)));
        partitions
            .filter(|(_, one)| one.error_code != 0)
            .map(|(topic, one)| format!("{topic}-{}", one.partition_index))
            .collect()
    } else {
        let names = plan.keys();
        names
            .map(|(topic, partition)| format!("{topic}-{partition}"))
            .collect()
    };
    if failed.is_empty() {
        return Ok(());
    }
    Err(ToolError::Failed(format!(
        "Failed altering group offsets for the following partitions: [{}]",
        failed.join(", ")
    )))
}

pub(super) async fn delete(client: &mut Client, options: &Options) -> ToolResult {
    let id = Str::from(options.require("group")?.to_owned());
    let topics: BTreeSet<Str> = options
        .all("topic")
        .iter()
        .map(|topic| Str::from(topic.clone()))
        .collect();
    let request = DeleteShareGroupOffsetsRequest {
        group_id: id.clone(),
        topics: topics
            .iter()
            .map(|topic| DeleteShareGroupOffsetsRequestTopic {
                topic_name: topic.clone(),
                ..DeleteShareGroupOffsetsRequestTopic::default()
            })
            .collect(),
        ..DeleteShareGroupOffsetsRequest::default()
    };
    let coordinator = client.coordinator(&id, GROUP_COORDINATOR).await?;
    let response = client.send_to(coordinator, request).await?;
    let whole = Fault::of(response.error_code, response.error_message.as_ref());
    let mut results: BTreeMap<Str, Option<Fault>> =
        topics.into_iter().map(|topic| (topic, whole.clone())).collect();
    if whole.is_none() {
        for topic in response.responses {
            let fault = Fault::of(topic.error_code, topic.error_message.as_ref());
            results.insert(topic.topic_name, fault);
        }
    }
    if let Some(fault) = results.values().flatten().next() {
        announce(fault);
    }
    let width = results.keys().map(|topic| topic.len()).max().unwrap_or(0).max(15);
    if !results.is_empty() {
        print!("\n{:<width$} STATUS", "TOPIC");
    }
    for (topic, fault) in &results {
        let status = fault.as_ref().map_or_else(
            || "Successful".to_owned(),
            |fault| format!("Error: {}", fault.message()),
        );
        print!("\n{:<width$} {status}", &**topic);
    }
    println!();
    Ok(())
}

/// Says what is wrong with the whole, unless it is what the rows of topics will say.
fn announce(fault: &Fault) {
    match fault.code {
        ErrorCode::InvalidGroupId
        | ErrorCode::GroupIdNotFound
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::NonEmptyGroup => print_error(&fault.message()),
        ErrorCode::TopicAuthorizationFailed | ErrorCode::UnknownTopicOrPartition => {}
        _ => print_error(&format!("Encounter some unknown error: {}", fault.exception())),
    }
}
