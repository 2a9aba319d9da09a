//! The load generators and what they say: Milena's native ones, or Apache Kafka's Java ones, which have the same flags and
//! the same output. The client shares the machine with the broker, so the native ones leave the broker more of it.
//!
//! Promises: a number is taken only from a tool that did all it was asked for.

use super::Values;
use crate::broker;
use crate::error::{Error, Result};
use crate::kafka;
use crate::process::child_command;
use std::net::SocketAddr;
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Native,
    Java,
}

/// How long a consumer waits for the next record before it gives up.
const CONSUMER_TIMEOUT_MS: &str = "60000";

/// Records of one size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) records: u64,
    pub(super) size: u64,
}

/// What a producer is told besides its records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Producing<'a> {
    /// Records per second; without it as many as it can.
    pub(super) throughput: Option<u64>,
    pub(super) properties: &'a [&'a str],
}

/// As people tune a loaded producer: larger batches, a short linger, and enough requests under way that
/// the client never waits for an answer.
pub(super) const AT_FULL_SPEED: Producing<'static> = Producing {
    throughput: None,
    properties: &[
        "acks=all",
        "batch.size=65536",
        "linger.ms=5",
        "enable.idempotence=false",
        "max.in.flight.requests.per.connection=100",
    ],
};

impl Client {
    pub(super) fn parse(name: &str) -> Result<Self> {
        match name {
            "native" => Ok(Self::Native),
            "java" => Ok(Self::Java),
            other => Err(Error::new(format!("'{other}' is neither native nor java"))),
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Native => "Milena's native one",
            Self::Java => "Apache Kafka's Java one",
        }
    }

    fn tool(self, name: &str, broker: SocketAddr, topic: &str) -> Result<Command> {
        let mut command = match self {
            Self::Native => native_tool(name),
            Self::Java => kafka::tool(name)?,
        };
        command.arg("--bootstrap-server").arg(broker.to_string());
        command.args(["--topic", topic]);
        Ok(command)
    }

    pub(super) fn producer(
        self,
        broker: SocketAddr,
        topic: &str,
        shape: Shape,
        how: Producing<'_>,
    ) -> Result<Command> {
        let mut tool = self.tool("kafka-producer-perf-test", broker, topic)?;
        let throughput = how.throughput.map_or("-1".to_string(), |rate| rate.to_string());
        tool.args(["--throughput", &throughput]);
        tool.args(["--num-records", &shape.records.to_string()]);
        tool.args(["--record-size", &shape.size.to_string()]);
        tool.arg("--command-property").args(how.properties);
        Ok(tool)
    }

    /// In a group of its own.
    pub(super) fn consumer(
        self,
        broker: SocketAddr,
        topic: &str,
        records: u64,
        group: &str,
    ) -> Result<Command> {
        let mut tool = self.tool("kafka-consumer-perf-test", broker, topic)?;
        tool.args(["--timeout", CONSUMER_TIMEOUT_MS, "--group", group]);
        tool.args(["--num-records", &records.to_string()]);
        Ok(tool)
    }

    pub(super) fn round_trips(self, broker: SocketAddr, topic: &str, shape: Shape) -> Result<Command> {
        let mut tool = self.tool("kafka-e2e-latency", broker, topic)?;
        tool.args(["--producer-acks", "all"]);
        tool.args(["--num-records", &shape.records.to_string()]);
        tool.args(["--record-size", &shape.size.to_string()]);
        Ok(tool)
    }
}

/// One of the commands in Milena's binary; administration always uses these, because no JVM has to start.
pub(super) fn native_tool(name: &str) -> Command {
    let mut command = child_command(broker::milena_binary());
    command.arg(name);
    command
}

pub(super) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let done = command
        .output()
        .map_err(|error| Error::new(format!("{shown}: {error}")))?;
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

/// The number that stands before `unit`, as in `(12.34 MB/sec)` or `5 ms 99th`.
fn number_before(line: &str, unit: &str) -> Option<f64> {
    let (before, _) = line.split_once(unit)?;
    before.trim_end().rsplit([' ', '(']).next()?.parse().ok()
}

/// The number that stands after `name`, as in `50th = 1`.
fn number_after(line: &str, name: &str) -> Option<f64> {
    let (_, after) = line.split_once(name)?;
    after.trim_start().split([',', ' ', '\n']).next()?.parse().ok()
}

fn not_understood(tool: &str, text: &str) -> Error {
    Error::new(format!("{tool} says something else than it should:\n{text}"))
}

#[allow(clippy::cast_precision_loss)]
fn all_of(tool: &str, done: Option<f64>, records: u64, text: &str) -> Result<()> {
    match done {
        Some(done) if done >= records as f64 => Ok(()),
        Some(done) => Err(Error::new(format!(
            "{tool} did {done} of {records} records:\n{text}"
        ))),
        None => Err(not_understood(tool, text)),
    }
}

/// The last line of kafka-producer-perf-test.
pub(super) fn produced(text: &str, records: u64) -> Result<Values> {
    const TOOL: &str = "kafka-producer-perf-test";
    let line = text
        .lines()
        .rfind(|line| line.contains("99.9th"))
        .unwrap_or_default();
    all_of(TOOL, number_before(line, " records sent"), records, text)?;
    let units = [
        ("records_per_second", " records/sec"),
        ("p50_ms", " ms 50th"),
        ("p99_ms", " ms 99th"),
        ("p999_ms", " ms 99.9th"),
    ];
    let values: Values = units
        .iter()
        .filter_map(|(name, unit)| Some((*name, number_before(line, unit)?)))
        .collect();
    if values.len() == units.len() {
        Ok(values)
    } else {
        Err(not_understood(TOOL, text))
    }
}

/// The last line of kafka-consumer-perf-test. Its columns: start.time, end.time, data.consumed.in.MB, MB.sec,
/// data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec. The rate is the last
/// one: the time that a group takes to gather is a setting of the broker, the same in both.
pub(super) fn consumed(text: &str, records: u64) -> Result<Values> {
    const TOOL: &str = "kafka-consumer-perf-test";
    let line = text
        .lines()
        .rfind(|line| line.split(", ").count() == 10)
        .unwrap_or_default();
    let column = |at: usize| -> Option<f64> { line.split(", ").nth(at)?.trim().parse().ok() };
    all_of(TOOL, column(4), records, text)?;
    match column(9) {
        Some(rate) if rate.is_finite() && rate > 0.0 => Ok(Values::from([("records_per_second", rate)])),
        _ => Err(not_understood(TOOL, text)),
    }
}

/// The last lines of kafka-e2e-latency: the average, then the percentiles, in milliseconds.
pub(super) fn made_round_trips(text: &str) -> Result<Values> {
    let names = [
        ("average_ms", "Avg latency:"),
        ("p50_ms", "50th ="),
        ("p99_ms", "99th ="),
        ("p999_ms", "99.9th ="),
    ];
    let mut values: Values = names
        .iter()
        .filter_map(|(name, label)| Some((*name, number_after(text, label)?)))
        .collect();
    if values.len() != names.len() {
        return Err(not_understood("kafka-e2e-latency", text));
    }
    // One after the other, so that the average says how many in a second.
    let average = values.remove("average_ms").unwrap_or(f64::NAN);
    values.insert("records_per_second", 1000.0 / average);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCED: &str = "\
249856 records sent, 49971.2 records/sec (48.80 MB/sec), 12.3 ms avg latency, 200.0 ms max latency.
1000000 records sent, 123456.789012 records/sec (120.56 MB/sec), 12.34 ms avg latency, 345.00 ms max latency, 1 ms 50th, 2 ms 95th, 30 ms 99th, 40 ms 99.9th.
";

    #[test]
    fn the_summary_of_a_producer_is_understood() {
        let values = produced(PRODUCED, 1_000_000).unwrap();
        let expected = [
            ("p50_ms", 1.0),
            ("p999_ms", 40.0),
            ("p99_ms", 30.0),
            ("records_per_second", 123_456.789_012),
        ];
        assert_eq!(values, Values::from(expected));
    }

    #[test]
    fn a_tool_that_did_less_than_it_was_asked_for_gives_no_number() {
        assert!(produced(PRODUCED, 1_000_001).is_err());
        assert!(consumed(CONSUMED, 1_000_001).is_err());
        assert!(made_round_trips("0\t1.5\n").is_err());
    }

    const CONSUMED: &str = "\
start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-01-01 10:00:00:000, 2026-01-01 10:00:05:000, 976.5625, 195.3, 1000000, 200000.0, 3000, 2000, 488.2, 500000.0
";

    #[test]
    fn the_rate_of_a_consumer_is_that_of_its_fetches() {
        let values = consumed(CONSUMED, 1_000_000).unwrap();
        assert_eq!(values, Values::from([("records_per_second", 500_000.0)]));
    }

    #[test]
    fn the_percentiles_of_round_trips_may_have_fractions() {
        let text = "0\t12.5\nAvg latency: 0.4000 ms\n\nPercentiles: 50th = 0, 99th = 1.25, 99.9th = 3\n";
        let values = made_round_trips(text).unwrap();
        let expected = [
            ("records_per_second", 2500.0),
            ("p50_ms", 0.0),
            ("p999_ms", 3.0),
            ("p99_ms", 1.25),
        ];
        assert_eq!(values, Values::from(expected));
    }
}
