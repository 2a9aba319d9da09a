//! `kafka-producer-perf-test`: sends as fast as it may, and says how fast that was.
//!
//! The producer is librdkafka's with the defaults of Java's, `buffer.memory` and `max.block.ms`
//! among them. Per record it costs a clock reading when it is sent and one when it is delivered,
//! on the thread that hears of deliveries.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

use super::payload::Payload;
use super::stats::Stats;
use super::{failed, float, refuse_metrics};
use crate::console::{apply, is_java_only};
use crate::options::{Options, Spec, load_properties, refuse_security, switch, valued};
use crate::{ToolError, ToolResult};

const NAME: &str = "kafka-producer-perf-test";
const MANY_PROPERTIES: &[&str] = &["producer-props", "command-property"];
/// A throttled producer sleeps at least this long at once.
const LEAST_SLEEP: Duration = Duration::from_millis(2);
/// How long a full buffer is left to drain before the next try.
const FULL_PAUSE: Duration = Duration::from_millis(1);
const INIT_PATIENCE: Duration = Duration::from_secs(60);
/// More than `delivery.timeout.ms` can be: the end of each record decides.
const FLUSH_PATIENCE: Duration = Duration::from_secs(u32::MAX as u64);

const SPEC: Spec = Spec {
    about: "This tool is used to verify the producer performance. To enable transactions, give a transactional id or --transaction-duration-ms.",
    flags: &[
        switch("h", "Show this help and exit."),
        valued(
            "bootstrap-server",
            "BOOTSTRAP-SERVER",
            "The server(s) to connect to; over bootstrap.servers of the properties.",
        ),
        valued("topic", "TOPIC", "REQUIRED: Produce records to this topic."),
        valued(
            "num-records",
            "NUM-RECORDS",
            "REQUIRED: Number of records to produce.",
        ),
        valued(
            "record-size",
            "RECORD-SIZE",
            "Record size in bytes. Exactly one of --record-size, --payload-file or --payload-monotonic is needed.",
        ),
        valued(
            "payload-file",
            "PAYLOAD-FILE",
            "UTF-8 text of which pieces are chosen at random as records.",
        ),
        switch("payload-monotonic", "Records are growing numbers."),
        valued(
            "payload-delimiter",
            "PAYLOAD-DELIMITER",
            "Regular expression between the pieces of --payload-file. (default: \\n)",
        ),
        valued(
            "throughput",
            "THROUGHPUT",
            "REQUIRED: Records per second, approximately; -1 for as many as possible.",
        ),
        valued(
            "producer-props",
            "PROP-NAME=PROP-VALUE ...",
            "DEPRECATED: as --command-property.",
        ),
        valued(
            "command-property",
            "PROP-NAME=PROP-VALUE ...",
            "Properties of the producer; over those of --command-config.",
        ),
        valued(
            "producer.config",
            "CONFIG-FILE",
            "DEPRECATED: as --command-config.",
        ),
        valued(
            "command-config",
            "CONFIG-FILE",
            "Producer config properties file.",
        ),
        switch("print-metrics", "Refused: there are no Java metrics here."),
        valued(
            "transactional-id",
            "TRANSACTIONAL-ID",
            "The transactional id; over that of the properties.",
        ),
        valued(
            "transaction-duration-ms",
            "TRANSACTION-DURATION",
            "Transactions are committed after this time. (default: 3000)",
        ),
        valued(
            "warmup-records",
            "WARMUP-RECORDS",
            "So many first records are left out of a summary of the steady state. (default: 0)",
        ),
        valued(
            "reporting-interval",
            "INTERVAL-MS",
            "Time between progress lines. (default: 5000)",
        ),
    ],
};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if arguments.is_empty() {
        println!("{}\n\n{}", SPEC.about, SPEC.help());
        return ExitCode::SUCCESS;
    }
    let options = match SPEC.parse(&expand(arguments)) {
        Ok(options) if options.has("h") => Err(ToolError::Help(SPEC.about.to_owned())),
        parsed => parsed,
    };
    if options.as_ref().is_ok_and(|options| options.has("version")) {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let done = options.and_then(|options| run(&options, &Load::new(&options)?));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Kafka's own leaves with 1 here too.
        Err(ToolError::Help(about)) => {
            println!("{about}\n\n{}", SPEC.help());
            ExitCode::FAILURE
        }
        Err(ToolError::Usage(message)) => {
            eprintln!("{}\n{NAME}: error: {message}", SPEC.help());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Properties may stand one behind the other after one flag; a flag that comes again stands for
/// all of its kind before it.
fn expand(arguments: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut many: Option<&str> = None;
    for argument in arguments {
        let text = argument.strip_prefix("--");
        if text.is_some() || argument == "-h" {
            let (name, inline) = text
                .unwrap_or_default()
                .split_once('=')
                .map_or((text.unwrap_or_default(), None), |(name, value)| {
                    (name, Some(value))
                });
            many = MANY_PROPERTIES.iter().copied().find(|flag| *flag == name);
            match (many, inline) {
                (Some(flag), inline) => {
                    let joined = format!("--{flag}=");
                    out.retain(|one| !one.starts_with(&joined));
                    out.extend(inline.map(|value| format!("{joined}{value}")));
                }
                (None, _) => out.push(argument.clone()),
            }
        } else if let Some(flag) = many {
            out.push(format!("--{flag}={argument}"));
        } else {
            out.push(argument.clone());
        }
    }
    out
}

/// What was asked for, checked.
#[derive(Debug)]
struct Load {
    topic: String,
    records: u64,
    records_per_second: Option<f64>,
    warmup_records: u64,
    interval_ms: u64,
    properties: Vec<(String, String)>,
    /// How long a transaction is open, if there are any.
    transaction: Option<Duration>,
}

fn positive(options: &Options, name: &str) -> ToolResult<Option<u64>> {
    match options.number::<i64>(name)?.map(u64::try_from) {
        None => Ok(None),
        Some(Ok(number)) if number > 0 => Ok(Some(number)),
        Some(_) => Err(ToolError::Usage(format!("--{name} should be greater than zero."))),
    }
}

impl Load {
    fn new(options: &Options) -> ToolResult<Self> {
        let records = options
            .require("num-records")
            .and(positive(options, "num-records"))?;
        let records = records.unwrap_or_default();
        positive(options, "record-size")?;
        refuse_metrics(options)?;
        check_sources(options)?;
        let transaction_ms = positive(options, "transaction-duration-ms")?;
        let warmup_records = options.number::<i64>("warmup-records")?.unwrap_or(0);
        let warmup_records = u64::try_from(warmup_records).map_err(|_| {
            ToolError::Usage("The value for --warmup-records must be greater than or equal to 0.".into())
        })?;
        if warmup_records >= records {
            return Err(ToolError::Usage(
                "The value for --warmup-records must be strictly fewer than the number of records in the test, --num-records.".into(),
            ));
        }
        let properties = properties(options)?;
        let transactional = properties.iter().any(|(name, _)| name == "transactional.id");
        Ok(Self {
            topic: options.require("topic")?.to_owned(),
            records,
            records_per_second: throughput(options)?,
            warmup_records,
            interval_ms: positive(options, "reporting-interval")?.unwrap_or(5000),
            properties,
            transaction: transactional.then(|| Duration::from_millis(transaction_ms.unwrap_or(3000))),
        })
    }
}

fn throughput(options: &Options) -> ToolResult<Option<f64>> {
    options.require("throughput")?;
    match options.number::<f64>("throughput")? {
        Some(rate) if rate < 0.0 => Ok(None),
        Some(rate) if rate > 0.0 => Ok(Some(rate)),
        _ => Err(ToolError::Usage(
            "--throughput would never send a record; give -1 for as many as possible".into(),
        )),
    }
}

fn check_sources(options: &Options) -> ToolResult {
    let payloads = ["record-size", "payload-file", "payload-monotonic"];
    let mut given = payloads.iter().filter(|name| options.has(name));
    match (given.next(), given.next()) {
        (None, _) => {
            return Err(ToolError::Usage(
                "one of the arguments --record-size --payload-file --payload-monotonic is required".into(),
            ));
        }
        (Some(first), Some(second)) => {
            return Err(ToolError::Usage(format!(
                "argument --{second}: not allowed with argument --{first}"
            )));
        }
        (Some(_), None) => {}
    }
    let sources = [
        "bootstrap-server",
        "command-property",
        "producer-props",
        "producer.config",
        "command-config",
    ];
    if !sources.iter().any(|name| options.has(name)) {
        return Err(ToolError::Usage(
            "At least one of --bootstrap-server, --command-property, --producer-props, --producer.config or --command-config must be specified.".into(),
        ));
    }
    options.exclude("producer-props", &["command-property"])?;
    options.exclude("producer.config", &["command-config"])
}

/// From the file, the flags, and the flags that stand for a property; the later win.
fn properties(options: &Options) -> ToolResult<Vec<(String, String)>> {
    let mut all = Vec::new();
    for file in ["producer.config", "command-config"] {
        if let Some(path) = options.get(file) {
            all.extend(load_properties(path)?);
        }
    }
    for text in MANY_PROPERTIES.iter().flat_map(|flag| options.all(flag)) {
        let pair = text.split_once('=').filter(|(_, value)| !value.is_empty());
        let (name, value) = pair.ok_or_else(|| ToolError::Failed(format!("Invalid property: {text}")))?;
        all.push((name.to_owned(), value.to_owned()));
    }
    refuse_security(&all)?;
    if let Some(servers) = options.get("bootstrap-server") {
        all.push(("bootstrap.servers".into(), servers.into()));
    }
    if let Some(id) = options.get("transactional-id") {
        all.push(("transactional.id".into(), id.into()));
    } else if options.has("transaction-duration-ms")
        && !all.iter().any(|(name, _)| name == "transactional.id")
    {
        let unique = jiff::Timestamp::now().as_nanosecond();
        let id = format!("performance-producer-{}-{unique}", std::process::id());
        all.push(("transactional.id".into(), id));
    }
    Ok(all)
}

fn last<'a>(properties: &'a [(String, String)], names: &[&str]) -> Option<&'a str> {
    let named = |(name, _): &&(String, String)| names.contains(&name.as_str());
    properties
        .iter()
        .rev()
        .find(named)
        .map(|(_, value)| value.as_str())
}

fn whole(properties: &[(String, String)], name: &str, default: u64) -> ToolResult<u64> {
    let text = last(properties, &[name]);
    text.map_or(Ok(default), |text| {
        text.trim()
            .parse()
            .map_err(|_| ToolError::Failed(format!("{name}={text}: a whole number is needed")))
    })
}

/// Java's defaults, then what was asked for.
fn client_config(properties: &[(String, String)]) -> ToolResult<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("client.id", "perf-producer-client");
    for (name, value) in [
        ("acks", "all"),
        ("batch.size", "16384"),
        ("linger.ms", "5"),
        ("delivery.timeout.ms", "120000"),
        ("request.timeout.ms", "30000"),
        ("max.in.flight.requests.per.connection", "5"),
        ("partitioner", "murmur2_random"),
        ("log_level", "3"),
        // The buffer is bounded by its bytes alone, as Java's is.
        ("queue.buffering.max.messages", "10000000"),
    ] {
        config.set(name, value);
    }
    let buffer_bytes = whole(properties, "buffer.memory", 32 * 1024 * 1024)?;
    config.set(
        "queue.buffering.max.kbytes",
        (buffer_bytes / 1024).max(1).to_string(),
    );
    config.set("enable.idempotence", is_idempotent(properties).to_string());
    let (ours, librdkafkas): (Vec<_>, Vec<_>) = properties
        .iter()
        .cloned()
        .partition(|(name, _)| matches!(name.as_str(), "buffer.memory" | "max.block.ms"));
    debug_assert!(ours.iter().all(|(name, _)| is_java_only(name)));
    apply(&mut config, &librdkafkas);
    Ok(config)
}

/// Java's producer is idempotent unless another setting excludes it.
fn is_idempotent(properties: &[(String, String)]) -> bool {
    let acks = last(properties, &["acks", "request.required.acks"]).unwrap_or("all");
    let retries = last(properties, &["retries"]).unwrap_or("1");
    let in_flight = last(
        properties,
        &["max.in.flight.requests.per.connection", "max.in.flight"],
    );
    let in_flight: u32 = in_flight.and_then(|text| text.parse().ok()).unwrap_or(5);
    matches!(acks, "all" | "-1") && retries != "0" && in_flight <= 5
}

/// Hears of deliveries.
struct Deliveries {
    origin: Instant,
    stats: Mutex<Summaries>,
    failed: AtomicU64,
}

struct Summaries {
    all: Stats,
    steady: Option<Stats>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// Milliseconds from the origin to the record's sending, doubled, and one if it was sent in
    /// the steady state: no memory is needed for it.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        match result {
            Ok(message) => {
                let now = Instant::now();
                let now_ms = now.saturating_duration_since(self.origin).as_millis();
                let latency_ms = now_ms.saturating_sub((sent >> 1) as u128);
                let latency_ms = u32::try_from(latency_ms).unwrap_or(u32::MAX);
                let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = message.payload_len();
                let mut lines = [stats.all.record(latency_ms, bytes, now), None];
                if sent & 1 == 1
                    && let Some(steady) = stats.steady.as_mut()
                {
                    lines[1] = steady.record(latency_ms, bytes, now);
                }
                drop(stats);
                for line in lines.into_iter().flatten() {
                    println!("{line}");
                }
            }
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::SeqCst);
                eprintln!("{error}");
            }
        }
    }
}

impl Deliveries {
    fn new(load: &Load) -> Self {
        Self {
            origin: Instant::now(),
            stats: Mutex::new(Summaries {
                all: Stats::new(load.records, load.interval_ms, false),
                steady: None,
            }),
            failed: AtomicU64::new(0),
        }
    }

    /// Making a producer, and making it transactional, is not what is measured.
    fn start_clock(&self, load: &Load) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.all = Stats::new(load.records, load.interval_ms, false);
    }

    /// From here on windows are those of the steady state.
    fn begin_steady_state(&self, load: &Load) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.all.suppress_windows();
        stats.steady = Some(Stats::new(
            load.records - load.warmup_records,
            load.interval_ms,
            true,
        ));
    }

    fn print_totals(&self) {
        let now = Instant::now();
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{}", stats.all.total_line(now));
        if let Some(steady) = stats.steady.as_mut() {
            println!("{}", steady.total_line(now));
        }
    }
}

type Sender = ThreadedProducer<Deliveries>;

fn payload(options: &Options) -> ToolResult<Payload> {
    if let Some(path) = options.get("payload-file") {
        return Payload::file(path, options.get("payload-delimiter").unwrap_or("\\n"));
    }
    Ok(match options.number::<u32>("record-size")? {
        Some(size) => Payload::letters(size as usize),
        None => Payload::numbers(),
    })
}

/// True when everything was delivered.
fn run(options: &Options, load: &Load) -> ToolResult<bool> {
    let mut payload = payload(options)?;
    for (old, new) in [
        ("producer-props", "command-property"),
        ("producer.config", "command-config"),
    ] {
        if options.has(old) {
            println!(
                "Option --{old} has been deprecated and will be removed in a future version. Use --{new} instead."
            );
        }
    }
    let patience = Duration::from_millis(whole(&load.properties, "max.block.ms", 60_000)?);
    let config = client_config(&load.properties)?;
    if load.warmup_records > 0 {
        println!(
            "Warmup first {} records. Steady state results will print after the complete test summary.",
            load.warmup_records
        );
    }
    let producer: Sender = config
        .create_with_context(Deliveries::new(load))
        .map_err(|error| failed(&error))?;
    if load.transaction.is_some() {
        producer
            .init_transactions(INIT_PATIENCE)
            .map_err(|error| failed(&error))?;
    }
    producer.context().start_clock(load);
    send_all(&producer, load, &mut payload, patience)?;
    producer.flush(FLUSH_PATIENCE).map_err(|error| failed(&error))?;
    producer.context().print_totals();
    Ok(producer.context().failed.load(Ordering::SeqCst) == 0)
}

fn send_all(producer: &Sender, load: &Load, payload: &mut Payload, patience: Duration) -> ToolResult {
    let deliveries = producer.context();
    let mut throttle = Throttle::new(load.records_per_second);
    let mut begun: Option<Instant> = None;
    for number in 0..load.records {
        let steady = load.warmup_records > 0 && number >= load.warmup_records;
        if steady && number == load.warmup_records {
            deliveries.begin_steady_state(load);
        }
        let now = Instant::now();
        if load.transaction.is_some() && begun.is_none() {
            producer.begin_transaction().map_err(|error| failed(&error))?;
            begun = Some(now);
        }
        let sent_ms = now.saturating_duration_since(deliveries.origin).as_millis();
        let sent = usize::try_from(sent_ms).unwrap_or(0) << 1 | usize::from(steady);
        send(producer, &load.topic, payload.next(), sent, patience)?;
        if let (Some(open), Some(start)) = (load.transaction, begun)
            && now.saturating_duration_since(start) >= open
        {
            commit(producer)?;
            begun = None;
        }
        throttle.after(number, now);
    }
    if begun.is_some() {
        commit(producer)?;
    }
    Ok(())
}

fn commit(producer: &Sender) -> ToolResult {
    producer
        .commit_transaction(INIT_PATIENCE)
        .map_err(|error| failed(&error))
}

/// Waits while the buffer is full, as long as `max.block.ms` says.
fn send(producer: &Sender, topic: &str, value: &[u8], sent: usize, patience: Duration) -> ToolResult {
    let mut record: BaseRecord<'_, (), [u8], usize> = BaseRecord::with_opaque_to(topic, sent).payload(value);
    let mut full_since: Option<Instant> = None;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                if full_since.get_or_insert_with(Instant::now).elapsed() > patience {
                    return Err(ToolError::Failed(format!(
                        "Failed to allocate memory within the configured max blocking time {} ms.",
                        patience.as_millis()
                    )));
                }
                std::thread::sleep(FULL_PAUSE);
            }
            Err((error, _)) => return Err(failed(&error)),
        }
    }
}

/// Keeps the average rate at or below a target, sleeping a little now and then.
#[derive(Debug)]
struct Throttle {
    records_per_second: Option<f64>,
    start: Instant,
    owed: Duration,
}

impl Throttle {
    fn new(records_per_second: Option<f64>) -> Self {
        Self {
            records_per_second,
            start: Instant::now(),
            owed: Duration::ZERO,
        }
    }

    /// What is to be slept after this record.
    fn due(&mut self, number: u64, elapsed: Duration) -> Option<Duration> {
        let rate = self.records_per_second?;
        if elapsed.is_zero() || float(number) / elapsed.as_secs_f64() <= rate {
            return None;
        }
        self.owed += Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        (self.owed >= LEAST_SLEEP).then(|| std::mem::take(&mut self.owed))
    }

    fn after(&mut self, number: u64, now: Instant) {
        if let Some(pause) = self.due(number, now.saturating_duration_since(self.start)) {
            std::thread::sleep(pause);
        }
    }
}

#[cfg(test)]
mod tests;
