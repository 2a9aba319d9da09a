//! What a record costs the broker as the log grows: with its partitions, with the records that are in it already, and with
//! its consumers. It should not change.

use super::clients::{AT_FULL_SPEED, Client, Producing, Shape};
use super::options::Options;
use super::session::{Session, Setup};
use super::{Results, Values, clients, loads};
use crate::broker::Kind;
use crate::error::Result;
use crate::process::Running;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    /// What grows.
    pub(super) title: &'static str,
    pub(super) points: &'static [u64],
    /// Whether the points multiply, so that they are drawn on a logarithmic scale.
    pub(super) is_log: bool,
    /// Apache Kafka is not taken further than this.
    kafka_up_to: u64,
    /// What is shown of each point, with its title.
    pub(super) values: &'static [(&'static str, &'static str)],
}

const BY_PARTITIONS: &str = "curve-partitions";
const BY_RECORDS: &str = "curve-records";
const BY_CONSUMERS: &str = "curve-consumers";

pub(super) const CURVES: [Curve; 3] = [
    Curve {
        name: BY_PARTITIONS,
        title: "partitions",
        points: &[1, 10, 100, 1_000, 10_000],
        is_log: true,
        kafka_up_to: 1_000,
        values: &[
            ("produce_us", "produce"),
            ("consume_us", "consume, with the consumer's start"),
            ("consume_more_us", "consume a further record"),
        ],
    },
    Curve {
        name: BY_RECORDS,
        title: "records in the log",
        points: &[0, 1_000_000, 5_000_000, 10_000_000],
        is_log: false,
        kafka_up_to: u64::MAX,
        values: &[("produce_us", "produce"), ("consume_us", "consume")],
    },
    Curve {
        name: BY_CONSUMERS,
        title: "consumers that read the tail",
        points: &[1, 10, 100],
        is_log: true,
        kafka_up_to: u64::MAX,
        values: &[("follow_us", "written or delivered")],
    },
];

const MEASURED: Shape = Shape {
    records: 1_000_000,
    size: 100,
};
/// How many times as many are consumed after them, to tell what one of these costs.
const TIMES_MORE: u32 = 2;
/// Small, so that a long log is one of many segments.
const SEGMENT_BYTES: &str = "segment.bytes=16777216";
const PARTITIONS: u64 = 6;

/// What the consumers at the tail are given: ten batches of a hundred records each in a tenth of a second.
const TAIL: Shape = Shape {
    records: 100_000,
    size: 100,
};
const TAIL_PRODUCER: Producing<'static> = Producing {
    throughput: Some(10_000),
    properties: &["acks=all", "linger.ms=10"],
};
/// More JVMs than this do not fit beside a broker.
const MOST_JAVA_CONSUMERS: u64 = 10;
/// For all consumers to have read what the producer has written.
const TAIL_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(options: &Options, setup: Setup, run: u32, results: &mut Results) -> Result<()> {
    if setup == Setup::Os {
        return Ok(());
    }
    for curve in CURVES.iter().filter(|curve| options.wants(curve.name)) {
        let limit = match setup.kind() {
            Kind::Kafka => curve.kafka_up_to,
            Kind::Milena => u64::MAX,
        };
        let points = curve.points.iter().copied().filter(|point| *point <= limit);
        let session = Session::start(options, setup)?;
        loads::warm(&session)?;
        let mut add = |point, values| results.add(curve.name, setup, run, Some(point), values);
        match curve.name {
            BY_PARTITIONS => by_partitions(&session, points, &mut add)?,
            BY_RECORDS => by_records(&session, points, &mut add)?,
            _ => by_consumers(&session, points, &mut add)?,
        }
        session.end()?;
    }
    Ok(())
}

type Points<'a> = &'a mut dyn FnMut(u64, Values);

/// CPU time in microseconds per record.
#[allow(clippy::cast_precision_loss)]
fn cost(values: &Values, records: u64) -> f64 {
    values.get("cpu_seconds").copied().unwrap_or(f64::NAN) * 1e6 / records.max(1) as f64
}

fn produce_and_consume(session: &Session<'_>, topic: &str) -> Result<Values> {
    let shape = Shape {
        records: session.options.scaled(MEASURED.records),
        ..MEASURED
    };
    let produced = session.measured(|| session.produce(topic, shape, AT_FULL_SPEED))?;
    let consumed = session.measured(|| session.consume(topic, shape.records))?;
    Ok(Values::from([
        ("produce_us", cost(&produced, shape.records)),
        ("consume_us", cost(&consumed, shape.records)),
    ]))
}

/// A consumer asks for each partition's offsets when it starts, so that many partitions cost something before the first
/// record: what a record costs shows when more are consumed.
fn by_partitions(session: &Session<'_>, points: impl Iterator<Item = u64>, add: Points<'_>) -> Result<()> {
    let first = session.options.scaled(MEASURED.records);
    let more = Shape {
        records: u64::from(TIMES_MORE) * first,
        ..MEASURED
    };
    for partitions in points {
        let topic = format!("partitions-{partitions}");
        session.create_topic(&topic, partitions, &[])?;
        let mut values = produce_and_consume(session, &topic)?;
        session.produce(&topic, more, AT_FULL_SPEED)?;
        let consumed = session.measured(|| session.consume(&topic, first + more.records))?;
        let first_us = values.get("consume_us").copied().unwrap_or(f64::NAN);
        let all_us = cost(&consumed, first);
        values.insert("consume_more_us", (all_us - first_us) / f64::from(TIMES_MORE));
        add(partitions, values);
    }
    Ok(())
}

fn by_records(session: &Session<'_>, points: impl Iterator<Item = u64>, add: Points<'_>) -> Result<()> {
    let topic = "records";
    session.create_topic(topic, PARTITIONS, &[SEGMENT_BYTES])?;
    let mut there = 0;
    for point in points {
        let wanted = if point == 0 {
            0
        } else {
            session.options.scaled(point)
        };
        if wanted > there {
            let shape = Shape {
                records: wanted - there,
                ..MEASURED
            };
            session.produce(topic, shape, AT_FULL_SPEED)?;
            there = wanted;
        }
        add(point, produce_and_consume(session, topic)?);
        there += session.options.scaled(MEASURED.records);
    }
    Ok(())
}

/// Each consumer is a group of its own and follows a producer, whose part is as that of one more consumer.
fn by_consumers(session: &Session<'_>, points: impl Iterator<Item = u64>, add: Points<'_>) -> Result<()> {
    let most = match session.options.client {
        Client::Native => u64::MAX,
        Client::Java => MOST_JAVA_CONSUMERS,
    };
    let shape = Shape {
        records: session.options.scaled(TAIL.records),
        ..TAIL
    };
    for consumers in points.filter(|consumers| *consumers <= most) {
        let values = follow(session, consumers, shape)?;
        let records = shape.records * (consumers + 1);
        add(consumers, Values::from([("follow_us", cost(&values, records))]));
    }
    Ok(())
}

fn follow(session: &Session<'_>, consumers: u64, shape: Shape) -> Result<Values> {
    let topic = format!("followed-by-{consumers}");
    session.create_topic(&topic, PARTITIONS, &[])?;
    let address = session.broker.address;
    session.measured(|| {
        let mut followers = Vec::new();
        for number in 1..=consumers {
            let group = format!("{topic}-{number}");
            let client = session.options.client;
            let mut command = client.consumer(address, &topic, shape.records, &group)?;
            let log = session.home.join(format!("{group}.log"));
            followers.push(Running::start(&mut command, &log)?);
        }
        let values = session.produce(&topic, shape, TAIL_PRODUCER)?;
        for follower in &mut followers {
            follower.wait_within(TAIL_TIMEOUT)?;
            let text = std::fs::read_to_string(&follower.log)?;
            clients::consumed(&text, shape.records)?;
        }
        Ok(values)
    })
}
