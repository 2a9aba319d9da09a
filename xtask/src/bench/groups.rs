//! Members of consumer groups (KIP-848) on plain sockets: what heartbeats cost, and how soon a large group comes to rest.

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
const REST_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes ids that no load before has used: their members may still be there.
static LOADS: AtomicU64 = AtomicU64::new(0);

struct Member {
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
        let tells = self.tells || joins;
        let request = json!({
            "GroupId": self.group, "MemberId": self.id, "MemberEpoch": self.epoch,
            "RebalanceTimeoutMs": if joins { 60_000 } else { -1 },
            "SubscribedTopicNames": if joins { json!([topic]) } else { Value::Null },
            "TopicPartitions": if tells { self.given.clone() } else { Value::Null },
        });
        let answer = asker.ask("ConsumerGroupHeartbeat", 1, &request, |answer| {
            answer["ErrorCode"].as_i64()
        })?;
        self.epoch = answer["MemberEpoch"].as_i64().unwrap_or(0);
        let given = &answer["Assignment"]["TopicPartitions"];
        self.tells = given.is_array() && *given != self.given;
        if given.is_array() {
            self.given = given.clone();
        }
        Ok(())
    }

    fn leave(&self, asker: &mut Asker<'_>) -> Result<()> {
        let request = json!({"GroupId": self.group, "MemberId": self.id, "MemberEpoch": -1});
        asker.ask("ConsumerGroupHeartbeat", 1, &request, |answer| {
            answer["ErrorCode"].as_i64()
        })?;
        Ok(())
    }

    fn partitions(&self) -> usize {
        let topics = self.given.as_array().into_iter().flatten();
        topics
            .map(|topic| topic["Partitions"].as_array().map_or(0, Vec::len))
            .sum()
    }
}

fn members(load: u64, groups: impl Iterator<Item = u64>, each: u64) -> Vec<Member> {
    let member = |group: u64, number: u64| Member {
        group: format!("heartbeats-{group}"),
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
    pub(super) fn join(apis: &'a [Api], address: SocketAddr, topic: &'a str) -> Result<Self> {
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let open = |number: u64| -> Result<Lane<'a>> {
            let mut asker = Asker::open(apis, address)?;
            asker.find_coordinator(GROUP_COORDINATOR, topic)?;
            let groups = (0..GROUPS).filter(move |group| group % CONNECTIONS == number);
            Ok(Lane {
                asker,
                members: members(load, groups, MEMBERS_OF_EACH),
                next: 0,
            })
        };
        let lanes = (0..CONNECTIONS).map(open).collect::<Result<Vec<_>>>()?;
        let mut fleet = Self { lanes, topic };
        // The second time around they have what is theirs.
        fleet.beat(3 * GROUPS * MEMBERS_OF_EACH)?;
        Ok(fleet)
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

/// One group of [`MEMBERS`] members over as many partitions: the time that it takes to come to rest when one more has
/// joined, all sending heartbeats without a pause over one connection, and the broker's memory then.
pub(super) fn large(session: &Session<'_>, topic: &str) -> Result<Values> {
    let apis = crate::differential::apis()?;
    let mut asker = Asker::open(&apis, session.broker.address)?;
    asker.find_coordinator(GROUP_COORDINATOR, topic)?;
    let load = LOADS.fetch_add(1, Ordering::Relaxed);
    let mut all = members(load, std::iter::once(GROUPS), MEMBERS);
    let begin = Instant::now();
    rest(&mut asker, topic, &mut all, MEMBERS)?;
    let mut values = Values::new();
    values.insert("first_rest_ms", begin.elapsed().as_secs_f64() * 1000.0);
    all.extend(members(load + 1_000_000, std::iter::once(GROUPS), 1));
    let begin = Instant::now();
    rest(&mut asker, topic, &mut all, MEMBERS)?;
    values.insert("join_ms", begin.elapsed().as_secs_f64() * 1000.0);
    values.insert("resident_mib", sampling::memory_mib(session.process(), "VmRSS")?);
    for member in &all {
        member.leave(&mut asker)?;
    }
    Ok(values)
}

/// Until every partition is somebody's and all are in one epoch.
fn rest(asker: &mut Asker<'_>, topic: &str, members: &mut [Member], partitions: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        for member in members.iter_mut() {
            member.beat(asker, topic)?;
        }
        let owned: usize = members.iter().map(Member::partitions).sum();
        let epoch = members.first().map_or(0, |member| member.epoch);
        let together = members
            .iter()
            .all(|member| member.epoch == epoch && !member.tells);
        if together && u64::try_from(owned) == Ok(partitions) {
            return Ok(());
        }
        if begin.elapsed() > REST_TIMEOUT {
            return Err(Error::new("a group does not come to rest"));
        }
    }
}
