//! One consumer group (KIP-848): the broker computes the assignment, and each member gets to it by its own
//! heartbeats.
//!
//! A change of members, subscriptions or topics bumps the group epoch; a heartbeat that finds the target
//! assignment older than that computes a new one; each member then gives up what it has lost and takes what is
//! free, at its own pace (`reconcile`). A partition has one owner in all of that: [`ConsumerGroup::owners`].

pub(crate) mod assignor;
mod classic_members;
mod describe;
mod facts;
mod heartbeat;
mod member;
mod offsets;
mod reconcile;
mod regex;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use milena_protocol::{Str, Uuid};

pub(crate) use heartbeat::validate;
use member::{Assigned, Member};

use crate::modern::{TopicPartitions, metadata_hash};
use crate::step::Step;
use crate::timers::TimerKey;
use crate::topics::TopicImage;

/// The settings of consumer groups. Defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `consumer.session.timeout.ms` of the group
    pub session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms` of the group
    pub heartbeat_interval_ms: i32,
    /// `consumer.assignment.interval.ms` of the group: the least time between two assignments.
    pub assignment_interval_ms: i32,
    /// `group.consumer.max.size`
    pub max_size: i32,
    /// Whether `group.consumer.migration.policy` lets classic groups become consumer groups, and the other way round.
    pub upgrade: bool,
    pub downgrade: bool,
    /// `group.consumer.assignors`: the first is the default.
    pub assignors: Vec<Assignor>,
}

impl Default for ConsumerGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
            max_size: i32::MAX,
            upgrade: true,
            downgrade: true,
            assignors: vec![Assignor::Uniform, Assignor::Range],
        }
    }
}

/// How partitions are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    Uniform,
    Range,
}

impl Assignor {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }
}

/// A pattern with the topics that it matched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Resolved {
    topics: BTreeSet<Str>,
    /// Of the image that it was matched against; zero after a restart, which matches anew.
    image_version: u64,
}

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    pub(crate) id: Str,
    epoch: i32,
    metadata_hash: i64,
    /// The image that `metadata_hash` and the patterns were last compared with.
    seen_image: Option<u64>,
    assignment_epoch: i32,
    assigned_at_ms: i64,
    members: BTreeMap<Str, Member>,
    /// Member ids by group instance id (KIP-345).
    static_members: BTreeMap<Str, Str>,
    target: BTreeMap<Str, TopicPartitions>,
    /// Who holds a partition: assigned to it, or not given up yet.
    owners: HashMap<(Uuid, i32), Str>,
    regexes: BTreeMap<Str, Resolved>,
    /// What all members' subscriptions take together.
    said_bytes: usize,
}

impl ConsumerGroup {
    pub(crate) fn new(id: Str) -> Self {
        Self {
            id,
            epoch: 0,
            metadata_hash: 0,
            seen_image: None,
            assignment_epoch: 0,
            assigned_at_ms: 0,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            target: BTreeMap::new(),
            owners: HashMap::new(),
            regexes: BTreeMap::new(),
            said_bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The state as ListGroups and ConsumerGroupDescribe give it.
    pub(crate) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self
            .members
            .values()
            .all(|member| member.is_reconciled_to(self.assignment_epoch))
        {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Whether a member consumes the topic.
    pub(crate) fn is_subscribed_to(&self, topic: &Str) -> bool {
        self.members.values().any(|member| member.topics.contains(topic))
            || self
                .regexes
                .values()
                .any(|resolved| resolved.topics.contains(topic))
    }

    fn subscribed_topics(&self) -> BTreeSet<&Str> {
        let named = self.members.values().flat_map(|member| &member.topics);
        let matched = self.regexes.values().flat_map(|resolved| &resolved.topics);
        named.chain(matched).collect()
    }

    fn current_hash(&self, topics: &TopicImage) -> i64 {
        metadata_hash(topics, self.subscribed_topics())
    }

    // --- members, with everything that belongs to them ----------------------------------------

    /// Takes a member's place, or adds it.
    fn put_member(&mut self, member: Member) {
        if let Some(old) = self.members.get(&member.id) {
            let (assigned, revoking) = (old.assigned.clone(), old.revoking.clone());
            let id = member.id.clone();
            self.release(&id, &assigned);
            self.release(&id, &revoking);
            self.said_bytes -= self.members.get(&id).map_or(0, Member::said_bytes);
        }
        self.said_bytes += member.said_bytes();
        for (topic, partitions) in member.assigned.iter().chain(&member.revoking) {
            for partition in partitions.keys() {
                let before = self.owners.insert((*topic, *partition), member.id.clone());
                debug_assert!(
                    before.is_none(),
                    "{} takes partition {partition} of {topic} from {before:?}",
                    member.id
                );
            }
        }
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    fn release(&mut self, member_id: &Str, partitions: &Assigned) {
        for (topic, partitions) in partitions {
            for partition in partitions.keys() {
                let key = (*topic, *partition);
                if self.owners.get(&key) == Some(member_id) {
                    self.owners.remove(&key);
                }
            }
        }
    }

    fn take_member(&mut self, member_id: &Str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.said_bytes -= member.said_bytes();
        self.release(member_id, &member.assigned);
        self.release(member_id, &member.revoking);
        if let Some(instance) = &member.instance_id
            && self.static_members.get(instance) == Some(member_id)
        {
            self.static_members.remove(instance);
        }
        Some(member)
    }

    // --- time ---------------------------------------------------------------------------------

    /// Starts the sessions of the members that were loaded.
    pub(crate) fn start_timers(&mut self, step: &mut Step<'_>) {
        for member in self.members.values() {
            let timeout_ms = match &member.classic {
                Some(classic) => classic.session_timeout_ms,
                None => step.config.consumer.session_timeout_ms,
            };
            step.schedule_session(&self.id, &member.id, i64::from(timeout_ms));
            if member.state == member::MemberState::UnrevokedPartitions {
                self.schedule_revocation(step, member);
            }
        }
    }

    fn revocation_timer(&self, member_id: &Str) -> TimerKey {
        TimerKey::Revocation {
            group: self.id.clone(),
            member: member_id.clone(),
        }
    }

    /// Of a classic member: it must join again, or sync after it has.
    fn rejoin_timer(&self, member_id: &Str) -> TimerKey {
        TimerKey::Rejoin {
            group: self.id.clone(),
            member: member_id.clone(),
        }
    }

    fn schedule_revocation(&self, step: &mut Step<'_>, member: &Member) {
        let deadline_ms = step
            .now_ms
            .saturating_add(i64::from(member.rebalance_timeout_ms.max(0)));
        step.timers
            .schedule(self.revocation_timer(&member.id), deadline_ms);
    }

    fn cancel_timers(&self, step: &mut Step<'_>, member_id: &Str) {
        step.cancel_session(&self.id, member_id);
        step.timers.cancel(self.revocation_timer(member_id));
        step.timers.cancel(self.rejoin_timer(member_id));
    }

    pub(crate) fn session_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        self.remove_member(step, member_id);
    }

    /// The member did not give up in time what it was told to.
    pub(crate) fn revocation_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        let late = self
            .members
            .get(member_id)
            .is_some_and(|member| member.state == member::MemberState::UnrevokedPartitions);
        if late {
            self.remove_member(step, member_id);
        }
    }

    /// Asserts what must hold between steps.
    pub(crate) fn check_invariants(&self) {
        let id = &self.id;
        let mut owned = HashMap::new();
        for member in self.members.values() {
            for (topic, partitions) in member.assigned.iter().chain(&member.revoking) {
                for partition in partitions.keys() {
                    let other = owned.insert((*topic, *partition), member.id.clone());
                    assert_eq!(other, None, "group {id}: a partition with two owners");
                }
            }
            if let Some(instance) = &member.instance_id {
                assert_eq!(
                    self.static_members.get(instance),
                    Some(&member.id),
                    "group {id}: static members"
                );
            }
            assert!(
                member.epoch <= self.assignment_epoch.max(member.previous_epoch),
                "group {id}: {} is ahead of the assignment",
                member.id
            );
        }
        assert_eq!(owned, self.owners, "group {id}: owners");
        let said: usize = self.members.values().map(Member::said_bytes).sum();
        assert_eq!(said, self.said_bytes, "group {id}: bytes of subscriptions");
        assert!(self.assignment_epoch <= self.epoch, "group {id}: epochs");
        assert!(
            self.target.keys().all(|member| self.members.contains_key(member)),
            "group {id}: a target without a member"
        );
    }
}
