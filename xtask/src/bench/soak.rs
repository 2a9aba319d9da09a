//! `cargo xtask bench soak`: Milena under a mixed load for a long time, with retention and compaction at work. What must
//! stay flat is sampled all the time: memory, open files, CPU time and the latency of a round trip.
//!
//! Promises: it fails when the broker or a client ends before its time. `bench/soak.csv` has every sample,
//! `bench/soak.svg` shows them.

use super::chart::{self, Panel, Series};
use super::clients::{self, Client, Producing, Shape};
use super::options::SoakOptions;
use super::session::fresh_home;
use super::table::number;
use super::{sampling, wire, write_result};
use crate::broker::{self, Broker, Kind};
use crate::error::{AtPath, Error, Result};
use crate::process::{Running, must_succeed, tail};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ChildStdin;
use std::time::{Duration, Instant};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Of each sample.
const ROUND_TRIPS: Shape = Shape {
    records: 1_000,
    size: 100,
};
/// What a consumer is asked for: more than it ever gets, so that it goes on to the end.
const ENDLESS: u64 = 1_000_000_000;

/// Everything that is done behind the requests is done often.
const OVERRIDES: &[(&str, &str)] = &[
    ("log.retention.check.interval.ms", "5000"),
    ("log.cleaner.backoff.ms", "2000"),
    ("log.segment.delete.delay.ms", "1000"),
];

/// Topics of short retention, each with a producer that keeps its pace and consumers.
#[derive(Debug)]
struct Stream {
    topic: &'static str,
    partitions: &'static str,
    settings: &'static [&'static str],
    record_size: u64,
    per_second: u64,
    properties: &'static [&'static str],
    /// Members of one group.
    consumers: u32,
}

const STREAMS: &[Stream] = &[
    Stream {
        topic: "small",
        partitions: "6",
        settings: &["segment.bytes=4194304", "retention.ms=30000"],
        record_size: 100,
        per_second: 5_000,
        properties: &["acks=all", "linger.ms=5"],
        consumers: 2,
    },
    Stream {
        topic: "medium",
        partitions: "3",
        settings: &["segment.bytes=4194304", "retention.bytes=16777216"],
        record_size: 1024,
        per_second: 1_000,
        properties: &["acks=all", "compression.type=lz4"],
        consumers: 1,
    },
    Stream {
        topic: "large",
        partitions: "1",
        settings: &["segment.bytes=16777216", "retention.bytes=67108864"],
        record_size: 100_000,
        per_second: 20,
        properties: &["acks=1"],
        consumers: 1,
    },
];

/// The topic that is compacted, and what it is given.
const KEYED_TOPIC: &str = "keyed";
const KEYED_SETTINGS: &[&str] = &[
    "cleanup.policy=compact",
    "segment.bytes=1048576",
    "segment.ms=10000",
    "min.cleanable.dirty.ratio=0.1",
    "delete.retention.ms=10000",
];
const KEYS: u64 = 5_000;
const KEYED_VALUE_BYTES: usize = 500;
const KEYED_PER_TICK: u64 = 20;
const KEYED_TICK: Duration = Duration::from_millis(50);

const ROUND_TRIP_TOPIC: &str = "round-trip";

#[derive(Debug)]
struct Sample {
    seconds: f64,
    resident_mib: f64,
    open_files: f64,
    /// Of one core.
    cpu_percent: f64,
    p99_ms: f64,
    data_mib: f64,
}

pub(super) fn run(options: &SoakOptions) -> Result<()> {
    let home = fresh_home("soak")?;
    let overrides: Vec<(String, String)> = OVERRIDES
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    let mut broker = broker::start(Kind::Milena, &home, &overrides, true)?;
    create_topics(&broker, &home)?;
    let mut clients = start_clients(options, &broker, &home)?;
    let (console, pipe) = start_keyed_producer(&broker, &home)?;
    clients.push(console);
    // Ends when its pipe breaks, that is when the console producer is stopped.
    let feeder = std::thread::spawn(move || feed(pipe));
    let samples = sample(options, &mut broker, &mut clients, &home);
    for client in &mut clients {
        client.stop()?;
    }
    let _ = feeder.join();
    let samples = samples?;
    broker.process.stop()?;
    std::fs::remove_dir_all(&home).at(&home)?;
    write_result("soak.csv", &csv(&samples))?;
    write_result("soak.svg", &chart::panels(&soak_panels(&samples)))?;
    print!("{}", conclusion(&samples));
    Ok(())
}

fn create_topics(broker: &Broker, home: &Path) -> Result<()> {
    let streams = STREAMS
        .iter()
        .map(|stream| (stream.topic, stream.partitions, stream.settings));
    let others = [
        (KEYED_TOPIC, "2", KEYED_SETTINGS),
        (ROUND_TRIP_TOPIC, "1", &[][..]),
    ];
    for (topic, partitions, settings) in streams.chain(others) {
        let mut create = clients::native_tool("kafka-topics");
        create
            .args(["--create", "--topic", topic, "--partitions", partitions])
            .arg("--bootstrap-server")
            .arg(broker.address.to_string());
        for setting in settings {
            create.args(["--config", setting]);
        }
        must_succeed(&mut create, Some(&home.join("tools.log")))?;
    }
    Ok(())
}

fn start_clients(options: &SoakOptions, broker: &Broker, home: &Path) -> Result<Vec<Running>> {
    let client: Client = options.client;
    let mut running = Vec::new();
    for stream in STREAMS {
        // Twice what it has time for: it is stopped, it does not end.
        let records = stream.per_second * options.duration.as_secs().max(60) * 2;
        let shape = Shape {
            records,
            size: stream.record_size,
        };
        let how = Producing {
            throughput: Some(stream.per_second),
            properties: stream.properties,
        };
        let mut producer = client.producer(broker.address, stream.topic, shape, how)?;
        let log = home.join(format!("{}-producer.log", stream.topic));
        running.push(Running::start(&mut producer, &log)?);
        for number in 1..=stream.consumers {
            let group = format!("{}-readers", stream.topic);
            let mut consumer = client.consumer(broker.address, stream.topic, ENDLESS, &group)?;
            let log = home.join(format!("{}-consumer-{number}.log", stream.topic));
            running.push(Running::start(&mut consumer, &log)?);
        }
    }
    let mut consumer = client.consumer(broker.address, KEYED_TOPIC, ENDLESS, "keyed-readers")?;
    running.push(Running::start(&mut consumer, &home.join("keyed-consumer.log"))?);
    Ok(running)
}

/// The load generators know no keys, which a compacted topic needs; the console producer does.
fn start_keyed_producer(broker: &Broker, home: &Path) -> Result<(Running, ChildStdin)> {
    let mut producer = clients::native_tool("kafka-console-producer");
    producer
        .args(["--topic", KEYED_TOPIC, "--bootstrap-server"])
        .arg(broker.address.to_string())
        .args(["--reader-property", "parse.key=true"])
        .args(["--reader-property", "key.separator=:"]);
    Running::start_fed(&mut producer, &home.join("keyed-producer.log"))
}

/// Writes keys in turn, each with a value, at a steady pace until nobody reads any more.
fn feed(mut pipe: ChildStdin) {
    let value = "v".repeat(KEYED_VALUE_BYTES);
    let begin = Instant::now();
    for tick in 0u32.. {
        let first = u64::from(tick) * KEYED_PER_TICK;
        let mut lines = String::new();
        for number in first..first + KEYED_PER_TICK {
            let _ = writeln!(lines, "key-{}:{value}", number % KEYS);
        }
        if pipe.write_all(lines.as_bytes()).is_err() {
            return;
        }
        let next = begin + KEYED_TICK * (tick + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn sample(
    options: &SoakOptions,
    broker: &mut Broker,
    clients: &mut [Running],
    home: &Path,
) -> Result<Vec<Sample>> {
    let process = broker.process.id();
    let begin = Instant::now();
    let (mut cpu, mut at) = (sampling::cpu_seconds(process)?, begin);
    let mut samples = Vec::new();
    let (mut next, mut made) = (begin, 0);
    while begin.elapsed() < options.duration {
        next += SAMPLE_INTERVAL;
        let latency = wire::make_round_trips(broker.address, ROUND_TRIP_TOPIC, made, ROUND_TRIPS)?;
        made += ROUND_TRIPS.records;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        for running in [&mut broker.process].into_iter().chain(clients.iter_mut()) {
            still_runs(running)?;
        }
        let (cpu_now, now) = (sampling::cpu_seconds(process)?, Instant::now());
        let elapsed = now.duration_since(at).as_secs_f64();
        samples.push(Sample {
            seconds: begin.elapsed().as_secs_f64(),
            resident_mib: sampling::memory_mib(process, "VmRSS")?,
            open_files: f64::from(u32::try_from(sampling::open_files(process)?).unwrap_or(u32::MAX)),
            cpu_percent: (cpu_now - cpu) / elapsed * 100.0,
            p99_ms: latency.get("p99_ms").copied().unwrap_or(f64::NAN),
            data_mib: sampling::stored_mib(&home.join("data")),
        });
        (cpu, at) = (cpu_now, now);
        if let Some(last) = samples.last() {
            eprintln!("{}", csv_line(last));
        }
    }
    Ok(samples)
}

fn still_runs(running: &mut Running) -> Result<()> {
    if running.has_ended()? {
        return Err(Error::new(format!(
            "a process of the soak ended before its time: {}\n{}",
            running.log.display(),
            tail(&running.log, 20)
        )));
    }
    Ok(())
}

fn csv_line(sample: &Sample) -> String {
    format!(
        "{:.0},{:.1},{:.0},{:.1},{:.3},{:.1}",
        sample.seconds,
        sample.resident_mib,
        sample.open_files,
        sample.cpu_percent,
        sample.p99_ms,
        sample.data_mib
    )
}

fn csv(samples: &[Sample]) -> String {
    let head = "seconds,resident_mib,open_files,cpu_percent,round_trip_p99_ms,data_mib\n";
    let lines: Vec<String> = samples.iter().map(|sample| csv_line(sample) + "\n").collect();
    head.to_string() + &lines.concat()
}

type Column = (&'static str, fn(&Sample) -> f64);

const COLUMNS: [Column; 5] = [
    ("resident memory, MiB", |sample| sample.resident_mib),
    ("open files", |sample| sample.open_files),
    ("CPU, % of a core", |sample| sample.cpu_percent),
    ("round trip p99, ms", |sample| sample.p99_ms),
    ("data on disk, MiB", |sample| sample.data_mib),
];

fn soak_panels(samples: &[Sample]) -> Vec<Panel> {
    let panel = |(name, value): &Column| Panel {
        title: format!("{name} (minutes)"),
        is_log: false,
        series: vec![Series {
            name: "Milena",
            points: samples
                .iter()
                .map(|sample| (sample.seconds / 60.0, value(sample)))
                .collect(),
        }],
    };
    COLUMNS.iter().map(panel).collect()
}

/// What is flat has the same median in the second quarter (the first fills the retention) and in the last.
fn conclusion(samples: &[Sample]) -> String {
    let quarter = samples.len() / 4;
    let median = |part: &[Sample], value: fn(&Sample) -> f64| {
        sampling::median(part.iter().map(value).collect()).map_or("–".to_string(), number)
    };
    let mut text =
        String::from("| | second quarter | last quarter | at most |\n| --- | ---: | ---: | ---: |\n");
    for (name, value) in COLUMNS {
        let early = samples.get(quarter..quarter * 2).unwrap_or_default();
        let late = samples.get(samples.len() - quarter..).unwrap_or_default();
        let most = samples.iter().map(value).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            median(early, value),
            median(late, value),
            number(most)
        );
    }
    text
}
