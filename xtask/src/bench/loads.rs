//! The loads, and what each must show.

use super::clients::{AT_FULL_SPEED, Client, Producing, Shape};
use super::coordinators::{self, Deed};
use super::groups::{self, Protocol};
use super::options::Options;
use super::session::{Session, Setup};
use super::{Results, Values, wire};
use crate::error::Result;
use std::collections::BTreeSet;

pub(super) const PARTITIONS: u64 = 6;
const STEADY_RECORDS_PER_SECOND: u64 = 20_000;
const STEADY: Producing<'static> = Producing {
    throughput: Some(STEADY_RECORDS_PER_SECOND),
    properties: &["acks=all", "linger.ms=0"],
};

#[derive(Debug)]
pub(super) enum What {
    Produce,
    Consume,
    /// At a rate that is far below the most, each record at once.
    Steady,
    /// One record at a time, from the producer to the consumer, by this client's tool whatever the other loads use:
    /// Kafka's asks for the next record before it sends it and once more after, the native one only after.
    RoundTrip(Client),
    /// The same on plain sockets, without a client, where the consumer waits at the broker.
    Wire,
    /// Members of groups of one protocol, on plain sockets.
    Heartbeats(Protocol),
    /// What coordinators decide, on plain sockets.
    Decide(Deed),
}

#[derive(Debug)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) what: What,
    records: u64,
    size: u64,
    /// The least ratio of Kafka's CPU time to that of a durable Milena.
    pub(super) target: Option<f64>,
    /// Whether it is also measured with `durability=os`, and what the ratio must be then.
    pub(super) os: Option<Option<f64>>,
}

pub(super) const LOADS: &[Load] = &[
    Load {
        name: "produce-1k",
        title: "produce 1M × 1 KiB, acks=all",
        what: What::Produce,
        records: 1_000_000,
        size: 1024,
        target: Some(3.0),
        os: Some(None),
    },
    Load {
        name: "produce-100b",
        title: "produce 5M × 100 B, acks=all",
        what: What::Produce,
        records: 5_000_000,
        size: 100,
        target: Some(4.0),
        os: None,
    },
    Load {
        name: "consume-1k",
        title: "consume 1M × 1 KiB",
        what: What::Consume,
        records: 1_000_000,
        size: 1024,
        target: Some(1.0),
        os: None,
    },
    Load {
        name: "consume-100b",
        title: "consume 5M × 100 B",
        what: What::Consume,
        records: 5_000_000,
        size: 100,
        target: Some(1.0),
        os: None,
    },
    Load {
        name: "steady",
        title: "200k records at 20,000/s, linger 0, acks=all",
        what: What::Steady,
        records: 200_000,
        size: 100,
        target: Some(2.0),
        os: Some(Some(3.0)),
    },
    Load {
        name: "round-trip",
        title: "10,000 round trips, produce then fetch, by Kafka's own tool",
        what: What::RoundTrip(Client::Java),
        records: 10_000,
        size: 100,
        target: Some(3.0),
        os: Some(Some(6.0)),
    },
    Load {
        name: "round-trip-native",
        title: "10,000 round trips by the native tool",
        what: What::RoundTrip(Client::Native),
        records: 10_000,
        size: 100,
        target: None,
        os: Some(None),
    },
    Load {
        name: "round-trip-wire",
        title: "10,000 round trips on plain sockets",
        what: What::Wire,
        records: 10_000,
        size: 100,
        target: None,
        os: Some(None),
    },
    Load {
        name: "transactions",
        title: "8,000 transactions of one record, 8 producers",
        what: What::Decide(Deed::Transactions),
        records: 8_000,
        size: 100,
        target: Some(2.0),
        os: None,
    },
    Load {
        name: "offset-commits",
        title: "20,000 offset commits, 8 groups",
        what: What::Decide(Deed::Commits),
        records: 20_000,
        size: 0,
        target: Some(2.0),
        os: None,
    },
    Load {
        name: "heartbeats",
        title: "200,000 heartbeats of 1,000 consumer groups of 10 members",
        what: What::Heartbeats(Protocol::Consumer),
        records: 200_000,
        size: 0,
        target: Some(3.0),
        os: None,
    },
    Load {
        name: "share-heartbeats",
        title: "200,000 heartbeats of 1,000 share groups of 10 members",
        what: What::Heartbeats(Protocol::Share),
        records: 200_000,
        size: 0,
        target: Some(3.0),
        os: None,
    },
    Load {
        name: "streams-heartbeats",
        title: "200,000 heartbeats of 1,000 streams groups of 10 members",
        what: What::Heartbeats(Protocol::Streams),
        records: 200_000,
        size: 0,
        target: Some(3.0),
        os: None,
    },
];
/// The part of a coordinator's load that warms it before.
const WARMING_PART: u64 = 4;

/// What warms a broker: enough of each kind of load for a JVM to have compiled its way.
const WARM_THROUGHPUT: Shape = Shape {
    records: 1_000_000,
    size: 1024,
};
const WARM_STEADY: Shape = Shape {
    records: 100_000,
    size: 100,
};
const WARM_ROUND_TRIPS: Shape = Shape {
    records: 5_000,
    size: 100,
};

impl Load {
    fn shape(&self, options: &Options) -> Shape {
        Shape {
            records: options.scaled(self.records),
            size: self.size,
        }
    }
}

/// Runs the wanted loads one after the other on one broker.
pub(super) fn run(options: &Options, setup: Setup, run: u32, results: &mut Results) -> Result<()> {
    let wanted: Vec<&Load> = LOADS
        .iter()
        .filter(|load| options.wants(load.name))
        .filter(|load| setup != Setup::Os || load.os.is_some())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let session = Session::start(options, setup)?;
    eprintln!("{} warms …", setup.name());
    warm(&session)?;
    let mut topics = Topics::default();
    for load in wanted {
        let shape = load.shape(options);
        let values = carry_out(&load.what, shape, &session, &mut topics)?;
        results.add(load.name, setup, run, None, per_record(values, shape));
    }
    session.end()
}

fn carry_out(what: &What, shape: Shape, session: &Session<'_>, topics: &mut Topics) -> Result<Values> {
    match what {
        What::Produce => produce(session, topics, shape),
        What::Consume => {
            let topic = Topics::of(shape);
            if !topics.0.contains(&topic) {
                produce(session, topics, shape)?;
            }
            session.measured(|| session.consume(&topic, shape.records))
        }
        What::Steady => {
            session.create_topic("steady", PARTITIONS, &[])?;
            session.measured(|| session.produce("steady", shape, STEADY))
        }
        What::RoundTrip(client) => {
            let topic = format!("round-trip-{client:?}");
            session.create_topic(&topic, 1, &[])?;
            session.measured(|| session.make_round_trips(*client, &topic, shape))
        }
        What::Wire => {
            let address = session.broker.address;
            session.create_topic("wire", 1, &[])?;
            session.measured(|| wire::make_round_trips(address, "wire", 0, shape))
        }
        What::Heartbeats(protocol) => {
            let (address, topic) = (session.broker.address, protocol.topic());
            session.create_topic(topic, PARTITIONS, &[])?;
            let apis = crate::differential::apis()?;
            let mut fleet = groups::Fleet::join(*protocol, &apis, address, topic, PARTITIONS)?;
            fleet.beat(shape.records / WARMING_PART)?;
            let values = session.measured(|| fleet.beat(shape.records))?;
            fleet.leave()?;
            Ok(values)
        }
        What::Decide(deed) => {
            let (address, topic) = (session.broker.address, deed.name());
            session.create_topic(topic, PARTITIONS, &[])?;
            let warming = Shape {
                records: shape.records / WARMING_PART,
                ..shape
            };
            coordinators::load(*deed, address, topic, warming)?;
            session.measured(|| coordinators::load(*deed, address, topic, shape))
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn per_record(mut values: Values, shape: Shape) -> Values {
    if let Some(seconds) = values.get("cpu_seconds") {
        let cost = seconds * 1e6 / shape.records as f64;
        values.insert("cpu_us_per_record", cost);
    }
    values
}

/// The topics that hold what a produce load wrote, for the consume load of the same shape.
#[derive(Debug, Default)]
struct Topics(BTreeSet<String>);

impl Topics {
    fn of(shape: Shape) -> String {
        format!("records-of-{}", shape.size)
    }
}

fn produce(session: &Session<'_>, topics: &mut Topics, shape: Shape) -> Result<Values> {
    let topic = Topics::of(shape);
    session.create_topic(&topic, PARTITIONS, &[])?;
    let values = session.measured(|| session.produce(&topic, shape, AT_FULL_SPEED))?;
    topics.0.insert(topic);
    Ok(values)
}

/// Loads of each kind that do not count.
pub(super) fn warm(session: &Session<'_>) -> Result<()> {
    let scaled = |shape: Shape| Shape {
        records: session.options.scaled(shape.records),
        ..shape
    };
    let throughput = scaled(WARM_THROUGHPUT);
    session.create_topic("warm", PARTITIONS, &[])?;
    session.create_topic("warm-one", 1, &[])?;
    session.produce("warm", throughput, AT_FULL_SPEED)?;
    session.consume("warm", throughput.records)?;
    session.produce("warm", scaled(WARM_STEADY), STEADY)?;
    for client in [Client::Java, Client::Native] {
        session.make_round_trips(client, "warm-one", scaled(WARM_ROUND_TRIPS))?;
    }
    Ok(())
}
