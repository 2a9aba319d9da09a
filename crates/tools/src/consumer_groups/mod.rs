//! `kafka-consumer-groups`: list, describe and delete consumer groups, reset and delete their offsets.

mod delete;
mod describe;
mod group;
mod reset;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::Str;
use milena_protocol::messages::list_groups_response::ListedGroup;
use milena_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::{ListGroupsRequest, ListOffsetsRequest, OffsetFetchRequest};

use group::TopicPartition;

use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, admin, block_on};

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// What stands where a row has nothing to say.
const MISSING: &str = "-";

const ACTIONS: [&str; 5] = ["list", "describe", "delete", "reset-offsets", "delete-offsets"];

const SPEC: Spec = Spec {
    about: "This tool helps to list all consumer groups, describe a consumer group, delete consumer group info, or reset consumer group offsets.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued(
            "group",
            "String: consumer group",
            "The consumer group we wish to act on.",
        ),
        valued(
            "topic",
            "String: topic",
            "The topic whose consumer group information should be deleted or topic whose should be included in the reset offset process. With reset-offsets, partitions can be specified: topic1:0,1,2.",
        ),
        switch(
            "all-topics",
            "Consider all topics assigned to a group in the reset-offsets process.",
        ),
        switch("list", "List all consumer groups."),
        switch(
            "describe",
            "Describe consumer group and list offset lag (number of messages not yet processed) related to given group.",
        ),
        switch("all-groups", "Apply to all consumer groups."),
        switch(
            "delete",
            "Pass in groups to delete topic partition offsets and ownership information over the entire consumer group.",
        ),
        valued(
            "timeout",
            "Long: timeout (ms)",
            "The timeout that can be set for some use cases. (default: 30000)",
        ),
        valued(
            "command-config",
            "String: command config property file",
            "Property file containing configs to be passed to Admin Client and Consumer.",
        ),
        switch(
            "reset-offsets",
            "Reset offsets of consumer group. Supports one consumer group at the time, and instances should be inactive.",
        ),
        switch(
            "delete-offsets",
            "Delete offsets of consumer group. Supports one consumer group at the time, and multiple topics.",
        ),
        switch(
            "dry-run",
            "Only show results without executing changes on Consumer Groups. Supported operations: reset-offsets.",
        ),
        switch(
            "execute",
            "Execute operation. Supported operations: reset-offsets.",
        ),
        switch(
            "export",
            "Export operation execution to a CSV file. Supported operations: reset-offsets.",
        ),
        valued("to-offset", "Long: offset", "Reset offsets to a specific offset."),
        valued(
            "from-file",
            "String: path to CSV file",
            "Reset offsets to values defined in CSV file.",
        ),
        valued(
            "to-datetime",
            "String: datetime",
            "Reset offsets to offset from datetime. Format: 'YYYY-MM-DDThh:mm:ss.sss'",
        ),
        valued(
            "by-duration",
            "String: duration",
            "Reset offsets to offset by duration from current timestamp. Format: 'PnDTnHnMnS'",
        ),
        switch("to-earliest", "Reset offsets to earliest offset."),
        switch("to-latest", "Reset offsets to latest offset."),
        valued(
            "shift-by",
            "Long: number-of-offsets",
            "Reset offsets shifting current offset by 'n', where 'n' can be positive or negative.",
        ),
        switch("to-current", "Reset offsets to current offset."),
        switch("members", "Describe members of the group."),
        switch(
            "verbose",
            "Provide additional information, if any, when describing the group.",
        ),
        switch(
            "offsets",
            "Describe the group and list all topic partitions in the group along with their offset lag.",
        ),
        valued(
            "state",
            "String",
            "When specified with '--describe', includes the state of the group. When specified with '--list', it displays the state of all groups.",
        ),
        valued(
            "type",
            "String",
            "When specified with '--list', it displays the types of all the groups.",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(
        SPEC.parse(&with_optional_values(arguments))
            .and_then(|options| check(&options).map(|()| options)),
        &SPEC,
    ) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ToolError::Usage(message)) => crate::usage(&message, &SPEC),
        // Kafka's command says what went wrong and still ends well.
        Err(error) => {
            print_error(&format!("Executing consumer group command failed due to {error}"));
            ExitCode::SUCCESS
        }
    }
}

/// `--state` and `--type` may stand without a value; then they have an empty one.
fn with_optional_values(arguments: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut arguments = arguments.iter().peekable();
    while let Some(argument) = arguments.next() {
        out.push(argument.clone());
        let optional = argument == "--state" || argument == "--type";
        if optional && arguments.peek().is_none_or(|next| next.starts_with("--")) {
            out.push(String::new());
        }
    }
    out
}

fn print_error(message: &str) {
    println!("\nError: {message}");
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    options.require("bootstrap-server")?;
    if options.has("describe") {
        if !options.has("group") && !options.has("all-groups") {
            return Err(ToolError::Usage(
                "Option [describe] takes one of these options: [all-groups], [group]".into(),
            ));
        }
        let views = ["members", "offsets", "state"];
        if views.iter().filter(|view| options.has(view)).count() > 1 {
            return Err(ToolError::Usage(
                "Option [describe] takes at most one of these options: [members], [offsets], [state]".into(),
            ));
        }
        if options.get("state").is_some_and(|state| !state.is_empty()) {
            return Err(ToolError::Usage(
                "Option [describe] does not take a value for [state]".into(),
            ));
        }
    } else if options.has("list") {
        options.exclude("group", &["list"])?;
    }
    if options.has("delete") && !options.has("group") && !options.has("all-groups") {
        return Err(ToolError::Usage(
            "Option [delete] takes one of these options: [all-groups], [group]".into(),
        ));
    }
    if options.has("delete-offsets") && (!options.has("group") || !options.has("topic")) {
        return Err(ToolError::Usage(
            "Option [delete-offsets] takes the following options: [topic], [group]".into(),
        ));
    }
    if options.has("reset-offsets") {
        options.exclude("dry-run", &["execute"])?;
        if !options.has("dry-run") && !options.has("execute") {
            eprintln!(
                "WARN: No action will be performed as the --execute option is missing. In version 5.0, this command will require either --dry-run or --execute to be specified. You should add the --dry-run option explicitly if you are scripting this command and want to keep the current default behavior without prompting."
            );
        }
        if !options.has("group") && !options.has("all-groups") {
            return Err(ToolError::Usage(
                "Option [reset-offsets] takes one of these options: [all-groups], [group]".into(),
            ));
        }
        options.exclude("group", &["all-groups"])?;
        options.exclude("all-topics", &["topic"])?;
        if let Some((at, first)) = reset::SCENARIOS
            .iter()
            .enumerate()
            .find(|(_, name)| options.has(name))
        {
            options.exclude(first, &reset::SCENARIOS[at + 1..])?;
        }
    }
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        return Err(ToolError::Usage(
            "Command must include exactly one action: --list, --describe, --delete, --reset-offsets, --delete-offsets".into(),
        ));
    }
    Ok(())
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = admin::connect(options, "admin-client").await?;
    if options.has("list") {
        list(&mut client, options).await
    } else if options.has("describe") {
        describe::run(&mut client, options).await
    } else if options.has("delete") {
        delete::groups(&mut client, options).await
    } else if options.has("reset-offsets") {
        reset::run(&mut client, options).await
    } else {
        delete::offsets(&mut client, options).await
    }
}

/// Consumer groups of the whole cluster, by id.
async fn all_groups(
    client: &mut Client,
    states: &[Str],
    types: &[Str],
) -> ToolResult<BTreeMap<Str, ListedGroup>> {
    let brokers = client.metadata(Some(&[])).await?.brokers;
    let mut groups = BTreeMap::new();
    for broker in brokers {
        let request = ListGroupsRequest {
            states_filter: states.to_vec(),
            types_filter: types.to_vec(),
            ..ListGroupsRequest::default()
        };
        let response = client.send_to(broker.node_id, request).await?;
        admin::check(response.error_code, None)?;
        let consumers = response.groups.into_iter().filter(|group| {
            group.protocol_type.is_empty()
                || group.protocol_type == "consumer"
                || group.group_type == "Consumer"
        });
        groups.extend(consumers.map(|group| (group.group_id.clone(), group)));
    }
    Ok(groups)
}

async fn list(client: &mut Client, options: &Options) -> ToolResult {
    let values = |name: &str, known: &[&'static str], what: &str| -> ToolResult<Vec<Str>> {
        let Some(text) = options.get(name).filter(|text| !text.is_empty()) else {
            return Ok(Vec::new());
        };
        text.split(',')
            .map(|value| {
                let found = known
                    .iter()
                    .find(|known| known.eq_ignore_ascii_case(value.trim()));
                found.map(|known| Str::from(*known)).ok_or_else(|| {
                    ToolError::Usage(format!(
                        "Invalid {what} list '{text}'. Valid {what}s are: {}",
                        known.join(", ")
                    ))
                })
            })
            .collect()
    };
    let states = [
        "Stable",
        "PreparingRebalance",
        "CompletingRebalance",
        "Empty",
        "Dead",
        "Assigning",
        "Reconciling",
    ];
    let states = values("state", &states, "state")?;
    let types = values("type", &["Consumer", "Classic"], "types")?;
    let groups = all_groups(client, &states, &types).await?;
    let (with_type, with_state) = (options.has("type"), options.has("state"));
    if !with_type && !with_state {
        for id in groups.keys() {
            println!("{id}");
        }
        return Ok(());
    }
    let width = groups.keys().map(|id| id.len()).max().unwrap_or(0).max(15) + 10;
    let print = |group: &str, kind: &str, state: &str| {
        print!("{group:<width$}");
        if with_type {
            print!(" {kind:<20}");
        }
        if with_state {
            print!(" {state:<20}");
        }
        println!();
    };
    print("GROUP", "TYPE", "STATE");
    for (id, group) in &groups {
        print(id, type_name(&group.group_type), &group.group_state);
    }
    Ok(())
}

/// A group's type as Kafka's command writes it.
fn type_name(protocol: &str) -> &str {
    match protocol {
        "classic" => "Classic",
        "consumer" => "Consumer",
        other => other,
    }
}

/// The groups that the flags name.
async fn wanted_groups(client: &mut Client, options: &Options) -> ToolResult<Vec<Str>> {
    if options.has("all-groups") {
        return Ok(all_groups(client, &[], &[]).await?.into_keys().collect());
    }
    let named: BTreeSet<Str> = options
        .all("group")
        .iter()
        .map(|id| Str::from(id.clone()))
        .collect();
    Ok(named.into_iter().collect())
}

/// A committed offset and its leader epoch.
#[derive(Clone, Copy)]
struct Committed {
    offset: i64,
    leader_epoch: i32,
}

async fn committed(client: &mut Client, id: &Str) -> ToolResult<BTreeMap<TopicPartition, Committed>> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: id.clone(),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let mut found = BTreeMap::new();
    // Version 9 names topics; version 10 has ids, which a person does not ask by.
    let version = client.version_of::<OffsetFetchRequest>(coordinator).await?.min(9);
    let response = client.send_version_to(coordinator, &request, version).await?;
    for group in response.groups {
        admin::check(group.error_code, None)?;
        for topic in group.topics {
            for one in topic.partitions {
                if one.error_code == 0 && one.committed_offset >= 0 {
                    let value = Committed {
                        offset: one.committed_offset,
                        leader_epoch: one.committed_leader_epoch,
                    };
                    found.insert((topic.name.clone(), one.partition_index), value);
                }
            }
        }
    }
    Ok(found)
}

/// Offsets of partitions at a time; partitions that do not exist are left out.
async fn offsets_at(
    client: &mut Client,
    partitions: &BTreeSet<TopicPartition>,
    timestamp: i64,
) -> ToolResult<BTreeMap<TopicPartition, i64>> {
    let names: BTreeSet<Str> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
    let metadata = client
        .metadata(Some(&names.into_iter().collect::<Vec<_>>()))
        .await?;
    let mut of_leader: BTreeMap<i32, BTreeMap<Str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for topic in metadata.topics {
        let Some(name) = topic.name else { continue };
        for one in topic.partitions {
            if partitions.contains(&(name.clone(), one.partition_index)) {
                let partition = ListOffsetsPartition {
                    partition_index: one.partition_index,
                    timestamp,
                    ..ListOffsetsPartition::default()
                };
                of_leader
                    .entry(one.leader_id)
                    .or_default()
                    .entry(name.clone())
                    .or_default()
                    .push(partition);
            }
        }
    }
    let mut found = BTreeMap::new();
    for (leader, topics) in of_leader {
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic {
                name,
                partitions,
                ..ListOffsetsTopic::default()
            })
            .collect();
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..ListOffsetsRequest::default()
        };
        for topic in client.send_to(leader, request).await?.topics {
            for one in topic.partitions {
                if one.error_code == 0 {
                    found.insert((topic.name.clone(), one.partition_index), one.offset);
                }
            }
        }
    }
    Ok(found)
}

/// `topic`, or `topic:0,1,2`: partitions that exist, or that were named.
async fn partitions_named(client: &mut Client, topics: &[String]) -> ToolResult<BTreeSet<TopicPartition>> {
    let mut found = BTreeSet::new();
    for text in topics {
        if let Some((topic, ids)) = text.split_once(':') {
            for id in ids.split(',') {
                let id = id
                    .trim()
                    .parse()
                    .map_err(|_| ToolError::Usage(format!("For input string: \"{id}\"")))?;
                found.insert((Str::from(topic.to_owned()), id));
            }
            continue;
        }
        let name = Str::from(text.clone());
        for topic in client.metadata(Some(std::slice::from_ref(&name))).await?.topics {
            admin::check(topic.error_code, None)?;
            found.extend(
                topic
                    .partitions
                    .iter()
                    .map(|one| (name.clone(), one.partition_index)),
            );
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_may_stand_without_a_value() {
        let arguments =
            |text: &str| with_optional_values(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            arguments("--list --state --type"),
            ["--list", "--state", "", "--type", ""]
        );
        assert_eq!(arguments("--list --state Empty"), ["--list", "--state", "Empty"]);
    }
}
