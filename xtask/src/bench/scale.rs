//! Starts, and a broker with very many partitions and connections.

use super::clients::{self, AT_FULL_SPEED, Shape};
use super::groups;
use super::options::Options;
use super::session::{Session, Setup, fresh_home};
use super::{Results, Values, sampling};
use crate::broker::{self, Kind};
use crate::error::{AtPath, Error, Result};
use crate::process::asks_api_versions;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(super) const START: &str = "start";
pub(super) const PARTITIONS: &str = "partitions";
pub(super) const LARGE_GROUP: &str = "large-group";
pub(super) const NAMES: [&str; 3] = [START, PARTITIONS, LARGE_GROUP];

/// How long a broker is left alone before its resident memory is read.
const IDLE: Duration = Duration::from_secs(2);
/// How long partitions may take to be back after a crash.
const BACK_TIMEOUT: Duration = Duration::from_secs(120);
const MILENA_STARTS: u32 = 10;
/// Fewer, because each takes seconds.
const KAFKA_STARTS: u32 = 3;

pub(super) const MILENA_PARTITIONS: u64 = 10_000;
/// Apache Kafka needs minutes for as many as Milena gets.
pub(super) const KAFKA_PARTITIONS: u64 = 2_000;
pub(super) const CONNECTIONS: u64 = 2_000;
/// What the partitions hold when the broker is killed.
const RECORDS: Shape = Shape {
    records: 1_000_000,
    size: 100,
};

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The time to the first answer of several starts in empty directories, and the memory of the last when idle.
pub(super) fn starts(options: &Options, setup: Setup, run: u32, results: &mut Results) -> Result<()> {
    if !options.wants(START) || setup == Setup::Os {
        return Ok(());
    }
    let starts = match setup.kind() {
        Kind::Kafka => KAFKA_STARTS,
        Kind::Milena => MILENA_STARTS,
    };
    let mut times = Vec::new();
    let mut values = Values::new();
    for start in 1..=starts {
        let home = fresh_home("start")?;
        let (time, mut broker) = broker::start_timed(setup.kind(), &home, &setup.overrides())?;
        times.push(milliseconds(time));
        if start == starts {
            std::thread::sleep(IDLE);
            let idle = sampling::memory_mib(broker.process.id(), "VmRSS")?;
            values.insert("idle_mib", idle);
        }
        broker.process.stop()?;
        std::fs::remove_dir_all(&home).at(&home)?;
    }
    values.extend(sampling::median(times).map(|time| ("start_ms", time)));
    results.add(START, setup, run, None, values);
    Ok(())
}

/// Creates very many partitions, holds very many connections, and comes back after `kill -9`.
pub(super) fn partitions(options: &Options, setup: Setup, run: u32, results: &mut Results) -> Result<()> {
    if !options.wants(PARTITIONS) || setup == Setup::Os {
        return Ok(());
    }
    let wanted = match setup.kind() {
        Kind::Kafka => KAFKA_PARTITIONS,
        Kind::Milena => MILENA_PARTITIONS,
    };
    let count = options.scaled(wanted);
    let mut session = Session::start(options, setup)?;
    let begin = Instant::now();
    session.create_topic("many", count, &[])?;
    let mut values = Values::from([("create_ms", milliseconds(begin.elapsed()))]);

    let records = options.scaled(RECORDS.records);
    session.produce("many", Shape { records, ..RECORDS }, AT_FULL_SPEED)?;
    std::thread::sleep(IDLE);
    let resident = |session: &Session<'_>| sampling::memory_mib(session.process(), "VmRSS");
    values.insert("resident_mib", resident(&session)?);
    let connections = connect(session.broker.address, options.scaled(CONNECTIONS))?;
    std::thread::sleep(IDLE);
    values.insert("resident_with_connections_mib", resident(&session)?);
    drop(connections);

    session.broker.process.kill()?;
    let (restart, broker) = broker::start_timed(setup.kind(), &session.home, &setup.overrides())?;
    session.broker = broker;
    values.insert("restart_ms", milliseconds(restart));
    let begin = Instant::now();
    wait_until_all_are_back(session.broker.address, count, records)?;
    values.insert("offsets_ms", milliseconds(restart + begin.elapsed()));
    values.insert("peak_mib", sampling::memory_mib(session.process(), "VmHWM")?);
    results.add(PARTITIONS, setup, run, None, values);
    session.end()
}

/// One consumer group with very many members over as many partitions.
pub(super) fn large_group(options: &Options, setup: Setup, run: u32, results: &mut Results) -> Result<()> {
    if !options.wants(LARGE_GROUP) || setup == Setup::Os {
        return Ok(());
    }
    let session = Session::start(options, setup)?;
    session.create_topic(LARGE_GROUP, groups::MEMBERS, &[])?;
    let values = groups::large(&session, LARGE_GROUP)?;
    results.add(LARGE_GROUP, setup, run, None, values);
    session.end()
}

/// Connections that have been used once and then stay idle.
fn connect(address: SocketAddr, count: u64) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let stream = asks_api_versions(address)?;
            stream.ok_or_else(|| Error::new("the broker refuses one of many connections"))
        })
        .collect()
}

/// Asks for the end offset of each partition until all are told. Apache Kafka answers before its partitions have leaders.
fn wait_until_all_are_back(address: SocketAddr, partitions: u64, records: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        let answer = end_offsets(address);
        let told = answer
            .as_deref()
            .map(|offsets| (offsets.len() as u64, offsets.iter().sum()));
        match told {
            Ok((all, found)) if (all, found) == (partitions, records) => return Ok(()),
            _ if begin.elapsed() < BACK_TIMEOUT => {}
            Ok((some, found)) => {
                return Err(Error::new(format!(
                    "after kill -9 there are {found} of {records} records in {some} of {partitions} partitions"
                )));
            }
            Err(_) => return answer.map(drop),
        }
    }
}

fn end_offsets(address: SocketAddr) -> Result<Vec<u64>> {
    let mut tool = clients::native_tool("kafka-get-offsets");
    tool.args(["--topic", "many", "--bootstrap-server"])
        .arg(address.to_string());
    let text = clients::output(&mut tool)?;
    let offset = |line: &str| line.rsplit(':').next()?.trim().parse().ok();
    Ok(text.lines().filter_map(offset).collect())
}
