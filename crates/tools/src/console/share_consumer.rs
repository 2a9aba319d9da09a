//! `kafka-console-share-consumer`: records of a share group become lines of standard output.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use milena_client::Options as ClientOptions;
use milena_protocol::Str;
use milena_protocol::records::TimestampType;

use super::acknowledge::Acknowledge;
use super::consumer::stop_flag;
use super::format::{Format, Shown};
use super::share_member::{Delivered, Member, Wishes};
use super::{client_properties, is_java_only, pairs};
use crate::options::{Options, Spec, load_properties, switch, valued};
use crate::{ToolError, ToolResult, block_on};

const NAME: &str = "console-share-consumer";

const SPEC: Spec = Spec {
    about: "This tool helps to read data from Kafka topics using share groups and outputs it to standard output.",
    flags: &[
        valued("topic", "String: topic", "The topic to consume from."),
        valued(
            "consumer-property",
            "String: consumer_prop",
            "DEPRECATED: as --command-property.",
        ),
        valued(
            "command-property",
            "String: consumer_prop",
            "Consumer config properties in the form key=value.",
        ),
        valued(
            "consumer-config",
            "String: config file",
            "DEPRECATED: as --command-config.",
        ),
        valued(
            "command-config",
            "String: config file",
            "Consumer config properties file. Note that --command-property takes precedence over this config.",
        ),
        valued("property", "String: prop", "DEPRECATED: as --formatter-property."),
        valued(
            "formatter-property",
            "String: prop",
            "print.timestamp, print.key, print.offset, print.delivery, print.epoch, print.partition, print.headers, print.value, key.separator, line.separator, headers.separator, null.literal as name=value.",
        ),
        valued(
            "formatter-config",
            "String: config file",
            "Config properties file to initialize the message formatter. Note that --formatter-property takes precedence over this config.",
        ),
        valued(
            "max-messages",
            "Integer: num_messages",
            "The maximum number of messages to consume before exiting. If not set, consumption is continual.",
        ),
        valued(
            "timeout-ms",
            "Integer: timeout_ms",
            "If specified, exit if no message is available for consumption for the specified interval.",
        ),
        switch(
            "reject",
            "If specified, messages are rejected as they are consumed.",
        ),
        switch(
            "release",
            "If specified, messages are released as they are consumed.",
        ),
        switch(
            "reject-message-on-error",
            "If there is an error when processing a message, reject it instead of halting.",
        ),
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued(
            "group",
            "String: share group id",
            "The share group id of the consumer.",
        ),
        switch(
            "enable-systest-events",
            "Log lifecycle events of the share consumer in addition to logging consumed messages. (This is specific for system tests.)",
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
    let (wishes, format) = match prepare(&options) {
        Ok(prepared) => prepared,
        Err(ToolError::Usage(message)) => return crate::usage(&message, &SPEC),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match block_on(run(&options, wishes, &format)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Unknown error when running consumer: {error}");
            ExitCode::FAILURE
        }
    };
    if options.has("enable-systest-events") {
        println!("shutdown_complete");
    }
    code
}

fn check(options: &Options) -> ToolResult {
    if options.has("version") {
        return Ok(());
    }
    if !options.has("topic") {
        return Err(ToolError::Usage("--topic is a required argument".into()));
    }
    options.require("bootstrap-server")?;
    if options.has("reject") && options.has("release") {
        return Err(ToolError::Usage(
            "At most one of --reject and --release may be specified.".into(),
        ));
    }
    for (old, new) in [
        ("consumer-property", "command-property"),
        ("consumer-config", "command-config"),
        ("property", "formatter-property"),
    ] {
        if options.has(old) && options.has(new) {
            return Err(ToolError::Usage(format!(
                "Options --{old} and --{new} cannot be specified together."
            )));
        }
        // Kafka's command says this among the records.
        if options.has(old) {
            println!(
                "Option --{old} is deprecated and will be removed in a future version. Use --{new} instead."
            );
        }
    }
    Ok(())
}

fn prepare(options: &Options) -> ToolResult<(Wishes, Format)> {
    let properties = client_properties(
        options,
        &["consumer-config", "command-config"],
        &["consumer-property", "command-property"],
    )?;
    let mut formats = match options.get("formatter-config") {
        Some(path) => load_properties(path)?,
        None => Vec::new(),
    };
    formats.extend(pairs(options, &["property", "formatter-property"])?);
    Ok((wishes(options, &properties)?, Format::new(&formats)?))
}

fn wishes(options: &Options, properties: &[(String, String)]) -> ToolResult<Wishes> {
    let mut wishes = Wishes {
        bootstrap: options.require("bootstrap-server")?.to_owned(),
        client: ClientOptions {
            client_id: Str::from(NAME),
            timeout: Duration::from_secs(30),
        },
        group: Str::from(group(options, properties)?),
        topic: Str::from(options.require("topic")?.to_owned()),
        rack: None,
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 * 1024 * 1024,
        max_records: 500,
        reject_unreadable: options.has("reject-message-on-error"),
    };
    for (name, value) in properties {
        let number = || -> ToolResult<i32> {
            value.trim().parse().map_err(|_| {
                ToolError::Failed(format!(
                    "Invalid value {value} for configuration {name}: Not a number of type INT"
                ))
            })
        };
        match name.as_str() {
            "group.id" | "bootstrap.servers" | "share.acknowledgement.mode" => {}
            "client.id" => wishes.client.client_id = Str::from(value.clone()),
            "client.rack" => wishes.rack = Some(Str::from(value.clone())),
            "fetch.max.wait.ms" => wishes.max_wait_ms = number()?,
            "fetch.min.bytes" => wishes.min_bytes = number()?,
            "fetch.max.bytes" => wishes.max_bytes = number()?,
            "max.poll.records" => wishes.max_records = number()?,
            "request.timeout.ms" => {
                let ms = u64::try_from(number()?).unwrap_or(0);
                wishes.client.timeout = Duration::from_millis(ms);
            }
            other if is_java_only(other) => {
                eprintln!("{other} has no meaning for this command and is left out.");
            }
            other => {
                return Err(ToolError::Failed(format!(
                    "{other}: this command has no such setting"
                )));
            }
        }
    }
    Ok(wishes)
}

/// The group that the flags and properties agree on.
fn group(options: &Options, properties: &[(String, String)]) -> ToolResult<String> {
    let named = options.get("group").into_iter();
    let others = properties.iter().filter(|(name, _)| name == "group.id");
    let all: BTreeSet<&str> = named.chain(others.map(|(_, value)| &**value)).collect();
    if all.len() > 1 {
        let all: Vec<String> = all.iter().map(|group| format!("'{group}'")).collect();
        return Err(ToolError::Usage(format!(
            "The group ids provided in different places (directly using '--group', via '--consumer-property', or via '--consumer-config') do not match. Detected group ids: {}",
            all.join(", ")
        )));
    }
    Ok(all.first().map_or(NAME, |group| group).to_owned())
}

async fn run(options: &Options, wishes: Wishes, format: &Format) -> ToolResult {
    let most: i64 = options.number("max-messages")?.unwrap_or(-1);
    let patience_ms: i64 = options.number("timeout-ms")?.unwrap_or(-1);
    let patience = u64::try_from(patience_ms).ok().map(Duration::from_millis);
    let acknowledge = if options.has("reject") {
        Acknowledge::Reject
    } else if options.has("release") {
        Acknowledge::Release
    } else {
        Acknowledge::Accept
    };
    let stop = stop_flag()?;
    let mut member = Member::new(wishes).await?;
    let mut count = 0i64;
    let mut last = Instant::now();
    while !stop.load(Ordering::SeqCst) && (most == -1 || count < most) {
        let delivered = match member.poll().await {
            Ok(delivered) => delivered,
            Err(error) => {
                eprintln!("Error processing message, terminating consumer process: {error}");
                break;
            }
        };
        if delivered.is_empty() {
            if patience.is_some_and(|patience| last.elapsed() > patience) {
                eprintln!(
                    "Error processing message, terminating consumer process: no message within --timeout-ms"
                );
                break;
            }
            continue;
        }
        let left = if most == -1 { i64::MAX } else { most - count };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(delivered.len());
        // What could not be printed is not acknowledged: somebody else gets it.
        if write(format, &delivered[..wanted]).is_err() {
            eprintln!("Unable to write to standard out, closing consumer.");
            break;
        }
        for one in &delivered[..wanted] {
            member.acknowledge(one, acknowledge);
        }
        count += wanted as i64;
        last = Instant::now();
    }
    member.close().await;
    eprintln!("Processed a total of {count} messages");
    Ok(())
}

fn write(format: &Format, delivered: &[Delivered]) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for one in delivered {
        let kind = match one.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        let headers = one.record.headers.iter();
        let shown = Shown {
            timestamp: Some((kind, one.record.timestamp)),
            partition: one.place.1,
            offset: one.record.offset,
            delivery: Some(one.delivery_count),
            headers: headers
                .map(|header| (&*header.key, header.value.as_deref()))
                .collect(),
            key: one.record.key.as_deref(),
            value: one.record.value.as_deref(),
        };
        format.write(&mut out, &shown)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Options {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        SPEC.parse(&words).unwrap()
    }

    #[test]
    fn a_group_is_named_once_or_has_kafkas_name() {
        let property = |value: &str| vec![("group.id".to_owned(), value.to_owned())];
        assert_eq!(group(&parsed("--topic t"), &[]).unwrap(), NAME);
        assert_eq!(group(&parsed("--group g"), &property("g")).unwrap(), "g");
        let refusal = group(&parsed("--group g"), &property("h")).unwrap_err();
        assert!(refusal.to_string().ends_with("Detected group ids: 'g', 'h'"));
    }

    #[test]
    fn a_setting_that_has_no_effect_here_is_refused() {
        let options = parsed("--topic t --bootstrap-server b");
        let with = |name: &str| wishes(&options, &[(name.to_owned(), "7".to_owned())]);
        assert_eq!(with("max.poll.records").unwrap().max_records, 7);
        assert!(with("isolation.level").is_err());
    }
}
