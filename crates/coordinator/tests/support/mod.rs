//! A shard of groups with a held clock and a store of facts, as the broker would drive it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use milena_coordinator::{Client, ConsumerGroupConfig, Effects, GroupConfig, Groups, Reply, Ticket};
use milena_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use milena_protocol::messages::leave_group_request::MemberIdentity;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use milena_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use milena_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use milena_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, SyncGroupRequest, SyncGroupResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

pub(crate) const SESSION_MS: i32 = 10_000;
pub(crate) const REBALANCE_MS: i32 = 30_000;
pub(crate) const DELAY_MS: i64 = 3_000;

pub(crate) fn text(value: &str) -> Str {
    Str::from(value.to_owned())
}

/// The metadata of a consumer that subscribes to these topics.
pub(crate) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1_i32).to_be_bytes());
    bytes.into()
}

/// Member ids that are the same in every run.
pub(crate) fn counting_suffix() -> impl FnMut() -> Uuid + Send {
    let mut next = 0_u128;
    move || {
        next += 1;
        Uuid::from_bytes(next.to_be_bytes())
    }
}

/// A client that would join, with what its JoinGroup says.
#[derive(Debug, Clone)]
pub(crate) struct Joiner {
    pub(crate) group: Str,
    pub(crate) version: i16,
    pub(crate) member_id: Str,
    pub(crate) instance_id: Option<Str>,
    pub(crate) protocol_type: Str,
    pub(crate) protocols: Vec<(Str, Bytes)>,
    pub(crate) session_ms: i32,
    pub(crate) rebalance_ms: i32,
}

impl Joiner {
    pub(crate) fn new(group: &str) -> Self {
        Self {
            group: text(group),
            version: 9,
            member_id: Str::default(),
            instance_id: None,
            protocol_type: text("consumer"),
            protocols: vec![(text("range"), subscription(&["t"]))],
            session_ms: SESSION_MS,
            rebalance_ms: REBALANCE_MS,
        }
    }

    pub(crate) fn version(mut self, version: i16) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn instance(mut self, instance: &str) -> Self {
        self.instance_id = Some(text(instance));
        self
    }

    pub(crate) fn protocols(mut self, protocols: &[(&str, &[u8])]) -> Self {
        self.protocols = protocols
            .iter()
            .map(|(name, metadata)| (text(name), Bytes::copy_from_slice(metadata)))
            .collect();
        self
    }

    pub(crate) fn member(mut self, id: &Str) -> Self {
        self.member_id = id.clone();
        self
    }

    fn request(&self) -> JoinGroupRequest {
        let protocols = self
            .protocols
            .iter()
            .map(|(name, metadata)| JoinGroupRequestProtocol {
                name: name.clone(),
                metadata: metadata.clone(),
                ..JoinGroupRequestProtocol::default()
            });
        JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: self.session_ms,
            rebalance_timeout_ms: self.rebalance_ms,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: self.protocol_type.clone(),
            protocols: protocols.collect(),
            ..JoinGroupRequest::default()
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) groups: Groups,
    pub(crate) config: GroupConfig,
    pub(crate) now_ms: i64,
    pub(crate) facts: BTreeMap<Bytes, Bytes>,
    pub(crate) waiting: BTreeSet<Ticket>,
    answered: HashMap<Ticket, Reply>,
    next_ticket: u64,
}

impl Shard {
    pub(crate) fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    pub(crate) fn with(config: GroupConfig) -> Self {
        let mut groups = Groups::new(config.clone(), counting_suffix());
        groups.load(1_000_000, []).unwrap();
        Self {
            groups,
            config,
            now_ms: 1_000_000,
            facts: BTreeMap::new(),
            waiting: BTreeSet::new(),
            answered: HashMap::new(),
            next_ticket: 0,
        }
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket);
        ticket
    }

    pub(crate) fn apply(&mut self, effects: Effects) {
        for change in effects.facts {
            match change.value {
                Some(value) => self.facts.insert(change.key, value),
                None => self.facts.remove(&change.key),
            };
        }
        for (ticket, reply) in effects.replies {
            assert!(self.waiting.remove(&ticket), "{ticket:?} was answered twice");
            self.answered.insert(ticket, reply);
        }
        self.groups.check_invariants();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn advance(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(deadline) = self.groups.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            let effects = self.groups.tick(self.now_ms);
            self.apply(effects);
        }
        self.now_ms = end;
    }

    /// The broker stops and another starts on what it stored.
    pub(crate) fn restart(&mut self) {
        let effects = self.groups.unload();
        assert!(effects.facts.is_empty());
        self.apply(effects);
        assert!(self.waiting.is_empty(), "unloading answers everybody");
        self.groups = Groups::new(self.config.clone(), counting_suffix());
        let rows: Vec<(Bytes, Bytes)> = self
            .facts
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.groups.load(self.now_ms, rows).unwrap();
        self.groups.check_invariants();
    }

    pub(crate) fn reply(&mut self, ticket: Ticket) -> Option<Reply> {
        self.answered.remove(&ticket)
    }

    // --- requests -----------------------------------------------------------------------------

    pub(crate) fn join(&mut self, joiner: &Joiner) -> Ticket {
        let ticket = self.ticket();
        let client = Client {
            client_id: text("client"),
            client_host: text("/127.0.0.1"),
        };
        let effects = self.groups.join(
            self.now_ms,
            ticket,
            joiner.version,
            &client,
            &ConsumerGroupConfig::default(),
            &joiner.request(),
        );
        self.apply(effects);
        ticket
    }

    pub(crate) fn joined(&mut self, ticket: Ticket) -> Option<JoinGroupResponse> {
        match self.reply(ticket) {
            Some(Reply::JoinGroup(response)) => Some(response),
            None => None,
            other => panic!("not a JoinGroup reply: {other:?}"),
        }
    }

    /// Joins and expects an answer at once.
    pub(crate) fn join_now(&mut self, joiner: &Joiner) -> JoinGroupResponse {
        let ticket = self.join(joiner);
        self.joined(ticket).expect("JoinGroup was not answered at once")
    }

    /// The first step of KIP-394: the client is given its id.
    pub(crate) fn id_for(&mut self, joiner: &Joiner) -> Joiner {
        let response = self.join_now(joiner);
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired.code());
        joiner.clone().member(&response.member_id)
    }

    pub(crate) fn sync(
        &mut self,
        group: &str,
        member: &Str,
        generation: i32,
        assignments: &[(&Str, &str)],
    ) -> Ticket {
        self.sync_as(group, member, None, generation, assignments)
    }

    pub(crate) fn sync_as(
        &mut self,
        group: &str,
        member: &Str,
        instance: Option<&str>,
        generation: i32,
        assignments: &[(&Str, &str)],
    ) -> Ticket {
        let ticket = self.ticket();
        let assignments = assignments
            .iter()
            .map(|(member, assignment)| SyncGroupRequestAssignment {
                member_id: (*member).clone(),
                assignment: Bytes::copy_from_slice(assignment.as_bytes()),
                ..SyncGroupRequestAssignment::default()
            });
        let request = SyncGroupRequest {
            group_id: text(group),
            generation_id: generation,
            member_id: member.clone(),
            group_instance_id: instance.map(text),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        };
        let effects = self.groups.sync(self.now_ms, ticket, &request);
        self.apply(effects);
        ticket
    }

    pub(crate) fn synced(&mut self, ticket: Ticket) -> Option<SyncGroupResponse> {
        match self.reply(ticket) {
            Some(Reply::SyncGroup(response)) => Some(response),
            None => None,
            other => panic!("not a SyncGroup reply: {other:?}"),
        }
    }

    pub(crate) fn heartbeat(&mut self, group: &str, member: &Str, generation: i32) -> ErrorCode {
        self.heartbeat_as(group, member, None, generation)
    }

    pub(crate) fn heartbeat_as(
        &mut self,
        group: &str,
        member: &Str,
        instance: Option<&str>,
        generation: i32,
    ) -> ErrorCode {
        let ticket = self.ticket();
        let request = HeartbeatRequest {
            group_id: text(group),
            generation_id: generation,
            member_id: member.clone(),
            group_instance_id: instance.map(text),
            ..HeartbeatRequest::default()
        };
        let effects = self.groups.heartbeat(self.now_ms, ticket, &request);
        self.apply(effects);
        match self.reply(ticket) {
            Some(Reply::Heartbeat(response)) => ErrorCode::from_code(response.error_code),
            other => panic!("not a Heartbeat reply: {other:?}"),
        }
    }

    pub(crate) fn leave(
        &mut self,
        group: &str,
        version: i16,
        members: &[(&str, Option<&str>)],
    ) -> LeaveGroupResponse {
        let ticket = self.ticket();
        let identities = members.iter().map(|(member, instance)| MemberIdentity {
            member_id: text(member),
            group_instance_id: instance.map(text),
            ..MemberIdentity::default()
        });
        let mut request = LeaveGroupRequest {
            group_id: text(group),
            ..LeaveGroupRequest::default()
        };
        if version < 3 {
            request.member_id = text(members[0].0);
        } else {
            request.members = identities.collect();
        }
        let effects = self.groups.leave(self.now_ms, ticket, version, &request);
        self.apply(effects);
        match self.reply(ticket) {
            Some(Reply::LeaveGroup(response)) => response,
            other => panic!("not a LeaveGroup reply: {other:?}"),
        }
    }

    pub(crate) fn commit_request(
        &mut self,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Vec<(Str, i32, ErrorCode)> {
        let ticket = self.ticket();
        let effects = self.groups.commit_offsets(self.now_ms, ticket, version, request);
        self.apply(effects);
        let Some(Reply::OffsetCommit(response)) = self.reply(ticket) else {
            panic!("no OffsetCommit reply")
        };
        let topics = response.topics.iter();
        topics
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|one| {
                    (
                        topic.name.clone(),
                        one.partition_index,
                        ErrorCode::from_code(one.error_code),
                    )
                })
            })
            .collect()
    }

    /// Commits one offset of partition 0 of a topic.
    pub(crate) fn commit(
        &mut self,
        group: &str,
        member: &str,
        generation: i32,
        topic: &str,
        offset: i64,
    ) -> ErrorCode {
        let results = self.commit_request(9, &commit_request(group, member, generation, topic, offset));
        assert_eq!(results.len(), 1);
        results[0].2
    }

    pub(crate) fn fetch(
        &self,
        group: &str,
        topics: Option<&[(&str, i32)]>,
    ) -> BTreeMap<(Str, i32), OffsetFetchResponsePartitions> {
        let topics = topics.map(|topics| {
            let topics = topics.iter().map(|(name, partition)| OffsetFetchRequestTopics {
                name: text(name),
                partition_indexes: vec![*partition],
                ..OffsetFetchRequestTopics::default()
            });
            topics.collect()
        });
        let request = OffsetFetchRequestGroup {
            group_id: text(group),
            topics,
            ..OffsetFetchRequestGroup::default()
        };
        let response = self.groups.fetch_offsets(&request, false);
        assert_eq!(response.error_code, 0);
        let mut found = BTreeMap::new();
        for topic in response.topics {
            for partition in topic.partitions {
                found.insert((topic.name.clone(), partition.partition_index), partition);
            }
        }
        found
    }

    /// The committed offset of partition 0 of a topic; -1 if there is none.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> i64 {
        self.fetch(group, Some(&[(topic, 0)]))
            .values()
            .next()
            .unwrap()
            .committed_offset
    }

    pub(crate) fn state(&self, group: &str) -> String {
        self.groups.describe(&text(group), 5).group_state.to_string()
    }

    pub(crate) fn member_ids(&self, group: &str) -> Vec<Str> {
        self.groups
            .describe(&text(group), 5)
            .members
            .into_iter()
            .map(|member| member.member_id)
            .collect()
    }

    // --- whole rebalances ---------------------------------------------------------------------

    /// Brings up a group of these joiners, all synced; returns them with their ids, leader first,
    /// and the generation. Each member's assignment is its own id.
    pub(crate) fn stable(&mut self, joiners: &[Joiner]) -> (Vec<Joiner>, i32) {
        let with_ids: Vec<Joiner> = joiners
            .iter()
            .map(|joiner| {
                if joiner.version >= 4 && joiner.instance_id.is_none() {
                    self.id_for(joiner)
                } else {
                    joiner.clone()
                }
            })
            .collect();
        let tickets: Vec<Ticket> = with_ids.iter().map(|joiner| self.join(joiner)).collect();
        self.advance_until_answered(&tickets);
        self.finish(&with_ids, &tickets)
    }

    /// Lets the initial rebalance end.
    pub(crate) fn advance_until_answered(&mut self, tickets: &[Ticket]) {
        for _ in 0..i64::from(REBALANCE_MS) / DELAY_MS {
            if tickets.iter().any(|ticket| self.waiting.contains(ticket)) {
                self.advance(DELAY_MS);
            }
        }
    }

    /// Takes the JoinGroup replies and syncs everybody.
    pub(crate) fn finish(&mut self, joiners: &[Joiner], tickets: &[Ticket]) -> (Vec<Joiner>, i32) {
        let mut members = Vec::new();
        let (mut generation, mut leader) = (0, Str::default());
        for (joiner, ticket) in joiners.iter().zip(tickets) {
            let response = self.joined(*ticket).expect("the rebalance did not end");
            assert_eq!(response.error_code, 0, "{response:?}");
            members.push(joiner.clone().member(&response.member_id));
            (generation, leader) = (response.generation_id, response.leader);
        }
        members.sort_by_key(|member| member.member_id != leader);
        let group = members[0].group.clone();
        let all: Vec<(&Str, &str)> = members.iter().map(|m| (&m.member_id, &*m.member_id)).collect();
        let mut syncs = Vec::new();
        for member in members.iter().rev() {
            let instance = member.instance_id.as_deref();
            let given = if member.member_id == leader { &all[..] } else { &[] };
            syncs.push((
                member,
                self.sync_as(&group, &member.member_id, instance, generation, given),
            ));
        }
        for (member, ticket) in syncs {
            let response = self.synced(ticket).expect("SyncGroup was not answered");
            assert_eq!(response.error_code, 0);
            assert_eq!(&response.assignment[..], member.member_id.as_bytes());
        }
        assert_eq!(self.state(&group), "Stable");
        (members, generation)
    }
}

pub(crate) fn commit_request(
    group: &str,
    member: &str,
    generation: i32,
    topic: &str,
    offset: i64,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: text(topic),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest {
        group_id: text(group),
        member_id: text(member),
        generation_id_or_member_epoch: generation,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    }
}
