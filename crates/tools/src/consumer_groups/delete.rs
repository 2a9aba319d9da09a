//! `--delete` and `--delete-offsets`.

use std::collections::BTreeMap;

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use milena_protocol::messages::{DeleteGroupsRequest, OffsetDeleteRequest};
use milena_protocol::{ErrorCode, Str};

use super::{TopicPartition, partitions_named, print_error, wanted_groups};
use crate::ToolResult;
use crate::options::Options;

/// An error as Java's exception of it prints itself.
fn exception(code: ErrorCode) -> String {
    let text = match code {
        ErrorCode::NonEmptyGroup => "GroupNotEmptyException: The group is not empty.",
        ErrorCode::GroupIdNotFound => "GroupIdNotFoundException: The group id does not exist.",
        ErrorCode::InvalidGroupId => "InvalidGroupIdException: The group id is invalid.",
        code => return code.name().to_owned(),
    };
    format!("org.apache.kafka.common.errors.{text}")
}

pub(super) async fn groups(client: &mut Client, options: &Options) -> ToolResult {
    let ids = wanted_groups(client, options).await?;
    let mut failed: BTreeMap<Str, ErrorCode> = BTreeMap::new();
    for id in &ids {
        let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
        let request = DeleteGroupsRequest {
            groups_names: vec![id.clone()],
            ..DeleteGroupsRequest::default()
        };
        for result in client.send_to(coordinator, request).await?.results {
            if result.error_code != 0 {
                failed.insert(result.group_id, ErrorCode::from_code(result.error_code));
            }
        }
    }
    let quoted = |ids: Vec<&Str>| {
        ids.iter()
            .map(|id| format!("'{id}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let good: Vec<&Str> = ids.iter().filter(|id| !failed.contains_key(*id)).collect();
    if failed.is_empty() {
        println!(
            "Deletion of requested consumer groups ({}) was successful.",
            quoted(good)
        );
        return Ok(());
    }
    print_error("Deletion of some consumer groups failed:");
    for (id, code) in &failed {
        println!("* Group '{id}' could not be deleted due to: {}", exception(*code));
    }
    if !good.is_empty() {
        println!(
            "\nThese consumer groups were deleted successfully: {}",
            quoted(good)
        );
    }
    Ok(())
}

pub(super) async fn offsets(client: &mut Client, options: &Options) -> ToolResult {
    let id = Str::from(options.require("group")?.to_owned());
    let partitions = partitions_named(client, options.all("topic")).await?;
    let mut topics: BTreeMap<Str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for (topic, partition_index) in &partitions {
        let partition = OffsetDeleteRequestPartition {
            partition_index: *partition_index,
            ..OffsetDeleteRequestPartition::default()
        };
        topics.entry(topic.clone()).or_default().push(partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| OffsetDeleteRequestTopic {
            name,
            partitions,
            ..OffsetDeleteRequestTopic::default()
        })
        .collect();
    let coordinator = client.coordinator(&id, GROUP_COORDINATOR).await?;
    let request = OffsetDeleteRequest {
        group_id: id.clone(),
        topics,
        ..OffsetDeleteRequest::default()
    };
    let response = client.send_to(coordinator, request).await?;
    let mut results: BTreeMap<TopicPartition, ErrorCode> = BTreeMap::new();
    for topic in response.topics {
        for one in topic.partitions {
            results.insert(
                (topic.name.clone(), one.partition_index),
                ErrorCode::from_code(one.error_code),
            );
        }
    }
    match ErrorCode::from_code(response.error_code) {
        ErrorCode::None if results.values().all(|code| *code == ErrorCode::None) => {
            println!("Request succeeded for deleting offsets from group {id}.");
        }
        ErrorCode::None => print_error("Encountered some partition-level error, see the follow-up details."),
        ErrorCode::InvalidGroupId => print_error(&format!("'{id}' is not valid.")),
        ErrorCode::GroupIdNotFound => print_error(&format!("'{id}' does not exist.")),
        ErrorCode::NonEmptyGroup => {
            print_error(&format!(
                "Deleting offsets of a consumer group '{id}' is forbidden if the group is not empty."
            ));
        }
        code => print_error(&format!("Encountered some unknown error: {code}")),
    }
    let top = ErrorCode::from_code(response.error_code);
    print!("\n{:<15} {:<10} {:<15}", "TOPIC", "PARTITION", "STATUS");
    for (topic, partition) in &partitions {
        let code = results.get(&(topic.clone(), *partition)).copied().unwrap_or(top);
        let status = if code == ErrorCode::None {
            "Successful".to_owned()
        } else {
            format!("Error: {}", exception(code))
        };
        print!("\n{topic:<15} {partition:<10} {status:<15}");
    }
    println!();
    Ok(())
}
