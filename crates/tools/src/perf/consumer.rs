//! `kafka-consumer-perf-test`: reads as fast as it may, in a group, and says how fast that was.
//!
//! The consumer is librdkafka's; per record it costs what librdkafka's queue costs.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::{ClientConfig, ClientContext};

use super::date_format::DateFormat;
use super::{MEBIBYTE, decimal, failed, float, refuse_metrics};
use crate::console::client_properties;
use crate::console::consumer::{close, is_passing, subscription_pattern};
use crate::options::{Options, Spec, switch, valued, with_bare_value};
use crate::{ToolError, ToolResult};

const POLL: Duration = Duration::from_millis(100);
const TIMEOUT_MS: &str = "10000";
const DATE_FORMAT: &str = "yyyy-MM-dd HH:mm:ss:SSS";
const RATES: &str = "rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";

const SPEC: Spec = Spec {
    about: "This tool is used to verify the consumer performance.",
    flags: &[
        valued(
            "bootstrap-server",
            "String: server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        valued("topic", "String: topic", "The topic to consume from."),
        valued(
            "include",
            "String: regex",
            "Regular expression of the topics to consume from.",
        ),
        valued(
            "group",
            "String: gid",
            "The group id to consume on. (default: perf-consumer- and a number)",
        ),
        valued(
            "fetch-size",
            "Integer: size",
            "The most to fetch from one partition per request. (default: 1048576)",
        ),
        switch(
            "from-latest",
            "Without an established offset start with the latest record rather than the earliest.",
        ),
        valued(
            "socket-buffer-size",
            "Integer: size",
            "The size of the tcp RECV size. (default: 2097152)",
        ),
        valued(
            "command-property",
            "String: prop1=val1",
            "Properties of the consumer; over those of --command-config.",
        ),
        valued(
            "consumer.config",
            "String: config file",
            "DEPRECATED: as --command-config.",
        ),
        valued("command-config", "String: config file", "Config properties file."),
        switch("print-metrics", "Refused: there are no Java metrics here."),
        switch(
            "show-detailed-stats",
            "Statistics of each reporting interval instead of one line for all.",
        ),
        valued(
            "timeout",
            "Long: milliseconds",
            "The longest time between records. (default: 10000)",
        ),
        valued("messages", "Long: count", "DEPRECATED: as --num-records."),
        valued(
            "num-records",
            "Long: count",
            "REQUIRED: The number of records to consume.",
        ),
        valued(
            "reporting-interval",
            "Integer: interval_ms",
            "Time between progress lines. (default: 5000)",
        ),
        valued(
            "date-format",
            "String: date format",
            "As java.text.SimpleDateFormat. (default: yyyy-MM-dd HH:mm:ss:SSS)",
        ),
        switch("hide-header", "If set, skips printing the header for the stats."),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let options = match SPEC
        .parse(&with_bare_value(arguments, "--timeout", TIMEOUT_MS))
        .and_then(|options| check(&options).map(|()| options))
    {
        Ok(options) => options,
        Err(error) => {
            // Kafka's own leaves with 1 when asked for help, too.
            return crate::usage(&error.to_string(), &SPEC);
        }
    };
    if options.has("version") {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
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
    for (one, other) in [("messages", "num-records"), ("topic", "include")] {
        if options.has(one) == options.has(other) {
            return Err(ToolError::Usage(format!(
                "Exactly one of the following arguments is required: [{one}], [{other}]"
            )));
        }
    }
    options.exclude("consumer.config", &["command-config"])?;
    refuse_metrics(options)
}

/// Of all, or of an interval.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    bytes: u64,
    records: u64,
}

impl Progress {
    fn since(self, last: Self) -> Self {
        Self {
            bytes: self.bytes - last.bytes,
            records: self.records - last.records,
        }
    }

    fn mebibytes(self) -> f64 {
        float(self.bytes) / MEBIBYTE
    }
}

/// Milliseconds that the group has spent joining, of all and of this interval.
#[derive(Debug, Default)]
struct Joins {
    start_ms: AtomicU64,
    total_ms: AtomicU64,
    interval_ms: AtomicU64,
}

impl ClientContext for Joins {}

impl ConsumerContext for Joins {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Revoke(_)) {
            self.start_ms.store(now_ms(), Ordering::SeqCst);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            let elapsed_ms = now_ms().saturating_sub(self.start_ms.load(Ordering::SeqCst));
            self.total_ms.fetch_add(elapsed_ms, Ordering::SeqCst);
            self.interval_ms.fetch_add(elapsed_ms, Ordering::SeqCst);
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn client_config(options: &Options) -> ToolResult<ClientConfig> {
    let properties = client_properties(
        options,
        &["consumer.config", "command-config"],
        &["command-property"],
    )?;
    let mut config = ClientConfig::new();
    config.set("client.id", "perf-consumer-client");
    config.set("log_level", "3");
    // As much in advance as 64 MiB hold, and no pause of a second whenever there is enough.
    config.set("queued.min.messages", "10000000");
    config.set("queued.max.messages.kbytes", "65536");
    config.set("fetch.queue.backoff.ms", "1");
    crate::console::apply(&mut config, &properties);
    config.set("bootstrap.servers", options.require("bootstrap-server")?);
    let own_group = format!("perf-consumer-{}", std::process::id());
    config.set("group.id", options.get("group").unwrap_or(&own_group));
    let fetch_bytes: u32 = options.number("fetch-size")?.unwrap_or(1024 * 1024);
    config.set("max.partition.fetch.bytes", fetch_bytes.to_string());
    let socket_bytes: u32 = options.number("socket-buffer-size")?.unwrap_or(2 * 1024 * 1024);
    config.set("socket.receive.buffer.bytes", socket_bytes.to_string());
    let reset = if options.has("from-latest") {
        "latest"
    } else {
        "earliest"
    };
    config.set("auto.offset.reset", reset);
    Ok(config)
}

/// What is asked for beside the client's configuration.
struct Load {
    records: u64,
    timeout_ms: u64,
    interval_ms: u64,
    detailed: bool,
    dates: DateFormat,
}

impl Load {
    fn new(options: &Options) -> ToolResult<Self> {
        let records: Option<i64> = match options.number("num-records")? {
            None => options.number("messages")?,
            found => found,
        };
        let interval_ms = options.number("reporting-interval")?.unwrap_or(5000);
        if interval_ms == 0 {
            return Err(ToolError::Failed(
                "Reporting interval must be greater than 0.".into(),
            ));
        }
        Ok(Self {
            records: records
                .and_then(|records| u64::try_from(records).ok())
                .unwrap_or(0),
            timeout_ms: options.number("timeout")?.unwrap_or(10_000),
            interval_ms,
            detailed: options.has("show-detailed-stats"),
            dates: DateFormat::new(
                options.get("date-format").unwrap_or(DATE_FORMAT),
                TimeZone::system(),
            )?,
        })
    }

    fn date(&self, time_ms: u64) -> String {
        let time = i64::try_from(time_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        self.dates.format(time.unwrap_or(Timestamp::MAX))
    }

    /// The one line for all.
    fn total_line(&self, start_ms: u64, end_ms: u64, read: Progress, join_ms: u64) -> String {
        let elapsed_s = float(end_ms.saturating_sub(start_ms)) / 1000.0;
        let fetch_ms = signed(end_ms) - signed(start_ms) - signed(join_ms);
        let fetch_s = signed_float(fetch_ms) / 1000.0;
        format!(
            "{}, {}, {}, {}, {}, {}, {join_ms}, {fetch_ms}, {}, {}",
            self.date(start_ms),
            self.date(end_ms),
            decimal(read.mebibytes(), 4),
            decimal(read.mebibytes() / elapsed_s, 4),
            read.records,
            decimal(float(read.records) / elapsed_s, 4),
            decimal(read.mebibytes() / fetch_s, 4),
            decimal(float(read.records) / fetch_s, 4),
        )
    }

    /// The line of an interval; the sums are of all so far, the rates of the interval.
    fn interval_line(
        &self,
        start_ms: u64,
        end_ms: u64,
        read: Progress,
        last: Progress,
        join_ms: u64,
    ) -> String {
        let elapsed_ms = float(end_ms.saturating_sub(start_ms));
        let fetch_ms = signed(end_ms) - signed(start_ms) - signed(join_ms);
        let new = read.since(last);
        let per_fetch = |sum: f64| {
            if fetch_ms <= 0 {
                0.0
            } else {
                1000.0 * sum / signed_float(fetch_ms)
            }
        };
        format!(
            "{}, 0, {}, {}, {}, {}, {join_ms}, {fetch_ms}, {}, {}",
            self.date(end_ms),
            decimal(read.mebibytes(), 4),
            decimal(1000.0 * new.mebibytes() / elapsed_ms, 4),
            read.records,
            decimal(float(new.records) / elapsed_ms * 1000.0, 4),
            decimal(per_fetch(new.mebibytes()), 4),
            decimal(per_fetch(float(new.records)), 4),
        )
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn signed_float(count: i64) -> f64 {
    let size = float(count.unsigned_abs());
    if count < 0 { -size } else { size }
}

fn header(detailed: bool) -> String {
    let times = if detailed {
        "time, threadId"
    } else {
        "start.time, end.time"
    };
    format!("{times}, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, {RATES}")
}

fn run(options: &Options) -> ToolResult {
    for (old, new) in [("messages", "num-records"), ("consumer.config", "command-config")] {
        if options.has(old) {
            println!("Warning: --{old} is deprecated. Use --{new} instead.");
        }
    }
    if !options.has("hide-header") {
        println!("{}", header(options.has("show-detailed-stats")));
    }
    let load = Load::new(options)?;
    let config = client_config(options)?;
    let start_ms = now_ms();
    let joins = Joins::default();
    joins.start_ms.store(start_ms, Ordering::SeqCst);
    let consumer: BaseConsumer<Joins> = config
        .create_with_context(joins)
        .map_err(|error| failed(&error))?;
    let topic = match options.get("include") {
        Some(pattern) => subscription_pattern(pattern),
        None => options.require("topic")?.to_owned(),
    };
    consumer.subscribe(&[&topic]).map_err(|error| failed(&error))?;
    let read = consume(&consumer, &load)?;
    let end_ms = now_ms();
    let join_ms = consumer.context().total_ms.load(Ordering::SeqCst);
    close(consumer);
    if !load.detailed {
        println!("{}", load.total_line(start_ms, end_ms, read, join_ms));
    }
    Ok(())
}

fn consume(consumer: &BaseConsumer<Joins>, load: &Load) -> ToolResult<Progress> {
    let joins = consumer.context();
    let (mut read, mut last) = (Progress::default(), Progress::default());
    let mut now = now_ms();
    let (mut reported_ms, mut consumed_ms) = (now, now);
    while read.records < load.records && now.saturating_sub(consumed_ms) <= load.timeout_ms {
        let polled = consumer.poll(POLL);
        now = now_ms();
        match polled {
            Some(Ok(message)) => {
                consumed_ms = now;
                read.records += 1;
                read.bytes += (message.key_len() + message.payload_len()) as u64;
            }
            Some(Err(error)) if is_passing(&error) => eprintln!("WARN {error}"),
            Some(Err(error)) => return Err(failed(&error)),
            None => continue,
        }
        if now.saturating_sub(reported_ms) >= load.interval_ms && read.records > last.records {
            let join_ms = joins.interval_ms.swap(0, Ordering::SeqCst);
            if load.detailed {
                println!("{}", load.interval_line(reported_ms, now, read, last, join_ms));
            }
            (reported_ms, last) = (now, read);
        }
    }
    if read.records < load.records {
        println!(
            "WARNING: Exiting before consuming the expected number of records: timeout ({} ms) exceeded. You can use the --timeout option to increase the timeout.",
            load.timeout_ms
        );
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ToolResult<Options> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let options = SPEC.parse(&with_bare_value(&words, "--timeout", TIMEOUT_MS))?;
        check(&options).map(|()| options)
    }

    fn load() -> Load {
        Load {
            records: 1,
            timeout_ms: 1,
            interval_ms: 1,
            detailed: false,
            dates: DateFormat::new(DATE_FORMAT, TimeZone::UTC).unwrap(),
        }
    }

    #[test]
    fn the_lines_are_those_of_kafka() {
        assert_eq!(
            header(false),
            "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
        );
        assert!(header(true).starts_with("time, threadId, data.consumed.in.MB"));
        let read = Progress {
            bytes: 50_000,
            records: 500,
        };
        assert_eq!(
            load().total_line(0, 3557, read, 3506),
            "1970-01-01 00:00:00:000, 1970-01-01 00:00:03:557, 0.0477, 0.0134, 500, 140.5679, 3506, 51, 0.9350, 9803.9216"
        );
        let last = Progress {
            bytes: 100,
            records: 1,
        };
        assert_eq!(
            load().interval_line(
                0,
                14,
                Progress {
                    bytes: 50_100,
                    records: 501
                },
                last,
                0
            ),
            "1970-01-01 00:00:00:014, 0, 0.0478, 3.4060, 501, 35714.2857, 0, 14, 3.4060, 35714.2857"
        );
        assert!(
            load()
                .interval_line(0, 14, read, last, 20)
                .ends_with(", 20, -6, 0.0000, 0.0000")
        );
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        for (text, expected) in [
            (
                "--topic t --num-records 1",
                "Missing required argument \"[bootstrap-server]\"",
            ),
            (
                "--bootstrap-server x:1 --num-records 1",
                "Exactly one of the following arguments is required: [topic], [include]",
            ),
            (
                "--bootstrap-server x:1 --topic t --messages 1 --num-records 1",
                "Exactly one of the following arguments is required: [messages], [num-records]",
            ),
            (
                "--bootstrap-server x:1 --topic t --num-records 1 --consumer.config a --command-config b",
                "Option \"[consumer.config]\" can't be used with option \"[command-config]\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        let options =
            parse("--bootstrap-server x:1 --topic t --num-records 1 --reporting-interval 0").unwrap();
        assert!(Load::new(&options).is_err_and(|error| error.to_string().contains("Reporting interval")));
    }

    #[test]
    fn defaults_are_those_of_kafka() {
        let options = parse("--bootstrap-server x:1 --topic t --num-records 1 --timeout").unwrap();
        let load = Load::new(&options).unwrap();
        assert_eq!(
            (load.timeout_ms, load.interval_ms, load.records),
            (10_000, 5000, 1)
        );
        let config = client_config(&options).unwrap();
        assert_eq!(config.get("auto.offset.reset"), Some("earliest"));
        assert_eq!(config.get("max.partition.fetch.bytes"), Some("1048576"));
    }
}
