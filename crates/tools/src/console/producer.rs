//! `kafka-console-producer`: lines of standard input become records.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::{apply, client_properties, pairs};
use crate::options::{Options, Spec, switch, valued, with_bare_value};
use crate::{ToolError, ToolResult};

const SPEC: Spec = Spec {
    about: "This tool helps to read data from standard input and publish it to Kafka.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued(
            "topic",
            "String: topic",
            "REQUIRED: The topic name to produce messages to.",
        ),
        switch(
            "sync",
            "If set message send requests to the brokers are synchronously, one at a time as they arrive.",
        ),
        valued(
            "compression-codec",
            "String: compression-codec",
            "The compression codec: either 'none', 'gzip', 'snappy', 'lz4', or 'zstd'. If specified without value, then it defaults to 'gzip'",
        ),
        valued(
            "batch-size",
            "Integer: size",
            "Number of bytes of a batch. (default: 16384)",
        ),
        valued(
            "message-send-max-retries",
            "Integer",
            "Number of retries before the producer gives up. (default: 3)",
        ),
        valued("retry-backoff-ms", "Long", "Wait before a retry. (default: 100)"),
        valued(
            "timeout",
            "Long: timeout_ms",
            "How long a batch waits for more records. (default: 1000)",
        ),
        valued(
            "request-required-acks",
            "String: request required acks",
            "The required acks of the producer requests. (default: -1)",
        ),
        valued(
            "request-timeout-ms",
            "Integer: request timeout ms",
            "The ack timeout of the producer requests. (default: 1500)",
        ),
        valued(
            "metadata-expiry-ms",
            "Long: metadata expiration interval",
            "How long metadata is believed. (default: 300000)",
        ),
        valued("property", "String: prop", "DEPRECATED: as --reader-property."),
        valued(
            "reader-property",
            "String: prop",
            "parse.key, parse.headers, key.separator, headers.delimiter, headers.separator, headers.key.separator, ignore.error, null.marker as name=value.",
        ),
        valued(
            "producer-property",
            "String: producer_prop",
            "DEPRECATED: as --command-property.",
        ),
        valued(
            "command-property",
            "String: producer_prop",
            "Properties of the producer as name=value.",
        ),
        valued(
            "producer.config",
            "String: config file",
            "DEPRECATED: as --command-config.",
        ),
        valued(
            "command-config",
            "String: config file",
            "Producer config properties file.",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match crate::options_or_exit(
        SPEC.parse(&with_bare_value(arguments, "--compression-codec", "gzip")),
        &SPEC,
    ) {
        Ok(options) => options,
        Err(code) => return code,
    };
    for (old, new) in [
        ("property", "reader-property"),
        ("producer-property", "command-property"),
        ("producer.config", "command-config"),
    ] {
        if options.has(old) {
            eprintln!(
                "Warning: --{old} is deprecated and will be removed in a future version. Use --{new} instead."
            );
        }
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(ToolError::Usage(message)) => crate::usage(&message, &SPEC),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Notes what could not be delivered.
#[derive(Clone, Default)]
struct Reports {
    failed: Arc<AtomicBool>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            self.failed.store(true, Ordering::SeqCst);
            eprintln!("Error when sending message to topic {}: {error}", message.topic());
        }
    }
}

/// How a line is read as a record.
#[derive(Debug)]
struct LineFormat {
    parse_key: bool,
    parse_headers: bool,
    key_separator: String,
    headers_delimiter: String,
    headers_separator: String,
    headers_key_separator: String,
    ignore_error: bool,
    null_marker: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    headers: Vec<(&'a str, Option<&'a str>)>,
    key: Option<&'a str>,
    value: Option<&'a str>,
}

impl LineFormat {
    fn new(properties: &[(String, String)]) -> ToolResult<Self> {
        let mut format = Self {
            parse_key: false,
            parse_headers: false,
            key_separator: "\t".into(),
            headers_delimiter: "\t".into(),
            headers_separator: ",".into(),
            headers_key_separator: ":".into(),
            ignore_error: false,
            null_marker: None,
        };
        for (name, value) in properties {
            let truth = value.trim().eq_ignore_ascii_case("true");
            match name.as_str() {
                "parse.key" => format.parse_key = truth,
                "parse.headers" => format.parse_headers = truth,
                "key.separator" => format.key_separator.clone_from(value),
                "headers.delimiter" => format.headers_delimiter.clone_from(value),
                "headers.separator" => format.headers_separator.clone_from(value),
                "headers.key.separator" => format.headers_key_separator.clone_from(value),
                "ignore.error" => format.ignore_error = truth,
                "null.marker" => format.null_marker = Some(value.clone()),
                other => {
                    return Err(ToolError::Usage(format!(
                        "{other} is no property of the line reader"
                    )));
                }
            }
        }
        Ok(format)
    }

    fn nullable<'a>(&self, text: &'a str) -> Option<&'a str> {
        (self.null_marker.as_deref() != Some(text)).then_some(text)
    }

    fn parse<'a>(&self, line: &'a str, number: u64) -> ToolResult<Line<'a>> {
        let mut rest = line;
        let mut cut = |wanted: bool, separator: &str, what: &str| -> ToolResult<Option<&'a str>> {
            if !wanted {
                return Ok(None);
            }
            match rest.split_once(separator) {
                Some((head, tail)) => {
                    rest = tail;
                    Ok(Some(head))
                }
                None if self.ignore_error => Ok(None),
                None => Err(ToolError::Failed(format!(
                    "No {what} separator found on line number {number}: '{line}'"
                ))),
            }
        };
        let headers = cut(self.parse_headers, &self.headers_delimiter, "headers")?;
        let key = cut(self.parse_key, &self.key_separator, "key")?;
        let headers = headers
            .filter(|text| !text.is_empty() && self.nullable(text).is_some())
            .into_iter()
            .flat_map(|text| text.split(&*self.headers_separator))
            .map(|pair| match pair.split_once(&*self.headers_key_separator) {
                Some((name, value)) => Ok((name, self.nullable(value))),
                None if self.ignore_error => Ok((pair, None)),
                None => Err(ToolError::Failed(format!(
                    "No header key separator found in pair '{pair}' on line number {number}"
                ))),
            })
            .collect::<ToolResult<_>>()?;
        Ok(Line {
            headers,
            key: key.and_then(|key| self.nullable(key)),
            value: self.nullable(rest),
        })
    }
}

fn client_config(options: &Options) -> ToolResult<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", options.require("bootstrap-server")?);
    config.set("client.id", "console-producer");
    let flag = |name: &str, default: &str| options.get(name).unwrap_or(default).to_owned();
    config.set("acks", flag("request-required-acks", "-1"));
    config.set("compression.type", flag("compression-codec", "none"));
    config.set(
        "linger.ms",
        if options.has("sync") {
            "0".to_owned()
        } else {
            flag("timeout", "1000")
        },
    );
    config.set("batch.size", flag("batch-size", "16384"));
    config.set("retries", flag("message-send-max-retries", "3"));
    config.set("retry.backoff.ms", flag("retry-backoff-ms", "100"));
    config.set("request.timeout.ms", flag("request-timeout-ms", "1500"));
    config.set("metadata.max.age.ms", flag("metadata-expiry-ms", "300000"));
    // Java's partitioner for records with a key.
    config.set("partitioner", "murmur2_random");
    // Until brokers are found, Java's console producer waits a minute.
    config.set("message.timeout.ms", "60000");
    config.set("log_level", "3");
    let properties = client_properties(
        options,
        &["producer.config", "command-config"],
        &["producer-property", "command-property"],
    )?;
    apply(&mut config, &properties);
    Ok(config)
}

/// True when everything was delivered.
fn run(options: &Options) -> ToolResult<bool> {
    let topic = options.require("topic")?;
    let format = LineFormat::new(&pairs(options, &["property", "reader-property"])?)?;
    let reports = Reports::default();
    let producer: ThreadedProducer<Reports> = client_config(options)?
        .create_with_context(reports.clone())
        .map_err(|error| ToolError::Failed(error.to_string()))?;
    let stdin = std::io::stdin();
    let prompt = stdin.is_terminal();
    let mut text = String::new();
    for number in 1.. {
        if prompt {
            print!(">");
            std::io::stdout().flush()?;
        }
        text.clear();
        if stdin.lock().read_line(&mut text)? == 0 {
            break;
        }
        let line = format.parse(text.trim_end_matches('\n').trim_end_matches('\r'), number)?;
        send(&producer, topic, &line)?;
        if options.has("sync") {
            producer
                .flush(Duration::from_secs(60))
                .map_err(|error| ToolError::Failed(error.to_string()))?;
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .map_err(|error| ToolError::Failed(error.to_string()))?;
    Ok(!reports.failed.load(Ordering::SeqCst))
}

fn send(producer: &ThreadedProducer<Reports>, topic: &str, line: &Line<'_>) -> ToolResult {
    let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic);
    record.key = line.key;
    record.payload = line.value;
    if !line.headers.is_empty() {
        let headers = line
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: *value })
            });
        record.headers = Some(headers);
    }
    // A full queue is back-pressure: wait until some of it is delivered.
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(ToolError::Failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(properties: &[(&str, &str)]) -> LineFormat {
        let owned: Vec<_> = properties
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        LineFormat::new(&owned).unwrap()
    }

    #[test]
    fn a_line_is_a_value_unless_told_otherwise() {
        let line = format(&[]);
        assert_eq!(
            line.parse("a\tb", 1).unwrap(),
            Line {
                headers: vec![],
                key: None,
                value: Some("a\tb")
            }
        );
    }

    #[test]
    fn headers_key_and_value_are_cut_at_their_separators() {
        let format = format(&[
            ("parse.key", "true"),
            ("parse.headers", "true"),
            ("key.separator", ":"),
            ("null.marker", "NULL"),
        ]);
        let line = format.parse("h1:v1,h2:v2\tk:NULL", 1).unwrap();
        assert_eq!(line.headers, [("h1", Some("v1")), ("h2", Some("v2"))]);
        assert_eq!((line.key, line.value), (Some("k"), None));
        assert!(
            format
                .parse("nothing", 3)
                .unwrap_err()
                .to_string()
                .contains("line number 3")
        );
    }
}
