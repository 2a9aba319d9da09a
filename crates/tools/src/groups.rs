//! `kafka-groups`: the groups of all types in one list.

use std::process::ExitCode;

use milena_protocol::messages::list_groups_response::ListedGroup;

use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, admin, block_on, group_admin};

const TYPES: [&str; 4] = ["Classic", "Consumer", "Share", "Streams"];

/// The narrowest column.
const LEAST_WIDTH: usize = 20;

const SPEC: Spec = Spec {
    about: "This tool helps to list groups of all types.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The Kafka server to connect to.",
        ),
        valued(
            "command-config",
            "String: command config property file",
            "Property file containing configs to be passed to Admin Client.",
        ),
        switch("list", "List the groups."),
        valued(
            "group-type",
            "String: type",
            "Filter the groups based on group type. Valid types are: 'classic', 'consumer', 'share' and 'streams'.",
        ),
        valued(
            "protocol",
            "String: protocol",
            "Filter the groups based on protocol type.",
        ),
        switch(
            "consumer",
            "Filter the groups to show all kinds of consumer groups, including classic and simple consumer groups. This matches group type 'consumer', and group type 'classic' where the protocol type is 'consumer' or empty.",
        ),
        switch("share", "Filter the groups to show share groups."),
        switch("streams", "Filter the groups to show streams groups."),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(
        SPEC.parse(arguments)
            .and_then(|options| check(&options).map(|()| options)),
        &SPEC,
    ) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match block_on(list(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("Error while executing groups command : {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    options.require("bootstrap-server")?;
    if !options.has("list") {
        return Err(ToolError::Usage(
            "Command must include exactly one action: --list.".into(),
        ));
    }
    if let Some(text) = options.get("group-type")
        && !TYPES.iter().any(|known| known.eq_ignore_ascii_case(text))
    {
        return Err(ToolError::Refused(
            "--group-type must be a valid group type.".into(),
        ));
    }
    options.exclude("consumer", &["group-type", "protocol", "share", "streams"])?;
    options.exclude("share", &["consumer", "group-type", "protocol", "streams"])?;
    options.exclude("streams", &["consumer", "group-type", "protocol", "share"])
}

/// Whether the flags ask for the group.
fn is_wanted(options: &Options, group: &ListedGroup) -> bool {
    let is_type = |text: &str| group.group_type.eq_ignore_ascii_case(text);
    let is_protocol = |text: &str| group.protocol_type == text;
    if let Some(wanted) = options.get("group-type") {
        is_type(wanted) && options.get("protocol").is_none_or(is_protocol)
    } else if let Some(wanted) = options.get("protocol") {
        is_protocol(wanted)
    } else if options.has("consumer") {
        is_protocol("consumer") || is_protocol("") || is_type("Consumer")
    } else if options.has("share") {
        is_type("Share")
    } else if options.has("streams") {
        is_type("Streams")
    } else {
        true
    }
}

/// A group's type as Kafka's command writes it.
fn type_name(broker: &str) -> &str {
    let known = TYPES.iter().find(|known| known.eq_ignore_ascii_case(broker));
    match known {
        Some(known) => known,
        None if broker.is_empty() => "",
        None => "Unknown",
    }
}

async fn list(options: &Options) -> ToolResult {
    let mut client = admin::connect(options, "admin-client").await?;
    let groups = group_admin::listed(&mut client, &[], &[]).await?;
    let rows: Vec<[&str; 3]> = groups
        .iter()
        .filter(|group| is_wanted(options, group))
        .map(|group| {
            [
                &*group.group_id,
                type_name(&group.group_type),
                &*group.protocol_type,
            ]
        })
        .collect();
    let longest = rows.iter().flatten().map(|text| text.len()).max();
    let width = longest.unwrap_or(0).max(LEAST_WIDTH);
    println!("{:<width$} {:<width$} {:<width$}", "GROUP", "TYPE", "PROTOCOL");
    for [id, kind, protocol] in rows {
        println!("{id:<width$} {kind:<width$} {protocol:<width$} ");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use milena_protocol::Str;

    use super::*;

    fn wanted(arguments: &str, group_type: &'static str, protocol_type: &'static str) -> bool {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let group = ListedGroup {
            group_type: Str::from(group_type),
            protocol_type: Str::from(protocol_type),
            ..ListedGroup::default()
        };
        is_wanted(&SPEC.parse(&words).unwrap(), &group)
    }

    #[test]
    fn consumer_means_groups_of_consumers_whatever_their_protocol() {
        assert!(wanted("--list --consumer", "classic", "consumer"));
        assert!(wanted("--list --consumer", "classic", ""));
        assert!(wanted("--list --consumer", "consumer", "consumer"));
        assert!(!wanted("--list --consumer", "classic", "connect"));
        assert!(!wanted("--list --consumer", "share", "share"));
    }

    #[test]
    fn a_type_and_a_protocol_must_both_be_the_groups() {
        assert!(wanted(
            "--list --group-type CLASSIC --protocol connect",
            "classic",
            "connect"
        ));
        assert!(!wanted(
            "--list --group-type classic --protocol connect",
            "classic",
            "consumer"
        ));
        assert!(!wanted("--list --group-type share", "classic", "consumer"));
    }
}
