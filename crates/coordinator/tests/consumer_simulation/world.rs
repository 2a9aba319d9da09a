//! The world around one group: its members, the topics, the network, the store, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_coordinator::{
    Assignor, Client as Sender, ConsumerGroupConfig, Effects, GroupConfig, Groups, Reply, Ticket, TopicImage,
    TopicInfo,
};
use milena_protocol::messages::consumer_group_describe_response::DescribedGroup;
use milena_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use milena_protocol::messages::leave_group_request::MemberIdentity;
use milena_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use milena_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::client::{Classic, Client, GROUP, REBALANCE_MS};
use crate::embedded;
use crate::mutant::Mutant;
use crate::random::Random;

const STEPS: usize = 250;
const SESSION_MS: i32 = 6_000;
const MAX_CLIENTS: usize = 6;
const TOPICS: [&str; 4] = ["a1", "a2", "b1", "b2"];
/// In so many rounds of one second everybody must have what they are to have.
const ROUNDS_TO_REST: usize = 60;

pub(crate) struct World {
    random: Random,
    mutant: Mutant,
    groups: Groups,
    rows: BTreeMap<Bytes, Bytes>,
    topics: TopicImage,
    next_topic: u8,
    config: ConsumerGroupConfig,
    now_ms: i64,
    tickets: u64,
    clients: Vec<Client>,
    next_client: u64,
    /// Whose JoinGroup or SyncGroup waits.
    waiting: BTreeMap<Ticket, u64>,
    /// Requests that the network may bring again.
    late: Vec<ConsumerGroupHeartbeatRequest>,
    group_type: String,
    pub(crate) fenced: u64,
    pub(crate) restarts: u64,
    pub(crate) changes_of_type: u64,
}

fn group() -> Str {
    Str::from(GROUP)
}

fn settings(config: &ConsumerGroupConfig) -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: 1,
        initial_rebalance_delay_ms: 0,
        consumer: config.clone(),
        ..GroupConfig::default()
    }
}

fn new_groups(config: &ConsumerGroupConfig, seed: u64) -> Groups {
    let mut next = u128::from(seed) << 64;
    Groups::new(settings(config), move || {
        next += 1;
        Uuid::from_bytes(next.to_be_bytes())
    })
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let config = ConsumerGroupConfig {
            session_timeout_ms: SESSION_MS,
            assignment_interval_ms: *random.pick(&[0, 0, 500, 3_000]),
            assignors: match random.chance(50) {
                true => vec![Assignor::Uniform, Assignor::Range],
                false => vec![Assignor::Range],
            },
            ..ConsumerGroupConfig::default()
        };
        let mut groups = new_groups(&config, 0);
        groups.load(0, []).unwrap();
        let mut world = Self {
            random,
            mutant,
            groups,
            rows: BTreeMap::new(),
            topics: TopicImage::default(),
            next_topic: 0,
            config,
            now_ms: 1_000_000,
            tickets: 0,
            clients: Vec::new(),
            next_client: 0,
            waiting: BTreeMap::new(),
            late: Vec::new(),
            group_type: String::new(),
            fenced: 0,
            restarts: 0,
            changes_of_type: 0,
        };
        world.put_topic(TOPICS[0]);
        world.show_topics();
        world
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.come_to_rest();
    }

    fn step(&mut self) {
        match self.random.between(0, 100) {
            0..=5 => self.new_client(),
            6..=8 => self.leave(),
            9..=10 => self.crash(),
            11..=13 => self.pause(),
            14..=16 => self.change_topics(),
            17..=18 => self.change_subscription(),
            19..=21 => self.restart(),
            22..=25 => self.bring_late_request(),
            26..=40 => self.pass_time(),
            _ => {
                if let Some(index) = self.any_client() {
                    self.act(index, true);
                }
            }
        }
    }

    // --- what happens -------------------------------------------------------------------------

    fn any_client(&mut self) -> Option<usize> {
        let now_ms = self.now_ms;
        let awake: Vec<usize> = (0..self.clients.len())
            .filter(|index| self.clients[*index].paused_until_ms <= now_ms && !self.clients[*index].is_dead)
            .collect();
        (!awake.is_empty()).then(|| *self.random.pick(&awake))
    }

    fn new_client(&mut self) {
        if self.clients.len() >= MAX_CLIENTS {
            return;
        }
        self.next_client += 1;
        let number = self.next_client;
        let is_classic = self.random.chance(35);
        let is_static = self.random.chance(25);
        let by_pattern = !is_classic && self.random.chance(25);
        let client = Client {
            number,
            classic: is_classic.then_some(Classic::Out),
            id: match is_classic {
                true => Str::default(),
                false => Str::from(format!("m{number}")),
            },
            instance: is_static.then(|| Str::from(format!("i{}", self.random.between(0, 2)))),
            epoch: 0,
            previous_epoch: 0,
            topics: match by_pattern {
                true => Vec::new(),
                false => self.some_topics(),
            },
            pattern: by_pattern.then(|| Str::from(*self.random.pick(&["a.*", ".*", "b.|x"]))),
            used: BTreeSet::new(),
            given: BTreeSet::new(),
            paused_until_ms: 0,
            is_dead: false,
            tells_all: true,
        };
        self.clients.push(client);
    }

    fn some_topics(&mut self) -> Vec<Str> {
        match self.random.chance(50) {
            // Most groups read the same.
            true => vec![Str::from(TOPICS[0])],
            false => {
                let mut topics: Vec<Str> = TOPICS.iter().map(|name| Str::from(*name)).collect();
                let random = &mut self.random;
                topics.retain(|_| random.chance(50));
                topics
            }
        }
    }

    fn leave(&mut self) {
        let Some(index) = self.any_client() else {
            return;
        };
        let client = self.clients.remove(index);
        match &client.classic {
            None => {
                let mut request = client.heartbeat(false);
                let for_a_while = client.instance.is_some() && self.random.chance(70);
                request.member_epoch = if for_a_while { -2 } else { -1 };
                self.send_heartbeat(&request);
            }
            Some(_) => {
                let request = LeaveGroupRequest {
                    group_id: group(),
                    members: vec![MemberIdentity {
                        member_id: client.id.clone(),
                        group_instance_id: client.instance.clone(),
                        ..MemberIdentity::default()
                    }],
                    ..LeaveGroupRequest::default()
                };
                let ticket = self.ticket();
                let effects = self.groups.leave(self.now_ms, ticket, 5, &request);
                self.carry_out(effects);
            }
        }
    }

    fn crash(&mut self) {
        if let Some(index) = self.any_client() {
            self.clients.remove(index);
        }
    }

    fn pause(&mut self) {
        if let Some(index) = self.any_client() {
            let pause_ms = self.random.between(100, 15_000);
            self.clients[index].paused_until_ms = self.now_ms + pause_ms;
        }
    }

    fn put_topic(&mut self, name: &'static str) {
        let known = self.topics.get(name).map(|topic| (topic.id, topic.partitions));
        let (id, partitions) = match known {
            Some((id, partitions)) => (id, partitions + 1),
            None => {
                self.next_topic += 1;
                (
                    Uuid::from_bytes([self.next_topic; 16]),
                    self.random.between(1, 7) as i32,
                )
            }
        };
        self.topics.put(TopicInfo {
            id,
            name: Str::from(name),
            partitions,
            is_internal: false,
        });
    }

    fn change_topics(&mut self) {
        let name = *self.random.pick(&TOPICS);
        match self.random.chance(25) && self.next_topic < 200 {
            true => self.topics.remove(name),
            false => self.put_topic(name),
        }
        self.show_topics();
    }

    fn show_topics(&mut self) {
        if self.mutant != Mutant::BlindToTopics {
            self.groups.see_topics(&Arc::new(self.topics.clone()));
        }
    }

    fn change_subscription(&mut self) {
        if let Some(index) = self.any_client()
            && self.clients[index].classic.is_none()
            && self.clients[index].pattern.is_none()
        {
            self.clients[index].topics = self.some_topics();
            self.clients[index].tells_all = true;
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += self.random.between(1, 2_000);
        self.tick();
    }

    fn tick(&mut self) {
        if self.mutant != Mutant::NoSessions {
            let effects = self.groups.tick(self.now_ms);
            self.carry_out(effects);
        }
    }

    fn restart(&mut self) {
        self.restarts += 1;
        let before = self.describe();
        self.groups = new_groups(&self.config, self.restarts);
        self.groups.load(self.now_ms, self.rows.clone()).unwrap();
        self.show_topics();
        assert_eq!(self.describe(), before, "what is loaded is what was decided");
        // Who waited hears nothing, and asks again.
        for (_, number) in std::mem::take(&mut self.waiting) {
            if let Some(client) = self.clients.iter_mut().find(|client| client.number == number) {
                client.classic = Some(Classic::Out);
            }
        }
    }

    fn bring_late_request(&mut self) {
        if !self.late.is_empty() {
            let index = self.random.between(0, self.late.len() as i64) as usize;
            let mut request = self.late.swap_remove(index);
            let sender = self.clients.iter().find(|client| client.id == request.member_id);
            if sender.is_none_or(|client| request.member_epoch >= client.previous_epoch) {
                // What the same epoch said of partitions before is believed, by Kafka's coordinator too.
                request.topic_partitions = None;
            }
            self.send_heartbeat(&request);
        }
    }

    // --- the coordinator ----------------------------------------------------------------------

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn sender() -> Sender {
        Sender {
            client_id: Str::from("client"),
            client_host: Str::from("/127.0.0.1"),
        }
    }

    fn forgets(&self, key: &[u8], is_removal: bool) -> bool {
        let holds = |part: &[u8]| key.windows(part.len()).any(|window| window == part);
        match self.mutant {
            Mutant::ForgetsCurrent => !is_removal && holds(b"/current/"),
            Mutant::ForgetsTarget => !is_removal && holds(b"/target/"),
            Mutant::ForgetsRemovals => is_removal && holds(b"/current/"),
            _ => false,
        }
    }

    /// Stores the facts, and brings the replies to those who wait for them.
    fn carry_out(&mut self, effects: Effects) {
        for change in effects.facts {
            if self.forgets(&change.key, change.value.is_none()) {
                continue;
            }
            match change.value {
                Some(value) => self.rows.insert(change.key, value),
                None => self.rows.remove(&change.key),
            };
        }
        self.groups.check_invariants();
        for (ticket, reply) in effects.replies {
            let Some(number) = self.waiting.remove(&ticket) else {
                continue;
            };
            if let Some(index) = self.clients.iter().position(|client| client.number == number) {
                match reply {
                    Reply::JoinGroup(response) => self.joined(index, &response),
                    Reply::SyncGroup(response) => self.synced(index, &response),
                    other => panic!("{other:?}"),
                }
            }
        }
        let types = self.groups.list(&[], &[]);
        let group_type = types
            .first()
            .map(|group| group.group_type.to_string())
            .unwrap_or_default();
        if group_type != self.group_type {
            self.changes_of_type += u64::from(!self.group_type.is_empty());
            self.group_type = group_type;
        }
    }

    fn send_heartbeat(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let mut request = request.clone();
        match self.mutant {
            Mutant::ClaimsRevoked if request.topic_partitions.is_some() => {
                request.topic_partitions = Some(Vec::new());
            }
            Mutant::BelievesEveryEpoch if request.member_epoch > 0 => {
                let described = self.describe();
                let member = described
                    .members
                    .iter()
                    .find(|member| member.member_id == request.member_id);
                if let Some(member) = member {
                    request.member_epoch = member.member_epoch;
                }
            }
            _ => {}
        }
        let ticket = self.ticket();
        let config = self.config.clone();
        let effects =
            self.groups
                .consumer_heartbeat(self.now_ms, ticket, 1, &Self::sender(), &config, &request);
        let own = |(answered, reply): &(Ticket, Reply)| match reply {
            Reply::ConsumerGroupHeartbeat(response) if *answered == ticket => Some(response.clone()),
            _ => None,
        };
        let response = effects.replies.iter().find_map(own).unwrap();
        self.carry_out(effects);
        response
    }

    fn describe(&self) -> DescribedGroup {
        self.groups
            .describe_consumer_group(&group(), &self.config, &self.topics)
    }

    // --- what members do ----------------------------------------------------------------------

    fn act(&mut self, index: usize, is_hostile: bool) {
        match self.clients[index].classic.clone() {
            None => self.act_new(index, is_hostile),
            Some(Classic::Out) => self.join(index),
            Some(Classic::Joined { given }) => self.sync(index, given),
            Some(Classic::In) => self.beat(index),
            Some(Classic::Joining | Classic::Syncing) => {}
        }
    }

    fn act_new(&mut self, index: usize, is_hostile: bool) {
        // Giving up takes its time: the application is called.
        if !is_hostile || self.random.chance(70) {
            self.clients[index].revoke();
        }
        let says_all = self.clients[index].tells_all || self.random.chance(20);
        let request = self.clients[index].heartbeat(says_all);
        let response = self.send_heartbeat(&request);
        if is_hostile && self.random.chance(8) {
            // The same again, by a client that tries on another connection.
            self.send_heartbeat(&request);
        }
        if is_hostile && self.random.chance(10) {
            let mut late = request;
            late.rebalance_timeout_ms = -1;
            late.subscribed_topic_names = None;
            late.subscribed_topic_regex = None;
            if late.member_epoch > 0 {
                self.late.push(late);
            }
        }
        if is_hostile && self.random.chance(12) {
            self.clients[index].tells_all = true;
            return;
        }
        self.hear(index, &response);
    }

    fn hear(&mut self, index: usize, response: &ConsumerGroupHeartbeatResponse) {
        let keeps = self.mutant == Mutant::KeepsAfterFence;
        let client = &mut self.clients[index];
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                client.tells_all = false;
                client.hear(response);
            }
            error @ (ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::GroupIdNotFound) => {
                assert!(client.epoch > 0, "who joins again is told {error:?}");
                let used = client.used.clone();
                client.abandon();
                if keeps {
                    client.used = used;
                }
                self.fenced += 1;
            }
            ErrorCode::FencedInstanceId => {
                client.abandon();
                client.is_dead = true;
                self.fenced += 1;
            }
            // Its place is taken, until the other one goes.
            ErrorCode::UnreleasedInstanceId => client.abandon(),
            other => panic!("{other:?}: {:?}", response.error_message),
        }
    }

    fn join(&mut self, index: usize) {
        let client = &mut self.clients[index];
        // Eager: everything is given up before.
        client.abandon();
        let request = JoinGroupRequest {
            group_id: group(),
            member_id: client.id.clone(),
            group_instance_id: client.instance.clone(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: Str::from("consumer"),
            protocols: vec![JoinGroupRequestProtocol {
                name: Str::from("range"),
                metadata: embedded::subscription(&client.topics),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        };
        client.classic = Some(Classic::Joining);
        let number = client.number;
        let ticket = self.ticket();
        self.waiting.insert(ticket, number);
        let config = self.config.clone();
        let effects = self
            .groups
            .join(self.now_ms, ticket, 5, &Self::sender(), &config, &request);
        self.carry_out(effects);
    }

    fn joined(&mut self, index: usize, response: &JoinGroupResponse) {
        let partitions: BTreeMap<Str, i32> = self
            .topics
            .iter()
            .map(|topic| (topic.name.clone(), topic.partitions))
            .collect();
        let client = &mut self.clients[index];
        client.classic = Some(Classic::Out);
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                client.id = response.member_id.clone();
                client.epoch = response.generation_id;
                let is_leader = response.leader == response.member_id;
                let members: Vec<(Str, Vec<Str>)> = response
                    .members
                    .iter()
                    .map(|member| (member.member_id.clone(), embedded::read_topics(&member.metadata)))
                    .collect();
                let given = match is_leader {
                    true => share_out(&members, &partitions),
                    false => BTreeMap::new(),
                };
                client.classic = Some(Classic::Joined { given });
            }
            ErrorCode::MemberIdRequired => client.id = response.member_id.clone(),
            ErrorCode::UnknownMemberId => client.id = Str::default(),
            ErrorCode::FencedInstanceId => client.is_dead = true,
            _ => {}
        }
    }

    fn sync(&mut self, index: usize, given: BTreeMap<Str, BTreeMap<Str, Vec<i32>>>) {
        let client = &mut self.clients[index];
        let assignments = given
            .into_iter()
            .map(|(member_id, partitions)| SyncGroupRequestAssignment {
                member_id,
                assignment: embedded::assignment(&partitions),
                ..SyncGroupRequestAssignment::default()
            });
        let request = SyncGroupRequest {
            group_id: group(),
            generation_id: client.epoch,
            member_id: client.id.clone(),
            group_instance_id: client.instance.clone(),
            protocol_type: Some(Str::from("consumer")),
            protocol_name: Some(Str::from("range")),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        };
        client.classic = Some(Classic::Syncing);
        let number = client.number;
        let ticket = self.ticket();
        self.waiting.insert(ticket, number);
        let effects = self.groups.sync(self.now_ms, ticket, &request);
        self.carry_out(effects);
    }

    fn synced(&mut self, index: usize, response: &SyncGroupResponse) {
        let named = match response.error_code {
            0 => embedded::read_assignment(&response.assignment),
            _ => Vec::new(),
        };
        let used = named
            .into_iter()
            .filter_map(|(topic, partition)| Some((self.topics.get(&topic)?.id, partition)))
            .collect();
        let client = &mut self.clients[index];
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                client.classic = Some(Classic::In);
                client.used = used;
            }
            error => self.out(index, error),
        }
    }

    fn beat(&mut self, index: usize) {
        let client = &self.clients[index];
        let request = HeartbeatRequest {
            group_id: group(),
            generation_id: client.epoch,
            member_id: client.id.clone(),
            group_instance_id: client.instance.clone(),
            ..HeartbeatRequest::default()
        };
        let ticket = self.ticket();
        let effects = self.groups.heartbeat(self.now_ms, ticket, &request);
        let error = effects.replies.iter().find_map(|(answered, reply)| match reply {
            Reply::Heartbeat(response) if *answered == ticket => {
                Some(ErrorCode::from_code(response.error_code))
            }
            _ => None,
        });
        self.carry_out(effects);
        match error.unwrap() {
            ErrorCode::None => {}
            error => self.out(index, error),
        }
    }

    fn out(&mut self, index: usize, error: ErrorCode) {
        let client = &mut self.clients[index];
        client.abandon();
        client.classic = Some(Classic::Out);
        match error {
            ErrorCode::UnknownMemberId => client.id = Str::default(),
            ErrorCode::FencedInstanceId => client.is_dead = true,
            _ => {}
        }
    }

    // --- what must hold -----------------------------------------------------------------------

    /// No partition is used by two members that the coordinator knows.
    fn check(&self) {
        let described = self.describe();
        if described.error_code != 0 {
            return;
        }
        let mut users: BTreeMap<(Uuid, i32), &Str> = BTreeMap::new();
        for client in &self.clients {
            let is_known = described
                .members
                .iter()
                .any(|member| member.member_id == client.id);
            for partition in client.used.iter().filter(|_| is_known) {
                let other = users.insert(*partition, &client.id);
                assert_eq!(other, None, "{} uses {partition:?} as well", client.id);
            }
        }
    }

    /// Nothing goes wrong any more: soon everybody has what they are to have.
    fn come_to_rest(&mut self) {
        for client in &mut self.clients {
            client.paused_until_ms = 0;
            // Classic members notice by themselves that topics have changed.
            if let Some(state) = &mut client.classic
                && *state == Classic::In
            {
                *state = Classic::Out;
            }
        }
        for _ in 0..ROUNDS_TO_REST {
            self.now_ms += 1_000;
            self.tick();
            for index in 0..self.clients.len() {
                if !self.clients[index].is_dead {
                    self.act(index, false);
                    self.check();
                }
            }
        }
        self.restart();
        let Some(listed) = self.groups.list(&[], &[]).into_iter().next() else {
            assert!(
                self.clients.iter().all(|client| client.is_dead),
                "members without a group"
            );
            return;
        };
        let unreleased = |client: &&Client| client.classic.is_none() && client.epoch == 0;
        let members: Vec<&Client> = self
            .clients
            .iter()
            .filter(|client| !client.is_dead && !unreleased(client))
            .collect();
        let wanted = if members.is_empty() { "Empty" } else { "Stable" };
        if listed.group_state != *wanted {
            panic!("{}: {:?}\n{:#?}", listed.group_state, members, self.describe());
        }
        let mut used = BTreeSet::new();
        for client in &members {
            for partition in &client.used {
                assert!(used.insert(*partition), "{partition:?} is used twice at rest");
            }
        }
        let all: BTreeSet<(Uuid, i32)> = self
            .topics
            .iter()
            .filter(|topic| members.iter().any(|client| subscribes(client, &topic.name)))
            .flat_map(|topic| (0..topic.partitions).map(|partition| (topic.id, partition)))
            .collect();
        assert_eq!(
            used,
            all,
            "every partition is used at rest: {members:#?}\n{:#?}",
            self.describe()
        );
    }
}

fn subscribes(client: &Client, topic: &Str) -> bool {
    let matches = |pattern: &Str| match &**pattern {
        "a.*" => topic.starts_with('a'),
        "b.|x" => topic.starts_with('b'),
        _ => true,
    };
    client.topics.contains(topic) || client.pattern.as_ref().is_some_and(matches)
}

/// What a classic leader gives to whom: each topic round-robin among those who subscribe to it.
fn share_out(
    members: &[(Str, Vec<Str>)],
    partitions: &BTreeMap<Str, i32>,
) -> BTreeMap<Str, BTreeMap<Str, Vec<i32>>> {
    let mut given: BTreeMap<Str, BTreeMap<Str, Vec<i32>>> = members
        .iter()
        .map(|(id, _)| (id.clone(), BTreeMap::new()))
        .collect();
    for (topic, count) in partitions {
        let subscribers: Vec<&Str> = members
            .iter()
            .filter(|(_, topics)| topics.contains(topic))
            .map(|(id, _)| id)
            .collect();
        for partition in 0..*count {
            if !subscribers.is_empty() {
                let member = subscribers[partition as usize % subscribers.len()];
                let topics = given.entry(member.clone()).or_default();
                topics.entry(topic.clone()).or_default().push(partition);
            }
        }
    }
    given
}
