//! The world around one share group: its members, the topics, the states, the network, the store, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_coordinator::{
    Client as Sender, Effects, GroupConfig, Groups, Reply, ShareGroupConfig, Ticket, TopicImage, TopicInfo,
};
use milena_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use milena_protocol::messages::share_group_describe_response::DescribedGroup;
use milena_protocol::messages::{
    DeleteShareGroupOffsetsRequest, InitializeShareGroupStateRequest, ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::mutant::Mutant;
use crate::random::Random;

const GROUP: &str = "g";
const STEPS: usize = 250;
const SESSION_MS: i32 = 6_000;
const MAX_CLIENTS: usize = 6;
const TOPICS: [&str; 3] = ["a", "b", "c"];
/// In so many rounds of one second everybody must have what they are to have.
const ROUNDS_TO_REST: usize = 60;

type Partitions = BTreeSet<(Uuid, i32)>;

/// A member as it sees itself.
#[derive(Debug, Clone)]
struct Client {
    id: Str,
    epoch: i32,
    topics: Vec<Str>,
    assigned: Partitions,
    paused_until_ms: i64,
    /// It has something to tell with its next heartbeat.
    tells_all: bool,
}

pub(crate) struct World {
    random: Random,
    mutant: Mutant,
    groups: Groups,
    rows: BTreeMap<Bytes, Bytes>,
    topics: TopicImage,
    next_topic: u8,
    config: ShareGroupConfig,
    now_ms: i64,
    tickets: u64,
    clients: Vec<Client>,
    next_client: u64,
    /// Initializations that the broker has still to carry out.
    asked: Vec<InitializeShareGroupStateRequest>,
    /// States that there are.
    states: Partitions,
    /// Requests that the network may bring again.
    late: Vec<ShareGroupHeartbeatRequest>,
    epoch: i32,
    pub(crate) fenced: u64,
    pub(crate) restarts: u64,
    pub(crate) initialized: u64,
    pub(crate) deleted: u64,
}

fn group() -> Str {
    Str::from(GROUP)
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let config = ShareGroupConfig {
            session_timeout_ms: SESSION_MS,
            assignment_interval_ms: *random.pick(&[0, 0, 500, 3_000]),
            initialize_retry_interval_ms: *random.pick(&[1_000, 5_000]),
            ..ShareGroupConfig::default()
        };
        let mut world = Self {
            random,
            mutant,
            groups: new_groups(&config),
            rows: BTreeMap::new(),
            topics: TopicImage::default(),
            next_topic: 0,
            config,
            now_ms: 1_000_000,
            tickets: 0,
            clients: Vec::new(),
            next_client: 0,
            asked: Vec::new(),
            states: Partitions::new(),
            late: Vec::new(),
            epoch: 0,
            fenced: 0,
            restarts: 0,
            initialized: 0,
            deleted: 0,
        };
        world.groups.load(0, []).unwrap();
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
            6..=9 => self.leave(),
            10..=11 => self.crash(),
            12..=14 => self.pause(),
            15..=17 => self.change_topics(),
            18..=20 => self.change_subscription(),
            21..=23 => self.restart(),
            24..=27 => self.bring_late_request(),
            28..=29 => self.delete_offsets(),
            30..=37 => self.initialize(true),
            38..=50 => {
                self.now_ms += self.random.between(1, 2_000);
                self.tick();
            }
            _ => {
                if let Some(index) = self.any_client() {
                    self.beat(index, true);
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
            epoch: 0,
            topics: self.some_topics(),
            assigned: Partitions::new(),
            paused_until_ms: 0,
            tells_all: true,
        };
        self.clients.push(client);
    }

    fn some_topics(&mut self) -> Vec<Str> {
        let mut topics: Vec<Str> = TOPICS.iter().map(|name| Str::from(*name)).collect();
        let random = &mut self.random;
        topics.retain(|_| random.chance(50));
        match topics.is_empty() {
            true => vec![Str::from(TOPICS[0])],
            false => topics,
        }
    }

    fn leave(&mut self) {
        if let Some(index) = self.any_client() {
            let client = self.clients.remove(index);
            let request = ShareGroupHeartbeatRequest {
                member_epoch: -1,
                ..heartbeat(&client, false)
            };
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
            self.clients[index].paused_until_ms = self.now_ms + self.random.between(100, 15_000);
        }
    }

    fn put_topic(&mut self, name: &'static str) {
        let known = self.topics.get(name).map(|topic| (topic.id, topic.partitions));
        let (id, partitions) = match known {
            Some((id, partitions)) => (id, partitions + 1),
            None => {
                self.next_topic += 1;
                let id = Uuid::from_bytes([self.next_topic; 16]);
                (id, self.random.between(1, 6) as i32)
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
        if self.random.chance(30) && self.next_topic < 200 {
            self.topics.remove(name);
            self.show_topics();
            // The broker may crash before it tells.
            if self.random.chance(80) {
                let effects = self.groups.topic_deleted(self.now_ms, &[Str::from(name)]);
                self.store(&effects);
            }
        } else {
            self.put_topic(name);
            self.show_topics();
        }
    }

    fn show_topics(&mut self) {
        if self.mutant != Mutant::BlindToTopics {
            self.groups.see_topics(&Arc::new(self.topics.clone()));
        }
    }

    fn change_subscription(&mut self) {
        if let Some(index) = self.any_client() {
            self.clients[index].topics = self.some_topics();
            self.clients[index].tells_all = true;
        }
    }

    fn tick(&mut self) {
        if self.mutant != Mutant::NoSessions {
            let effects = self.groups.tick(self.now_ms);
            self.store(&effects);
        }
    }

    fn restart(&mut self) {
        self.restarts += 1;
        let before = (
            self.describe(),
            self.groups.initialized_share_partitions(&group()),
        );
        self.groups = new_groups(&self.config);
        self.groups.load(self.now_ms, self.rows.clone()).unwrap();
        self.show_topics();
        let after = (
            self.describe(),
            self.groups.initialized_share_partitions(&group()),
        );
        assert_eq!(after, before, "what is loaded is what was decided");
        // What was under way is lost with the broker.
        if self.random.chance(50) {
            self.asked.clear();
        }
    }

    fn bring_late_request(&mut self) {
        if !self.late.is_empty() {
            let index = self.random.between(0, self.late.len() as i64) as usize;
            let request = self.late.swap_remove(index);
            self.send(&request);
        }
    }

    /// The offsets of an empty group, whose states are removed then or not.
    fn delete_offsets(&mut self) {
        let request = DeleteShareGroupOffsetsRequest {
            group_id: group(),
            topics: vec![DeleteShareGroupOffsetsRequestTopic {
                topic_name: Str::from(*self.random.pick(&TOPICS)),
                ..DeleteShareGroupOffsetsRequestTopic::default()
            }],
            ..DeleteShareGroupOffsetsRequest::default()
        };
        let ticket = self.ticket();
        let mut effects = self.groups.delete_share_offsets(self.now_ms, ticket, &request);
        self.store(&effects);
        let Some((_, Reply::DeleteShareGroupOffsets(_, Some(states)))) = effects.replies.pop() else {
            return;
        };
        if self.random.chance(70) {
            self.deleted += 1;
            let topics: Vec<Uuid> = states.topics.iter().map(|topic| topic.topic_id).collect();
            self.states.retain(|(topic, _)| !topics.contains(topic));
            let effects = self.groups.share_states_deleted(self.now_ms, &group(), &topics);
            self.store(&effects);
        }
    }

    /// The broker initializes what was asked for first, or fails, or crashes before it can tell.
    fn initialize(&mut self, is_hostile: bool) {
        if self.asked.is_empty() {
            return;
        }
        let request = self.asked.remove(0);
        let fails = is_hostile && self.random.chance(20);
        let mut partitions: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        for topic in &request.topics {
            let of_topic = partitions.entry(topic.topic_id).or_default();
            of_topic.extend(topic.partitions.iter().map(|state| state.partition));
        }
        if !fails {
            let made = partitions
                .iter()
                .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)));
            self.states.extend(made);
        }
        let is_silent = is_hostile && self.random.chance(15);
        if is_silent || self.mutant == Mutant::LosesInitialization {
            return;
        }
        self.initialized += 1;
        let effects = match fails && self.mutant != Mutant::BelievesInitialization {
            true => self
                .groups
                .share_states_not_initialized(self.now_ms, &group(), &partitions),
            false => self
                .groups
                .share_states_initialized(self.now_ms, &group(), &partitions),
        };
        self.store(&effects);
    }

    // --- the coordinator ----------------------------------------------------------------------

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn forgets(&self, key: &[u8], is_removal: bool) -> bool {
        let holds = |part: &[u8]| key.windows(part.len()).any(|window| window == part);
        match self.mutant {
            Mutant::ForgetsStates => !is_removal && holds(b"/states"),
            Mutant::ForgetsCurrent => !is_removal && holds(b"/current/"),
            Mutant::ForgetsRemovals => is_removal && holds(b"/member/"),
            _ => false,
        }
    }

    fn store(&mut self, effects: &Effects) {
        for change in &effects.facts {
            if self.forgets(&change.key, change.value.is_none()) {
                continue;
            }
            match &change.value {
                Some(value) => self.rows.insert(change.key.clone(), value.clone()),
                None => self.rows.remove(&change.key),
            };
        }
        self.groups.check_invariants();
    }

    fn send(&mut self, request: &ShareGroupHeartbeatRequest) -> ShareGroupHeartbeatResponse {
        let mut request = request.clone();
        if self.mutant == Mutant::BelievesEveryEpoch && request.member_epoch > 0 {
            let described = self.describe();
            let mut members = described.members.iter();
            if let Some(member) = members.find(|member| member.member_id == request.member_id) {
                request.member_epoch = member.member_epoch;
            }
        }
        let sender = Sender {
            client_id: Str::from("client"),
            client_host: Str::from("/127.0.0.1"),
        };
        let (ticket, config) = (self.ticket(), self.config.clone());
        let mut effects = self
            .groups
            .share_heartbeat(self.now_ms, ticket, &sender, &config, &request);
        self.store(&effects);
        match effects.replies.pop() {
            Some((answered, Reply::ShareGroupHeartbeat(response, initialize))) if answered == ticket => {
                self.asked.extend(initialize.map(|request| *request));
                response
            }
            other => panic!("{other:?}"),
        }
    }

    fn describe(&self) -> DescribedGroup {
        self.groups.describe_share_group(&group(), &self.topics)
    }

    // --- what members do ----------------------------------------------------------------------

    fn beat(&mut self, index: usize, is_hostile: bool) {
        let says_all = self.clients[index].tells_all || self.random.chance(20);
        let request = heartbeat(&self.clients[index], says_all);
        let response = self.send(&request);
        if is_hostile && self.random.chance(8) {
            // The same again, by a client that tries on another connection.
            self.send(&request);
        }
        if is_hostile && request.member_epoch > 0 && self.random.chance(10) {
            self.late.push(ShareGroupHeartbeatRequest {
                subscribed_topic_names: None,
                ..request
            });
        }
        if is_hostile && self.random.chance(12) {
            // The reply is lost.
            self.clients[index].tells_all = true;
            return;
        }
        let client = &mut self.clients[index];
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => hear(client, &response),
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                client.assigned.clear();
                client.epoch = 0;
                client.tells_all = true;
                self.fenced += 1;
            }
            other => panic!("{other:?}: {:?}", response.error_message),
        }
    }

    // --- what must hold -----------------------------------------------------------------------

    fn check(&mut self) {
        let described = self.describe();
        if described.error_code != 0 {
            return;
        }
        assert!(described.group_epoch >= self.epoch, "the group epoch goes back");
        self.epoch = described.group_epoch;
        for member in &described.members {
            for topic in &member.assignment.topic_partitions {
                let is_subscribed = member.subscribed_topic_names.contains(&topic.topic_name);
                // A member is told with its next heartbeat what it does not subscribe to any more.
                assert!(is_subscribed, "{} has what it does not read", member.member_id);
                for partition in &topic.partitions {
                    let has_state = self.states.contains(&(topic.topic_id, *partition));
                    assert!(has_state, "{partition} of {} has no state", topic.topic_name);
                }
            }
        }
        // A member that says an epoch that never was is not believed.
        if let Some(client) = self.clients.iter().find(|client| client.epoch > 0) {
            let (id, epoch) = (client.id.clone(), described.group_epoch + 1);
            let response = self.send(&ShareGroupHeartbeatRequest {
                group_id: group(),
                member_id: id,
                member_epoch: epoch,
                ..ShareGroupHeartbeatRequest::default()
            });
            assert_ne!(response.error_code, 0, "an epoch from the future is believed");
        }
    }

    /// Nothing goes wrong any more: soon everybody has what they are to have.
    fn come_to_rest(&mut self) {
        for client in &mut self.clients {
            client.paused_until_ms = 0;
        }
        for _ in 0..ROUNDS_TO_REST {
            self.now_ms += 1_000;
            self.tick();
            for index in 0..self.clients.len() {
                self.beat(index, false);
            }
            while !self.asked.is_empty() {
                self.initialize(false);
            }
            self.check();
        }
        self.restart();
        let described = self.describe();
        if described.error_code != 0 {
            assert!(self.clients.is_empty(), "members without a group");
            return;
        }
        let known: BTreeSet<&Str> = described.members.iter().map(|member| &member.member_id).collect();
        let there: BTreeSet<&Str> = self.clients.iter().map(|client| &client.id).collect();
        assert_eq!(known, there, "who is in the group");
        let mut read = Partitions::new();
        for client in &self.clients {
            assert_eq!(
                client.epoch, described.group_epoch,
                "{} has not come along",
                client.id
            );
            read.extend(&client.assigned);
        }
        let all: Partitions = self
            .topics
            .iter()
            .filter(|topic| {
                self.clients
                    .iter()
                    .any(|client| client.topics.contains(&topic.name))
            })
            .flat_map(|topic| (0..topic.partitions).map(|partition| (topic.id, partition)))
            .collect();
        assert_eq!(read, all, "every partition is read at rest: {described:#?}");
    }
}

fn new_groups(config: &ShareGroupConfig) -> Groups {
    let config = GroupConfig {
        share: config.clone(),
        ..GroupConfig::default()
    };
    Groups::new(config, || Uuid::ZERO)
}

fn heartbeat(client: &Client, says_all: bool) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: group(),
        member_id: client.id.clone(),
        member_epoch: client.epoch,
        subscribed_topic_names: (client.epoch == 0 || says_all).then(|| client.topics.clone()),
        ..ShareGroupHeartbeatRequest::default()
    }
}

fn hear(client: &mut Client, response: &ShareGroupHeartbeatResponse) {
    client.tells_all = false;
    if client.epoch > 0 && client.epoch != response.member_epoch {
        assert!(response.member_epoch > client.epoch, "a member's epoch goes back");
    }
    client.epoch = response.member_epoch;
    if let Some(assignment) = &response.assignment {
        let topics = assignment.topic_partitions.iter();
        client.assigned = topics
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|partition| (topic.topic_id, *partition))
            })
            .collect();
    }
}
