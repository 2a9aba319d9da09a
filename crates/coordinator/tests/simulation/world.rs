//! The world around the coordinator: a clock, a network that delays, repeats and loses messages,
//! consumers that crash and come back, and a broker that restarts or fails to store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use milena_coordinator::{Client, ConsumerGroupConfig, Effects, GroupConfig, Groups, Reply, Ticket};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::{HeartbeatResponse, JoinGroupResponse, SyncGroupResponse};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::consumer::{Consumer, GROUP, PARTITIONS, Phase, Request, Sent};
use crate::mutant::Mutant;
use crate::oracle::Oracle;
use crate::random::Random;

const FAULTS_MS: i64 = 60_000;
/// No message is delayed longer than this.
const LATE_MS: i64 = 12_000;
/// The longest session, and the longest that a consumer sleeps: what the faults cost shows by then.
const SESSIONS_END_MS: i64 = 24_000;
/// Sessions, rebalance timeouts and what is on its way are over by then.
const CONVERGES_MS: i64 = 180_000;
const GROUP_KEY: &[u8] = b"group/group";

#[derive(Debug)]
enum Event {
    Wake(usize),
    Request {
        consumer: usize,
        number: u64,
        request: Request,
    },
    Reply {
        consumer: usize,
        number: u64,
        request: Request,
        reply: Reply,
    },
}

#[derive(Debug)]
struct Waiting {
    consumer: usize,
    number: u64,
    request: Request,
}

pub(crate) struct World {
    random: Random,
    mutant: Mutant,
    now_ms: i64,
    faults: bool,
    events: BTreeMap<(i64, u64), Event>,
    next_event: u64,
    consumers: Vec<Consumer>,
    config: GroupConfig,
    groups: Groups,
    facts: BTreeMap<Bytes, Bytes>,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    oracle: Oracle,
    pub(crate) commits: u64,
    pub(crate) restarts: u64,
}

fn groups(config: &GroupConfig, random: &mut Random) -> Groups {
    let mut ids = Random::new(random.next());
    Groups::new(config.clone(), move || {
        let half = ids.next();
        Uuid::from_bytes((u128::from(half) << 64 | u128::from(ids.next())).to_be_bytes())
    })
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let config = GroupConfig {
            initial_rebalance_delay_ms: *random.pick(&[0, 1_000, 3_000]),
            offsets_retention_check_interval_ms: 45_000,
            max_group_size: *random.pick(&[i32::MAX, 8]),
            ..GroupConfig::default()
        };
        let mut groups = groups(&config, &mut random);
        groups.load(0, []).unwrap();
        let styles: [&[&'static str]; 4] = [
            &["range"],
            &["range", "roundrobin"],
            &["cooperative-sticky"],
            &["cooperative-sticky", "range"],
        ];
        let style = random.pick(&styles).to_vec();
        let mut consumers = Vec::new();
        for index in 0..random.between(1, 6) {
            let instance = random.chance(40).then(|| Str::from(format!("instance-{index}")));
            let mut protocols = style.clone();
            if random.chance(30) {
                protocols.reverse();
            }
            consumers.push(Consumer::new(&mut random, instance, protocols));
        }
        let mut world = Self {
            random,
            mutant,
            now_ms: 0,
            faults: true,
            events: BTreeMap::new(),
            next_event: 0,
            consumers,
            config,
            groups,
            facts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            oracle: Oracle::default(),
            commits: 0,
            restarts: 0,
        };
        for index in 0..world.consumers.len() {
            let at = world.random.between(0, 20_000);
            world.schedule(at, Event::Wake(index));
        }
        world
    }

    /// A life with faults, then one without, in which the group must come to rest.
    pub(crate) fn run(&mut self) {
        self.run_until(FAULTS_MS);
        self.faults = false;
        self.run_until(FAULTS_MS + LATE_MS);
        self.everybody_runs();
        self.run_until(self.now_ms + SESSIONS_END_MS);
        let end_ms = self.now_ms + CONVERGES_MS;
        while self.resting().is_none() {
            assert!(
                self.now_ms < end_ms,
                "the group does not come to rest: {:#?}",
                self.consumers
            );
            // A static member that still found itself fenced by its successor, which had crashed.
            if !self.consumers.iter().any(Consumer::is_running) {
                self.start(0);
            }
            if self.now_ms + CONVERGES_MS / 2 == end_ms {
                self.notice_held_back_partitions();
            }
            self.run_until(self.now_ms + 1_000);
        }
        let generation = self.resting();
        self.run_until(self.now_ms + 30_000);
        assert_eq!(
            self.resting(),
            generation,
            "the group came to rest and did not stay so"
        );
        self.everybody_commits();
        self.restart(false);
        self.check_offsets();
        assert!(
            self.waiting.is_empty(),
            "requests without an answer: {:?}",
            self.waiting
        );
    }

    /// A static member that was replaced after it gave partitions up and before it joined again
    /// owes the group a rebalance that its successor knows nothing of: the partitions stay held
    /// back until somebody joins for another reason. So it is in Kafka; here somebody does.
    fn notice_held_back_partitions(&mut self) {
        let with_instances = self.consumers.iter().any(|one| one.instance.is_some());
        let running = self.consumers.iter().position(Consumer::is_running);
        if let Some(index) = running.filter(|_| with_instances)
            && self.consumers[index].is_cooperative()
        {
            let sent = self.consumers[index].change_subscription(self.now_ms);
            self.send(index, vec![sent]);
        }
    }

    /// The generation in which everybody who runs is stable and all partitions have one owner.
    fn resting(&self) -> Option<i32> {
        let running: Vec<&Consumer> = self.consumers.iter().filter(|one| one.is_running()).collect();
        let generation = running.first()?.generation;
        let rests = running
            .iter()
            .all(|one| one.phase == Phase::Stable && one.generation == generation);
        let mut owned: Vec<u8> = running.iter().flat_map(|one| one.owned.iter().copied()).collect();
        owned.sort_unstable();
        let ids: BTreeSet<Str> = running.iter().map(|one| one.member_id.clone()).collect();
        let members: BTreeSet<Str> = self.members().into_iter().collect();
        (rests && owned.iter().copied().eq(0..PARTITIONS) && ids == members).then_some(generation)
    }

    fn members(&self) -> Vec<Str> {
        let described = self.groups.describe(&Str::from(GROUP), 5);
        described
            .members
            .into_iter()
            .map(|member| member.member_id)
            .collect()
    }

    fn schedule(&mut self, at_ms: i64, event: Event) {
        self.next_event += 1;
        self.events.insert((at_ms, self.next_event), event);
    }

    fn run_until(&mut self, end_ms: i64) {
        loop {
            let event_ms = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer_ms = self.groups.next_deadline_ms();
            let Some(next_ms) = event_ms
                .into_iter()
                .chain(timer_ms)
                .min()
                .filter(|next| *next <= end_ms)
            else {
                break;
            };
            self.now_ms = self.now_ms.max(next_ms);
            if timer_ms == Some(next_ms) {
                let members = self.members();
                let effects = self.groups.tick(self.now_ms);
                self.settle(effects, &members, None);
            } else if let Some((_, event)) = self.events.pop_first() {
                self.handle(event);
            }
        }
        self.now_ms = end_ms;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(index) => self.wake(index),
            Event::Request {
                consumer,
                number,
                request,
            } => self.request(consumer, number, request),
            Event::Reply {
                consumer,
                number,
                request,
                reply,
            } => {
                let sent = self.consumers[consumer].receive(self.now_ms, number, &request, &reply);
                self.send(consumer, sent);
            }
        }
    }

    fn wake(&mut self, index: usize) {
        if self.faults {
            self.strike(index);
        }
        let sent = self.consumers[index].wake(self.now_ms, &mut self.random, self.faults);
        self.send(index, sent);
        if self.consumers[index].is_running() {
            let next = self.now_ms + self.random.between(1_000, 3_000);
            self.schedule(next, Event::Wake(index));
        } else if self.faults {
            self.start(index);
        }
    }

    /// A successor of a consumer that is gone, or that is replaced while it still runs.
    fn start(&mut self, index: usize) {
        let successor = self.consumers[index].restarted(&mut self.random);
        self.consumers.push(successor);
        let at = self.now_ms + self.random.between(0, 15_000);
        self.schedule(at, Event::Wake(self.consumers.len() - 1));
    }

    fn strike(&mut self, index: usize) {
        match self.random.between(0, 100) {
            0..2 => {
                self.consumers[index].phase = Phase::Gone;
            }
            2..6 => {
                let pause = self.random.between(1_000, 25_000);
                self.consumers[index].paused_until_ms = self.now_ms + pause;
            }
            // An orchestrator that starts a second process of the same instance.
            6..8 if self.consumers[index].instance.is_some() && self.consumers.len() < 24 => {
                self.start(index)
            }
            8..10 => {
                let answered = self.random.chance(50);
                self.restart(answered);
            }
            _ => {}
        }
    }

    /// After the faults: one process of each instance runs, and at least one consumer.
    fn everybody_runs(&mut self) {
        for consumer in &mut self.consumers {
            consumer.paused_until_ms = 0;
        }
        let mut seen = BTreeSet::new();
        for index in (0..self.consumers.len()).rev() {
            let instance = self.consumers[index].instance.clone();
            if let Some(instance) = instance
                && self.consumers[index].is_running()
                && !seen.insert(instance)
            {
                self.consumers[index].phase = Phase::Gone;
            }
        }
        if !self.consumers.iter().any(Consumer::is_running) {
            self.start(0);
        }
    }

    // --- the network --------------------------------------------------------------------------

    fn delay_ms(&mut self) -> i64 {
        if self.faults && self.random.chance(5) {
            self.random.between(0, LATE_MS)
        } else {
            self.random.between(1, 40)
        }
    }

    fn send(&mut self, consumer: usize, sent: Vec<Sent>) {
        for (number, request) in sent {
            if self.faults && self.random.chance(4) {
                let again = self.delay_ms() + self.delay_ms();
                let copy = Event::Request {
                    consumer,
                    number,
                    request: request.clone(),
                };
                self.schedule(self.now_ms + again.min(LATE_MS), copy);
            }
            if !(self.faults && self.random.chance(3)) {
                let at = self.now_ms + self.delay_ms();
                self.schedule(
                    at,
                    Event::Request {
                        consumer,
                        number,
                        request,
                    },
                );
            }
        }
    }

    fn deliver(&mut self, waiting: Waiting, reply: Reply) {
        if self.faults && self.random.chance(3) {
            return;
        }
        let Waiting {
            consumer,
            number,
            request,
        } = waiting;
        let at = self.now_ms + self.delay_ms();
        self.schedule(
            at,
            Event::Reply {
                consumer,
                number,
                request,
                reply,
            },
        );
    }

    // --- the broker ---------------------------------------------------------------------------

    fn request(&mut self, consumer: usize, number: u64, request: Request) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let members = self.members();
        self.waiting.insert(
            ticket,
            Waiting {
                consumer,
                number,
                request: request.clone(),
            },
        );
        let holder = self.holder(consumer);
        let generation = self.oracle.current_generation();
        let taken_for = self.mutant.request(request.clone(), generation, holder);
        let version = self.consumers[consumer].version;
        let (now_ms, groups) = (self.now_ms, &mut self.groups);
        let effects = match &taken_for {
            Request::Join(join) => {
                let client = Client {
                    client_id: Str::from("client"),
                    client_host: Str::from("/127.0.0.1"),
                };
                groups.join(
                    now_ms,
                    ticket,
                    version,
                    &client,
                    &ConsumerGroupConfig::default(),
                    join,
                )
            }
            Request::Sync(sync) => groups.sync(now_ms, ticket, sync),
            Request::Heartbeat(heartbeat) => groups.heartbeat(now_ms, ticket, heartbeat),
            Request::Leave(leave) => groups.leave(now_ms, ticket, 5, leave),
            Request::Commit(commit) => groups.commit_offsets(now_ms, ticket, 9, commit),
        };
        let refused = effects.replies.iter().any(|(answered, reply)| {
            *answered == ticket && matches!(reply, Reply::JoinGroup(response) if response.error_code != 0)
        });
        if !refused {
            self.oracle.taken(&request);
        }
        self.settle(effects, &members, Some(&request));
    }

    /// The member id under which a consumer's instance is in the group now.
    fn holder(&self, consumer: usize) -> Option<Str> {
        let instance = self.consumers[consumer].instance.clone()?;
        let described = self.groups.describe(&Str::from(GROUP), 5);
        let holder = described
            .members
            .into_iter()
            .find(|one| one.group_instance_id.as_ref() == Some(&instance));
        holder.map(|one| one.member_id)
    }

    /// Stores the facts and sends the replies, or fails to store and loads again.
    fn settle(&mut self, effects: Effects, members: &[Str], cause: Option<&Request>) {
        self.groups.check_invariants();
        let effects = self.mutant.effects(effects, &mut self.random);
        if self.faults && !effects.facts.is_empty() && self.random.chance(3) {
            let answered = self.random.chance(50);
            return self.restart(answered);
        }
        let sync = cause.and_then(|request| match request {
            Request::Sync(sync) => Some(sync),
            _ => None,
        });
        for fact in effects.facts {
            if fact.key == GROUP_KEY {
                self.oracle.stored(fact.value.as_ref(), sync);
            }
            match fact.value {
                Some(value) => self.facts.insert(fact.key, value),
                None => self.facts.remove(&fact.key),
            };
        }
        for (ticket, reply) in effects.replies {
            let waiting = self
                .waiting
                .remove(&ticket)
                .expect("a ticket was answered that does not wait");
            self.oracle.replied(&waiting.request, &reply, members);
            self.commits += u64::from(matches!(reply, Reply::OffsetCommit(_)));
            self.deliver(waiting, reply);
        }
    }

    /// The broker starts anew on what is stored. Requests that waited are answered with
    /// NOT_COORDINATOR, or their connections are just gone.
    fn restart(&mut self, answered: bool) {
        self.restarts += 1;
        let parked = self.groups.unload();
        assert!(parked.facts.is_empty(), "unloading stores nothing");
        for (ticket, _) in &parked.replies {
            assert!(
                self.waiting.contains_key(ticket),
                "unloading answers what does not wait"
            );
        }
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            if answered && let Some(reply) = refusal(&waiting.request) {
                self.deliver(waiting, reply);
            }
        }
        let mut rows: Vec<(Bytes, Bytes)> = self
            .facts
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if self.mutant == Mutant::LoadsTooLittle {
            rows.pop();
        }
        self.groups = groups(&self.config, &mut self.random);
        self.groups.load(self.now_ms, rows).unwrap();
        self.groups.check_invariants();
        let members = self.members();
        self.oracle.restarted(&members);
        self.check_offsets();
    }

    fn check_offsets(&self) {
        let request = OffsetFetchRequestGroup {
            group_id: Str::from(GROUP),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        };
        let response = self.groups.fetch_offsets(&request, false);
        let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let found: BTreeMap<i32, i64> = partitions
            .map(|one| (one.partition_index, one.committed_offset))
            .collect();
        assert_eq!(
            found, self.oracle.committed,
            "what is committed is not what was accepted"
        );
    }

    /// In a group at rest, everybody can commit what it owns, at once.
    fn everybody_commits(&mut self) {
        for index in 0..self.consumers.len() {
            let owned: Vec<u8> = self.consumers[index].owned.iter().copied().collect();
            if !self.consumers[index].is_running() {
                continue;
            }
            for partition in owned {
                let offset = self.random.between(0, 1 << 40);
                let (number, request) = self.consumers[index].commit(partition, offset);
                self.request(index, number, request);
                assert_eq!(
                    self.oracle.committed.get(&i32::from(partition)),
                    Some(&offset),
                    "a member cannot commit"
                );
            }
        }
    }
}

fn refusal(request: &Request) -> Option<Reply> {
    let error_code = ErrorCode::NotCoordinator.code();
    match request {
        Request::Join(_) => Some(Reply::JoinGroup(JoinGroupResponse {
            error_code,
            ..JoinGroupResponse::default()
        })),
        Request::Sync(_) => Some(Reply::SyncGroup(SyncGroupResponse {
            error_code,
            ..SyncGroupResponse::default()
        })),
        Request::Heartbeat(_) => Some(Reply::Heartbeat(HeartbeatResponse {
            error_code,
            ..HeartbeatResponse::default()
        })),
        Request::Leave(_) | Request::Commit(_) => None,
    }
}
