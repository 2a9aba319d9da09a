//! `kafka-topics`: create, delete, describe, list and change topics.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use milena_client::Client;
use milena_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use milena_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use milena_protocol::messages::delete_topics_request::DeleteTopicState;
use milena_protocol::messages::describe_configs_response::DescribeConfigsResult;
use milena_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use milena_protocol::messages::describe_topic_partitions_response::{
    DescribeTopicPartitionsResponsePartition as Partition, DescribeTopicPartitionsResponseTopic as Described,
};
use milena_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::admin::{self, TOPIC_RESOURCE, TopicFilter};
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult, block_on};

const TIMEOUT_MS: i32 = 30_000;
const DEFAULT_PARTITIONS_PER_RESPONSE: i32 = 2000;
/// `config.source` of a value that nobody set.
const DEFAULT_CONFIG: i8 = 5;

const REPORTS: [&str; 4] = [
    "under-replicated-partitions",
    "under-min-isr-partitions",
    "at-min-isr-partitions",
    "unavailable-partitions",
];
const ACTIONS: [&str; 5] = ["create", "list", "alter", "describe", "delete"];

const SPEC: Spec = Spec {
    about: "This tool helps to create, delete, describe, or change a topic.",
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
        switch("list", "List all available topics."),
        switch("create", "Create a new topic."),
        switch("delete", "Delete a topic."),
        switch(
            "alter",
            "Alter the number of partitions and replica assignment. (To alter topic configurations, the kafka-configs tool can be used.)",
        ),
        switch("describe", "List details for the given topics."),
        valued(
            "topic",
            "String: topic",
            "The topic to create, alter, describe or delete. It also accepts a regular expression, except for --create option.",
        ),
        valued("topic-id", "String: topic-id", "The topic-id to describe."),
        valued(
            "config",
            "String: name=value",
            "A topic configuration override for the topic being created.",
        ),
        valued(
            "delete-config",
            "String: name",
            "This option is no longer supported and has been deprecated since 4.0",
        ),
        valued(
            "partitions",
            "Integer: # of partitions",
            "The number of partitions for the topic being created or altered.",
        ),
        valued(
            "replication-factor",
            "Integer: replication factor",
            "The replication factor for each partition in the topic being created.",
        ),
        valued(
            "replica-assignment",
            "String: broker_id_for_part1_replica1 : broker_id_for_part1_replica2 , ...",
            "A list of manual partition-to-broker assignments for the topic being created or altered.",
        ),
        switch(
            "under-replicated-partitions",
            "If set when describing topics, only show under-replicated partitions.",
        ),
        switch(
            "unavailable-partitions",
            "If set when describing topics, only show partitions whose leader is not available.",
        ),
        switch(
            "under-min-isr-partitions",
            "If set when describing topics, only show partitions whose isr count is less than the configured minimum.",
        ),
        switch(
            "at-min-isr-partitions",
            "If set when describing topics, only show partitions whose isr count is equal to the configured minimum.",
        ),
        switch(
            "topics-with-overrides",
            "If set when describing topics, only show topics that have overridden configs.",
        ),
        switch(
            "if-exists",
            "If set when altering or deleting or describing topics, the action will only execute if the topic exists.",
        ),
        switch(
            "if-not-exists",
            "If set when creating topics, the action will only execute if the topic does not already exist.",
        ),
        switch(
            "exclude-internal",
            "Exclude internal topics when listing or describing topics. By default, the internal topics are included.",
        ),
        valued(
            "partition-size-limit-per-response",
            "Integer: maximum number of partitions per response",
            "The maximum partition size to be included in one DescribeTopicPartitions response.",
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
            println!("Error while executing topic command : {error}");
            ExitCode::FAILURE
        }
    }
}

/// Flags that go together, in the order in which Kafka looks.
fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        return Err(ToolError::Usage(
            "Command must include exactly one action: --list, --describe, --create, --alter or --delete"
                .into(),
        ));
    }
    if options.has("delete-config") {
        eprintln!(
            "delete-config option is no longer supported and deprecated since version 4.0. The config will be fully removed in future releases."
        );
    }
    if !options.has("bootstrap-server") {
        return Err(ToolError::Failed("--bootstrap-server must be specified".into()));
    }
    if options.has("describe") && options.has("if-exists") {
        if !options.has("topic") && !options.has("topic-id") {
            return Err(ToolError::Usage(
                "--topic or --topic-id is required to describe a topic".into(),
            ));
        }
        if options.has("topic") && options.has("topic-id") {
            println!(
                "Only topic id will be used when both --topic and --topic-id are specified and topicId is not Uuid.ZERO_UUID"
            );
        }
    }
    if !options.has("list") && !options.has("describe") {
        options.require("topic")?;
    }
    if options.has("alter") {
        options.exclude("alter", &["config"])?;
        options.require("partitions")?;
    }
    let only_with = |flag: &str, actions: &[&str]| {
        let others: Vec<&str> = ACTIONS
            .into_iter()
            .filter(|action| !actions.contains(action))
            .collect();
        options.exclude(flag, &others)
    };
    only_with("config", &["alter", "create"])?;
    only_with("partitions", &["alter", "create"])?;
    only_with("replication-factor", &["create"])?;
    only_with("replica-assignment", &["alter", "create"])?;
    if options.has("create") {
        options.exclude("replica-assignment", &["partitions", "replication-factor"])?;
    }
    for report in REPORTS {
        only_with(report, &["describe"])?;
        options.exclude(report, &["topics-with-overrides"])?;
    }
    only_with("topics-with-overrides", &["describe"])?;
    only_with("if-exists", &["alter", "delete", "describe"])?;
    only_with("if-not-exists", &["create"])?;
    only_with("exclude-internal", &["list", "describe"])
}

async fn execute(options: &Options) -> ToolResult {
    let mut client = admin::connect(options, "kafka-topics").await?;
    if options.has("create") {
        create(&mut client, options).await
    } else if options.has("alter") {
        alter(&mut client, options).await
    } else if options.has("list") {
        let found = matching(&mut client, options).await?;
        println!("{}", found.join("\n"));
        Ok(())
    } else if options.has("describe") {
        describe(&mut client, options).await
    } else {
        delete(&mut client, options).await
    }
}

/// Names of the topics that `--topic` asks for, or of all.
async fn matching(client: &mut Client, options: &Options) -> ToolResult<Vec<String>> {
    let filter = options.get("topic").map(TopicFilter::new).transpose()?;
    let topics = admin::topics(client, filter.as_ref(), options.has("exclude-internal")).await?;
    Ok(topics.into_keys().collect())
}

fn ensure_found(found: &[String], options: &Options) -> ToolResult {
    match options.get("topic") {
        Some(topic) if !topic.is_empty() && found.is_empty() && !options.has("if-exists") => Err(
            ToolError::Failed(format!("Topic '{topic}' does not exist as expected")),
        ),
        _ => Ok(()),
    }
}

fn configs(options: &Options) -> ToolResult<BTreeMap<String, String>> {
    let wrong = "requirement failed: Invalid topic config: all configs to be added must be in the format \"key=val\".";
    options
        .all("config")
        .iter()
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| ToolError::Failed(wrong.into()))?;
            if value.trim().is_empty() || value.contains('=') {
                return Err(ToolError::Failed(wrong.into()));
            }
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn assignments(options: &Options) -> ToolResult<Vec<Vec<i32>>> {
    let Some(text) = options.get("replica-assignment").filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut all: Vec<Vec<i32>> = Vec::new();
    for (i, list) in text.split(',').enumerate() {
        let brokers: Result<Vec<i32>, _> = list.split(':').map(|id| id.trim().parse()).collect();
        let brokers = brokers.map_err(|_| ToolError::Failed(format!("For input string: \"{list}\"")))?;
        if brokers.iter().collect::<BTreeSet<_>>().len() != brokers.len() {
            return Err(ToolError::Failed(
                "Partition replica lists may not contain duplicate entries".into(),
            ));
        }
        if all.first().is_some_and(|first| first.len() != brokers.len()) {
            return Err(ToolError::Failed(format!(
                "Partition {i} has different replication factor: {brokers:?}"
            )));
        }
        all.push(brokers);
    }
    Ok(all)
}

async fn create(client: &mut Client, options: &Options) -> ToolResult {
    let name = options.require("topic")?.to_owned();
    if name.contains(['.', '_']) {
        println!(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. To avoid issues it is best to use either, but not both."
        );
    }
    let assignments = assignments(options)?;
    let partitions: Option<i32> = options.number("partitions")?;
    let replication: Option<i32> = options.number("replication-factor")?;
    if replication.is_some_and(|factor| !(1..=i32::from(i16::MAX)).contains(&factor)) {
        return Err(ToolError::Failed(
            "The replication factor must be between 1 and 32767 inclusive".into(),
        ));
    }
    if partitions.is_some_and(|count| count < 1) {
        return Err(ToolError::Failed("The partitions must be greater than 0".into()));
    }
    let manual = !assignments.is_empty();
    let topic = CreatableTopic {
        name: Str::from(name.clone()),
        num_partitions: if manual { -1 } else { partitions.unwrap_or(-1) },
        replication_factor: if manual {
            -1
        } else {
            replication
                .and_then(|factor| i16::try_from(factor).ok())
                .unwrap_or(-1)
        },
        assignments: (0..)
            .zip(assignments)
            .map(|(partition_index, broker_ids)| CreatableReplicaAssignment {
                partition_index,
                broker_ids,
                ..CreatableReplicaAssignment::default()
            })
            .collect(),
        configs: configs(options)?
            .into_iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: Str::from(name),
                value: Some(Str::from(value)),
                ..CreatableTopicConfig::default()
            })
            .collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    };
    for result in client.send(request).await?.topics {
        if result.error_code == ErrorCode::TopicAlreadyExists.code() && options.has("if-not-exists") {
            continue;
        }
        admin::check(result.error_code, result.error_message.as_ref())?;
        println!("Created topic {name}.");
    }
    Ok(())
}

async fn alter(client: &mut Client, options: &Options) -> ToolResult {
    let found = matching(client, options).await?;
    ensure_found(&found, options)?;
    let Some(count) = options.number("partitions")? else {
        return Ok(());
    };
    let assignments = assignments(options)?;
    if found.is_empty() {
        return Ok(());
    }
    let existing = admin::topics(client, None, false).await?;
    let topics = found
        .into_iter()
        .map(|name| {
            let skip = existing.get(&name).map_or(0, |topic| topic.partitions.len());
            let new: Vec<CreatePartitionsAssignment> = assignments
                .iter()
                .skip(skip)
                .map(|ids| CreatePartitionsAssignment {
                    broker_ids: ids.clone(),
                    ..CreatePartitionsAssignment::default()
                })
                .collect();
            CreatePartitionsTopic {
                name: Str::from(name),
                count,
                assignments: (!assignments.is_empty()).then_some(new),
                ..CreatePartitionsTopic::default()
            }
        })
        .collect();
    let request = CreatePartitionsRequest {
        topics,
        timeout_ms: TIMEOUT_MS,
        ..CreatePartitionsRequest::default()
    };
    for result in client.send(request).await?.results {
        admin::check(result.error_code, result.error_message.as_ref())?;
    }
    Ok(())
}

async fn delete(client: &mut Client, options: &Options) -> ToolResult {
    let found = matching(client, options).await?;
    ensure_found(&found, options)?;
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<Str> = found.into_iter().map(Str::from).collect();
    let version = client.bootstrap().version_for::<DeleteTopicsRequest>()?;
    let request = if version >= 6 {
        let topics = names
            .into_iter()
            .map(|name| DeleteTopicState {
                name: Some(name),
                ..DeleteTopicState::default()
            })
            .collect();
        DeleteTopicsRequest {
            topics,
            timeout_ms: TIMEOUT_MS,
            ..DeleteTopicsRequest::default()
        }
    } else {
        DeleteTopicsRequest {
            topic_names: names,
            timeout_ms: TIMEOUT_MS,
            ..DeleteTopicsRequest::default()
        }
    };
    for result in client.send(request).await?.responses {
        admin::check(result.error_code, result.error_message.as_ref())?;
    }
    Ok(())
}

/// The names to describe, by `--topic-id` or by `--topic`.
async fn to_describe(client: &mut Client, options: &Options) -> ToolResult<Vec<String>> {
    let id =
        match options.get("topic-id") {
            Some(text) => {
                let parsed = text.parse::<Uuid>();
                Some(parsed.map_err(|_| {
                    ToolError::Failed(format!("Input string with prefix `{text}` is not a UUID"))
                })?)
            }
            None => None,
        };
    let Some(id) = id.filter(|id| !id.is_zero()) else {
        let found = matching(client, options).await?;
        ensure_found(&found, options)?;
        return Ok(found);
    };
    let topics = admin::topics(client, None, options.has("exclude-internal")).await?;
    let found: Vec<String> = topics
        .into_iter()
        .filter(|(_, topic)| topic.topic_id == id)
        .map(|(name, _)| name)
        .collect();
    if found.is_empty() && !options.has("if-exists") {
        return Err(ToolError::Failed(format!(
            "TopicId '{id}' does not exist as expected"
        )));
    }
    Ok(found)
}

/// All partitions of the topics, page by page (KIP-966).
async fn describe_topics(client: &mut Client, names: &[String], limit: i32) -> ToolResult<Vec<Described>> {
    let mut all: Vec<Described> = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let from = cursor.as_ref().map_or("", |cursor| &cursor.topic_name);
        let topics = names
            .iter()
            .filter(|name| name.as_str() >= from)
            .map(|name| TopicRequest {
                name: Str::from(name.clone()),
                ..TopicRequest::default()
            })
            .collect();
        let request = DescribeTopicPartitionsRequest {
            topics,
            response_partition_limit: limit,
            cursor: cursor.clone(),
            ..DescribeTopicPartitionsRequest::default()
        };
        let response = client.send(request).await?;
        for topic in response.topics {
            admin::check(topic.error_code, None)?;
            match all.last_mut().filter(|last| last.name == topic.name) {
                Some(last) => last.partitions.extend(topic.partitions),
                None => all.push(topic),
            }
        }
        match response.next_cursor {
            Some(next) => {
                cursor = Some(Cursor {
                    topic_name: next.topic_name,
                    partition_index: next.partition_index,
                    ..Cursor::default()
                });
            }
            None => return Ok(all),
        }
    }
}

async fn describe(client: &mut Client, options: &Options) -> ToolResult {
    let names = to_describe(client, options).await?;
    if names.is_empty() {
        return Ok(());
    }
    let limit = options
        .number("partition-size-limit-per-response")?
        .unwrap_or(DEFAULT_PARTITIONS_PER_RESPONSE);
    let topics = describe_topics(client, &names, limit).await?;
    let configs = admin::describe_configs(client, TOPIC_RESOURCE, names, false).await?;
    let live: BTreeSet<i32> = client
        .metadata(Some(&[]))
        .await?
        .brokers
        .iter()
        .map(|broker| broker.node_id)
        .collect();
    for topic in topics {
        let name = topic.name.as_deref().unwrap_or_default();
        let config = configs.iter().find(|result| result.resource_name == *name);
        print_topic(&topic, config, &live, options);
    }
    Ok(())
}

fn print_topic(
    topic: &Described,
    config: Option<&DescribeConfigsResult>,
    live: &BTreeSet<i32>,
    options: &Options,
) {
    let name = topic.name.as_deref().unwrap_or_default();
    let overrides: Vec<String> = config
        .map(|config| &config.configs)
        .into_iter()
        .flatten()
        .filter(|entry| entry.config_source != DEFAULT_CONFIG)
        .map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or("null")))
        .collect();
    let reports = REPORTS.iter().any(|report| options.has(report));
    let overridden_only = options.has("topics-with-overrides");
    let mut partitions: Vec<&Partition> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    if !reports && (!overridden_only || !overrides.is_empty()) {
        println!(
            "Topic: {name}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {}\tConfigs: {}",
            topic.topic_id,
            partitions.len(),
            partitions.first().map_or(0, |first| first.replica_nodes.len()),
            overrides.join(",")
        );
    }
    if overridden_only {
        return;
    }
    let min_isr = config
        .and_then(|config| {
            config
                .configs
                .iter()
                .find(|entry| entry.name == "min.insync.replicas")
        })
        .and_then(|entry| entry.value.as_deref()?.parse().ok())
        .unwrap_or(1usize);
    for partition in partitions {
        let isr = partition.isr_nodes.len();
        let has_leader = partition.leader_id >= 0;
        let shown = !reports
            || (options.has("under-replicated-partitions") && partition.replica_nodes.len() > isr)
            || (options.has("unavailable-partitions")
                && !(has_leader && live.contains(&partition.leader_id)))
            || (options.has("under-min-isr-partitions") && (!has_leader || isr < min_isr))
            || (options.has("at-min-isr-partitions") && isr == min_isr);
        if shown {
            print_partition(name, partition);
        }
    }
}

fn print_partition(topic: &str, partition: &Partition) {
    let ids = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let optional = |list: &Option<Vec<i32>>| list.as_ref().map_or("N/A".to_owned(), |list| ids(list));
    let leader = if partition.leader_id >= 0 {
        partition.leader_id.to_string()
    } else {
        "none".into()
    };
    println!(
        "\tTopic: {topic}\tPartition: {}\tLeader: {leader}\tReplicas: {}\tIsr: {}\tElr: {}\tLastKnownElr: {}",
        partition.partition_index,
        ids(&partition.replica_nodes),
        ids(&partition.isr_nodes),
        optional(&partition.eligible_leader_replicas),
        optional(&partition.last_known_elr),
    );
}
