//! `kafka-consumer-groups`: list, describe and delete consumer groups, reset and delete their offsets.

mod delete;
mod describe;
mod group;
mod reset;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use milena_client::Client;
use milena_protocol::Str;
use milena_protocol::messages::list_groups_response::ListedGroup;

use crate::group_admin::{self, listed, print_error, with_optional_values};
use crate::group_resets::SCENARIOS;
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, block_on};

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
        SPEC.parse(&with_optional_values(arguments, &["--state", "--type"]))
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

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    options.require("bootstrap-server")?;
    if options.has("describe") {
        group_admin::check_views(options)?;
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
        if let Some((at, first)) = SCENARIOS.iter().enumerate().find(|(_, name)| options.has(name)) {
            options.exclude(first, &SCENARIOS[at + 1..])?;
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
    let mut client = group_admin::connect(options).await?;
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
    let groups = listed(client, states, types).await?.into_iter();
    let consumers = groups.filter(|group| {
        group.protocol_type.is_empty() || group.protocol_type == "consumer" || group.group_type == "Consumer"
    });
    Ok(consumers.map(|group| (group.group_id.clone(), group)).collect())
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
