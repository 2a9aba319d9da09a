//! `kafka-broker-api-versions`: which APIs each broker of a cluster speaks.

use std::process::ExitCode;

use milena_client::{Connection, Options as ClientOptions};
use milena_protocol::{ApiKey, Str};

use crate::options::{Options, Spec, valued};
use crate::{ToolResult, admin, block_on};

const SPEC: Spec = Spec {
    about: "This tool helps to retrieve broker version information.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server(s) to use for bootstrapping",
            "REQUIRED: The server to connect to.",
        ),
        valued(
            "command-config",
            "String: command config property file",
            "A property file containing configs to be passed to Admin Client.",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(SPEC.parse(arguments), &SPEC) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if let Err(error) = options.require("bootstrap-server") {
        return crate::usage(&error.to_string(), &SPEC);
    }
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = admin::connect(options, "admin-client").await?;
    let metadata = client.metadata(Some(&[])).await?;
    for broker in metadata.brokers {
        let address = format!("{}:{}", broker.host, broker.port);
        let rack = broker.rack.as_deref().unwrap_or("null");
        print!(
            "{address} (id: {} rack: {rack} isFenced: false) -> ",
            broker.node_id
        );
        let client_options = ClientOptions {
            client_id: Str::from("admin-client"),
            ..ClientOptions::default()
        };
        match Connection::open(&address, &client_options).await {
            Ok(connection) => println!("{}", describe(connection.versions())),
            Err(error) => println!("ERROR: {error}"),
        }
    }
    Ok(())
}

/// The list as Kafka's `NodeApiVersions` prints it, one API a line.
fn describe(versions: &[(i16, i16, i16)]) -> String {
    let mut rows: Vec<(i16, String)> = versions.iter().map(|row| (row.0, known(*row))).collect();
    for api in ApiKey::ALL {
        if !versions.iter().any(|(key, _, _)| *key == api.code()) {
            rows.push((api.code(), format!("{}({}): UNSUPPORTED", api.name(), api.code())));
        }
    }
    rows.sort();
    let lines: Vec<String> = rows.into_iter().map(|(_, line)| format!("\n\t{line}")).collect();
    format!("({}\n)", lines.join(","))
}

fn known((key, min, max): (i16, i16, i16)) -> String {
    let range = if min == max {
        min.to_string()
    } else {
        format!("{min} to {max}")
    };
    let Some(api) = ApiKey::from_code(key) else {
        return format!("UNKNOWN({key}): {range}");
    };
    let ours = api.stable_versions();
    let usable = max.min(*ours.end());
    let note = if usable >= min && usable >= *ours.start() {
        format!("[usable: {usable}]")
    } else {
        "[unusable: node too old or too new]".to_owned()
    };
    format!("{}({key}): {range} {note}", api.name())
}
