//! The world around one group: its members, the topics, the network, the store, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_coordinator::{
    Client as Sender, Effects, GroupConfig, Groups, Reply, StreamsGroupConfig, Ticket, TopicImage, TopicInfo,
};
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::streams_group_describe_response::DescribedGroup;
use milena_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::client::{CHANGELOG, Client, GROUP, REPARTITION, SOURCE, Tasks};
use crate::mutant::Mutant;
use crate::random::Random;

const STEPS: usize = 250;
const SESSION_MS: i32 = 6_000;
const MAX_CLIENTS: usize = 6;
const PROCESSES: [&str; 3] = ["p1", "p2", "p3"];
/// In so many rounds of one second everybody must have what they are to have.
const ROUNDS_TO_REST: usize = 60;

pub(crate) struct World {
    random: Random,
    mutant: Mutant,
    groups: Groups,
    rows: BTreeMap<Bytes, Bytes>,
    topics: TopicImage,
    next_topic: u8,
    config: StreamsGroupConfig,
    now_ms: i64,
    tickets: u64,
    clients: Vec<Client>,
    next_client: u64,
    /// Requests that the network may bring again.
    late: Vec<StreamsGroupHeartbeatRequest>,
    /// Internal topics that are still being created.
    wanted: Vec<CreatableTopic>,
    pub(crate) fenced: u64,
    pub(crate) restarts: u64,
    pub(crate) created: u64,
}

fn settings(config: &StreamsGroupConfig) -> GroupConfig {
    GroupConfig {
        streams: config.clone(),
        ..GroupConfig::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let config = StreamsGroupConfig {
            session_timeout_ms: SESSION_MS,
            assignment_interval_ms: *random.pick(&[0, 0, 500, 3_000]),
            initial_rebalance_delay_ms: *random.pick(&[0, 0, 3_000]),
            standby_replicas: *random.pick(&[0, 1, 2]),
            ..StreamsGroupConfig::default()
        };
        let mut groups = Groups::new(settings(&config), || Uuid::ZERO);
        groups.load(0, []).unwrap();
        let mut world = Self {
            random,
            mutant,
            groups,
            rows: BTreeMap::new(),
            topics: TopicImage::default(),
            next_topic: 0,
            config,
            now_ms: 1_000,
            tickets: 0,
            clients: Vec::new(),
            next_client: 0,
            late: Vec::new(),
            wanted: Vec::new(),
            fenced: 0,
            restarts: 0,
            created: 0,
        };
        if world.random.chance(80) {
            let partitions = world.random.between(1, 7) as i32;
            world.put_topic(SOURCE, partitions);
        }
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
            14 => self.change_source(),
            15..=19 => self.create_wanted(),
            20 => self.config.standby_replicas = self.random.between(0, 3) as i32,
            21..=23 => self.restart(),
            24..=26 => self.bring_late_request(),
            27..=40 => self.pass_time(),
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
            .filter(|index| self.clients[*index].paused_until_ms <= now_ms)
            .collect();
        (!awake.is_empty()).then(|| *self.random.pick(&awake))
    }

    fn new_client(&mut self) {
        if self.clients.len() >= MAX_CLIENTS {
            return;
        }
        self.next_client += 1;
        let client = Client {
            id: Str::from(format!("m{}", self.next_client)),
            process: Str::from(*self.random.pick(&PROCESSES)),
            topology_epoch: if self.random.chance(85) { 1 } else { 0 },
            epoch: 0,
            active: Tasks::new(),
            standby: Tasks::new(),
            given_active: Tasks::new(),
            given_standby: Tasks::new(),
            paused_until_ms: 0,
            tells: true,
        };
        self.clients.push(client);
    }

    fn leave(&mut self) {
        if let Some(index) = self.any_client() {
            let client = self.clients.remove(index);
            let mut request = client.heartbeat();
            request.member_epoch = -1;
            request.topology = None;
            self.send(&request);
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

    fn put_topic(&mut self, name: &'static str, partitions: i32) {
        self.next_topic = self.next_topic.wrapping_add(1);
        let id = match self.topics.get(name) {
            Some(topic) => topic.id,
            None => Uuid::from_bytes([self.next_topic; 16]),
        };
        self.topics.put(TopicInfo {
            id,
            name: Str::from(name),
            partitions,
            is_internal: false,
        });
        self.show_topics();
    }

    fn remove_topic(&mut self, name: &str) {
        self.topics.remove(name);
        self.show_topics();
    }

    fn show_topics(&mut self) {
        if self.mutant != Mutant::BlindToTopics {
            self.groups.see_topics(&Arc::new(self.topics.clone()));
        }
    }

    /// The source comes, grows or goes; somebody deletes internal topics that do not fit any more.
    fn change_source(&mut self) {
        match self.topics.get(SOURCE).map(|topic| topic.partitions) {
            None => {
                let partitions = self.random.between(1, 7) as i32;
                self.put_topic(SOURCE, partitions);
            }
            Some(_) if self.random.chance(30) => self.remove_topic(SOURCE),
            Some(partitions) if partitions < 10 => self.put_topic(SOURCE, partitions + 1),
            Some(_) => {}
        }
        if self.random.chance(60) {
            self.remove_topic(REPARTITION);
            self.remove_topic(CHANGELOG);
        }
    }

    fn create_wanted(&mut self) {
        for topic in std::mem::take(&mut self.wanted) {
            let name = if *topic.name == *CHANGELOG {
                CHANGELOG
            } else {
                REPARTITION
            };
            if self.topics.get(name).is_none() {
                self.put_topic(name, topic.num_partitions);
                self.created += 1;
            }
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += self.random.between(1, 2_000);
        self.tick();
    }

    fn tick(&mut self) {
        if self.mutant != Mutant::NoSessions {
            let effects = self.groups.tick(self.now_ms);
            self.carry_out(&effects);
        }
    }

    fn restart(&mut self) {
        self.restarts += 1;
        let before = self.describe();
        self.groups = Groups::new(settings(&self.config), || Uuid::ZERO);
        self.groups.load(self.now_ms, self.rows.clone()).unwrap();
        self.show_topics();
        let mut after = self.describe();
        // What the topology means for the topics is found out with the next heartbeat.
        after.topology = before.topology.clone();
        assert_eq!(after, before, "what is loaded is what was decided");
    }

    fn bring_late_request(&mut self) {
        if !self.late.is_empty() {
            let index = self.random.between(0, self.late.len() as i64) as usize;
            let request = self.late.swap_remove(index);
            self.send(&request);
        }
    }

    // --- the coordinator ----------------------------------------------------------------------

    fn carry_out(&mut self, effects: &Effects) {
        for change in &effects.facts {
            let has = |part: &[u8]| change.key.windows(part.len()).any(|window| window == part);
            let is_forgotten = match self.mutant {
                Mutant::ForgetsCurrent => change.value.is_some() && has(b"/current/"),
                Mutant::ForgetsTarget => change.value.is_some() && has(b"/target/"),
                Mutant::ForgetsRemovals => change.value.is_none(),
                _ => false,
            };
            if is_forgotten {
                continue;
            }
            match &change.value {
                Some(value) => self.rows.insert(change.key.clone(), value.clone()),
                None => self.rows.remove(&change.key),
            };
        }
        self.groups.check_invariants();
    }

    fn send(&mut self, request: &StreamsGroupHeartbeatRequest) -> StreamsGroupHeartbeatResponse {
        self.tickets += 1;
        let sender = Sender {
            client_id: Str::from("c"),
            client_host: Str::from("/127.0.0.1"),
        };
        let ticket = Ticket(self.tickets);
        let config = self.config.clone();
        let effects = self
            .groups
            .streams_heartbeat(self.now_ms, ticket, &sender, &config, request);
        self.carry_out(&effects);
        match effects.replies.into_iter().next() {
            Some((_, Reply::StreamsGroupHeartbeat(response, missing))) => {
                self.wanted = missing;
                *response
            }
            other => panic!("{other:?}"),
        }
    }

    fn describe(&self) -> DescribedGroup {
        self.groups.describe_streams_group(&Str::from(GROUP))
    }

    /// A client does what it has to do next; `is_hostile`: the network may lose and repeat.
    fn act(&mut self, index: usize, is_hostile: bool) {
        if self.clients[index].epoch > 0 {
            self.clients[index].follow();
        }
        let mut request = self.clients[index].heartbeat();
        if self.mutant == Mutant::ClaimsRevoked && request.active_tasks.is_some() {
            request.active_tasks = Some(Vec::new());
        }
        if is_hostile && self.random.chance(8) {
            // Lost on the way there. What was told is told again.
            self.clients[index].tells = true;
            return;
        }
        let mut response = self.send(&request);
        let is_repeated = is_hostile && self.random.chance(8);
        if is_repeated {
            // It was lost on the way back, and the request was sent again.
            response = self.send(&request);
        }
        if is_hostile && request.member_epoch > 0 && self.random.chance(10) {
            // What the same epoch said of tasks before is believed, by Kafka's coordinator too.
            request.active_tasks = None;
            request.standby_tasks = None;
            request.warmup_tasks = None;
            self.late.push(request);
        }
        if is_hostile && self.random.chance(8) {
            // Lost on the way back.
            self.clients[index].tells = true;
            return;
        }
        let client = &mut self.clients[index];
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                client.tells = is_repeated;
                client.hear(&response);
            }
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                self.fenced += 1;
                if self.mutant == Mutant::KeepsAfterFence {
                    client.epoch = 0;
                } else {
                    client.abandon();
                }
            }
            // It has a task that is not there any more, which ends a thread; another one starts.
            ErrorCode::InvalidRequest if client.epoch > 0 => {
                self.fenced += 1;
                self.next_client += 1;
                client.abandon();
                client.id = Str::from(format!("m{}", self.next_client));
            }
            // Another topology than the group's.
            ErrorCode::InvalidRequest => assert_eq!(client.epoch, 0, "{response:?}"),
            error => panic!("{error:?}: {response:?}"),
        }
    }

    // --- what must hold -----------------------------------------------------------------------

    /// No task is active at two members that the coordinator knows, or there twice in one process.
    fn check(&self) {
        let described = self.describe();
        let known: BTreeSet<&Str> = described.members.iter().map(|member| &member.member_id).collect();
        let mut active: BTreeMap<&(Str, i32), &Str> = BTreeMap::new();
        let mut in_process: BTreeMap<(&Str, &(Str, i32)), &Str> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| known.contains(&client.id)) {
            for task in &client.active {
                let other = active.insert(task, &client.id);
                assert_eq!(other, None, "{} works on {task:?} as well", client.id);
            }
            for task in client.active.iter().chain(&client.standby) {
                let other = in_process.insert((&client.process, task), &client.id);
                assert_eq!(other, None, "{} has {task:?} in the same process", client.id);
            }
        }
    }

    /// Nothing goes wrong any more: soon everybody has what they are to have.
    fn come_to_rest(&mut self) {
        if self.topics.get(SOURCE).is_none() {
            self.put_topic(SOURCE, 3);
        }
        let partitions = self.topics.get(SOURCE).map_or(0, |topic| topic.partitions);
        for name in [REPARTITION, CHANGELOG] {
            if self
                .topics
                .get(name)
                .is_some_and(|topic| topic.partitions != partitions)
            {
                self.remove_topic(name);
            }
        }
        self.wanted.clear();
        for client in &mut self.clients {
            client.paused_until_ms = 0;
        }
        for _ in 0..ROUNDS_TO_REST {
            self.now_ms += 1_000;
            self.tick();
            for index in 0..self.clients.len() {
                self.act(index, false);
                self.check();
                self.create_wanted();
            }
        }
        self.restart();
        let members: Vec<&Client> = self.clients.iter().filter(|client| client.epoch > 0).collect();
        let described = self.describe();
        if members.is_empty() {
            assert!(described.members.is_empty(), "{described:#?}");
            return;
        }
        assert_eq!(&*described.group_state, "Stable", "{members:#?}\n{described:#?}");
        self.check_shares(&members, partitions);
    }

    fn check_shares(&self, members: &[&Client], partitions: i32) {
        let all: Tasks = ["0", "1"]
            .iter()
            .flat_map(|id| (0..partitions).map(|partition| (Str::from(*id), partition)))
            .collect();
        let active: Vec<&(Str, i32)> = members.iter().flat_map(|client| &client.active).collect();
        assert_eq!(active.len(), all.len(), "{members:#?}");
        let active: Tasks = active.into_iter().cloned().collect();
        assert_eq!(active, all, "every task is active at rest: {members:#?}");
        let processes: BTreeSet<&Str> = members.iter().map(|client| &client.process).collect();
        let replicas = (self.config.standby_replicas as usize).min(processes.len() - 1);
        let standbys = members.iter().map(|client| client.standby.len()).sum::<usize>();
        assert_eq!(
            standbys,
            replicas * partitions as usize,
            "standbys at rest: {members:#?}"
        );
    }
}
