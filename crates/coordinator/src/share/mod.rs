//! One share group (KIP-932): its members read the same partitions side by side, each record going to one of them.
//!
//! Members, epochs and the target assignment are as in a consumer group, but as a partition may be given to
//! many members there is nothing to wait for: a member takes its target with its next heartbeat. What there is
//! instead are the states of the group's partitions (`state_partitions`): a partition is assigned only when its state has
//! been initialized, which the broker does when a heartbeat asks for it.
//!
//! Left to others: the states themselves, that is what has been delivered and acknowledged (the broker's share
//! partitions).

pub(crate) mod assignor;
mod describe;
mod facts;
mod heartbeat;
mod member;
mod offsets;
mod state_partitions;

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::Str;

pub(crate) use heartbeat::validate;
use member::Member;
use state_partitions::StatePartitions;

use crate::modern::{TopicPartitions, metadata_hash};
use crate::step::Step;
use crate::topics::TopicImage;

/// The settings of share groups. Defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareGroupConfig {
    /// `share.session.timeout.ms` of the group
    pub session_timeout_ms: i32,
    /// `share.heartbeat.interval.ms` of the group
    pub heartbeat_interval_ms: i32,
    /// `share.assignment.interval.ms` of the group: the least time between two assignments.
    pub assignment_interval_ms: i32,
    /// `group.share.max.size`
    pub max_size: i32,
    /// `group.share.initialize.retry.interval.ms`: when an initialization that nothing was heard of is asked for again.
    pub initialize_retry_interval_ms: i32,
}

impl Default for ShareGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
            max_size: 200,
            initialize_retry_interval_ms: 30_000,
        }
    }
}

/// The name of the only assignor (`group.share.assignors`).
pub const SHARE_ASSIGNOR: &str = "simple";

/// The protocol type that ListGroups gives.
pub(crate) const SHARE_PROTOCOL_TYPE: &str = "share";

/// The epoch of a group before anything has happened in it.
const FIRST_EPOCH: i32 = 1;

#[derive(Debug)]
pub(crate) struct ShareGroup {
    pub(crate) id: Str,
    epoch: i32,
    metadata_hash: i64,
    /// The image that `metadata_hash` was last compared with.
    seen_image: Option<u64>,
    /// The image for which everything that is subscribed to was found initialized and assigned.
    settled_image: Option<u64>,
    assignment_epoch: i32,
    assigned_at_ms: i64,
    members: BTreeMap<Str, Member>,
    target: BTreeMap<Str, TopicPartitions>,
    states: StatePartitions,
    /// What all members' subscriptions take together.
    said_bytes: usize,
}

impl ShareGroup {
    pub(crate) fn new(id: Str) -> Self {
        Self {
            id,
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            seen_image: None,
            settled_image: None,
            assignment_epoch: FIRST_EPOCH,
            assigned_at_ms: 0,
            members: BTreeMap::new(),
            target: BTreeMap::new(),
            states: StatePartitions::default(),
            said_bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The state as ListGroups and ShareGroupDescribe give it.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.members.is_empty() {
            true => "Empty",
            false => "Stable",
        }
    }

    fn subscribed_topics(&self) -> BTreeSet<&Str> {
        self.members.values().flat_map(|member| &member.topics).collect()
    }

    fn current_hash(&self, topics: &TopicImage) -> i64 {
        metadata_hash(topics, self.subscribed_topics())
    }

    /// Takes a member's place, or adds it.
    fn put_member(&mut self, member: Member) {
        self.said_bytes += member.said_bytes();
        if let Some(old) = self.members.insert(member.id.clone(), member) {
            self.said_bytes -= old.said_bytes();
        }
    }

    fn take_member(&mut self, member_id: &Str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.said_bytes -= member.said_bytes();
        Some(member)
    }

    /// Starts the sessions of the members that were loaded.
    pub(crate) fn start_timers(&self, step: &mut Step<'_>) {
        for member in self.members.keys() {
            let timeout_ms = step.config.share.session_timeout_ms;
            step.schedule_session(&self.id, member, i64::from(timeout_ms));
        }
    }

    pub(crate) fn session_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        self.remove_member(step, member_id);
    }

    /// Asserts what must hold between steps.
    pub(crate) fn check_invariants(&self) {
        let id = &self.id;
        let said: usize = self.members.values().map(Member::said_bytes).sum();
        assert_eq!(said, self.said_bytes, "group {id}: bytes of subscriptions");
        assert!(self.assignment_epoch <= self.epoch, "group {id}: epochs");
        for member in self.members.values() {
            assert!(
                member.epoch <= self.assignment_epoch,
                "group {id}: {} is ahead of the assignment",
                member.id
            );
        }
        assert!(
            self.target.keys().all(|member| self.members.contains_key(member)),
            "group {id}: a target without a member"
        );
        self.states.check_invariants(id);
    }
}
