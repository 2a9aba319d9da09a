//! `--delete` and `--delete-offsets`.

use std::collections::BTreeMap;

use milena_client::Client;
use milena_protocol::{ErrorCode, Str};

use super::wanted_groups;
use crate::ToolResult;
use crate::group_admin::{self, Fault, partitions_named, print_error, quoted};
use crate::options::Options;

pub(super) async fn groups(client: &mut Client, options: &Options) -> ToolResult {
    let ids = wanted_groups(client, options).await?;
    let mut failed: BTreeMap<Str, Fault> = BTreeMap::new();
    for id in &ids {
        if let Some(fault) = group_admin::delete(client, id).await? {
            failed.insert(id.clone(), fault);
        }
    }
    let good: Vec<&Str> = ids.iter().filter(|id| !failed.contains_key(*id)).collect();
    if failed.is_empty() {
        println!(
            "Deletion of requested consumer groups ({}) was successful.",
            quoted(good)
        );
        return Ok(());
    }
    print_error("Deletion of some consumer groups failed:");
    for (id, fault) in &failed {
        println!(
            "* Group '{id}' could not be deleted due to: {}",
            fault.exception()
        );
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
    let deleted = group_admin::delete_offsets(client, &id, &partitions).await?;
    let code = deleted.fault.as_ref().map_or(ErrorCode::None, |fault| fault.code);
    match code {
        ErrorCode::None if deleted.partitions.values().all(Option::is_none) => {
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
    print!("\n{:<15} {:<10} {:<15}", "TOPIC", "PARTITION", "STATUS");
    for ((topic, partition), fault) in &deleted.partitions {
        let status = fault.as_ref().map_or_else(
            || "Successful".to_owned(),
            |fault| format!("Error: {}", fault.exception()),
        );
        print!("\n{topic:<15} {partition:<10} {status:<15}");
    }
    println!();
    Ok(())
}
