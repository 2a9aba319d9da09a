//! `kafka-configs`: describe and change the configs of topics, brokers, loggers, groups and client metrics; quotas are in
//! [`config_quotas`].

use std::collections::{BTreeSet, HashSet};
use std::process::ExitCode;

use milena_client::Client;
use milena_protocol::Str;
use milena_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::{
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest, ListGroupsRequest,
};

use crate::admin::{self, TOPIC_RESOURCE};
use crate::config_arguments::{self, added, deleted};
use crate::config_quotas;
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, block_on};

/// Loggers have no configs but a level each.
const LOGGER_RESOURCE: i8 = 8;

const SET: i8 = 0;
const DELETE: i8 = 1;

pub(crate) const SPEC: Spec = Spec {
    about: "This tool helps to manipulate and describe entity config for a topic, client, user, broker, ip, client-metrics or group",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "The Kafka servers to connect to.",
        ),
        valued(
            "bootstrap-controller",
            "String: controller to connect to",
            "The Kafka controllers to connect to.",
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
        resource_type: LOGGER_RESOURCE,
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

/// Which entities the flags mean.
#[derive(Debug)]
struct Target {
    kind: &'static Kind,
    /// `None` for all of them; empty for the defaults of all brokers.
    name: Option<String>,
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(
        SPEC.parse(arguments)
            .and_then(|options| check(&options).map(|()| options)),
        &SPEC,
    ) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ToolError::Refused(sentence)) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
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
    config_arguments::check(options)
}

fn target(options: &Options) -> ToolResult<Target> {
    let types = config_arguments::types(options);
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
    let kind = types
        .last()
        .and_then(|text| KINDS.iter().find(|kind| kind.plural == *text))
        .ok_or_else(|| ToolError::Usage("At least one entity type must be specified".into()))?;
    let name = if options.has("entity-default") {
        Some(String::new())
    } else {
        options.get("entity-name").map(str::to_owned)
    };
    Ok(Target { kind, name })
}

async fn execute(options: &Options) -> ToolResult {
    if config_quotas::are_meant(options) {
        let mut client = admin::connect(options, "admin-client").await?;
        return config_quotas::execute(&mut client, options).await;
    }
    let target = target(options)?;
    let mut client = admin::connect(options, "admin-client").await?;
    if options.has("describe") {
        describe(&mut client, &target, options.has("all")).await
    } else {
        alter(&mut client, &target, options).await
    }
}

/// Kafka's command refuses loggers that it does not know before it asks for a change.
async fn check_loggers(client: &mut Client, broker: &str, options: &Options) -> ToolResult {
    let mut known = HashSet::new();
    for result in admin::describe_configs(client, LOGGER_RESOURCE, [broker.to_owned()], true).await? {
        known.extend(result.configs.into_iter().map(|logger| logger.name.to_string()));
    }
    let added = added(options)?;
    let asked = deleted(options).chain(added.keys().map(String::as_str));
    let unknown: Vec<&str> = asked.filter(|name| !known.contains(*name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(ToolError::Refused(format!(
        "Invalid broker logger(s): {}",
        unknown.join(",")
    )))
}

async fn alter(client: &mut Client, target: &Target, options: &Options) -> ToolResult {
    let kind = target.kind;
    let Some(name) = &target.name else {
        return Err(ToolError::Failed(format!(
            "an entity name must be specified with --alter of {}",
            kind.plural
        )));
    };
    if kind.resource_type == LOGGER_RESOURCE {
        check_loggers(client, name, options).await?;
    }
    let change = |name: String, operation, value: Option<String>| AlterableConfig {
        name: Str::from(name),
        config_operation: operation,
        value: value.map(Str::from),
        ..AlterableConfig::default()
    };
    let configs = added(options)?
        .into_iter()
        .map(|(name, value)| change(name, SET, Some(value)))
        .chain(deleted(options).map(|name| change(name.to_owned(), DELETE, None)))
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

/// The entities of a kind. `None` where the cluster cannot tell.
async fn existing(client: &mut Client, kind: &Kind) -> ToolResult<Option<BTreeSet<String>>> {
    Ok(match kind.plural {
        "topics" => Some(admin::topics(client, None, false).await?.into_keys().collect()),
        "groups" => {
            let groups = client.send(ListGroupsRequest::default()).await?.groups;
            let mut names: BTreeSet<String> = groups
                .into_iter()
                .map(|group| group.group_id.to_string())
                .collect();
            names.extend(resources(client, kind.resource_type).await?.unwrap_or_default());
            Some(names)
        }
        "client-metrics" => resources(client, kind.resource_type).await?,
        _ => {
            let brokers = client.metadata(Some(&[])).await?.brokers;
            Some(brokers.iter().map(|broker| broker.node_id.to_string()).collect())
        }
    })
}

/// Names of everything of a type that has configs, as far as the broker tells.
async fn resources(client: &mut Client, resource_type: i8) -> ToolResult<Option<BTreeSet<String>>> {
    const WITH_TYPES: i16 = 1;
    match client.bootstrap().version_for::<ListConfigResourcesRequest>() {
        Ok(version) if version >= WITH_TYPES => {}
        _ => return Ok(None),
    }
    let request = ListConfigResourcesRequest {
        resource_types: vec![resource_type],
        ..ListConfigResourcesRequest::default()
    };
    let response = client.send(request).await?;
    admin::check(response.error_code, None)?;
    let names = response.config_resources.into_iter();
    Ok(Some(
        names.map(|resource| resource.resource_name.to_string()).collect(),
    ))
}

/// Says that there is no such entity, as Kafka's command does; nothing more is asked then.
async fn is_missing(client: &mut Client, kind: &Kind, name: &str) -> ToolResult<bool> {
    if kind.resource_type == TOPIC_RESOURCE {
        config_arguments::check_topic_name(name).map_err(|error| ToolError::Refused(error.to_string()))?;
    }
    if name.is_empty() {
        return Ok(false);
    }
    let is_missing = match kind.plural {
        "topics" => {
            let topic = Str::from(name.to_owned());
            let found = client.metadata(Some(std::slice::from_ref(&topic))).await?;
            found.topics.iter().all(|topic| topic.error_code != 0)
        }
        "groups" if resources(client, kind.resource_type).await?.is_none() => false,
        _ => existing(client, kind)
            .await?
            .is_some_and(|names| !names.contains(name)),
    };
    if is_missing {
        println!(
            "The {} '{name}' doesn't exist and doesn't have dynamic config.",
            kind.singular
        );
    }
    Ok(is_missing)
}

async fn describe(client: &mut Client, target: &Target, all: bool) -> ToolResult {
    let kind = target.kind;
    let names: Vec<String> = match &target.name {
        Some(name) if is_missing(client, kind, name).await? => return Ok(()),
        Some(name) => vec![name.clone()],
        None => {
            let names = existing(client, kind).await?.ok_or_else(|| {
                ToolError::Failed(format!(
                    "The cluster does not tell its {}: name one with --entity-name.",
                    kind.plural
                ))
            })?;
            let defaults = (kind.plural == BROKERS.plural).then(String::new);
            names.into_iter().chain(defaults).collect()
        }
    };
    for name in names {
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
