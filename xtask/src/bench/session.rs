//! One broker, from its start in an empty directory to its end, and the clients that load it.

use super::clients::{self, Client, Producing, Shape};
use super::options::Options;
use super::{Values, sampling};
use crate::broker::{self, Broker, Kind};
use crate::error::{AtPath, Result};
use crate::process::{must_succeed, workshop};
use std::cell::Cell;
use std::path::PathBuf;

/// A broker and how it is told to keep what it acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    /// As shipped: nothing is synced before it is acknowledged.
    Kafka,
    /// As shipped: `acks=all` is answered after `fdatasync`.
    Durable,
    /// `durability=os`: as Apache Kafka does it.
    Os,
}

impl Setup {
    pub(super) const ALL: [Self; 3] = [Self::Kafka, Self::Durable, Self::Os];

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Kafka => Kind::Kafka,
            Self::Durable | Self::Os => Kind::Milena,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Durable => "milena",
            Self::Os => "milena-os",
        }
    }

    pub(super) fn overrides(self) -> Vec<(String, String)> {
        match self {
            Self::Kafka | Self::Durable => Vec::new(),
            Self::Os => vec![("durability".to_string(), "os".to_string())],
        }
    }
}

/// Where a broker keeps its files. What is there from a run that was ended goes away: it may be gigabytes.
pub(super) fn fresh_home(name: &str) -> Result<PathBuf> {
    let home = workshop().join("bench").join(name);
    if home.exists() {
        std::fs::remove_dir_all(&home).at(&home)?;
    }
    Ok(home)
}

#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) options: &'a Options,
    pub(super) broker: Broker,
    pub(super) home: PathBuf,
    groups: Cell<u32>,
}

impl<'a> Session<'a> {
    pub(super) fn start(options: &'a Options, setup: Setup) -> Result<Self> {
        let home = fresh_home(setup.name())?;
        let broker = broker::start(setup.kind(), &home, &setup.overrides(), true)?;
        Ok(Self {
            options,
            broker,
            home,
            groups: Cell::new(0),
        })
    }

    pub(super) fn end(mut self) -> Result<()> {
        self.broker.process.stop()?;
        std::fs::remove_dir_all(&self.home).at(&self.home)
    }

    pub(super) fn process(&self) -> u32 {
        self.broker.process.id()
    }

    pub(super) fn create_topic(&self, topic: &str, partitions: u64, settings: &[&str]) -> Result<()> {
        let mut create = clients::native_tool("kafka-topics");
        create
            .args(["--create", "--topic", topic, "--bootstrap-server"])
            .arg(self.broker.address.to_string())
            .args(["--partitions", &partitions.to_string()]);
        for setting in settings {
            create.args(["--config", setting]);
        }
        must_succeed(&mut create, Some(&self.home.join("tools.log")))
    }

    /// Adds to what a load gives what it cost the broker. What earlier loads left to be written to the disk is written
    /// before.
    pub(super) fn measured(&self, load: impl FnOnce() -> Result<Values>) -> Result<Values> {
        rustix::fs::sync();
        let process = self.process();
        sampling::reset_peak(process)?;
        let before = sampling::cpu_seconds(process)?;
        let mut values = load()?;
        values.insert("cpu_seconds", sampling::cpu_seconds(process)? - before);
        values.insert("peak_mib", sampling::memory_mib(process, "VmHWM")?);
        Ok(values)
    }

    pub(super) fn produce(&self, topic: &str, shape: Shape, how: Producing<'_>) -> Result<Values> {
        let client = self.options.client;
        let mut tool = client.producer(self.broker.address, topic, shape, how)?;
        clients::produced(&clients::output(&mut tool)?, shape.records)
    }

    pub(super) fn consume(&self, topic: &str, records: u64) -> Result<Values> {
        let client = self.options.client;
        // A group of its own each time, so that it begins at the beginning.
        self.groups.set(self.groups.get() + 1);
        let group = format!("{topic}-{}", self.groups.get());
        let mut tool = client.consumer(self.broker.address, topic, records, &group)?;
        clients::consumed(&clients::output(&mut tool)?, records)
    }

    pub(super) fn make_round_trips(&self, client: Client, topic: &str, shape: Shape) -> Result<Values> {
        let mut tool = client.round_trips(self.broker.address, topic, shape)?;
        clients::made_round_trips(&clients::output(&mut tool)?)
    }
}
