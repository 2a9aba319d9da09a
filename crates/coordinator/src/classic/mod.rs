//! One classic group: its members, its generation and its state, and the elementary changes that
//! keep their counters true. The requests are in the modules below; the committed offsets are in
//! [`crate::offsets`].
//!
//! ```text
//!            join                      all joined, or time is up
//!   Empty ---------> PreparingRebalance -----------------------> CompletingRebalance
//!     ^                |      ^   ^                                   |        |
//!     | nobody is left |      |   +-- member joins, leaves, fails ----+        | leader syncs
//!     +----------------+      +------ member joins, leaves, fails -- Stable <--+
//! ```
//! There is no Dead state as in Kafka: a group that is deleted is gone within the same step.

mod join;
mod member;
mod pending;
mod rebalance;
mod session;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::messages::{
    HeartbeatResponse, JoinGroupResponse, OffsetCommitRequest, SyncGroupResponse, TxnOffsetCommitRequest,
};
use milena_protocol::stored::GroupMetadataValue;
use milena_protocol::stored::group_metadata_value::MemberMetadata;
use milena_protocol::{ErrorCode, Str};

pub(crate) use join::{FIRST_VERSION_REQUIRING_MEMBER_ID, Join};
pub(crate) use member::{Member, Parked, Protocol, detached_bytes};
use pending::PendingJoins;
use rebalance::InitialDelay;

use crate::facts;
use crate::group::UnusedSince;
use crate::step::Step;
use crate::subscription::{CONSUMER_PROTOCOL_TYPE, subscribed_topics};
use crate::timers::TimerKey;
use crate::{Effects, Reply, Ticket};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// The state's name as DescribeGroups and ListGroups give it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

impl Step<'_> {
    pub(crate) fn answer_join(&mut self, parked: Parked, mut response: JoinGroupResponse) {
        if parked.version < 7 && response.protocol_name.is_none() {
            response.protocol_name = Some(Str::default());
        }
        self.effects.reply(parked.ticket, Reply::JoinGroup(response));
    }

    pub(crate) fn fail_join(&mut self, parked: Parked, member_id: &Str, error: ErrorCode) {
        self.answer_join(parked, join_error(member_id, error));
    }

    pub(crate) fn fail_sync(&mut self, ticket: Ticket, error: ErrorCode) {
        let response = SyncGroupResponse {
            error_code: error.code(),
            ..SyncGroupResponse::default()
        };
        self.effects.reply(ticket, Reply::SyncGroup(response));
    }

    pub(crate) fn answer_heartbeat(&mut self, ticket: Ticket, error: ErrorCode) {
        let response = HeartbeatResponse {
            error_code: error.code(),
            ..HeartbeatResponse::default()
        };
        self.effects.reply(ticket, Reply::Heartbeat(response));
    }
}

/// An error has no protocol, which is not one of an empty name where the version can tell.
fn join_error(member_id: &Str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        member_id: member_id.clone(),
        error_code: error.code(),
        protocol_name: None,
        ..JoinGroupResponse::default()
    }
}

#[derive(Debug)]
pub(crate) struct ClassicGroup {
    pub(crate) id: Str,
    pub(crate) state: State,
    /// What the group was before its current state; PreparingRebalance after Empty is the
    /// initial rebalance, which waits for more members.
    previous_state: State,
    /// When the state began; unknown in facts that old versions wrote.
    pub(crate) state_since_ms: Option<i64>,
    pub(crate) protocol_type: Option<Str>,
    pub(crate) protocol_name: Option<Str>,
    pub(crate) generation: i32,
    pub(crate) leader: Option<Str>,
    pub(crate) members: BTreeMap<Str, Member>,
    /// Member ids by group instance id (KIP-345).
    static_members: BTreeMap<Str, Str>,
    pending_joins: PendingJoins,
    /// Members of this generation who have not sent SyncGroup.
    pending_sync: BTreeSet<Str>,
    /// How many members have a parked JoinGroup.
    awaiting_join: usize,
    /// What all members' protocols take together.
    metadata_bytes: usize,
    /// How many members support each protocol.
    protocol_support: BTreeMap<Str, usize>,
    /// Unknown (`None`) when the members are no consumers or their metadata is not understood.
    subscribed_topics: Option<BTreeSet<Str>>,
    new_member_added: bool,
    initial_delay: Option<InitialDelay>,
}

impl ClassicGroup {
    /// An empty group without a protocol type: what commits without membership use, and what a
    /// group is before its first member joins.
    pub(crate) fn new(id: Str, now_ms: i64) -> Self {
        Self {
            id,
            state: State::Empty,
            previous_state: State::Empty,
            state_since_ms: Some(now_ms),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: PendingJoins::default(),
            pending_sync: BTreeSet::new(),
            awaiting_join: 0,
            metadata_bytes: 0,
            protocol_support: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
        }
    }

    /// The group as it was stored, with its members' sessions starting now.
    pub(crate) fn load(id: Str, value: GroupMetadataValue) -> Self {
        let mut group = Self::new(id, 0);
        group.state_since_ms = Some(value.current_state_timestamp).filter(|since| *since != -1);
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        group.protocol_name = value.protocol;
        group.leader = value.leader;
        for stored in value.members {
            let protocol = group.protocol_name.clone().unwrap_or_default();
            group.insert_member(Member::load(stored, protocol));
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        if group
            .leader
            .as_ref()
            .is_none_or(|leader| !group.members.contains_key(leader))
        {
            group.leader = group.members.keys().next().cloned();
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// Nothing would be lost with this group: it was created by the request that was just refused.
    pub(crate) fn is_vacant(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.pending_joins.is_empty()
    }

    pub(crate) fn has_pending_joins(&self) -> bool {
        !self.pending_joins.is_empty()
    }

    pub(crate) fn member_ids_pending(&self) -> impl Iterator<Item = &Str> {
        self.pending_joins.iter()
    }

    fn transition_to(&mut self, state: State, now_ms: i64) {
        let valid = match state {
            State::Empty | State::CompletingRebalance => self.state == State::PreparingRebalance,
            State::PreparingRebalance => self.state != State::PreparingRebalance,
            State::Stable => self.state == State::CompletingRebalance,
        };
        assert!(
            valid,
            "group {} cannot go from {:?} to {state:?}",
            self.id, self.state
        );
        self.previous_state = self.state;
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    fn is_leader(&self, member_id: &Str) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    /// Puts the group's metadata among the facts, with the members' current assignments.
    pub(crate) fn persist(&self, effects: &mut Effects) {
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: self
                .members
                .values()
                .map(|member| member.stored(self.protocol_name.as_ref()))
                .collect::<Vec<MemberMetadata>>(),
            ..GroupMetadataValue::default()
        };
        effects.put(facts::group_key(&self.id), facts::encode_group(&value));
    }

    // --- members, with every counter that belongs to them -------------------------------------

    fn insert_member(&mut self, member: Member) {
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        for name in member.protocol_names() {
            *self.protocol_support.entry(name.clone()).or_insert(0) += 1;
        }
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.metadata_bytes += member.metadata_bytes();
        self.pending_joins.remove(&member.id);
        let replaced = self.members.insert(member.id.clone(), member);
        debug_assert!(replaced.is_none(), "a member was added twice");
    }

    /// Takes the member out of every place but the leader's: the caller decides who leads.
    fn take_member(&mut self, member_id: &Str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        for name in member.protocol_names() {
            if let Some(count) = self.protocol_support.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_support.remove(name);
                }
            }
        }
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
        self.metadata_bytes -= member.metadata_bytes();
        self.pending_sync.remove(member_id);
        Some(member)
    }

    /// Removes a member or a pending member, ends its session and answers whatever it waits for:
    /// UNKNOWN_MEMBER_ID makes a client that is still there join afresh.
    fn remove(&mut self, step: &mut Step<'_>, member_id: &Str) {
        step.cancel_session(&self.id, member_id);
        self.pending_joins.remove(member_id);
        let Some(member) = self.take_member(member_id) else {
            return;
        };
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(parked) = member.awaiting_join {
            step.fail_join(parked, &Str::default(), ErrorCode::UnknownMemberId);
        }
        if let Some(ticket) = member.awaiting_sync {
            step.fail_sync(ticket, ErrorCode::UnknownMemberId);
        }
    }

    /// Answers a member's parked JoinGroup, if it has one.
    fn complete_join(&mut self, step: &mut Step<'_>, member_id: &Str, response: JoinGroupResponse) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        if let Some(parked) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            step.answer_join(parked, response);
        }
    }

    fn has_all_members_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout of the members (KIP-62).
    fn rebalance_timeout_ms(&self) -> i64 {
        let longest = self
            .members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max();
        i64::from(longest.unwrap_or(0).max(0))
    }

    /// Checks that a request comes from the member that it names, and, for a static member, that
    /// no newer one has taken its place (KIP-345).
    pub(crate) fn validate_member(
        &self,
        member_id: &Str,
        instance_id: Option<&Str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = instance_id {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(existing) if existing != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    pub(crate) fn reschedule_session(&self, step: &mut Step<'_>, member_id: &Str) {
        if let Some(member) = self.members.get(member_id) {
            // The member's own id: the request's would keep its buffer alive.
            step.schedule_session(&self.id, &member.id, i64::from(member.session_timeout_ms));
        }
    }

    // --- protocols ----------------------------------------------------------------------------

    /// Whether a member with these protocols could join beside those who are there.
    fn supports_protocols(&self, protocol_type: &Str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let support = |name: &Str| self.protocol_support.get(name).copied().unwrap_or(0);
        self.protocol_type.as_ref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| support(&protocol.name) == self.members.len())
    }

    /// The protocol that all support and most prefer; between equals, the one that the leader
    /// puts first (Kafka leaves that to a hash map's order).
    fn select_protocol(&self) -> Option<Str> {
        let everybody = self.members.len();
        let candidate = |name: &Str| {
            self.protocol_support
                .get(name)
                .is_some_and(|count| *count == everybody)
        };
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(vote) = member.protocol_names().into_iter().find(|name| candidate(name)) {
                *votes.entry(vote).or_insert(0) += 1;
            }
        }
        let most = *votes.values().max()?;
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let preferred = leader
            .protocol_names()
            .into_iter()
            .find(|name| votes.get(name).is_some_and(|count| *count == most));
        preferred.cloned()
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type
            .as_ref()
            .is_some_and(|name| &**name == CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether a member consumes the topic; when the topics of a consumer group are unknown, any.
    pub(crate) fn is_subscribed_to(&self, topic: &Str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    // --- offsets ------------------------------------------------------------------------------

    /// Whether this client may commit now. The generation is -1 when it is not a member: an
    /// administrator or a consumer that assigns its partitions itself.
    pub(crate) fn validate_offset_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let instance_id = request.group_instance_id.as_ref();
        if generation < 0 && request.member_id.is_empty() && instance_id.is_none() {
            // Members own the offsets of a group that has any.
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(&request.member_id, instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Older clients do not say which member they are; those that do must be of this generation.
    pub(crate) fn validate_transactional_commit(
        &self,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let instance_id = request.group_instance_id.as_ref();
        let is_nobody = request.member_id.is_empty() && instance_id.is_none();
        if request.generation_id < 0 && (is_nobody || self.state == State::Empty) {
            return Ok(());
        }
        self.validate_member(&request.member_id, instance_id)?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(())
    }

    /// In a group without membership and in one with members since the commit, in a group that all members
    /// have left since they left.
    pub(crate) fn offsets_unused_since(&self) -> UnusedSince {
        let since_left = self.state_since_ms.map_or(UnusedSince::Commit, UnusedSince::Time);
        match (&self.protocol_type, self.state) {
            (None, _) => UnusedSince::Commit,
            (Some(_), State::Empty) => since_left,
            (Some(_), State::Stable) if self.subscribed_topics.is_some() => UnusedSince::Commit,
            _ => UnusedSince::InUse,
        }
    }

    /// Ends the waits of a group that becomes another.
    pub(crate) fn cancel_timers(&self, step: &mut Step<'_>) {
        for member in self.members.keys().chain(self.pending_joins.iter()) {
            step.cancel_session(&self.id, member);
        }
        let group = self.id.clone();
        step.timers.cancel(TimerKey::Join { group: group.clone() });
        step.timers.cancel(TimerKey::Sync { group });
    }

    /// Starts the sessions of the members that were loaded.
    pub(crate) fn start_timers(&mut self, step: &mut Step<'_>) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in &ids {
            self.reschedule_session(step, id);
        }
        // The limit was lowered: whoever joins again last will be turned away.
        if ids.len() > usize::try_from(step.config.max_group_size).unwrap_or(0) {
            self.prepare_rebalance(step);
        }
    }

    /// Answers everybody who waits, because this coordinator stops being responsible.
    pub(crate) fn unload(&mut self, step: &mut Step<'_>, error: ErrorCode) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            self.complete_join(step, &id, join_error(&id, error));
            if let Some(ticket) = self
                .members
                .get_mut(&id)
                .and_then(|member| member.awaiting_sync.take())
            {
                step.fail_sync(ticket, error);
            }
        }
    }

    /// Asserts what must hold between steps.
    pub(crate) fn check_invariants(&self) {
        let id = &self.id;
        let waiting = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_some())
            .count();
        assert_eq!(
            waiting, self.awaiting_join,
            "group {id}: count of members awaiting join"
        );
        let mut support: BTreeMap<Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            for name in member.protocol_names() {
                *support.entry(name.clone()).or_insert(0) += 1;
            }
            if let Some(instance) = &member.instance_id {
                assert_eq!(
                    self.static_members.get(instance),
                    Some(&member.id),
                    "group {id}: static members"
                );
            }
            let waits = member.awaiting_sync.is_some();
            assert!(
                !waits || self.state == State::CompletingRebalance,
                "group {id}: a sync waits in {:?}",
                self.state
            );
            let waits = member.awaiting_join.is_some();
            assert!(
                !waits || self.state == State::PreparingRebalance,
                "group {id}: a join waits in {:?}",
                self.state
            );
            assert!(
                !self.pending_joins.contains(&member.id),
                "group {id}: a member is also pending"
            );
        }
        let bytes: usize = self.members.values().map(Member::metadata_bytes).sum();
        assert_eq!(bytes, self.metadata_bytes, "group {id}: bytes of metadata");
        assert_eq!(support, self.protocol_support, "group {id}: protocol support");
        let instances = self
            .members
            .values()
            .filter(|member| member.instance_id.is_some())
            .count();
        assert_eq!(instances, self.static_members.len(), "group {id}: static members");
        assert_eq!(
            self.leader.is_none(),
            self.members.is_empty(),
            "group {id}: a leader, if there are members"
        );
        assert!(
            self.leader
                .as_ref()
                .is_none_or(|leader| self.members.contains_key(leader)),
            "group {id}: leader"
        );
        assert!(
            self.pending_sync
                .iter()
                .all(|member| self.members.contains_key(member)),
            "group {id}: pending sync"
        );
        match self.state {
            State::Empty => assert!(self.members.is_empty(), "group {id}: Empty with members"),
            State::PreparingRebalance => {}
            State::CompletingRebalance | State::Stable => {
                assert!(
                    self.protocol_name.is_some(),
                    "group {id}: no protocol in {:?}",
                    self.state
                );
            }
        }
    }
}
