//! `kafka-e2e-latency`: one record at a time, sent, acknowledged and fetched again.
//!
//! It speaks to the leader through the thin client, one connection for both: a record costs two
//! requests and no thread but this one, so what is measured is the broker and the network. Several
//! partitions take turns.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use milena_client::Client;
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use milena_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use milena_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use milena_protocol::messages::{CreateTopicsRequest, FetchRequest, ListOffsetsRequest, ProduceRequest};
use milena_protocol::records::{BatchBuilder, NewRecord, Record, RecordHeader, batches};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::{Random, decimal};
use crate::options::{Options, Spec, load_properties, valued, with_bare_value};
use crate::{ToolError, ToolResult, admin, block_on};

/// How long a record may take to be found.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
const FETCH_BYTES: i32 = 50 * 1024 * 1024;
const PARTITION_BYTES: i32 = 1024 * 1024;
/// What a record may decompress to; the broker has its own limits on what it stores.
const RECORDS_BYTES: usize = 1 << 30;
const LATEST: i64 = -1;
/// How often progress is said.
const PROGRESS_RECORDS: usize = 1000;
const FIRST_ID_VERSION: i16 = 13;
/// What this client can be told by `--command-config`.
const PROPERTIES: &[&str] = &["client.id", "request.timeout.ms", "security.protocol"];
const OPTIONAL: &[&str] = &[
    "--record-key-size",
    "--num-headers",
    "--record-header-size",
    "--record-header-key-size",
];
const POSITIONAL: &[&str] = &[
    "bootstrap-server",
    "topic",
    "num-records",
    "producer-acks",
    "record-size",
    "command-config",
];

const SPEC: Spec = Spec {
    about: "This tool measures end-to-end latency in Kafka by sending messages and timing their reception.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: bootstrap-server",
            "REQUIRED: The Kafka broker list string in the form HOST1:PORT1,HOST2:PORT2.",
        ),
        valued(
            "topic",
            "String: topic-name",
            "REQUIRED: The topic to use for the test.",
        ),
        valued(
            "num-records",
            "Integer: count",
            "REQUIRED: The number of messages to send.",
        ),
        valued(
            "producer-acks",
            "String: producer-acks",
            "REQUIRED: Producer acknowledgements. Must be '1' or 'all'.",
        ),
        valued(
            "record-size",
            "Integer: bytes",
            "REQUIRED: The size of each message payload in bytes.",
        ),
        valued(
            "record-key-size",
            "Integer: bytes",
            "The size of the message key in bytes; 0 for none. (default: 0)",
        ),
        valued(
            "num-headers",
            "Integer: count",
            "The number of headers of each message. (default: 0)",
        ),
        valued(
            "record-header-size",
            "Integer: bytes",
            "The size of a header's value in bytes, -1 for null. (default: 0)",
        ),
        valued(
            "record-header-key-size",
            "Integer: bytes",
            "The size of a header's key in bytes. (default: 0)",
        ),
        valued(
            "command-config",
            "String: config-file",
            "A property file: client.id and request.timeout.ms.",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let parsed = named(arguments).and_then(|arguments| {
        let options = SPEC.parse(&arguments)?;
        let load = (!options.has("version"))
            .then(|| Load::new(&options))
            .transpose()?;
        Ok((options, load))
    });
    let (options, load) = match parsed {
        Ok((options, Some(load))) => (options, load),
        Ok((_, None)) => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(ToolError::Failed(message)) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
        Err(error) => return crate::usage(&error.to_string(), &SPEC),
    };
    match block_on(run(&options, &load)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Arguments by position become named ones.
fn named(arguments: &[String]) -> ToolResult<Vec<String>> {
    if arguments.is_empty() || arguments.iter().any(|argument| argument.starts_with("--")) {
        let mut all = arguments.to_vec();
        for flag in OPTIONAL {
            all = with_bare_value(&all, flag, "0");
        }
        return Ok(all);
    }
    if !(POSITIONAL.len() - 1..=POSITIONAL.len()).contains(&arguments.len()) {
        return Err(ToolError::Failed(format!(
            "Invalid number of arguments. Expected 5 or 6 positional arguments, but got {}. Usage: bootstrap-server topic num-records producer-acks record-size [optional] command-config",
            arguments.len()
        )));
    }
    println!(
        "WARNING: Positional argument usage is deprecated and will be removed in Apache Kafka 5.0. Please use named arguments instead: --bootstrap-server, --topic, --num-records, --producer-acks, --record-size, --command-config"
    );
    Ok(POSITIONAL
        .iter()
        .zip(arguments)
        .filter(|(name, value)| **name != "command-config" || !value.trim().is_empty())
        .map(|(name, value)| format!("--{name}={value}"))
        .collect())
}

#[derive(Debug, PartialEq, Eq)]
struct Load {
    topic: Str,
    records: usize,
    acks: i16,
    record_bytes: usize,
    key_bytes: usize,
    headers: usize,
    header_key_bytes: usize,
    /// `None` for headers that are null.
    header_bytes: Option<usize>,
}

fn size(options: &Options, name: &str) -> ToolResult<usize> {
    let number: i32 = options.number(name)?.unwrap_or(0);
    usize::try_from(number)
        .map_err(|_| ToolError::Usage(format!("Value for --{name} must be a non-negative integer.")))
}

impl Load {
    fn new(options: &Options) -> ToolResult<Self> {
        for name in [
            "bootstrap-server",
            "topic",
            "num-records",
            "producer-acks",
            "record-size",
        ] {
            options.require(name)?;
        }
        let records = options
            .number::<i32>("num-records")?
            .and_then(|count| usize::try_from(count).ok());
        let records = records
            .filter(|count| *count > 0)
            .ok_or_else(|| ToolError::Usage("Value for --num-records must be a positive integer.".into()))?;
        let acks = match options.require("producer-acks")? {
            "1" => 1,
            "all" => -1,
            _ => {
                return Err(ToolError::Usage("Invalid value for --producer-acks. Latency testing requires synchronous acknowledgement. Please use '1' or 'all'.".into()));
            }
        };
        let header_bytes = match options.number::<i32>("record-header-size")?.unwrap_or(0) {
            -1 => None,
            other => Some(usize::try_from(other).map_err(|_| {
                ToolError::Usage("Value for --record-header-size must be a non-negative integer or -1 for null header value.".into())
            })?),
        };
        Ok(Self {
            topic: Str::from(options.require("topic")?.to_owned()),
            records,
            acks,
            record_bytes: size(options, "record-size")?,
            key_bytes: size(options, "record-key-size")?,
            headers: size(options, "num-headers")?,
            header_key_bytes: size(options, "record-header-key-size")?,
            header_bytes,
        })
    }

    fn record(&self, random: &mut Random) -> NewRecord {
        let mut letters = |count: usize| Bytes::from(vec![random.letter(); count]);
        NewRecord {
            timestamp: jiff::Timestamp::now().as_millisecond(),
            key: (self.key_bytes > 0).then(|| letters(self.key_bytes)),
            value: Some(letters(self.record_bytes)),
            headers: (0..self.headers)
                .map(|_| RecordHeader {
                    key: letters(self.header_key_bytes),
                    value: self.header_bytes.map(&mut letters),
                })
                .collect(),
        }
    }
}

/// A partition, and where its next record will be.
#[derive(Debug)]
struct Partition {
    topic: Str,
    topic_id: Uuid,
    index: i32,
    leader_id: i32,
    next_offset: i64,
}

async fn run(options: &Options, load: &Load) -> ToolResult {
    if let Some(path) = options.get("command-config") {
        for (name, _) in load_properties(path)? {
            if !PROPERTIES.contains(&name.as_str()) {
                return Err(ToolError::Failed(format!(
                    "{path}: this command has no use for {name}; it knows {}",
                    PROPERTIES.join(", ")
                )));
            }
        }
    }
    let mut client = admin::connect(options, "e2e-latency").await?;
    let mut partitions = partitions(&mut client, load).await?;
    let count = partitions.len();
    let mut random = Random(0);
    let mut latencies = Vec::with_capacity(load.records);
    for number in 0..load.records {
        let partition = partitions
            .get_mut(number % count.max(1))
            .ok_or_else(|| ToolError::Failed(format!("The topic {} has no partitions.", load.topic)))?;
        let record = load.record(&mut random);
        let batch = batch(&record)?;
        let begin = Instant::now();
        produce(&mut client, partition, load.acks, batch).await?;
        let found = consume(&mut client, partition, begin).await?;
        let elapsed = begin.elapsed();
        validate(&record, &found)?;
        partition.next_offset += 1;
        if number % PROGRESS_RECORDS == 0 {
            println!("{number}\t{}", elapsed.as_secs_f64() * 1000.0);
        }
        latencies.push(elapsed);
    }
    for line in results(latencies) {
        println!("{line}");
    }
    Ok(())
}

fn batch(record: &NewRecord) -> ToolResult<Bytes> {
    let mut builder = BatchBuilder::new();
    builder.push(record);
    Ok(builder.build()?)
}

async fn partitions(client: &mut Client, load: &Load) -> ToolResult<Vec<Partition>> {
    let wanted = [load.topic.clone()];
    let mut topic = client.metadata(Some(&wanted)).await?.topics.into_iter().next();
    if topic
        .as_ref()
        .is_none_or(|topic| topic.error_code == ErrorCode::UnknownTopicOrPartition.code())
    {
        println!(
            "Topic \"{}\" does not exist. Will create topic with 1 partition(s) and replication factor = 1",
            load.topic
        );
        create(client, &load.topic).await?;
        topic = leading(client, &wanted).await?;
    }
    let Some(topic) = topic else {
        return Err(ToolError::Failed(format!(
            "The broker says nothing of the topic {}.",
            load.topic
        )));
    };
    admin::check(topic.error_code, None)?;
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for found in topic.partitions {
        admin::check(found.error_code, None)?;
        let mut partition = Partition {
            topic: load.topic.clone(),
            topic_id: topic.topic_id,
            index: found.partition_index,
            leader_id: found.leader_id,
            next_offset: 0,
        };
        partition.next_offset = end_offset(client, &partition).await?;
        partitions.push(partition);
    }
    Ok(partitions)
}

async fn create(client: &mut Client, topic: &Str) -> ToolResult {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.clone(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: PRODUCE_TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    };
    for result in client.send(request).await?.topics {
        if let Err(error) = admin::check(result.error_code, result.error_message.as_ref()) {
            println!("Creation of topic {topic} failed");
            return Err(error);
        }
    }
    Ok(())
}

type Topic = milena_protocol::messages::metadata_response::MetadataResponseTopic;

/// The new topic, once its leader is known.
async fn leading(client: &mut Client, wanted: &[Str]) -> ToolResult<Option<Topic>> {
    let deadline = Instant::now() + POLL_TIMEOUT;
    loop {
        let topic = client.metadata(Some(wanted)).await?.topics.into_iter().next();
        let ready = topic.as_ref().is_some_and(|topic| {
            topic.error_code == ErrorCode::None.code()
                && topic
                    .partitions
                    .iter()
                    .all(|one| one.error_code == ErrorCode::None.code())
        });
        if ready || Instant::now() >= deadline {
            return Ok(topic);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn nothing_of(partition: &Partition) -> ToolError {
    ToolError::Failed(format!(
        "The broker answers nothing of {}-{}.",
        partition.topic, partition.index
    ))
}

async fn end_offset(client: &mut Client, partition: &Partition) -> ToolResult<i64> {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: partition.topic.clone(),
            partitions: vec![ListOffsetsPartition {
                partition_index: partition.index,
                timestamp: LATEST,
                ..ListOffsetsPartition::default()
            }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    let answer = client.send_to(partition.leader_id, request).await?;
    let found = answer
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions)
        .next();
    let found = found.ok_or_else(|| nothing_of(partition))?;
    admin::check(found.error_code, None)?;
    Ok(found.offset)
}

async fn produce(client: &mut Client, partition: &Partition, acks: i16, batch: Bytes) -> ToolResult {
    let by_id = client.version_of::<ProduceRequest>(partition.leader_id).await? >= FIRST_ID_VERSION;
    let mut topic = TopicProduceData {
        partition_data: vec![PartitionProduceData {
            index: partition.index,
            records: Some(batch),
            ..PartitionProduceData::default()
        }],
        ..TopicProduceData::default()
    };
    if by_id {
        topic.topic_id = partition.topic_id;
    } else {
        topic.name = partition.topic.clone();
    }
    let request = ProduceRequest {
        acks,
        timeout_ms: PRODUCE_TIMEOUT_MS,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    let answer = client.send_to(partition.leader_id, request).await?;
    let found = answer
        .responses
        .into_iter()
        .flat_map(|topic| topic.partition_responses)
        .next();
    let found = found.ok_or_else(|| nothing_of(partition))?;
    admin::check(found.error_code, found.error_message.as_ref())
}

fn fetch_request(partition: &Partition, by_id: bool) -> FetchRequest {
    let mut topic = FetchTopic {
        partitions: vec![FetchPartition {
            partition: partition.index,
            fetch_offset: partition.next_offset,
            partition_max_bytes: PARTITION_BYTES,
            ..FetchPartition::default()
        }],
        ..FetchTopic::default()
    };
    if by_id {
        topic.topic_id = partition.topic_id;
    } else {
        topic.topic = partition.topic.clone();
    }
    FetchRequest {
        // No temporal batching: the broker answers at once, as Kafka's tool wants it.
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: FETCH_BYTES,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

/// Asks until there is something behind the offset.
async fn consume(client: &mut Client, partition: &Partition, begin: Instant) -> ToolResult<Vec<Record>> {
    let by_id = client.version_of::<FetchRequest>(partition.leader_id).await? >= FIRST_ID_VERSION;
    let request = fetch_request(partition, by_id);
    let version = client.version_of::<FetchRequest>(partition.leader_id).await?;
    while begin.elapsed() < POLL_TIMEOUT {
        let answer = client
            .send_version_to(partition.leader_id, &request, version)
            .await?;
        admin::check(answer.error_code, None)?;
        let found = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let found = found.ok_or_else(|| nothing_of(partition))?;
        admin::check(found.error_code, None)?;
        if let Some(found) = found.records.filter(|found| !found.is_empty()) {
            let bytes = found
                .into_bytes()
                .map_err(|error| ToolError::Failed(error.to_string()))?;
            return records(&bytes).map_err(|error| ToolError::Failed(error.to_string()));
        }
    }
    Err(ToolError::Failed(format!(
        "poll() timed out before finding a result (timeout:[{}ms])",
        POLL_TIMEOUT.as_millis()
    )))
}

fn records(bytes: &Bytes) -> Result<Vec<Record>, milena_protocol::records::RecordError> {
    let mut all = Vec::new();
    // The last batch may be cut.
    for batch in batches(bytes).map_while(Result::ok) {
        for record in batch.records(RECORDS_BYTES)? {
            all.push(record?);
        }
    }
    Ok(all)
}

/// It is the record that was sent, and nothing else.
fn validate(sent: &NewRecord, found: &[Record]) -> ToolResult {
    let text =
        |bytes: &Option<Bytes>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let Some(read) = found.first() else {
        return Err(ToolError::Failed("The fetched batch has no records.".into()));
    };
    if read.value != sent.value || read.key != sent.key || read.headers != sent.headers {
        return Err(ToolError::Failed(format!(
            "The message read [{}] did not match the message sent [{}]",
            text(&read.value),
            text(&sent.value)
        )));
    }
    if found.len() != 1 {
        return Err(ToolError::Failed(format!(
            "Only one result was expected during this test. We found [{}]",
            found.len()
        )));
    }
    Ok(())
}

fn results(mut latencies: Vec<Duration>) -> [String; 2] {
    let total: Duration = latencies.iter().sum();
    let count = u32::try_from(latencies.len()).unwrap_or(u32::MAX);
    let average_ms = total.as_secs_f64() * 1000.0 / f64::from(count);
    latencies.sort_unstable();
    let at = |thousandths: usize| {
        let index = latencies.len() * thousandths / 1000;
        latencies.get(index).map_or(0, Duration::as_millis)
    };
    [
        format!("Avg latency: {} ms", decimal(average_ms, 4)),
        format!(
            "Percentiles: 50th = {}, 99th = {}, 99.9th = {}",
            at(500),
            at(990),
            at(999)
        ),
    ]
}

#[cfg(test)]
mod tests;
