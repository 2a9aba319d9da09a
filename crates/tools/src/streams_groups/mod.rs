//! `kafka-streams-groups`: list, describe and delete streams groups (KIP-1071), reset and delete their offsets.

mod delete;
mod describe;
mod group;
mod reset;

use std::process::ExitCode;

use crate::group_admin::{self, print_error, with_optional_values};
use crate::group_resets::SCENARIOS;
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, block_on};

/// As ListGroups names it.
const GROUP_TYPE: &str = "Streams";
const ACTIONS: [&str; 5] = ["list", "describe", "delete", "reset-offsets", "delete-offsets"];
const STATES: [&str; 6] = ["Stable", "Dead", "Empty", "Assigning", "Reconciling", "NotReady"];

const SPEC: Spec = Spec {
    about: "This tool helps to list, or describe streams groups.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued(
            "group",
            "String: streams group",
            "The streams group we wish to act on.",
        ),
        valued(
            "input-topic",
            "String: topic",
            "The input topic whose committed offset should be deleted or reset. With reset-offsets, partitions can be specified: topic1:0,1,2. Supported operations: delete-offsets, reset-offsets.",
        ),
        switch(
            "all-input-topics",
            "Consider all source topics used in the topology of the group. Supported operations: delete-offsets, reset-offsets.",
        ),
        switch("list", "List all streams groups."),
        switch(
            "describe",
            "Describe streams group and list offset lag related to given group.",
        ),
        switch("all-groups", "Apply to all streams groups."),
        switch(
            "delete",
            "Pass in groups to delete topic partition offsets and ownership information over the entire streams group. For instance --group g1 --group g2",
        ),
        switch(
            "delete-offsets",
            "Delete offsets of streams group. Supports one streams group at the time, and multiple topics.",
        ),
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
        valued(
            "state",
            "String",
            "When specified with '--list', it displays the state of all groups. It can also be used to list groups with specific states. Valid values are Empty, NotReady, Stable, Assigning, Reconciling, and Dead.",
        ),
        switch(
            "members",
            "Describe members of the group. This option may be used with the '--describe' option only.",
        ),
        switch(
            "offsets",
            "Describe the group and list all topic partitions in the group along with their offset information. This is the default sub-action and may be used with the '--describe' option only.",
        ),
        switch(
            "reset-offsets",
            "Reset offsets of streams group. The instances should be inactive. To define the scope use --all-input-topics or --input-topic. One scope must be specified unless you use '--from-file'. Fails if neither '--dry-run' nor '--execute' is specified.",
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
        switch("to-current", "Reset offsets to current offset."),
        valued(
            "shift-by",
            "Long: number-of-offsets",
            "Reset offsets shifting current offset by 'n', where 'n' can be positive or negative.",
        ),
        valued(
            "delete-internal-topic",
            "String",
            "Delete specified internal topic of the streams group. Supported operations: reset-offsets. This option is applicable only when --execute is used.",
        ),
        switch(
            "delete-all-internal-topics",
            "Delete all internal topics linked to the streams group. Supported operations: reset-offsets, delete. With reset-offsets, this option is applicable only when --execute is used.",
        ),
        switch(
            "dry-run",
            "Only show results without executing changes on streams group. Supported operations: reset-offsets.",
        ),
        switch(
            "execute",
            "Execute operation. Supported operations: reset-offsets.",
        ),
        switch(
            "export",
            "Export operation execution to a CSV file. Supported operations: reset-offsets.",
        ),
        switch(
            "verbose",
            "Use with --describe to show epochs, member epochs and target assignments, or leader epochs.",
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
        Err(error) => {
            print_error(&format!("Executing streams group command failed due to {error}"));
            ExitCode::FAILURE
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
    group_admin::only_with(options, &["state"], &["list", "describe"])?;
    options.require("bootstrap-server")?;
    let (in_scope, with_topics) = (
        options.has("group") || options.has("all-groups"),
        options.has("input-topic") || options.has("all-input-topics"),
    );
    if options.has("describe") {
        group_admin::check_views(options)?;
    }
    if options.has("delete") && !in_scope {
        return usage("Option [delete] takes one of these options: [all-groups], [group]");
    }
    if options.has("delete") && with_topics {
        return usage("Kafka Streams does not support topic-specific offset deletion from a streams group.");
    }
    if options.has("delete-offsets") {
        check_delete_offsets(options, with_topics)?;
    }
    if options.has("reset-offsets") {
        group_admin::check_execution(options)?;
        if !in_scope {
            return usage("Option [reset-offsets] takes one of these options: [all-groups], [group]");
        }
        group_admin::exclude_each_other(options, &SCENARIOS)?;
    }
    check_internal_topics(options)?;
    if (options.has("dry-run") || options.has("execute")) && !options.has("reset-offsets") {
        return usage("Only Option [reset-offsets] accepts [execute] or [dry-run]");
    }
    options.exclude("list", &["members", "offsets"])?;
    options.exclude("group", &["all-groups"])?;
    options.exclude("group", &["list"])?;
    options.exclude("input-topic", &["list", "describe", "delete"])?;
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        return usage(
            "Command must include exactly one action: --list, --describe, --delete, --reset-offsets, or --delete-offsets.",
        );
    }
    Ok(())
}

fn check_delete_offsets(options: &Options, with_topics: bool) -> ToolResult {
    if !with_topics || !options.has("group") {
        return usage(
            "Option [delete-offsets] takes the [group] and one of these options: [all-input-topics], [input-topic]",
        );
    }
    let groups = options.all("group");
    if groups.len() > 1 {
        return usage(format!(
            "Option [delete-offsets] supports only one [group] at a time, but found: [{}]",
            groups.join(", ")
        ));
    }
    Ok(())
}

/// Internal topics are deleted together with a group, or with a reset that is done and not only tried.
fn check_internal_topics(options: &Options) -> ToolResult {
    let (resets, executes) = (options.has("reset-offsets"), options.has("execute"));
    if options.has("delete-all-internal-topics") {
        if !resets && !options.has("delete") {
            return usage(
                "Option [delete-all-internal-topics] takes one of these options: [delete], [reset-offsets]",
            );
        }
        if resets && !executes {
            return usage(
                "Option [delete-all-internal-topics] takes [execute] when [reset-offsets] is used.",
            );
        }
    } else if options.has("delete-internal-topic") && !(resets && executes) {
        return usage("Option [delete-internal-topic] takes [reset-offsets] when [execute] is used.");
    }
    Ok(())
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = group_admin::connect(options).await?;
    if options.has("list") {
        group_admin::list(&mut client, options, GROUP_TYPE, &STATES).await
    } else if options.has("describe") {
        describe::run(&mut client, options).await
    } else if options.has("reset-offsets") {
        reset::run(&mut client, options).await
    } else if options.has("delete") {
        delete::groups(&mut client, options).await
    } else {
        delete::offsets(&mut client, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &str) -> String {
        let arguments = format!("--bootstrap-server b {arguments}");
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let options = SPEC.parse(&with_optional_values(&words, &["--state"])).unwrap();
        check(&options).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn internal_topics_are_deleted_only_with_a_group_or_a_reset_that_is_done() {
        let reset = "--reset-offsets --group g --all-input-topics --to-latest";
        assert_eq!(refusal("--delete --group g --delete-all-internal-topics"), "");
        assert_eq!(
            refusal(&format!("{reset} --execute --delete-all-internal-topics")),
            ""
        );
        assert_eq!(
            refusal(&format!("{reset} --dry-run --delete-all-internal-topics")),
            "Option [delete-all-internal-topics] takes [execute] when [reset-offsets] is used."
        );
        assert_eq!(
            refusal("--delete --group g --delete-internal-topic t"),
            "Option [delete-internal-topic] takes [reset-offsets] when [execute] is used."
        );
    }

    #[test]
    fn offsets_are_deleted_of_one_group_and_named_topics() {
        assert_eq!(
            refusal("--delete-offsets --group a --group b --input-topic t"),
            "Option [delete-offsets] supports only one [group] at a time, but found: [a, b]"
        );
        assert_eq!(
            refusal("--delete-offsets --group a"),
            "Option [delete-offsets] takes the [group] and one of these options: [all-input-topics], [input-topic]"
        );
        assert_eq!(
            refusal("--delete --group a --input-topic t"),
            "Kafka Streams does not support topic-specific offset deletion from a streams group."
        );
    }
}
