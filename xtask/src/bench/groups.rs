//! Members of groups whose assignment the broker computes, on plain sockets: what heartbeats cost, and how soon a large
//! group comes to rest.

use super::coordinators::{Asker, GROUP_COORDINATOR};
use super::session::Session;
use super::{Values, sampling};
use crate::differential::Api;
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 8;
pub(super) const GROUPS: u64 = 1_000;
pub(super) const MEMBERS_OF_EACH: u64 = 10;
/// The one large group, and the partitions of its topic.
pub(super) const MEMBERS: u64 = 1_000;
/// Heartbeats of a group at rest.
const HEARTBEATS: usize = 20_000;
const REST_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes ids that no load before has used: their members may still be there.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// Whose members they are. The heartbeats of all three have the same shape: who, in which epoch, and what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// KIP-848
    Consumer,
    /// KIP-932
    Share,
    /// KIP-1071
    Streams,
}

impl Protocol {
    fn api(self) -> (&'static str, i16) {
        match self {
            Self::Consumer => ("ConsumerGroupHeartbeat", 1),
            Self::Share => ("ShareGroupHeartbeat", 1),
            Self::Streams => ("StreamsGroupHeartbeat", 0),
        }
    }

    pub(super) fn topic(self) -> &'static str {
        match self {
            Self::Consumer => "heartbeats",
            Self::Share => "share-heartbeats",
            Self::Streams => "streams-heartbeats",
        }
    }

    /// What a member says, besides who it is: of itself when it joins, and of what it has when that is new.
    fn news(self, topic: &str, joins: bool, tells: bool, given: &Value) -> Value {
        let when_joining = |value: Value| if joins { value } else { Value::Null };
        let when_new = |value: &Value| if tells { value.clone() } else { Value::Null };
        let rebalance_timeout_ms = if joins { 60_000 } else { -1 };
        match self {
            Self::Consumer => json!({
                "RebalanceTimeoutMs": rebalance_timeout_ms,
                "SubscribedTopicNames": when_joining(json!([topic])),
                "TopicPartitions": when_new(given),
            }),
            Self::Share => json!({"SubscribedTopicNames": when_joining(json!([topic]))}),
            Self::Streams => json!({
                "EndpointInformationEpoch": 0,
                "RebalanceTimeoutMs": rebalance_timeout_ms,
                "Topology": when_joining(json!({
                    "Epoch": 0,
                    "Subtopologies": [{"SubtopologyId": "0", "SourceTopics": [topic]}],
                })),
                "ProcessId": when_joining(json!("process")),
                "ActiveTasks": when_new(given),
                "StandbyTasks": when_new(&json!([])),
                "WarmupTasks": when_new(&json!([])),
            }),
        }
    }

    fn assignment(self, answer: &Value) -> &Value {
        match self {
            Self::Consumer | Self::Share => &answer["Assignment"]["TopicPartitions"],
            Self::Streams => &answer["ActiveTasks"],
        }
    }

    /// How many partitions its members have at least, if one that several share counts for each.
    fn owners(self, members: u64, partitions: u64) -> u64 {
        match self {
            Self::Consumer | Self::Streams => partitions,
            Self::Share => members.max(partitions),
        }
    }
}

struct Member {
    protocol: Protocol,
    group: String,
    id: String,
    epoch: i64,
    /// As the answer gave it, which is how a request tells it.
    given: Value,
    tells: bool,
}

impl Member {
    fn beat(&mut self, asker: &mut Asker<'_>, topic: &str) -> Result<()> {
        let joins = self.epoch == 0;
        let news = self.protocol.news(topic, joins, self.tells || joins, &self.given);
        let answer = self.say(asker, self.epoch, news)?;
        self.epoch = answer["MemberEpoch"].as_i64().unwrap_or(0);
        let given = self.protocol.assignment(&answer);
        self.tells = given.is_array() && *given != self.given;
        if given.is_array() {
            self.given = given.clone();
        }
        Ok(())
    }

    fn leave(&self, asker: &mut Asker<'_>) -> Result<()> {
        self.say(asker, -1, json!({})).map(drop)
    }

    fn say(&self, asker: &mut Asker<'_>, epoch: i64, mut request: Value) -> Result<Value> {
        let (name, version) = self.protocol.api();
        request["GroupId"] = json!(self.group);
        request["MemberId"] = json!(self.id);
        request["MemberEpoch"] = json!(epoch);
        asker.ask(name, version, &request, |answer| answer["ErrorCode"].as_i64())
    }

    fn partitions(&self) -> usize {
        let topics = self.given.as_array().into_iter().flatten();
        topics
            .map(|topic| topic["Partitions"].as_array().map_or(0, Vec::len))
            .sum()
    }
}

fn members(protocol: Protocol, load: u64, groups: impl Iterator<Item = u64>, each: u64) -> Vec<Member> {
    let member = |group: u64, number: u64| Member {
        protocol,
        group: format!("{}-{group}", protocol.api().0),
        id: format!("member-{load}-{group}-{number}"),
        epoch: 0,
        given: json!([]),
        tells: true,
    };
    groups
        .flat_map(|group| (0..each).map(move |number| (group, number)))
        .map(|(group, number)| member(group, number))
        .collect()
}

/// The members of many groups that have joined, over a few connections.
pub(super) struct Fleet<'a> {
    lanes: Vec<Lane<'a>>,
    topic: &'a str,
}

struct Lane<'a> {
    asker: Asker<'a>,
    members: Vec<Member>,
    next: usize,
}

impl<'a> Fleet<'a> {
    pub(super) fn join(
        protocol: Protocol,
        apis: &'a [Api],
        address: SocketAddr,
        topic: &'a str,
        partitions: u64,
    ) -> Result<Self> {
        let given_out = protocol.owners(MEMBERS_OF_EACH, partitions);
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let open = |number: u64| -> Result<Lane<'a>> {
            let mut asker = Asker::open(apis, address)?;
            asker.find_coordinator(GROUP_COORDINATOR, topic)?;
            let groups = (0..GROUPS).filter(move |group| group % CONNECTIONS == number);
            Ok(Lane {
                asker,
                members: members(protocol, load, groups, MEMBERS_OF_EACH),
                next: 0,
            })
        };
        let lanes = (0..CONNECTIONS).map(open).collect::<Result<Vec<_>>>()?;
        let mut fleet = Self { lanes, topic };
        fleet.rest(usize::try_from(given_out).unwrap_or(usize::MAX))?;
        Ok(fleet)
    }

    fn rest(&mut self, partitions: usize) -> Result<()> {
        let topic = self.topic;
        std::thread::scope(|scope| {
            let lanes = self.lanes.iter_mut();
            let running: Vec<_> = lanes
                .map(|lane| {
                    scope.spawn(move || rest(&mut lane.asker, topic, &mut lane.members, partitions, 0))
                })
                .collect();
            let mut ended = running.into_iter().map(|thread| thread.join());
            ended.try_for_each(|lane| lane.map_err(|_| Error::new("a client panicked"))?)
        })
    }

    /// `count` heartbeats in all, in turns.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn beat(&mut self, count: u64) -> Result<Values> {
        let (each, topic) = (count / CONNECTIONS, self.topic);
        let begin = Instant::now();
        let times_ms = std::thread::scope(|scope| {
            let lanes = self.lanes.iter_mut();
            let running: Vec<_> = lanes
                .map(|lane| scope.spawn(move || lane.beat(topic, each)))
                .collect();
            let ended = running
                .into_iter()
                .map(|thread| thread.join().map_err(|_| Error::new("a client panicked"))?);
            ended.collect::<Result<Vec<_>>>()
        })?;
        let mut values = sampling::percentiles(times_ms.concat());
        values.insert(
            "records_per_second",
            (each * CONNECTIONS) as f64 / begin.elapsed().as_secs_f64(),
        );
        Ok(values)
    }

    pub(super) fn leave(mut self) -> Result<()> {
        for lane in &mut self.lanes {
            for member in &lane.members {
                member.leave(&mut lane.asker)?;
            }
        }
        Ok(())
    }
}

impl Lane<'_> {
    /// Milliseconds of each.
    fn beat(&mut self, topic: &str, count: u64) -> Result<Vec<f64>> {
        let mut times_ms = Vec::new();
        for _ in 0..count {
            let begin = Instant::now();
            let next = self.next % self.members.len();
            self.members[next].beat(&mut self.asker, topic)?;
            self.next += 1;
            times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times_ms)
    }
}

/// One group of [`MEMBERS`] members over as many partitions, all sending heartbeats without a pause over one connection:
/// the time that it takes to come to rest when one more has joined, the broker's memory then, and what a heartbeat costs.
#[allow(clippy::cast_precision_loss)]
pub(super) fn large(session: &Session<'_>, topic: &str) -> Result<Values> {
    let apis = crate::differential::apis()?;
    let mut asker = Asker::open(&apis, session.broker.address)?;
    asker.find_coordinator(GROUP_COORDINATOR, topic)?;
    let load = LOADS.fetch_add(1, Ordering::Relaxed);
    let partitions = usize::try_from(MEMBERS).unwrap_or(usize::MAX);
    let joining = |load| members(Protocol::Consumer, load, std::iter::once(GROUPS), MEMBERS);
    let mut all = joining(load);
    let begin = Instant::now();
    rest(&mut asker, topic, &mut all, partitions, 0)?;
    let mut values = Values::new();
    values.insert("first_rest_ms", begin.elapsed().as_secs_f64() * 1000.0);
    all.extend(joining(load + 1_000_000).into_iter().take(1));
    let epoch = all.first().map_or(0, |member| member.epoch);
    let begin = Instant::now();
    rest(&mut asker, topic, &mut all, partitions, epoch)?;
    values.insert("join_ms", begin.elapsed().as_secs_f64() * 1000.0);
    values.insert("resident_mib", sampling::memory_mib(session.process(), "VmRSS")?);
    let beats = |asker: &mut Asker<'_>, members: &mut [Member]| -> Result<f64> {
        let measured = session.measured(|| {
            for at in 0..HEARTBEATS {
                let at = at % members.len();
                members[at].beat(asker, topic)?;
            }
            Ok(Values::new())
        })?;
        Ok(measured.get("cpu_seconds").copied().unwrap_or(0.0) * 1e6 / HEARTBEATS as f64)
    };
    values.insert("heartbeat_us", beats(&mut asker, &mut all)?);
    for member in &all {
        member.leave(&mut asker)?;
    }
    // The same over the same one connection, of a group of a few.
    let mut few = members(
        Protocol::Consumer,
        load,
        std::iter::once(GROUPS + 1),
        MEMBERS_OF_EACH,
    );
    rest(&mut asker, topic, &mut few, partitions, 0)?;
    values.insert("small_heartbeat_us", beats(&mut asker, &mut few)?);
    for member in &few {
        member.leave(&mut asker)?;
    }
    Ok(values)
}

/// Until each group has shared out as many partitions evenly, in an epoch above `epoch`, and nobody is told anything new.
fn rest(
    asker: &mut Asker<'_>,
    topic: &str,
    members: &mut [Member],
    partitions: usize,
    epoch: i64,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        for member in members.iter_mut() {
            member.beat(asker, topic)?;
        }
        let mut groups = members.chunk_by(|one, next| one.group == next.group);
        if groups.all(|group| is_at_rest(group, partitions, epoch)) {
            return Ok(());
        }
        if begin.elapsed() > REST_TIMEOUT {
            return Err(Error::new("the groups do not come to rest"));
        }
    }
}

fn is_at_rest(group: &[Member], partitions: usize, epoch: i64) -> bool {
    let owned: Vec<usize> = group.iter().map(Member::partitions).collect();
    let all: usize = owned.iter().sum();
    let most = owned.iter().copied().max().unwrap_or(0);
    let current = group.first().map_or(0, |member| member.epoch);
    all >= partitions
        && most <= all.div_ceil(group.len())
        && current > epoch
        && group
            .iter()
            .all(|member| member.epoch == current && !member.tells)
}
