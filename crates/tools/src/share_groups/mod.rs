//! `kafka-share-groups`: list, describe and delete share groups (KIP-932), reset and delete their offsets.

mod describe;
mod offsets;

use std::collections::BTreeSet;
use std::process::ExitCode;

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::Str;
use milena_protocol::messages::ShareGroupDescribeRequest;
use milena_protocol::messages::share_group_describe_response::DescribedGroup;

use crate::group_admin::{self, Fault, print_error, quoted, with_optional_values};
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, block_on};

/// As ListGroups names it.
const GROUP_TYPE: &str = "Share";
const ACTIONS: [&str; 5] = ["list", "describe", "delete", "reset-offsets", "delete-offsets"];
const STATES: [&str; 3] = ["Stable", "Empty", "Dead"];
const SCENARIOS: [&str; 3] = ["to-datetime", "to-earliest", "to-latest"];

const SPEC: Spec = Spec {
    about: "This tool helps to list, describe, reset and delete share groups.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued(
            "group",
            "String: share group",
            "The share group we wish to act on.",
        ),
        valued(
            "topic",
            "String: topic",
            "The topic whose offset information should be deleted or included in the reset offset process. When resetting offsets, partitions can be specified using this format: 'topic1:0,1,2', where 0,1,2 are the partitions to be included.",
        ),
        switch(
            "all-topics",
            "Consider all topics assigned to a share group in the 'reset-offsets' process.",
        ),
        switch("list", "List all share groups."),
        switch(
            "describe",
            "Describe share group, members and offset information.",
        ),
        switch("all-groups", "Apply to all share groups."),
        switch("delete", "Delete share group."),
        valued(
            "timeout",
            "Long: timeout (ms)",
            "The timeout that can be set for some use cases. (default: 30000)",
        ),
        valued(
            "command-config",
            "String: command config property file",
            "Property file containing configs to be passed to Admin Client.",
        ),
        switch(
            "reset-offsets",
            "Reset offsets of share group. Supports one share group at the time, and instances must be inactive. You must choose one of --to-datetime, --to-earliest, --to-latest. Fails if neither '--dry-run' nor '--execute' is specified.",
        ),
        switch(
            "delete-offsets",
            "Delete offsets of share group. Supports one share group at the time, and multiple topics.",
        ),
        switch(
            "dry-run",
            "Only show results without executing changes on share groups. Supported operations: reset-offsets.",
        ),
        switch(
            "execute",
            "Execute operation. Supported operations: reset-offsets.",
        ),
        valued(
            "to-datetime",
            "String: datetime",
            "Reset offsets to offset from datetime. Format: 'YYYY-MM-DDThh:mm:ss.sss'",
        ),
        switch("to-earliest", "Reset offsets to earliest offset."),
        switch("to-latest", "Reset offsets to latest offset."),
        switch(
            "members",
            "Describe members of the group. This option may be used with the '--describe' option only.",
        ),
        switch(
            "offsets",
            "Describe the group and list all topic partitions in the group along with their offset information. This is the default sub-action and may be used with the '--describe' option only.",
        ),
        valued(
            "state",
            "String",
            "When specified with '--describe', includes the state of the group. When specified with '--list', it displays the state of all groups. It can also be used to list groups with specific states. Valid values are Empty, Stable and Dead.",
        ),
        switch(
            "verbose",
            "Provide additional information, if any, when describing the group. This option may be used with the '--describe' option only.",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(
        SPEC.parse(&with_optional_values(arguments, &["--state"]))
            .and_then(|options| check(&options).map(|()| options)),
        &SPEC,
    ) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ToolError::Usage(message)) => crate::usage(&message, &SPEC),
        Err(ToolError::Refused(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
        // Kafka's command says what went wrong and still ends well.
        Err(error) => {
            print_error(&format!("Executing share group command failed due to {error}"));
            ExitCode::SUCCESS
        }
    }
}

fn usage(message: impl Into<String>) -> ToolResult {
    Err(ToolError::Usage(message.into()))
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    group_admin::only_with(options, &["members", "offsets", "verbose"], &["describe"])?;
    group_admin::only_with(options, &["state"], &["describe", "list"])?;
    options.require("bootstrap-server")?;
    if options.has("describe") {
        group_admin::check_views(options)?;
    }
    if options.has("delete") {
        check_delete(options)?;
    }
    if options.has("delete-offsets") && !(options.has("group") && options.has("topic")) {
        return usage("Option [delete-offsets] takes the following options: [group], [topic]");
    }
    if options.has("reset-offsets") {
        check_reset(options)?;
    }
    options.exclude("group", &["all-groups"])?;
    options.exclude("group", &["list"])?;
    options.exclude("topic", &["list", "describe"])?;
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        return usage(
            "Command must include exactly one action: --list, --describe, --delete, --reset-offsets, --delete-offsets.",
        );
    }
    Ok(())
}

fn check_delete(options: &Options) -> ToolResult {
    match (options.has("group"), options.has("all-groups")) {
        (false, false) => return usage("Option [delete] takes the options [group] or [all-groups]"),
        (true, true) => return usage("Option [delete] takes either [group] or [all-groups], not both."),
        _ => {}
    }
    if options.has("topic") {
        return usage("Option [delete] does not take the option: [topic]");
    }
    Ok(())
}

fn check_reset(options: &Options) -> ToolResult {
    group_admin::check_execution(options)?;
    if !options.has("group") {
        return usage("Option [reset-offsets] takes the option: [group]");
    }
    if !options.has("topic") && !options.has("all-topics") {
        return usage("Option [reset-offsets] takes one of these options: [all-topics], [topic]");
    }
    if !SCENARIOS.iter().any(|scenario| options.has(scenario)) {
        return usage(
            "Option [reset-offsets] takes one of these options: [to-datetime], [to-earliest], [to-latest]",
        );
    }
    group_admin::exclude_each_other(options, &SCENARIOS)
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = group_admin::connect(options).await?;
    if options.has("list") {
        group_admin::list(&mut client, options, GROUP_TYPE, &STATES).await
    } else if options.has("describe") {
        describe::run(&mut client, options).await
    } else if options.has("delete") {
        delete(&mut client, options).await
    } else if options.has("reset-offsets") {
        offsets::reset(&mut client, options).await
    } else {
        offsets::delete(&mut client, options).await
    }
}

/// The groups that the flags name, in order and each once.
async fn wanted_groups(client: &mut Client, options: &Options) -> ToolResult<BTreeSet<Str>> {
    let wanted = group_admin::wanted(client, options, GROUP_TYPE).await?;
    Ok(wanted.into_iter().collect())
}

/// A share group, and the broker that coordinates it; or why it cannot be described.
async fn described(client: &mut Client, id: &Str) -> ToolResult<Result<(i32, DescribedGroup), Fault>> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = ShareGroupDescribeRequest {
        group_ids: vec![id.clone()],
        ..ShareGroupDescribeRequest::default()
    };
    let response = client.send_to(coordinator, request).await?;
    let group = response.groups.into_iter().next();
    let group =
        group.ok_or_else(|| ToolError::Failed(format!("The broker does not describe group {id}.")))?;
    Ok(match Fault::of(group.error_code, group.error_message.as_ref()) {
        Some(fault) => Err(fault),
        None => Ok((coordinator, group)),
    })
}

async fn delete(client: &mut Client, options: &Options) -> ToolResult {
    let all = group_admin::listed(client, &[], &[Str::from(GROUP_TYPE)]).await?;
    let mut failed: Vec<(Str, String)> = Vec::new();
    let mut deleted: Vec<Str> = Vec::new();
    for id in wanted_groups(client, options).await? {
        let listed = all.iter().find(|group| group.group_id == id);
        let refusal = match listed.map(|group| &*group.group_state) {
            None => Some(format!(
                "java.lang.IllegalArgumentException: Group '{id}' is not a share group."
            )),
            Some("Dead") => Some(format!(
                "java.lang.IllegalStateException: Share group '{id}' group state is DEAD."
            )),
            Some("Empty" | "") => group_admin::delete(client, &id)
                .await?
                .map(|fault| fault.exception()),
            Some(_) => Some(format!(
                "org.apache.kafka.common.errors.GroupNotEmptyException: Share group '{id}' is not EMPTY."
            )),
        };
        match refusal {
            Some(refusal) => failed.push((id, refusal)),
            None => deleted.push(id),
        }
    }
    if failed.is_empty() {
        println!(
            "Deletion of requested share groups ({}) was successful.",
            quoted(&deleted)
        );
        return Ok(());
    }
    print_error("Deletion of some share groups failed:");
    for (id, refusal) in &failed {
        println!("* Group '{id}' could not be deleted due to: {refusal}");
    }
    if !deleted.is_empty() {
        println!(
            "\nThese share groups were deleted successfully: {}",
            quoted(&deleted)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &str) -> String {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let options = SPEC.parse(&with_optional_values(&words, &["--state"])).unwrap();
        check(&options).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused_in_kafkas_words() {
        let with = |rest: &str| refusal(&format!("--bootstrap-server b {rest}"));
        assert_eq!(with("--list --state"), "");
        assert_eq!(
            with("--describe"),
            "Option [describe] takes one of these options: [all-groups], [group]"
        );
        assert_eq!(
            with("--describe --group g --state Empty"),
            "Option [describe] does not take a value for [state]"
        );
        assert_eq!(
            with("--reset-offsets --group g --all-topics --to-latest"),
            "Option [reset-offsets] takes the option: [execute] or [dry-run]"
        );
        assert_eq!(
            with("--reset-offsets --group g --all-topics --to-latest --to-earliest --dry-run"),
            "Option \"[to-earliest]\" can't be used with option \"[to-latest]\""
        );
        assert_eq!(
            with("--delete --group g --topic t"),
            "Option [delete] does not take the option: [topic]"
        );
        assert_eq!(
            with("--list --members"),
            "Option(s) [members] are unavailable given other options on the command line"
        );
    }
}
