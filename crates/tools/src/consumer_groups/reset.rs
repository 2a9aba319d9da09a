//! `--reset-offsets`: where a group that is not active goes on reading.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::Client;
use milena_protocol::Str;

use super::{group, wanted_groups};
use crate::group_admin::{TopicPartition, commit, committed, partitions_named, print_error};
use crate::group_resets::{Plan, from_file, print_csv, print_plans, scenario, within_range};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let ids = wanted_groups(client, options).await?;
    let mut plans: BTreeMap<Str, Plan> = BTreeMap::new();
    for id in &ids {
        let state = match group::describe(client, id).await {
            Ok(group) => group.state.to_string(),
            Err(ToolError::Failed(text)) if text.contains("GroupIdNotFound") => "Dead".to_owned(),
            Err(error) => return Err(error),
        };
        if state != "Empty" && state != "Dead" {
            print_error(&format!(
                "Assignments can only be reset if the group '{id}' is inactive, but the current state is {state}."
            ));
            plans.insert(id.clone(), Plan::new());
            continue;
        }
        let plan = plan(client, options, id, ids.len() == 1).await?;
        if options.has("execute") {
            commit(client, id, &plan).await?;
        }
        plans.insert(id.clone(), plan);
    }
    if options.has("export") {
        print_csv(&plans, options.all("group").len() == 1);
    } else {
        print_plans(&plans);
    }
    Ok(())
}

async fn plan(client: &mut Client, options: &Options, id: &Str, single: bool) -> ToolResult<Plan> {
    if let Some(path) = options.get("from-file") {
        let wanted = from_file(path, id, single)?;
        return within_range(client, wanted).await;
    }
    let partitions: BTreeSet<TopicPartition> = if options.has("all-topics") {
        committed(client, id).await?.into_keys().collect()
    } else if options.has("topic") {
        partitions_named(client, options.all("topic")).await?
    } else {
        return Err(ToolError::Usage(
            "One of the reset scopes should be defined: --all-topics, --topic.".into(),
        ));
    };
    let committed = committed(client, id).await?;
    scenario(client, options, partitions, &committed).await
}
