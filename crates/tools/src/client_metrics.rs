//! `kafka-client-metrics`: which metrics clients are to push (KIP-714).

use std::process::ExitCode;

use milena_client::Client;
use milena_protocol::Str;
use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::{IncrementalAlterConfigsRequest, ListConfigResourcesRequest};

use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, admin, block_on};

const CLIENT_METRICS_RESOURCE: i8 = 16;
const SET: i8 = 0;
const DELETE: i8 = 1;

const ACTIONS: [&str; 4] = ["alter", "delete", "describe", "list"];

const SPEC: Spec = Spec {
    about: "This tool helps to manipulate and describe client metrics configurations.",
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
        switch(
            "alter",
            "Alter the configuration for the client metrics resource.",
        ),
        switch(
            "delete",
            "Delete the configuration for the client metrics resource.",
        ),
        switch("describe", "List configurations for the client metrics resource."),
        switch("list", "List the client metrics resources."),
        valued(
            "name",
            "String: name",
            "Name of client metrics configuration resource.",
        ),
        switch("generate-name", "Generate a UUID to use as the name."),
        valued(
            "interval",
            "String: push interval",
            "The metrics push interval in milliseconds. Leave empty to reset the interval.",
        ),
        valued(
            "match",
            "String: k1=v1,k2=v2",
            "Matching selector 'k1=v1,k2=v2'. Valid selector names: client_id, client_instance_id, client_software_name, client_software_version, client_source_address, client_source_port",
        ),
        valued(
            "metrics",
            "String: m1,m2",
            "Telemetry metric name prefixes 'm1,m2'.",
        ),
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
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("Error while executing client metrics command : {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    let refuse = |sentence: &str| Err(ToolError::Refused(sentence.to_owned()));
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        return Err(ToolError::Usage(
            "Command must include exactly one action: --alter, --delete, --describe or --list.".into(),
        ));
    }
    if !options.has("bootstrap-server") {
        return refuse("--bootstrap-server must be specified.");
    }
    options.exclude("delete", &["generate-name", "interval", "match", "metrics"])?;
    options.exclude("describe", &["generate-name", "interval", "match", "metrics"])?;
    options.exclude("list", &["name", "generate-name", "interval", "match", "metrics"])?;
    if options.has("alter") {
        if options.has("name") == options.has("generate-name") {
            return refuse("One of --name or --generate-name must be specified with --alter.");
        }
        if let Some(interval) = options.get("interval")
            && !interval.is_empty()
            && interval.parse::<i32>().is_err()
        {
            return refuse("Invalid interval value. Enter an integer, or leave empty to reset.");
        }
    }
    if options.has("delete") && !options.has("name") {
        return refuse("A client metrics resource name must be specified with --delete.");
    }
    Ok(())
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = admin::connect(options, "admin-client").await?;
    let name = options.get("name");
    if options.has("alter") {
        let name = name.map_or_else(|| admin::random_uuid().to_string(), str::to_owned);
        set(&mut client, &name, changes(options)).await?;
        println!("Altered client metrics config for {name}.");
        return Ok(());
    }
    if options.has("delete") {
        let name = name.unwrap_or_default();
        let entries = entries(&mut client, name).await?;
        let changes = entries.into_iter().map(|(name, _)| (name, String::new()));
        set(&mut client, name, changes.collect()).await?;
        println!("Deleted client metrics config for {name}.");
        return Ok(());
    }
    let mut known = resources(&mut client).await?;
    if options.has("list") {
        println!("{}", known.join("\n"));
        return Ok(());
    }
    if let Some(name) = name {
        known.retain(|one| one == name);
        if known.is_empty() {
            println!("The client metric resource {name} doesn't exist and doesn't have dynamic config.");
        }
    }
    for name in known {
        println!("Client metrics configs for {name} are:");
        for (config, value) in entries(&mut client, &name).await? {
            println!("  {config}={value}");
        }
    }
    Ok(())
}

/// What the flags set; a config that they leave empty is deleted.
fn changes(options: &Options) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    for (flag, config) in [("metrics", "metrics"), ("match", "match")] {
        if options.has(flag) {
            changes.push((config.to_owned(), options.all(flag).join(",")));
        }
    }
    if let Some(interval) = options.get("interval") {
        changes.push(("interval.ms".to_owned(), interval.to_owned()));
    }
    changes
}

async fn set(client: &mut Client, name: &str, changes: Vec<(String, String)>) -> ToolResult {
    let configs = changes.into_iter().map(|(name, value)| {
        let is_set = !value.is_empty();
        AlterableConfig {
            name: Str::from(name),
            config_operation: if is_set { SET } else { DELETE },
            value: Some(Str::from(value)),
            ..AlterableConfig::default()
        }
    });
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: CLIENT_METRICS_RESOURCE,
            resource_name: Str::from(name.to_owned()),
            configs: configs.collect(),
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    for result in client.send(request).await?.responses {
        admin::check(result.error_code, result.error_message.as_ref())?;
    }
    Ok(())
}

async fn resources(client: &mut Client) -> ToolResult<Vec<String>> {
    let request = ListConfigResourcesRequest {
        resource_types: vec![CLIENT_METRICS_RESOURCE],
        ..ListConfigResourcesRequest::default()
    };
    // Version 0 knows no types, as it lists nothing but these.
    let version = client.bootstrap().version_for::<ListConfigResourcesRequest>()?;
    let request = if version == 0 {
        ListConfigResourcesRequest::default()
    } else {
        request
    };
    let response = client.send(request).await?;
    admin::check(response.error_code, None)?;
    let names = response.config_resources.into_iter();
    Ok(names.map(|resource| resource.resource_name.to_string()).collect())
}

async fn entries(client: &mut Client, name: &str) -> ToolResult<Vec<(String, String)>> {
    let described =
        admin::describe_configs(client, CLIENT_METRICS_RESOURCE, [name.to_owned()], false).await?;
    let entries = described.into_iter().flat_map(|result| result.configs);
    Ok(entries
        .map(|entry| {
            let value = entry.value.map_or("null".to_owned(), |value| value.to_string());
            (entry.name.to_string(), value)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Options {
        let words: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        SPEC.parse(&words).unwrap()
    }

    fn refusal(arguments: &[&str]) -> String {
        let mut all = vec!["--bootstrap-server", "b"];
        all.extend(arguments);
        check(&parsed(&all)).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn an_entity_is_named_or_gets_a_name() {
        assert_eq!(refusal(&["--alter", "--generate-name", "--interval", ""]), "");
        assert_eq!(
            refusal(&["--alter", "--interval", "7"]),
            "One of --name or --generate-name must be specified with --alter."
        );
        assert_eq!(
            refusal(&["--alter", "--name", "n", "--interval", "x"]),
            "Invalid interval value. Enter an integer, or leave empty to reset."
        );
        assert_eq!(
            refusal(&["--list", "--name", "n"]),
            "Option \"[list]\" can't be used with option \"[name]\""
        );
    }

    #[test]
    fn lists_given_twice_become_one() {
        let options = parsed(&["--alter", "--metrics", "a,b", "--metrics", "c", "--interval", ""]);
        let change = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            changes(&options),
            [change("metrics", "a,b,c"), change("interval.ms", "")]
        );
    }
}
