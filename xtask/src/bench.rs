//! `cargo xtask bench`: Apache Kafka and Milena under the same loads, in the same run, one after the other.
//!
//! The loads are Apache Kafka's own performance tools, so both brokers see the very same client. Each broker is warmed by a
//! run that does not count. The clients share the machine's cores with the broker, so the broker's CPU seconds say more
//! than the rate. Numbers are for people: nothing fails because of them.

use crate::broker::{self, Kind};
use crate::error::{AtPath, Error, Result};
use crate::kafka;
use crate::process::{Running, answers, child_command, free_port, must_succeed, root, tail, workshop};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const TOPIC: &str = "bench";
const PARTITIONS: &str = "6";
/// The tail of a warm-up's own records, which the measured reads skip by reading another topic.
const WARM_TOPIC: &str = "bench-warm";
const STARTS: usize = 10;
/// How long a broker is left alone before its resident memory is read.
const IDLE: Duration = Duration::from_secs(2);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The kernel counts CPU time in these units on every machine that Rust's std supports here (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;
const MARKER_BEGIN: &str = "<!-- bench:begin -->";
const MARKER_END: &str = "<!-- bench:end -->";

#[derive(Debug)]
struct Options {
    records: u64,
    record_size: u64,
    only: Option<Kind>,
}

/// One load: what a client did, and what it cost the broker.
#[derive(Debug)]
struct Measurement {
    load: &'static str,
    records_per_second: f64,
    mib_per_second: f64,
    broker_cpu_seconds: f64,
}

#[derive(Debug)]
struct Results {
    kind: Kind,
    start_ms: f64,
    idle_mib: f64,
    peak_mib: f64,
    measurements: Vec<Measurement>,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if arguments.first().is_some_and(|first| first == "startup") {
        return startup(arguments.iter().any(|argument| argument == "--kafka"));
    }
    let options = parse(arguments)?;
    kafka::install()?;
    if options.only != Some(Kind::Kafka) {
        build_broker()?;
    }
    let mut results = Vec::new();
    for kind in [Kind::Kafka, Kind::Milena] {
        if options.only.is_none_or(|only| only == kind) {
            results.push(measure(kind, &options)?);
        }
    }
    let table = table(&options, &results);
    print!("{table}");
    if options.only.is_some() {
        return Ok(());
    }
    let path = root().join("bench/results.md");
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).at(parent)?;
    }
    std::fs::write(&path, &table).at(&path)?;
    include_in_readme(&table)
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        records: 1_000_000,
        record_size: 1024,
        only: None,
    };
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| Error::new(format!("{flag} needs a value")))?;
        let number = || value.parse::<u64>().ok().filter(|number| *number > 0);
        let number = || number().ok_or_else(|| Error::new(format!("{flag} {value} is no number above 0")));
        match flag.as_str() {
            "--records" => options.records = number()?,
            "--record-size" => options.record_size = number()?,
            "--only" => options.only = Some(Kind::parse(value)?),
            other => return Err(Error::new(format!("bench has no option {other}"))),
        }
    }
    Ok(options)
}

fn build_broker() -> Result<()> {
    if broker::binary_is_given() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = child_command(cargo);
    must_succeed(
        command
            .args(["build", "--release", "--quiet", "--package", "milena"])
            .current_dir(root()),
        None,
    )
}

fn directory(name: &str) -> PathBuf {
    workshop()
        .join("bench")
        .join(format!("{name}-{}", std::process::id()))
}

fn measure(kind: Kind, options: &Options) -> Result<Results> {
    eprintln!("{}: starts …", kind.name());
    let (start_ms, idle_mib) = time_starts(kind, if kind == Kind::Kafka { 3 } else { STARTS })?;
    let home = directory(kind.name());
    let mut broker = broker::start(kind, &home, &[], true)?;
    let bootstrap = broker.address.to_string();
    for topic in [TOPIC, WARM_TOPIC] {
        let mut create = kafka::tool("kafka-topics")?;
        create.args([
            "--bootstrap-server",
            &bootstrap,
            "--create",
            "--topic",
            topic,
            "--partitions",
            PARTITIONS,
        ]);
        must_succeed(&mut create, Some(&home.join("tools.log")))?;
    }
    eprintln!("{}: warms …", kind.name());
    let warm = Options {
        records: options.records / 4 + 1,
        ..*options
    };
    produce(&bootstrap, WARM_TOPIC, &warm, &["acks=all"])?;
    consume(&bootstrap, WARM_TOPIC, &warm)?;

    let process = broker.process.id();
    let mut measurements = Vec::new();
    let loads: [(&'static str, Option<&[&str]>); 5] = [
        ("produce, acks=all", Some(&["acks=all"])),
        (
            "produce, acks=all, lz4",
            Some(&["acks=all", "compression.type=lz4"]),
        ),
        (
            "produce, acks=all, idempotence off",
            Some(&["acks=all", "enable.idempotence=false"]),
        ),
        ("produce, acks=1", Some(&["acks=1", "enable.idempotence=false"])),
        ("consume", None),
    ];
    for (load, properties) in loads {
        eprintln!("{}: {load} …", kind.name());
        let before = cpu_seconds(process)?;
        let (records_per_second, mib_per_second) = match properties {
            Some(properties) => produce(&bootstrap, TOPIC, options, properties)?,
            None => consume(&bootstrap, TOPIC, options)?,
        };
        let broker_cpu_seconds = cpu_seconds(process)? - before;
        measurements.push(Measurement {
            load,
            records_per_second,
            mib_per_second,
            broker_cpu_seconds,
        });
    }
    let peak_mib = memory_mib(process, "VmHWM:")?;
    broker.process.stop()?;
    std::fs::remove_dir_all(&home).at(&home)?;
    Ok(Results {
        kind,
        start_ms,
        idle_mib,
        peak_mib,
        measurements,
    })
}

fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let done = command.output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    Err(Error::new(format!(
        "{shown} ended with {}\n{text}{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    )))
}

/// Gives records and MiB per second as kafka-producer-perf-test says them in its last line.
fn produce(bootstrap: &str, topic: &str, options: &Options, properties: &[&str]) -> Result<(f64, f64)> {
    let mut tool = kafka::tool("kafka-producer-perf-test")?;
    tool.args([
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        "--throughput",
        "-1",
    ]);
    tool.args([
        "--num-records",
        &options.records.to_string(),
        "--record-size",
        &options.record_size.to_string(),
    ]);
    // As people tune a loaded producer: larger batches, a short linger.
    tool.args(["--command-property", "batch.size=65536", "linger.ms=5"])
        .args(properties);
    let text = output(&mut tool)?;
    let line = text
        .lines()
        .rfind(|line| line.contains("records/sec"))
        .unwrap_or_default();
    let number_before = |unit: &str| -> Option<f64> {
        let before = line.split(unit).next()?.trim_end();
        before.rsplit([' ', '(']).next()?.parse().ok()
    };
    let numbers = number_before(" records/sec").zip(number_before(" MB/sec"));
    numbers.ok_or_else(|| Error::new(format!("kafka-producer-perf-test says no rate:\n{text}")))
}

/// The columns of kafka-consumer-perf-test: …, MB.sec, data.consumed.in.nMsg, nMsg.sec, …
fn consume(bootstrap: &str, topic: &str, options: &Options) -> Result<(f64, f64)> {
    let mut tool = kafka::tool("kafka-consumer-perf-test")?;
    tool.args([
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        "--timeout",
        "60000",
    ]);
    tool.args(["--num-records", &options.records.to_string()]);
    let text = output(&mut tool)?;
    let line = text.lines().last().unwrap_or_default();
    let columns: Vec<f64> = line
        .split(", ")
        .map(|column| column.trim().parse().unwrap_or(f64::NAN))
        .collect();
    match (columns.get(3), columns.get(5)) {
        (Some(mib), Some(records)) if mib.is_finite() && records.is_finite() => Ok((*records, *mib)),
        _ => Err(Error::new(format!(
            "kafka-consumer-perf-test says no rate:\n{text}"
        ))),
    }
}

/// User and system time of a process, from the 14th and 15th field of its `stat` (the name may have spaces).
fn cpu_seconds(process: u32) -> Result<f64> {
    let path = PathBuf::from(format!("/proc/{process}/stat"));
    let text = std::fs::read_to_string(&path).at(&path)?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse().ok())
        .collect();
    Ok(fields.iter().sum::<f64>() / TICKS_PER_SECOND)
}

fn memory_mib(process: u32, field: &str) -> Result<f64> {
    let path = PathBuf::from(format!("/proc/{process}/status"));
    let text = std::fs::read_to_string(&path).at(&path)?;
    let line = text
        .lines()
        .find(|line| line.starts_with(field))
        .unwrap_or_default();
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(f64::NAN);
    Ok(kib / 1024.0)
}

/// The median of several starts in empty directories until the first answer, and the memory of the last when idle.
fn time_starts(kind: Kind, starts: usize) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    let mut idle_mib = f64::NAN;
    for number in 0..starts {
        let home = directory(&format!("start-{}-{number}", kind.name()));
        let (milliseconds, mut process) = match kind {
            Kind::Milena => start_milena_timed(&home)?,
            Kind::Kafka => start_kafka_timed(&home)?,
        };
        times.push(milliseconds);
        if number + 1 == starts {
            std::thread::sleep(IDLE);
            idle_mib = memory_mib(process.id(), "VmRSS:")?;
        }
        process.stop()?;
        std::fs::remove_dir_all(&home).at(&home)?;
    }
    times.sort_by(f64::total_cmp);
    Ok((times.get(times.len() / 2).copied().unwrap_or(f64::NAN), idle_mib))
}

fn start_milena_timed(home: &Path) -> Result<(f64, Running)> {
    std::fs::create_dir_all(home).at(home)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut command = child_command(broker::milena_binary());
    command.args([
        "serve",
        "--override",
        &format!("listeners=PLAINTEXT://{address}"),
        "--override",
    ]);
    command.arg(format!("log.dirs={}", home.join("data").display()));
    let begin = Instant::now();
    let process = Running::start(&mut command, &home.join("broker.log"))?;
    until_it_answers(begin, process, address)
}

/// Apache Kafka's storage is formatted before, which is not counted: it is done once.
fn start_kafka_timed(home: &Path) -> Result<(f64, Running)> {
    let options = || kafka::Options {
        port: None,
        overrides: Vec::new(),
        data: home.to_path_buf(),
        as_shipped: true,
    };
    let prepared = kafka::prepare(&options())?;
    let begin = Instant::now();
    let process = Running::start(
        &mut kafka::broker_command(&options(), &prepared.properties)?,
        &prepared.log,
    )?;
    until_it_answers(begin, process, prepared.address)
}

/// Asks again at once after each refusal, so that the time is exact to a fraction of a millisecond.
fn until_it_answers(begin: Instant, mut process: Running, address: SocketAddr) -> Result<(f64, Running)> {
    while !answers(address) {
        if begin.elapsed() > START_TIMEOUT {
            process.stop()?;
            return Err(Error::new(format!(
                "the broker does not answer\n{}",
                tail(&process.log, 30)
            )));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((begin.elapsed().as_secs_f64() * 1000.0, process))
}

fn startup(with_kafka: bool) -> Result<()> {
    build_broker()?;
    let binary = broker::milena_binary();
    let size = std::fs::metadata(&binary).at(&binary)?.len();
    println!("binary: {:.1} MiB", mebibytes(size));
    let (start, idle) = time_starts(Kind::Milena, STARTS)?;
    println!(
        "milena: first answer after {start:.1} ms (median of {STARTS}), {idle:.1} MiB resident when idle"
    );
    if with_kafka {
        kafka::install()?;
        let (start, idle) = time_starts(Kind::Kafka, 3)?;
        println!("kafka: first answer after {start:.0} ms (median of 3), {idle:.0} MiB resident when idle");
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn table(options: &Options, results: &[Results]) -> String {
    let mut text = String::new();
    let names: Vec<String> = results.iter().map(|result| title(result.kind)).collect();
    let _ = writeln!(text, "{}, {}.", machine(), today());
    let _ = writeln!(
        text,
        "{} records of {} bytes each load, {PARTITIONS} partitions; clients on the same machine.\n",
        options.records, options.record_size
    );
    let _ = writeln!(text, "| | {} |", names.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(results.len()));
    let mut row = |name: &str, cell: &dyn Fn(&Results) -> String| {
        let cells: Vec<String> = results.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    row("start to the first answer", &|result| {
        format!("{:.0} ms", result.start_ms)
    });
    row("memory when idle", &|result| {
        format!("{:.0} MiB", result.idle_mib)
    });
    row("memory at most", &|result| format!("{:.0} MiB", result.peak_mib));
    let loads = results
        .first()
        .map(|result| result.measurements.len())
        .unwrap_or_default();
    for index in 0..loads {
        let name = results
            .first()
            .and_then(|result| result.measurements.get(index))
            .map_or("", |one| one.load);
        row(name, &|result| {
            result.measurements.get(index).map_or_else(String::new, |one| {
                format!(
                    "{:.0} records/s, {:.0} MiB/s",
                    one.records_per_second, one.mib_per_second
                )
            })
        });
        row(&format!("{name}: broker's CPU"), &|result| {
            result
                .measurements
                .get(index)
                .map_or_else(String::new, |one| format!("{:.1} s", one.broker_cpu_seconds))
        });
    }
    text
}

fn title(kind: Kind) -> String {
    match kind {
        Kind::Kafka => format!("Apache Kafka {}", kafka::VERSION),
        Kind::Milena => "Milena".to_string(),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split(':').nth(1).unwrap_or("unknown").trim().to_string()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    let model = field(&read("/proc/cpuinfo"), "model name");
    format!(
        "{cores} cores of {model}, {:.0} GiB, {}",
        mebibytes(kib),
        std::env::consts::OS
    )
}

fn today() -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    date.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_string())
        .unwrap_or_default()
}

/// Puts the table between the README's markers, when it has them.
fn include_in_readme(table: &str) -> Result<()> {
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let Some((before, rest)) = text.split_once(MARKER_BEGIN) else {
        return Ok(());
    };
    let Some((_, after)) = rest.split_once(MARKER_END) else {
        return Ok(());
    };
    std::fs::write(
        &path,
        format!("{before}{MARKER_BEGIN}\n{table}{MARKER_END}{after}"),
    )
    .at(&path)
}
