//! `kafka-delete-records`: moves the log start offset of partitions forward (KIP-107).
//!
//! Java's asks for a minute for partitions that do not exist, as they might come; this one says at once that they do not.

use std::collections::BTreeMap;
use std::process::ExitCode;

use milena_protocol::messages::DeleteRecordsRequest;
use milena_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use milena_protocol::{ErrorCode, Str};
use serde_json::Value;

use crate::options::{Options, Spec, valued};
use crate::{ToolError, ToolResult, admin, block_on};

const SPEC: Spec = Spec {
    about: "This tool helps to delete records of the given partitions down to the specified offset.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server(s) to use for bootstrapping",
            "REQUIRED: The server to connect to.",
        ),
        valued(
            "offset-json-file",
            "String: Offset json file path",
            "REQUIRED: The JSON file with offset per partition. The format to use is:\n\
             {\"partitions\":\n  [{\"topic\": \"foo\", \"partition\": 1, \"offset\": 1}],\n \"version\":1\n}",
        ),
        valued(
            "command-config",
            "String: command config property file path",
            "A property file containing configs to be passed to Admin Client.",
        ),
    ],
};

/// How long the broker may take.
const TIMEOUT_MS: i32 = 30_000;

/// Offset before which records go, by topic and partition; -1 stands for the high watermark.
type Offsets = BTreeMap<(String, i32), i64>;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(SPEC.parse(arguments), &SPEC) {
        Ok(options) => options,
        Err(code) => return code,
    };
    for needed in ["bootstrap-server", "offset-json-file"] {
        if let Err(error) = options.require(needed) {
            return crate::usage(&error.to_string(), &SPEC);
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

/// Reads a plan: `{"version": 1, "partitions": [{"topic": …, "partition": …, "offset": …}]}`; the version may be missing.
///
/// # Errors
/// When it is no such plan, or names a partition twice.
fn parse(text: &str) -> ToolResult<Offsets> {
    let failed = |sentence: &str| ToolError::Failed(sentence.to_owned());
    let plan: Value =
        serde_json::from_str(text).map_err(|_| failed("The input string is not a valid JSON"))?;
    match plan.get("version").map(Value::as_i64) {
        None | Some(Some(1)) => {}
        Some(version) => {
            let version = version.map_or_else(|| "that is no number".to_owned(), |number| number.to_string());
            return Err(ToolError::Failed(format!(
                "Not supported version field value {version}"
            )));
        }
    }
    let partitions = plan
        .get("partitions")
        .ok_or_else(|| failed("Missing partitions field"))?
        .as_array()
        .ok_or_else(|| failed("The field partitions is not an array"))?;
    let mut offsets = Offsets::new();
    let mut duplicates = Vec::new();
    for entry in partitions {
        let wrong = |field: &str| {
            ToolError::Failed(format!(
                "The field {field} is missing or of the wrong type in {entry}"
            ))
        };
        let number = |field: &str| {
            entry
                .get(field)
                .and_then(Value::as_i64)
                .ok_or_else(|| wrong(field))
        };
        let topic = entry
            .get("topic")
            .and_then(Value::as_str)
            .ok_or_else(|| wrong("topic"))?;
        let partition = i32::try_from(number("partition")?).map_err(|_| wrong("partition"))?;
        if offsets
            .insert((topic.to_owned(), partition), number("offset")?)
            .is_some()
        {
            duplicates.push(format!("{topic}-{partition}"));
        }
    }
    if duplicates.is_empty() {
        Ok(offsets)
    } else {
        duplicates.dedup();
        Err(ToolError::Failed(format!(
            "Offset json file contains duplicate topic partitions: {}",
            duplicates.join(",")
        )))
    }
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = admin::connect(options, "DeleteRecordsCommand").await?;
    let path = options.require("offset-json-file")?;
    let text =
        std::fs::read_to_string(path).map_err(|error| ToolError::Failed(format!("{path}: {error}")))?;
    let offsets = parse(&text)?;
    println!("Executing records delete operation");
    let known = admin::topics(&mut client, None, false).await?;
    let mut results: BTreeMap<(String, i32), Result<i64, ErrorCode>> = BTreeMap::new();
    let mut of_leaders: BTreeMap<i32, BTreeMap<String, Vec<DeleteRecordsPartition>>> = BTreeMap::new();
    for ((topic, partition_index), offset) in offsets {
        let leader = known
            .get(&topic)
            .and_then(|known| {
                known
                    .partitions
                    .iter()
                    .find(|partition| partition.partition_index == partition_index)
            })
            .map(|partition| partition.leader_id);
        match leader {
            Some(leader) => {
                let partition = DeleteRecordsPartition {
                    partition_index,
                    offset,
                    ..DeleteRecordsPartition::default()
                };
                let of_leader = of_leaders.entry(leader).or_default();
                of_leader.entry(topic).or_default().push(partition);
            }
            None => {
                results.insert((topic, partition_index), Err(ErrorCode::UnknownTopicOrPartition));
            }
        }
    }
    for (leader, topics) in of_leaders {
        let topics = topics.into_iter().map(|(name, partitions)| DeleteRecordsTopic {
            name: Str::from(name),
            partitions,
            ..DeleteRecordsTopic::default()
        });
        let request = DeleteRecordsRequest {
            topics: topics.collect(),
            timeout_ms: TIMEOUT_MS,
            ..DeleteRecordsRequest::default()
        };
        for topic in client.send_to(leader, request).await?.topics {
            for partition in topic.partitions {
                let result = match ErrorCode::from_code(partition.error_code) {
                    ErrorCode::None => Ok(partition.low_watermark),
                    code => Err(code),
                };
                results.insert((topic.name.to_string(), partition.partition_index), result);
            }
        }
    }
    println!("Records delete operation completed:");
    for ((topic, partition), result) in results {
        match result {
            Ok(low_watermark) => println!("partition: {topic}-{partition}\tlow_watermark: {low_watermark}"),
            Err(code) => println!(
                "partition: {topic}-{partition}\terror: org.apache.kafka.common.errors.{}",
                exception(code)
            ),
        }
    }
    Ok(())
}

/// Java's exception for a partition's error, and its sentence.
fn exception(code: ErrorCode) -> String {
    let text = match code {
        ErrorCode::OffsetOutOfRange => {
            "OffsetOutOfRangeException: The requested offset is not within the range of offsets maintained by the server."
        }
        ErrorCode::UnknownTopicOrPartition => {
            "UnknownTopicOrPartitionException: This server does not host this topic-partition."
        }
        ErrorCode::PolicyViolation => {
            "PolicyViolationException: Request parameters do not satisfy the configured policy."
        }
        ErrorCode::TopicAuthorizationFailed => "TopicAuthorizationException: Topic authorization failed.",
        ErrorCode::RequestTimedOut => "TimeoutException: The request timed out.",
        ErrorCode::KafkaStorageError => {
            "KafkaStorageException: Disk error when trying to access log file on the disk."
        }
        ErrorCode::NotLeaderOrFollower => {
            "NotLeaderOrFollowerException: For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition."
        }
        other => return format!("ApiException: {other}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_partitions_and_offsets() {
        let text = r#"{"partitions": [{"topic": "a", "partition": 1, "offset": 4}, {"topic": "a", "partition": 0, "offset": -1}]}"#;
        let offsets = parse(text).unwrap();
        assert_eq!(offsets[&("a".to_owned(), 1)], 4);
        assert_eq!(offsets[&("a".to_owned(), 0)], -1);
    }

    #[test]
    fn what_is_no_plan_is_refused_with_what_is_wrong() {
        let sentence = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(sentence("nothing"), "The input string is not a valid JSON");
        assert_eq!(sentence("{}"), "Missing partitions field");
        assert_eq!(
            sentence(r#"{"version": 2, "partitions": []}"#),
            "Not supported version field value 2"
        );
        assert!(sentence(r#"{"partitions": [{"topic": "a", "partition": 1}]}"#).contains("offset"));
        assert!(
            sentence(r#"{"partitions": [{"topic": "a", "partition": 3000000000, "offset": 1}]}"#)
                .contains("partition")
        );
    }

    #[test]
    fn a_partition_that_is_named_twice_is_refused() {
        let text = r#"{"partitions": [{"topic": "a", "partition": 1, "offset": 4}, {"topic": "a", "partition": 1, "offset": 5}]}"#;
        assert_eq!(
            parse(text).unwrap_err().to_string(),
            "Offset json file contains duplicate topic partitions: a-1"
        );
    }
}
