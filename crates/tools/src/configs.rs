//! `kafka-configs`: describe and change the configs of topics, brokers, groups and client metrics.

use std::collections::BTreeMap;
use std::process::ExitCode;

use milena_client::Client;
use milena_protocol::Str;
use milena_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::{IncrementalAlterConfigsRequest, ListGroupsRequest};

use crate::admin::{self, TOPIC_RESOURCE};
use crate::options::{Options, Spec, load_properties, switch, valued};
use crate::{ToolError, ToolResult, block_on};

const SET: i8 = 0;
const DELETE: i8 = 1;

const SPEC: Spec = Spec {
    about: "This tool helps to manipulate and describe entity config for a topic, client, user, broker, ip, client-metrics or group",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "The Kafka servers to connect to.",
        ),
        valued(
            "command-config",
            "String: command config property file",
            "Property file containing configs to be passed to Admin Client.",
        ),
        switch("alter", "Alter the configuration for the entity."),
        switch("describe", "List configs for the given entity."),
        switch(
            "all",
            "List all configs for the given entity, including static configs if available.",
        ),
        valued(
            "entity-type",
            "String",
            "Type of entity (topics/clients/users/brokers/broker-loggers/ips/client-metrics/groups)",
        ),
        valued("entity-name", "String", "Name of entity"),
        switch("entity-default", "Default entity name for brokers"),
        valued(
            "add-config",
            "String",
            "Key Value pairs of configs to add. Square brackets can be used to group values which contain commas: 'k1=v1,k2=[v1,v2,v2],k3=v3'.",
        ),
        valued(
            "add-config-file",
            "String",
            "Path to a properties file with configs to add.",
        ),
        valued("delete-config", "String", "config keys to remove 'k1,k2'"),
        switch("force", "Suppress console prompts"),
        valued("topic", "String", "The topic's name."),
        valued("broker", "String", "The broker's ID."),
        switch("broker-defaults", "The config defaults for all brokers."),
        valued(
            "broker-logger",
            "String",
            "The broker's ID for its logger config.",
        ),
        valued("group", "String", "The group's ID."),
        valued(
            "client-metrics",
            "String",
            "The client metrics config resource name.",
        ),
        valued("client", "String", "The client's ID."),
        switch("client-defaults", "The config defaults for all clients."),
        valued("user", "String", "The user's principal name."),
        switch("user-defaults", "The config defaults for all users."),
        valued("ip", "String", "The IP address."),
        switch("ip-defaults", "The config defaults for all IPs."),
    ],
};

/// What has configs: its name in flags and sentences, the resource type, and the config source that
/// counts as its own.
#[derive(Debug)]
struct Kind {
    plural: &'static str,
    singular: &'static str,
    flag: &'static str,
    resource_type: i8,
    own_sources: &'static [i8],
}

const BROKERS: Kind = Kind {
    plural: "brokers",
    singular: "broker",
    flag: "broker",
    resource_type: 4,
    own_sources: &[2],
};
const KINDS: &[Kind] = &[
    Kind {
        plural: "topics",
        singular: "topic",
        flag: "topic",
        resource_type: TOPIC_RESOURCE,
        own_sources: &[1],
    },
    BROKERS,
    Kind {
        plural: "broker-loggers",
        singular: "broker-logger",
        flag: "broker-logger",
        resource_type: 8,
        own_sources: &[6],
    },
    Kind {
        plural: "client-metrics",
        singular: "client-metric",
        flag: "client-metrics",
        resource_type: 16,
        own_sources: &[7],
    },
    Kind {
        plural: "groups",
        singular: "group",
        flag: "group",
        resource_type: 32,
        own_sources: &[8],
    },
];

/// Entities whose settings are quotas and credentials, which have APIs of their own.
const OTHER_KINDS: [&str; 3] = ["users", "clients", "ips"];
const OTHER_FLAGS: [&str; 6] = [
    "user",
    "user-defaults",
    "client",
    "client-defaults",
    "ip",
    "ip-defaults",
];

/// Which entities the flags mean.
#[derive(Debug)]
struct Target {
    kind: &'static Kind,
    /// `None` for all of them; empty for the defaults of all brokers.
    name: Option<String>,
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match SPEC
        .parse(arguments)
        .and_then(|options| check(&options).map(|()| options))
    {
        Ok(options) => options,
        Err(ToolError::Help(about)) => {
            crate::usage(&about, &SPEC);
            return ExitCode::SUCCESS;
        }
        Err(ToolError::Usage(message)) => return crate::usage(&message, &SPEC),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if options.has("version") {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "Error while executing config command with args '{}'",
                arguments.join(" ")
            );
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    if options.has("alter") == options.has("describe") {
        return Err(ToolError::Usage(
            "Command must include exactly one action: --describe, --alter".into(),
        ));
    }
    if !options.has("bootstrap-server") {
        return Err(ToolError::Failed(
            "One of the required --bootstrap-server or --bootstrap-controller arguments must be specified"
                .into(),
        ));
    }
    if options.has("alter") {
        if !["add-config", "add-config-file", "delete-config"]
            .iter()
            .any(|flag| options.has(flag))
        {
            return Err(ToolError::Failed(
                "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter".into(),
            ));
        }
        options.exclude("add-config", &["add-config-file"])?;
        options.exclude("alter", &["all"])?;
    } else {
        for flag in ["add-config", "add-config-file", "delete-config"] {
            options.exclude("describe", &[flag])?;
        }
    }
    Ok(())
}

fn target(options: &Options) -> ToolResult<Target> {
    let types = options.all("entity-type");
    let other = types.iter().any(|kind| OTHER_KINDS.contains(&kind.as_str()))
        || OTHER_FLAGS.iter().any(|flag| options.has(flag));
    if other {
        return Err(ToolError::Failed(
            "Quotas and credentials (users, clients, ips) are not supported by this command yet; Kafka's own kafka-configs can be used.".into(),
        ));
    }
    if options.has("broker-defaults") {
        return Ok(Target {
            kind: &BROKERS,
            name: Some(String::new()),
        });
    }
    if let Some(kind) = KINDS.iter().find(|kind| options.has(kind.flag)) {
        return Ok(Target {
            kind,
            name: options.get(kind.flag).map(str::to_owned),
        });
    }
    let Some(text) = types.last() else {
        return Err(ToolError::Usage(
            "At least one entity type must be specified".into(),
        ));
    };
    let kind = KINDS.iter().find(|kind| kind.plural == text).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.plural).chain(OTHER_KINDS).collect();
        ToolError::Usage(format!(
            "Invalid entity type {text}, the entity type must be one of {}",
            known.join(", ")
        ))
    })?;
    let name = if options.has("entity-default") {
        Some(String::new())
    } else {
        options.get("entity-name").map(str::to_owned)
    };
    Ok(Target { kind, name })
}

async fn execute(options: &Options) -> ToolResult {
    let target = target(options)?;
    let mut client = admin::connect(options, "admin-client").await?;
    if options.has("describe") {
        describe(&mut client, &target, options.has("all")).await
    } else {
        alter(&mut client, &target, options).await
    }
}

/// `k1=v1,k2=[a,b]`: commas in square brackets part nothing.
fn parse_added(text: &str) -> ToolResult<BTreeMap<String, String>> {
    let mut pairs = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                pairs.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pairs.push(&text[start..]);
    pairs
        .into_iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                ToolError::Failed("requirement failed: Invalid entity config: all configs to be added must be in the format \"key=val\".".into())
            })?;
            let value = value.trim();
            let inner = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value);
            Ok((name.trim().to_owned(), inner.to_owned()))
        })
        .collect()
}

async fn alter(client: &mut Client, target: &Target, options: &Options) -> ToolResult {
    let kind = target.kind;
    let Some(name) = &target.name else {
        return Err(ToolError::Failed(format!(
            "an entity name must be specified with --alter of {}",
            kind.plural
        )));
    };
    let mut added = BTreeMap::new();
    if let Some(text) = options.get("add-config") {
        added = parse_added(text)?;
    } else if let Some(path) = options.get("add-config-file") {
        added.extend(load_properties(path)?);
    }
    let deleted = options
        .get("delete-config")
        .into_iter()
        .flat_map(|names| names.split(','));
    let change = |name: String, operation, value: Option<String>| AlterableConfig {
        name: Str::from(name),
        config_operation: operation,
        value: value.map(Str::from),
        ..AlterableConfig::default()
    };
    let configs = added
        .into_iter()
        .map(|(name, value)| change(name, SET, Some(value)))
        .chain(deleted.map(|name| change(name.trim().to_owned(), DELETE, None)))
        .collect();
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: kind.resource_type,
            resource_name: Str::from(name.clone()),
            configs,
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    for result in client.send(request).await?.responses {
        admin::check(result.error_code, result.error_message.as_ref())?;
    }
    if name.is_empty() {
        println!(
            "Completed updating default config for {} in the cluster.",
            kind.plural
        );
    } else {
        println!("Completed updating config for {} {name}.", kind.singular);
    }
    Ok(())
}

/// The entities to describe, all of the kind if none is named.
async fn names(client: &mut Client, target: &Target) -> ToolResult<Vec<String>> {
    if let Some(name) = &target.name {
        return Ok(vec![name.clone()]);
    }
    Ok(match target.kind.plural {
        "topics" => admin::topics(client, None, false).await?.into_keys().collect(),
        "groups" => {
            let groups = client.send(ListGroupsRequest::default()).await?.groups;
            groups
                .into_iter()
                .map(|group| group.group_id.to_string())
                .collect()
        }
        "client-metrics" => {
            return Err(ToolError::Failed(
                "Name the client metrics resource with --entity-name.".into(),
            ));
        }
        kind => {
            let brokers = client.metadata(Some(&[])).await?.brokers;
            let mut ids: Vec<String> = brokers.iter().map(|broker| broker.node_id.to_string()).collect();
            ids.extend((kind == "brokers").then(String::new));
            ids
        }
    })
}

async fn describe(client: &mut Client, target: &Target, all: bool) -> ToolResult {
    let kind = target.kind;
    if kind.plural == "topics"
        && let Some(name) = &target.name
    {
        let topic = Str::from(name.clone());
        let found = client.metadata(Some(std::slice::from_ref(&topic))).await?;
        if found.topics.iter().all(|topic| topic.error_code != 0) {
            println!(
                "The {} '{name}' doesn't exist and doesn't have dynamic config.",
                kind.singular
            );
            return Ok(());
        }
    }
    for name in names(client, target).await? {
        if name.is_empty() {
            println!("Default configs for {} in the cluster are:", kind.plural);
        } else {
            println!(
                "{} configs for {} {name} are:",
                if all { "All" } else { "Dynamic" },
                kind.singular
            );
        }
        // The defaults of all brokers count as the cluster's own.
        let own = if name.is_empty() {
            &[3][..]
        } else {
            kind.own_sources
        };
        for result in admin::describe_configs(client, kind.resource_type, [name.clone()], true).await? {
            let mut entries: Vec<&DescribeConfigsResourceResult> = result
                .configs
                .iter()
                .filter(|entry| all || own.contains(&entry.config_source))
                .collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                print_entry(entry);
            }
        }
    }
    Ok(())
}

fn source(id: i8) -> &'static str {
    match id {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

fn print_entry(entry: &DescribeConfigsResourceResult) {
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|one| {
            format!(
                "{}:{}={}",
                source(one.source),
                one.name,
                one.value.as_deref().unwrap_or("null")
            )
        })
        .collect();
    println!(
        "  {}={} sensitive={} synonyms={{{}}}",
        entry.name,
        entry.value.as_deref().unwrap_or("null"),
        entry.is_sensitive,
        synonyms.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_keep_a_list_together() {
        let parsed = parse_added("a=1, cleanup.policy=[compact,delete],b=x=y").unwrap();
        let pairs: Vec<(&str, &str)> = parsed
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [("a", "1"), ("b", "x=y"), ("cleanup.policy", "compact,delete")]
        );
        assert!(parse_added("nonsense").is_err());
    }
}
