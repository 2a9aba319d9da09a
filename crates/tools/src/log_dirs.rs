//! `kafka-log-dirs`: the log directories of brokers and the replicas in them, as one line of JSON.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

use milena_protocol::messages::DescribeLogDirsRequest;
use milena_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult,
};
use milena_protocol::{ErrorCode, Str};

use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, admin, block_on};

const SPEC: Spec = Spec {
    about: "This tool helps to query log directory usage on the specified brokers.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: The server(s) to use for bootstrapping",
            "REQUIRED: the server(s) to use for bootstrapping",
        ),
        valued(
            "broker-list",
            "String: Broker list",
            "The list of brokers to be queried in the form \"0,1,2\". All brokers in the cluster will be queried if no broker list is specified (default: )",
        ),
        valued(
            "command-config",
            "String: Admin client property file",
            "Property file containing configs to be passed to Admin Client.",
        ),
        switch(
            "describe",
            "Describe the specified log directories on the specified brokers.",
        ),
        valued(
            "topic-list",
            "String: Topic list",
            "The list of topics to be queried in the form \"topic1,topic2,topic3\". All topics will be queried if no topic list is specified (default: )",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match SPEC.parse(arguments) {
        Ok(options) => options,
        // Kafka's exits with 1 here as well.
        Err(ToolError::Help(about)) => return crate::usage(&about, &SPEC),
        Err(error) if arguments.is_empty() => return crate::usage(&error.to_string(), &SPEC),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if options.has("version") {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    for required in ["bootstrap-server", "describe"] {
        if !options.has(required) {
            return crate::usage(&format!("Missing required argument \"[{required}]\""), &SPEC);
        }
    }
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The parts of a list between its commas.
fn list<'a>(options: &'a Options, name: &str) -> BTreeSet<&'a str> {
    let text = options.get(name).unwrap_or_default();
    text.split(',').filter(|part| !part.is_empty()).collect()
}

fn join(ids: impl IntoIterator<Item = i32>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.join(",")
}

async fn execute(options: &Options) -> ToolResult {
    let topics = list(options, "topic-list");
    let mut asked = BTreeSet::new();
    for text in list(options, "broker-list") {
        let id: Result<i32, _> = text.parse();
        asked.insert(id.map_err(|_| ToolError::Failed(format!("For input string: \"{text}\"")))?);
    }
    let mut client = admin::connect(options, "admin-client").await?;
    let metadata = client.metadata(Some(&[])).await?;
    let brokers: BTreeSet<i32> = metadata.brokers.iter().map(|broker| broker.node_id).collect();
    let unknown: Vec<i32> = asked.difference(&brokers).copied().collect();
    if !unknown.is_empty() {
        return Err(ToolError::Failed(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            join(unknown),
            join(brokers)
        )));
    }
    let asked = if asked.is_empty() { brokers } else { asked };
    println!("Querying brokers for log directories information");
    let mut described = Vec::new();
    for broker in &asked {
        let request = DescribeLogDirsRequest {
            topics: None,
            ..DescribeLogDirsRequest::default()
        };
        let response = client.send_to(*broker, request).await?;
        admin::check(response.error_code, None)?;
        described.push((*broker, response.results));
    }
    println!("Received log directory information from brokers {}", join(asked));
    println!("{}", json(&described, &topics));
    Ok(())
}

fn json(described: &[(i32, Vec<DescribeLogDirsResult>)], topics: &BTreeSet<&str>) -> String {
    let brokers = described.iter().map(|(broker, dirs)| {
        let dirs = dirs.iter().map(|dir| log_dir(dir, topics));
        format!("{{\"broker\":{broker},\"logDirs\":[{}]}}", commas(dirs))
    });
    format!("{{\"brokers\":[{}],\"version\":1}}", commas(brokers))
}

fn log_dir(dir: &DescribeLogDirsResult, topics: &BTreeSet<&str>) -> String {
    let mut replicas = Vec::new();
    for topic in &dir.topics {
        if topics.is_empty() || topics.contains(&*topic.name) {
            replicas.extend(topic.partitions.iter().map(|it| replica(&topic.name, it)));
        }
    }
    // Java's tool names the exception.
    let error = match ErrorCode::from_code(dir.error_code) {
        ErrorCode::None => "null".to_owned(),
        ErrorCode::KafkaStorageError => quoted("org.apache.kafka.common.errors.KafkaStorageException"),
        other => quoted(&other.to_string()),
    };
    let path = quoted(&dir.log_dir);
    format!(
        "{{\"partitions\":[{}],\"error\":{error},\"logDir\":{path}}}",
        commas(replicas)
    )
}

fn replica(topic: &Str, partition: &DescribeLogDirsPartition) -> String {
    format!(
        "{{\"partition\":{},\"size\":{},\"offsetLag\":{},\"isFuture\":{}}}",
        quoted(&format!("{topic}-{}", partition.partition_index)),
        partition.partition_size,
        partition.offset_lag,
        partition.is_future_key
    )
}

fn commas(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use milena_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic;

    #[test]
    fn the_line_is_what_kafka_prints() {
        let topic = |name: &'static str| DescribeLogDirsTopic {
            name: Str::from_static(name),
            partitions: vec![DescribeLogDirsPartition {
                partition_index: 1,
                partition_size: 7,
                offset_lag: 3,
                is_future_key: true,
                ..DescribeLogDirsPartition::default()
            }],
            ..DescribeLogDirsTopic::default()
        };
        let dirs = vec![
            DescribeLogDirsResult {
                log_dir: Str::from_static("/a \"b\""),
                topics: vec![topic("t"), topic("other")],
                ..DescribeLogDirsResult::default()
            },
            DescribeLogDirsResult {
                error_code: ErrorCode::KafkaStorageError.code(),
                log_dir: Str::from_static("/c"),
                ..DescribeLogDirsResult::default()
            },
        ];
        assert_eq!(
            json(&[(4, dirs)], &BTreeSet::from(["t"])),
            r#"{"brokers":[{"broker":4,"logDirs":[{"partitions":[{"partition":"t-1","size":7,"offsetLag":3,"isFuture":true}],"error":null,"logDir":"/a \"b\""},{"partitions":[],"error":"org.apache.kafka.common.errors.KafkaStorageException","logDir":"/c"}]}],"version":1}"#
        );
    }
}
