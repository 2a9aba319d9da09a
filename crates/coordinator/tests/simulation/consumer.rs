//! A consumer as the coordinator sees it: it joins, syncs, heartbeats, commits and leaves, and
//! reacts to errors as the Java client does. It assigns partitions when it leads.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use milena_coordinator::Reply;
use milena_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use milena_protocol::messages::leave_group_request::MemberIdentity;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use milena_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    SyncGroupRequest, SyncGroupResponse,
};
use milena_protocol::{ErrorCode, Str};

use crate::random::Random;

pub(crate) const GROUP: &str = "group";
pub(crate) const TOPIC: &str = "t";
pub(crate) const PARTITIONS: u8 = 6;
const COOPERATIVE: &str = "cooperative-sticky";

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    Commit(OffsetCommitRequest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Unjoined,
    Joining,
    Syncing,
    Stable,
    /// Fenced, left or crashed: it does nothing any more.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) instance: Option<Str>,
    pub(crate) version: i16,
    protocols: Vec<&'static str>,
    session_ms: i32,
    rebalance_ms: i32,
    pub(crate) phase: Phase,
    pub(crate) member_id: Str,
    pub(crate) generation: i32,
    pub(crate) owned: BTreeSet<u8>,
    cooperative: bool,
    /// Changes when the consumer's subscription does.
    variant: u8,
    /// The JoinGroup or SyncGroup that it waits for, and until when.
    waits_for: Option<(u64, i64)>,
    pub(crate) paused_until_ms: i64,
    next_request: u64,
}

/// What a consumer sends: the request, and its number among this consumer's.
pub(crate) type Sent = (u64, Request);

impl Consumer {
    pub(crate) fn new(random: &mut Random, instance: Option<Str>, protocols: Vec<&'static str>) -> Self {
        let versions: &[i16] = if instance.is_some() {
            &[5, 7, 9]
        } else {
            &[1, 3, 4, 6, 9]
        };
        Self {
            instance,
            version: *random.pick(versions),
            protocols,
            session_ms: *random.pick(&[6_000, 10_000, 20_000]),
            rebalance_ms: *random.pick(&[10_000, 20_000, 30_000]),
            phase: Phase::Unjoined,
            member_id: Str::default(),
            generation: -1,
            owned: BTreeSet::new(),
            cooperative: false,
            variant: 0,
            waits_for: None,
            paused_until_ms: 0,
            next_request: 0,
        }
    }

    /// The same program started anew: it remembers nothing, except which instance it is.
    pub(crate) fn restarted(&self, random: &mut Random) -> Self {
        Self::new(random, self.instance.clone(), self.protocols.clone())
    }

    fn number(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    pub(crate) fn is_running(&self) -> bool {
        self.phase != Phase::Gone
    }

    /// What it does when it is its turn.
    pub(crate) fn wake(&mut self, now_ms: i64, random: &mut Random, faults: bool) -> Vec<Sent> {
        if self.phase == Phase::Gone || now_ms < self.paused_until_ms {
            return Vec::new();
        }
        match self.phase {
            Phase::Unjoined => vec![self.join(now_ms)],
            Phase::Joining | Phase::Syncing => match self.waits_for {
                Some((_, until_ms)) if now_ms < until_ms => Vec::new(),
                _ => vec![self.join(now_ms)],
            },
            Phase::Stable => self.poll(now_ms, random, faults),
            Phase::Gone => Vec::new(),
        }
    }

    fn poll(&mut self, now_ms: i64, random: &mut Random, faults: bool) -> Vec<Sent> {
        if faults && random.chance(2) {
            return vec![self.change_subscription(now_ms)];
        }
        if faults && random.chance(1) {
            return vec![self.leave()];
        }
        let heartbeat = HeartbeatRequest {
            group_id: Str::from(GROUP),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            ..HeartbeatRequest::default()
        };
        let mut sent = vec![(self.number(), Request::Heartbeat(heartbeat))];
        if random.chance(40) {
            let owned: Vec<u8> = self.owned.iter().copied().collect();
            if !owned.is_empty() {
                let partition = *random.pick(&owned);
                sent.push(self.commit(partition, random.between(0, 1 << 40)));
            }
        }
        sent
    }

    pub(crate) fn is_cooperative(&self) -> bool {
        self.cooperative
    }

    /// Its metadata changes, so its JoinGroup starts a rebalance.
    pub(crate) fn change_subscription(&mut self, now_ms: i64) -> Sent {
        self.variant = self.variant.wrapping_add(1);
        self.join(now_ms)
    }

    pub(crate) fn join(&mut self, now_ms: i64) -> Sent {
        let number = self.number();
        self.phase = Phase::Joining;
        self.waits_for = Some((number, now_ms + i64::from(self.rebalance_ms) + 5_000));
        let protocols = self.protocols.iter().map(|name| JoinGroupRequestProtocol {
            name: Str::from(*name),
            metadata: self.metadata(*name == COOPERATIVE),
            ..JoinGroupRequestProtocol::default()
        });
        let request = JoinGroupRequest {
            group_id: Str::from(GROUP),
            session_timeout_ms: self.session_ms,
            rebalance_timeout_ms: self.rebalance_ms,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: Str::from("consumer"),
            protocols: protocols.collect(),
            ..JoinGroupRequest::default()
        };
        (number, Request::Join(request))
    }

    /// A Subscription; the user data is the variant and the partitions it owns.
    fn metadata(&self, with_owned: bool) -> Bytes {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 1, b't'];
        let owned: Vec<u8> = if with_owned {
            self.owned.iter().copied().collect()
        } else {
            Vec::new()
        };
        bytes.extend((owned.len() as i32 + 1).to_be_bytes());
        bytes.push(self.variant);
        bytes.extend(owned);
        bytes.into()
    }

    pub(crate) fn leave(&mut self) -> Sent {
        self.phase = Phase::Gone;
        let identity = MemberIdentity {
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            ..MemberIdentity::default()
        };
        let request = LeaveGroupRequest {
            group_id: Str::from(GROUP),
            members: vec![identity],
            ..LeaveGroupRequest::default()
        };
        (self.number(), Request::Leave(request))
    }

    pub(crate) fn commit(&mut self, partition: u8, offset: i64) -> Sent {
        let partition = OffsetCommitRequestPartition {
            partition_index: i32::from(partition),
            committed_offset: offset,
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: Str::from(TOPIC),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: Str::from(GROUP),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        (self.number(), Request::Commit(request))
    }

    /// Takes a reply. `request` is what was answered, so that a late answer to what it was before
    /// is told apart.
    pub(crate) fn receive(
        &mut self,
        now_ms: i64,
        number: u64,
        request: &Request,
        reply: &Reply,
    ) -> Vec<Sent> {
        if self.phase == Phase::Gone {
            return Vec::new();
        }
        match (request, reply) {
            (Request::Join(_), Reply::JoinGroup(response)) if self.awaits(Phase::Joining, number) => {
                self.joined(now_ms, response)
            }
            (Request::Sync(_), Reply::SyncGroup(response)) if self.awaits(Phase::Syncing, number) => {
                self.synced(now_ms, response)
            }
            (Request::Heartbeat(sent), Reply::Heartbeat(response))
                if self.is(&sent.member_id, sent.generation_id) =>
            {
                self.react(now_ms, ErrorCode::from_code(response.error_code))
            }
            (Request::Commit(sent), Reply::OffsetCommit(response))
                if self.is(&sent.member_id, sent.generation_id_or_member_epoch) =>
            {
                self.react(
                    now_ms,
                    ErrorCode::from_code(response.topics[0].partitions[0].error_code),
                )
            }
            _ => Vec::new(),
        }
    }

    fn awaits(&self, phase: Phase, number: u64) -> bool {
        self.phase == phase && self.waits_for.is_some_and(|(waited, _)| waited == number)
    }

    fn is(&self, member_id: &Str, generation: i32) -> bool {
        self.phase == Phase::Stable && self.member_id == *member_id && self.generation == generation
    }

    fn react(&mut self, now_ms: i64, error: ErrorCode) -> Vec<Sent> {
        match error {
            ErrorCode::None => Vec::new(),
            ErrorCode::FencedInstanceId => {
                self.phase = Phase::Gone;
                Vec::new()
            }
            ErrorCode::UnknownMemberId => {
                self.member_id = Str::default();
                self.generation = -1;
                self.owned.clear();
                vec![self.join(now_ms)]
            }
            ErrorCode::IllegalGeneration => {
                self.generation = -1;
                self.owned.clear();
                vec![self.join(now_ms)]
            }
            ErrorCode::RebalanceInProgress => {
                if !self.cooperative {
                    self.owned.clear();
                }
                vec![self.join(now_ms)]
            }
            // The coordinator moved, or so it says: try again at the next turn.
            _ if self.phase == Phase::Stable => Vec::new(),
            _ => {
                self.phase = Phase::Unjoined;
                Vec::new()
            }
        }
    }

    fn joined(&mut self, now_ms: i64, response: &JoinGroupResponse) -> Vec<Sent> {
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.member_id = response.member_id.clone();
                return vec![self.join(now_ms)];
            }
            error => return self.react(now_ms, error),
        }
        self.member_id = response.member_id.clone();
        self.generation = response.generation_id;
        self.cooperative = response.protocol_name.as_deref() == Some(COOPERATIVE);
        let leads = response.leader == response.member_id && !response.skip_assignment;
        let assignments = if leads {
            assign(response, self.cooperative)
        } else {
            Vec::new()
        };
        let number = self.number();
        self.phase = Phase::Syncing;
        self.waits_for = Some((number, now_ms + i64::from(self.rebalance_ms) + 5_000));
        let request = SyncGroupRequest {
            group_id: Str::from(GROUP),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_name: response.protocol_name.clone(),
            assignments,
            ..SyncGroupRequest::default()
        };
        vec![(number, Request::Sync(request))]
    }

    fn synced(&mut self, now_ms: i64, response: &SyncGroupResponse) -> Vec<Sent> {
        let error = ErrorCode::from_code(response.error_code);
        if error != ErrorCode::None {
            return self.react(now_ms, error);
        }
        let assigned: BTreeSet<u8> = response.assignment.iter().copied().collect();
        let revoked = self.cooperative && self.owned.difference(&assigned).next().is_some();
        self.owned = assigned;
        self.phase = Phase::Stable;
        self.waits_for = None;
        // Cooperative (KIP-429): what it gave up can be assigned in the next round.
        if revoked {
            vec![self.join(now_ms)]
        } else {
            Vec::new()
        }
    }
}

/// Deals the partitions out. In the cooperative protocol a partition that another member still
/// owns is held back until it has given it up.
fn assign(response: &JoinGroupResponse, cooperative: bool) -> Vec<SyncGroupRequestAssignment> {
    let mut members: Vec<_> = response.members.iter().collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    let mut owners: BTreeMap<u8, Vec<&Str>> = BTreeMap::new();
    if cooperative {
        for member in &members {
            for partition in member.metadata.iter().skip(14) {
                owners.entry(*partition).or_default().push(&member.member_id);
            }
        }
    }
    let mut assigned: BTreeMap<&Str, Vec<u8>> = members
        .iter()
        .map(|member| (&member.member_id, Vec::new()))
        .collect();
    for partition in 0..PARTITIONS {
        let target = &members[usize::from(partition) % members.len()].member_id;
        let held_back =
            matches!(owners.get(&partition).map(Vec::as_slice), Some([owner]) if *owner != target);
        if !held_back && let Some(partitions) = assigned.get_mut(target) {
            partitions.push(partition);
        }
    }
    let assignments = assigned
        .into_iter()
        .map(|(member, partitions)| SyncGroupRequestAssignment {
            member_id: member.clone(),
            assignment: partitions.into(),
            ..SyncGroupRequestAssignment::default()
        });
    assignments.collect()
}
