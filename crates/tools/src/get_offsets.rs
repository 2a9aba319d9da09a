//! `kafka-get-offsets`: offsets of partitions, by time or position.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use milena_client::Client;
use milena_protocol::messages::ListOffsetsRequest;
use milena_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use milena_protocol::{ErrorCode, Str};

use crate::admin::{self, TopicFilter};
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, block_on};

const SPEC: Spec = Spec {
    about: "An interactive shell for getting topic-partition offsets.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: HOST1:PORT1,...,HOST3:PORT3",
            "REQUIRED. The server(s) to connect to in the form HOST1:PORT1,HOST2:PORT2.",
        ),
        valued(
            "topic-partitions",
            "String: topic1:1,topic2:0-3,topic3,topic4:5-,topic5:-3",
            "Comma separated list of topic-partition patterns to get the offsets for.",
        ),
        valued(
            "topic",
            "String: topic",
            "The topic to get the offsets for. It also accepts a regular expression. Cannot be used if --topic-partitions is present.",
        ),
        valued(
            "partitions",
            "String: partition ids",
            "Comma separated list of partition ids to get the offsets for. Cannot be used if --topic-partitions is present.",
        ),
        valued(
            "time",
            "String: <timestamp> / -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or earliest-local / -5 or latest-tiered",
            "timestamp of the offsets before that. (default: latest)",
        ),
        valued(
            "command-config",
            "String: config file",
            "Property file containing configs to be passed to Admin Client.",
        ),
        switch(
            "exclude-internal-topics",
            "By default, internal topics are included. If specified, internal topics are excluded.",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match SPEC.parse(arguments) {
        Ok(options) => options,
        Err(ToolError::Help(about)) => {
            crate::usage(&about, &SPEC);
            return ExitCode::SUCCESS;
        }
        Err(error) if arguments.is_empty() => return crate::usage(&error.to_string(), &SPEC),
        Err(error) => {
            eprintln!("Error occurred: {error}");
            return ExitCode::FAILURE;
        }
    };
    if options.has("version") {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = options.require("bootstrap-server") {
        return crate::usage(&error.to_string(), &SPEC);
    }
    match block_on(execute(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error occurred: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of the alternatives of `--topic-partitions`, or what `--topic` and `--partitions` say.
struct Rule {
    topics: TopicFilter,
    partitions: Partitions,
}

enum Partitions {
    All,
    Of(BTreeSet<i32>),
    Range(i32, i32),
}

impl Rule {
    fn allows(&self, topic: &str, partition: i32) -> bool {
        let partition = match &self.partitions {
            Partitions::All => true,
            Partitions::Of(set) => set.contains(&partition),
            Partitions::Range(low, high) => (*low..*high).contains(&partition),
        };
        partition && self.topics.allows(topic)
    }

    /// `topic`, `topic:3`, `topic:1-4`, `topic:2-`, `:-3`
    fn parse(text: &str) -> ToolResult<Self> {
        let invalid = || ToolError::Failed(format!("Invalid rule specification: {text}"));
        let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
        let number = |text: &str, missing: i32| match text {
            "" => Ok(missing),
            text => text.parse::<i32>().map_err(|_| invalid()),
        };
        let partitions = match partitions.split_once('-') {
            None if partitions.is_empty() => Partitions::All,
            None => Partitions::Of([number(partitions, 0)?].into()),
            Some((low, high)) => Partitions::Range(number(low, 0)?, number(high, i32::MAX)?),
        };
        Ok(Self {
            topics: TopicFilter::new(if topic.is_empty() { ".*" } else { topic })?,
            partitions,
        })
    }
}

fn rules(options: &Options) -> ToolResult<Vec<Rule>> {
    if let Some(list) = options.get("topic-partitions") {
        if options.has("topic") || options.has("partitions") {
            return Err(ToolError::Failed(
                "--topic-partitions cannot be used with --topic or --partitions".into(),
            ));
        }
        return list.split(',').map(Rule::parse).collect();
    }
    let partitions = match options.get("partitions").filter(|text| !text.is_empty()) {
        None => Partitions::All,
        Some(text) => {
            let ids: Result<BTreeSet<i32>, _> = text.split(',').map(str::parse).collect();
            Partitions::Of(ids.map_err(|_| {
                ToolError::Failed(format!(
                    "--partitions expects a comma separated list of numeric partition ids, but received: {text}"
                ))
            })?)
        }
    };
    Ok(vec![Rule {
        topics: TopicFilter::new(options.get("topic").unwrap_or(".*"))?,
        partitions,
    }])
}

/// The timestamp that ListOffsets takes for a time.
fn timestamp(text: &str) -> ToolResult<i64> {
    Ok(match text {
        "latest" => -1,
        "earliest" => -2,
        "max-timestamp" => -3,
        "earliest-local" => -4,
        "latest-tiered" => -5,
        _ => text.parse().map_err(|_| {
            ToolError::Failed(format!(
                "Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or earliest-local / -5 or latest-tiered, or a specified long format timestamp"
            ))
        })?,
    })
}

async fn execute(options: &Options) -> ToolResult {
    let rules = rules(options)?;
    let timestamp = timestamp(options.get("time").unwrap_or("latest"))?;
    let mut client = admin::connect(options, "GetOffsetShell").await?;
    let topics = admin::topics(&mut client, None, options.has("exclude-internal-topics")).await?;
    // Broker -> topic -> partitions
    let mut wanted: BTreeMap<i32, BTreeMap<String, Vec<i32>>> = BTreeMap::new();
    for (name, topic) in topics {
        for partition in &topic.partitions {
            if rules
                .iter()
                .any(|rule| rule.allows(&name, partition.partition_index))
            {
                let of_broker = wanted.entry(partition.leader_id).or_default();
                of_broker
                    .entry(name.clone())
                    .or_default()
                    .push(partition.partition_index);
            }
        }
    }
    if wanted.is_empty() {
        return Err(ToolError::Failed(
            "Could not match any topic-partitions with the specified filters".into(),
        ));
    }
    let mut lines = BTreeMap::new();
    for (leader, topics) in wanted {
        list(&mut client, leader, topics, timestamp, &mut lines).await?;
    }
    // Kafka's order: by the text `topic-partition`.
    for (topic, partition, offset) in lines.into_values() {
        println!("{topic}:{partition}:{offset}");
    }
    Ok(())
}

type Lines = BTreeMap<String, (Str, i32, i64)>;

async fn list(
    client: &mut Client,
    leader: i32,
    topics: BTreeMap<String, Vec<i32>>,
    timestamp: i64,
    lines: &mut Lines,
) -> ToolResult {
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| ListOffsetsTopic {
            name: Str::from(name),
            partitions: partitions
                .into_iter()
                .map(|partition_index| ListOffsetsPartition {
                    partition_index,
                    timestamp,
                    ..ListOffsetsPartition::default()
                })
                .collect(),
            ..ListOffsetsTopic::default()
        })
        .collect();
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics,
        ..ListOffsetsRequest::default()
    };
    for topic in client.send_to(leader, request).await?.topics {
        for found in topic.partitions {
            let key = format!("{}-{}", topic.name, found.partition_index);
            match ErrorCode::from_code(found.error_code) {
                ErrorCode::None if found.offset < 0 => {}
                ErrorCode::None => {
                    lines.insert(key, (topic.name.clone(), found.partition_index, found.offset));
                }
                code => eprintln!("Skip getting offsets for topic-partition {key} due to error: {code}"),
            }
        }
    }
    Ok(())
}
