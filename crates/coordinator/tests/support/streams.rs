//! A shard with streams groups that is driven as the broker drives it, and members as they see themselves.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use milena_coordinator::{
    Client, Effects, GroupConfig, Groups, Reply, StreamsGroupConfig, Ticket, TopicImage, TopicInfo,
};
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::streams_group_describe_response::DescribedGroup;
use milena_protocol::messages::streams_group_heartbeat_request::{
    Endpoint, KeyValue, Subtopology, TaskIds, TopicInfo as InternalTopic, Topology,
};
use milena_protocol::messages::{
    OffsetCommitRequest, StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse,
    streams_group_heartbeat_response,
};
use milena_protocol::{ErrorCode, Str, Uuid};

pub(crate) const GROUP: &str = "g";
pub(crate) const REBALANCE_MS: i32 = 60_000;

pub(crate) fn text(value: &str) -> Str {
    Str::from(value.to_owned())
}

pub(crate) fn client() -> Client {
    Client {
        client_id: text("c"),
        client_host: text("/127.0.0.1"),
    }
}

pub(crate) fn topology<const N: usize>(epoch: i32, subtopologies: [Subtopology; N]) -> Topology {
    Topology {
        epoch,
        subtopologies: subtopologies.into(),
        ..Topology::default()
    }
}

pub(crate) fn subtopology(id: &str, sources: &[&str], changelogs: &[&str]) -> Subtopology {
    Subtopology {
        subtopology_id: text(id),
        source_topics: sources.iter().map(|name| text(name)).collect(),
        state_changelog_topics: changelogs.iter().map(|name| internal(name, 0, &[])).collect(),
        ..Subtopology::default()
    }
}

pub(crate) fn internal(name: &str, partitions: i32, configs: &[(&str, &str)]) -> InternalTopic {
    let configs = configs.iter().map(|(key, value)| KeyValue {
        key: text(key),
        value: text(value),
        ..KeyValue::default()
    });
    InternalTopic {
        name: text(name),
        partitions,
        topic_configs: configs.collect(),
        ..InternalTopic::default()
    }
}

pub(crate) fn statuses(response: &StreamsGroupHeartbeatResponse) -> Vec<(i8, String)> {
    let statuses = response.status.iter().flatten();
    statuses
        .map(|status| (status.status_code, status.status_detail.to_string()))
        .collect()
}

type Tasks = BTreeMap<Str, Vec<i32>>;

fn ids(tasks: &Tasks) -> Vec<TaskIds> {
    let of_subtopology = |(subtopology, partitions): (&Str, &Vec<i32>)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.clone(),
        ..TaskIds::default()
    };
    tasks.iter().map(of_subtopology).collect()
}

fn heard(ids: Vec<streams_group_heartbeat_response::TaskIds>) -> Tasks {
    ids.into_iter()
        .map(|ids| (ids.subtopology_id, ids.partitions))
        .collect()
}

/// What a member knows of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub(crate) id: Str,
    pub(crate) process: Str,
    pub(crate) epoch: i32,
    pub(crate) active: Tasks,
    pub(crate) standby: Tasks,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) tags: Vec<KeyValue>,
}

impl Member {
    pub(crate) fn new(id: &str, process: &str) -> Self {
        Self {
            id: text(id),
            process: text(process),
            ..Self::default()
        }
    }

    pub(crate) fn active_of(&self, subtopology: &str) -> Vec<i32> {
        self.active.get(subtopology).cloned().unwrap_or_default()
    }

    pub(crate) fn standby_of(&self, subtopology: &str) -> Vec<i32> {
        self.standby.get(subtopology).cloned().unwrap_or_default()
    }

    /// A heartbeat that says nothing new.
    pub(crate) fn request(&self) -> StreamsGroupHeartbeatRequest {
        StreamsGroupHeartbeatRequest {
            group_id: text(GROUP),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            ..StreamsGroupHeartbeatRequest::default()
        }
    }

    /// It says what it has.
    pub(crate) fn own(&self, request: &mut StreamsGroupHeartbeatRequest) {
        request.active_tasks = Some(ids(&self.active));
        request.standby_tasks = Some(ids(&self.standby));
        request.warmup_tasks = Some(Vec::new());
    }

    fn hear(&mut self, response: &StreamsGroupHeartbeatResponse) {
        if response.error_code != 0 {
            return;
        }
        self.epoch = response.member_epoch;
        if let Some(active) = &response.active_tasks {
            self.active = heard(active.clone());
        }
        if let Some(standby) = &response.standby_tasks {
            self.standby = heard(standby.clone());
        }
    }
}

pub(crate) struct Bench {
    pub(crate) groups: Groups,
    pub(crate) rows: BTreeMap<Bytes, Bytes>,
    topics: TopicImage,
    next_topic: u8,
    pub(crate) topology: Topology,
    pub(crate) config: StreamsGroupConfig,
    now_ms: i64,
    tickets: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut groups = Groups::new(GroupConfig::default(), || Uuid::ZERO);
        groups.load(0, []).unwrap();
        Self {
            groups,
            rows: BTreeMap::new(),
            topics: TopicImage::default(),
            next_topic: 0,
            topology: Topology::default(),
            config: StreamsGroupConfig {
                assignment_interval_ms: 0,
                initial_rebalance_delay_ms: 0,
                ..StreamsGroupConfig::default()
            },
            now_ms: 1_000,
            tickets: 0,
        }
    }

    pub(crate) fn topic(&mut self, name: &str, partitions: i32) {
        self.next_topic += 1;
        self.topics.put(TopicInfo {
            id: Uuid::from_bytes([self.next_topic; 16]),
            name: text(name),
            partitions,
            is_internal: false,
        });
    }

    pub(crate) fn remove_topic(&mut self, name: &str) {
        self.topics.remove(name);
    }

    fn store(&mut self, effects: &Effects) {
        for change in &effects.facts {
            match &change.value {
                Some(value) => self.rows.insert(change.key.clone(), value.clone()),
                None => self.rows.remove(&change.key),
            };
        }
        self.groups.check_invariants();
    }

    pub(crate) fn restart(&mut self) {
        self.groups = Groups::new(GroupConfig::default(), || Uuid::ZERO);
        self.groups.load(self.now_ms, self.rows.clone()).unwrap();
        self.groups.check_invariants();
    }

    /// Asks and gives the one reply.
    pub(crate) fn reply(&mut self, ask: impl FnOnce(&mut Groups, i64, Ticket) -> Effects) -> Reply {
        self.tickets += 1;
        self.groups.see_topics(&Arc::new(self.topics.clone()));
        let effects = ask(&mut self.groups, self.now_ms, Ticket(self.tickets));
        self.store(&effects);
        let mut replies = effects.replies.into_iter().map(|(_, reply)| reply);
        replies.next().unwrap_or(Reply::DeleteGroup(ErrorCode::None))
    }

    pub(crate) fn ask(
        &mut self,
        request: &StreamsGroupHeartbeatRequest,
    ) -> (StreamsGroupHeartbeatResponse, Vec<CreatableTopic>) {
        let config = self.config.clone();
        let reply = self.reply(|groups, now_ms, ticket| {
            groups.streams_heartbeat(now_ms, ticket, &client(), &config, request)
        });
        match reply {
            Reply::StreamsGroupHeartbeat(response, missing) => (*response, missing),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn join_request(&self, member: &Member) -> StreamsGroupHeartbeatRequest {
        StreamsGroupHeartbeatRequest {
            member_epoch: 0,
            endpoint_information_epoch: -1,
            rebalance_timeout_ms: REBALANCE_MS,
            topology: Some(self.topology.clone()),
            active_tasks: Some(Vec::new()),
            standby_tasks: Some(Vec::new()),
            warmup_tasks: Some(Vec::new()),
            process_id: Some(member.process.clone()),
            user_endpoint: member.endpoint.clone(),
            client_tags: Some(member.tags.clone()),
            ..member.request()
        }
    }

    pub(crate) fn join_and_see(
        &mut self,
        member: &mut Member,
    ) -> (StreamsGroupHeartbeatResponse, Vec<CreatableTopic>) {
        let request = self.join_request(member);
        let answer = self.ask(&request);
        member.hear(&answer.0);
        answer
    }

    pub(crate) fn join(&mut self, member: &mut Member) -> StreamsGroupHeartbeatResponse {
        self.join_and_see(member).0
    }

    /// A heartbeat that says nothing.
    pub(crate) fn beat(&mut self, member: &mut Member) -> StreamsGroupHeartbeatResponse {
        let response = self.ask(&member.request()).0;
        member.hear(&response);
        response
    }

    /// A heartbeat that tells what the member has.
    pub(crate) fn tell(&mut self, member: &mut Member) -> StreamsGroupHeartbeatResponse {
        let mut request = member.request();
        member.own(&mut request);
        let response = self.ask(&request).0;
        member.hear(&response);
        response
    }

    /// Everybody says what they have until nothing moves any more.
    pub(crate) fn settle(&mut self, members: &mut [&mut Member]) {
        for _ in 0..10 {
            for member in members.iter_mut() {
                self.tell(member);
            }
        }
    }

    pub(crate) fn leave(&mut self, member: &Member) -> StreamsGroupHeartbeatResponse {
        let request = StreamsGroupHeartbeatRequest {
            member_epoch: -1,
            ..member.request()
        };
        self.ask(&request).0
    }

    pub(crate) fn pass(&mut self, ms: i32) {
        self.now_ms += i64::from(ms);
        let effects = self.groups.tick(self.now_ms);
        self.store(&effects);
    }

    /// Time passes while members say that they are there, and nothing else.
    pub(crate) fn pass_beating(&mut self, ms: i32, members: &mut [&mut Member]) {
        let step = self.config.session_timeout_ms / 2;
        let mut left = ms;
        while left > 0 {
            self.pass(left.min(step));
            left -= step;
            for member in members.iter_mut() {
                self.beat(member);
            }
        }
    }

    pub(crate) fn describe(&self) -> DescribedGroup {
        self.groups.describe_streams_group(&text(GROUP))
    }

    pub(crate) fn state(&self) -> String {
        self.describe().group_state.to_string()
    }

    pub(crate) fn has_member(&self, id: &str) -> bool {
        self.describe()
            .members
            .iter()
            .any(|member| *member.member_id == *id)
    }

    pub(crate) fn commit(&mut self, version: i16, request: &OffsetCommitRequest) -> ErrorCode {
        let reply =
            self.reply(|groups, now_ms, ticket| groups.commit_offsets(now_ms, ticket, version, request));
        match reply {
            Reply::OffsetCommit(response) => {
                ErrorCode::from_code(response.topics[0].partitions[0].error_code)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete(&mut self) -> ErrorCode {
        match self.reply(|groups, _, ticket| groups.delete_group(ticket, &text(GROUP))) {
            Reply::DeleteGroup(error) => error,
            other => panic!("{other:?}"),
        }
    }
}
