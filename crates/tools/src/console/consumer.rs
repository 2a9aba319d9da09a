//! `kafka-console-consumer`: records become lines of standard output.

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::format::{Format, Shown};
use super::{apply, client_properties, pairs};
use crate::options::{Options, Spec, switch, valued};
use crate::{ToolError, ToolResult};

/// How often a waiting consumer looks whether it shall stop.
const POLL: Duration = Duration::from_millis(100);
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

const SPEC: Spec = Spec {
    about: "This tool helps to read data from Kafka topics and outputs it to standard output.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued("topic", "String: topic", "The topic to consume on."),
        valued(
            "include",
            "String: Java regex (String)",
            "Regular expression specifying list of topics to include for consumption.",
        ),
        valued(
            "partition",
            "Integer: partition",
            "The partition to consume from.",
        ),
        valued(
            "offset",
            "String: consume offset",
            "The offset to consume from (a non-negative number), or 'earliest' or 'latest'. (default: latest)",
        ),
        switch(
            "from-beginning",
            "If the consumer does not already have an established offset to consume from, start with the earliest message present in the log.",
        ),
        valued(
            "max-messages",
            "Integer: num_messages",
            "The maximum number of messages to consume before exiting.",
        ),
        valued(
            "timeout-ms",
            "Long: timeout_ms",
            "If specified, exit if no message is available for consumption for the specified interval.",
        ),
        switch(
            "skip-message-on-error",
            "If there is an error when processing a message, skip it instead of halt.",
        ),
        valued(
            "group",
            "String: consumer group id",
            "The consumer group id of the consumer.",
        ),
        valued(
            "isolation-level",
            "String",
            "read_committed or read_uncommitted (default)",
        ),
        valued("property", "String: prop", "DEPRECATED: as --formatter-property."),
        valued(
            "formatter-property",
            "String: prop",
            "print.timestamp, print.key, print.offset, print.delivery, print.epoch, print.partition, print.headers, print.value, key.separator, line.separator, headers.separator, null.literal as name=value.",
        ),
        valued(
            "consumer-property",
            "String: consumer_prop",
            "DEPRECATED: as --command-property.",
        ),
        valued(
            "command-property",
            "String: consumer_prop",
            "Properties of the consumer as name=value.",
        ),
        valued(
            "consumer.config",
            "String: config file",
            "DEPRECATED: as --command-config.",
        ),
        valued(
            "command-config",
            "String: config file",
            "Consumer config properties file.",
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
    for (old, new) in [
        ("property", "formatter-property"),
        ("consumer-property", "command-property"),
        ("consumer.config", "command-config"),
    ] {
        if options.has(old) {
            eprintln!(
                "Warning: --{old} is deprecated and will be removed in a future version. Use --{new} instead."
            );
        }
    }
    match run(&options) {
        Ok(good) => {
            if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(ToolError::Usage(message)) => crate::usage(&message, &SPEC),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    options.require("bootstrap-server")?;
    match (options.has("topic"), options.has("include")) {
        (true, true) | (false, false) => {
            return Err(ToolError::Usage(
                "Exactly one of --include/--topic is required. ".into(),
            ));
        }
        _ => {}
    }
    if options.has("partition") && !options.has("topic") {
        return Err(ToolError::Usage(
            "The topic is required when partition is specified.".into(),
        ));
    }
    if options.has("offset") && !options.has("partition") {
        return Err(ToolError::Usage(
            "The partition is required when offset is specified.".into(),
        ));
    }
    if options.has("offset") && options.has("from-beginning") {
        return Err(ToolError::Usage(
            "Options from-beginning and offset cannot be specified together.".into(),
        ));
    }
    if options.has("group") && options.has("partition") {
        return Err(ToolError::Usage(
            "Options group and partition cannot be specified together.".into(),
        ));
    }
    Ok(())
}

/// A record of librdkafka's as it is printed.
fn shown<'a>(message: &'a BorrowedMessage<'_>) -> Shown<'a> {
    Shown {
        timestamp: match message.timestamp() {
            Timestamp::CreateTime(ms) => Some(("CreateTime", ms)),
            Timestamp::LogAppendTime(ms) => Some(("LogAppendTime", ms)),
            Timestamp::NotAvailable => None,
        },
        partition: message.partition(),
        offset: message.offset(),
        delivery: None,
        headers: message.headers().map_or_else(Vec::new, |headers| {
            let headers = headers.iter();
            headers
                .map(|header| (header.key.as_bytes(), header.value))
                .collect()
        }),
        key: message.key(),
        value: message.payload(),
    }
}

fn client_config(options: &Options) -> ToolResult<ClientConfig> {
    let properties = client_properties(
        options,
        &["consumer.config", "command-config"],
        &["consumer-property", "command-property"],
    )?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", options.require("bootstrap-server")?);
    config.set("client.id", "console-consumer");
    config.set(
        "isolation.level",
        options.get("isolation-level").unwrap_or("read_uncommitted"),
    );
    config.set(
        "auto.offset.reset",
        if options.has("from-beginning") {
            "earliest"
        } else {
            "latest"
        },
    );
    config.set("enable.partition.eof", "false");
    config.set("fetch.wait.max.ms", "100");
    config.set("log_level", "3");
    let named = options.get("group").or_else(|| {
        properties
            .iter()
            .rev()
            .find(|(name, _)| name == "group.id")
            .map(|(_, value)| value.as_str())
    });
    match named {
        Some(group) => config.set("group.id", group),
        None => {
            // A group of its own that nobody comes back to, so nothing is committed.
            config.set("enable.auto.commit", "false");
            config.set("group.id", format!("console-consumer-{}", std::process::id()))
        }
    };
    apply(&mut config, &properties);
    Ok(config)
}

fn failed(error: &KafkaError) -> ToolError {
    ToolError::Failed(error.to_string())
}

/// librdkafka's regular expressions have no groups that are not counted.
pub(crate) fn subscription_pattern(pattern: &str) -> String {
    format!("^({})$", pattern.replace("(?:", "("))
}

fn start(options: &Options, consumer: &BaseConsumer) -> ToolResult {
    let Some(partition) = options.number::<i32>("partition")? else {
        let subscription = match options.get("include") {
            Some(pattern) => subscription_pattern(pattern),
            None => options.require("topic")?.to_owned(),
        };
        return consumer
            .subscribe(&[&subscription])
            .map_err(|error| failed(&error));
    };
    let offset = match options.get("offset") {
        None if options.has("from-beginning") => Offset::Beginning,
        None => Offset::End,
        Some(text) if text.eq_ignore_ascii_case("earliest") => Offset::Beginning,
        Some(text) if text.eq_ignore_ascii_case("latest") => Offset::End,
        Some(text) => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Offset::Offset(offset),
            _ => {
                return Err(ToolError::Usage(format!(
                    "The provided offset value '{text}' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long."
                )));
            }
        },
    };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(options.require("topic")?, partition, offset)
        .map_err(|error| failed(&error))?;
    consumer.assign(&list).map_err(|error| failed(&error))
}

/// Becomes true when the process is asked to stop.
pub(super) fn stop_flag() -> ToolResult<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut terminate) = signal(SignalKind::terminate()) else {
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            flag.store(true, Ordering::SeqCst);
        });
    });
    Ok(stop)
}

fn run(options: &Options) -> ToolResult<bool> {
    let format = Format::new(&pairs(options, &["property", "formatter-property"])?)?;
    let most: Option<i64> = options.number("max-messages")?;
    let patience = options.number::<u64>("timeout-ms")?.map(Duration::from_millis);
    let stop = stop_flag()?;
    let consumer: BaseConsumer = client_config(options)?.create().map_err(|error| failed(&error))?;
    start(options, &consumer)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut count = 0i64;
    let mut last = Instant::now();
    let mut good = true;
    while !stop.load(Ordering::SeqCst) && most.is_none_or(|most| most < 0 || count < most) {
        match consumer.poll(Duration::ZERO).or_else(|| {
            let _ = out.flush();
            consumer.poll(POLL)
        }) {
            Some(Ok(message)) => {
                last = Instant::now();
                // Whoever read the output has gone.
                if format.write(&mut out, &shown(&message)).is_err() {
                    break;
                }
                count += 1;
            }
            Some(Err(error)) if is_passing(&error) => {
                eprintln!("WARN {error}");
            }
            Some(Err(error)) => {
                eprintln!("Error processing message, terminating consumer process: {error}");
                good = false;
                break;
            }
            None if patience.is_some_and(|patience| last.elapsed() >= patience) => {
                eprintln!(
                    "Error processing message, terminating consumer process: no message within --timeout-ms"
                );
                break;
            }
            None => {}
        }
    }
    let _ = out.flush();
    if options.has("group") && options.get("topic").is_some() {
        // What was read is committed before the group is left; nothing read is no error.
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) | Ok(()) => {}
            Err(error) => eprintln!("WARN cannot commit: {error}"),
        }
    }
    eprintln!("Processed a total of {count} messages");
    close(consumer);
    Ok(good)
}

/// Errors after which librdkafka goes on by itself.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}

/// Leaves the group, but does not wait for ever for a broker that is gone.
pub(crate) fn close<C: ConsumerContext + 'static>(consumer: BaseConsumer<C>) {
    let (done, closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(consumer);
        let _ = done.send(());
    });
    let _ = closed.recv_timeout(CLOSE_PATIENCE);
}
