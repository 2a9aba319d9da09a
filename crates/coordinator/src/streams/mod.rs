//! One streams group (KIP-1071): members of a Kafka Streams application, which bring their topology; the broker sees to the
//! topics that this needs, and shares the tasks out.
//!
//! A change of members, topology, topics or settings bumps the group epoch; a heartbeat that finds the target assignment
//! older than that computes a new one (`assignor`); each member then gives up what it has lost and takes what is free, at
//! its own pace (`reconcile`). A task is active at one member in all of that, and in one role in one process:
//! [`StreamsGroup::holders`].
//!
//! Not in Kafka 4.3.1, and so refused: static members, patterns of source topics, new topologies for a group that has one,
//! task offsets, warm-up tasks that a member says it has.

mod assignor;
mod configure;
mod describe;
mod endpoints;
mod facts;
mod heartbeat;
mod member;
mod offsets;
mod reconcile;
mod target;
mod tasks;
mod topology;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use milena_protocol::Str;

use configure::Configured;
pub(crate) use heartbeat::{Answer, validate};
use member::{Member, MemberState};
use tasks::{Held, Target, each_since};
use topology::Topology;

use crate::Effects;
use crate::step::Step;
use crate::timers::TimerKey;

/// The settings of streams groups. Defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsGroupConfig {
    /// `streams.session.timeout.ms` of the group
    pub session_timeout_ms: i32,
    /// `streams.heartbeat.interval.ms` of the group
    pub heartbeat_interval_ms: i32,
    /// `streams.assignment.interval.ms` of the group: the least time between two assignments.
    pub assignment_interval_ms: i32,
    /// `streams.initial.rebalance.delay.ms` of the group: how long an empty group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `streams.num.standby.replicas` of the group
    pub standby_replicas: i32,
    /// `group.streams.max.size`
    pub max_size: i32,
}

impl Default for StreamsGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
            initial_rebalance_delay_ms: 3_000,
            standby_replicas: 0,
            max_size: i32::MAX,
        }
    }
}

/// Every group starts with this epoch, as if it had been assigned.
const FIRST_EPOCH: i32 = 1;
/// The validated topology epoch while the topics do not fit the topology.
const NOT_VALIDATED: i32 = -1;

/// Who has a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Holders {
    /// The member that has it as active one, or has not given it up.
    active: Option<Str>,
    /// In how many hands it is in each process, in any role.
    processes: BTreeMap<Str, usize>,
}

#[derive(Debug)]
pub(crate) struct StreamsGroup {
    pub(crate) id: Str,
    epoch: i32,
    metadata_hash: i64,
    /// The image that the topology was last compared with.
    seen_image: Option<u64>,
    topology: Option<Topology>,
    /// What the topology means for the topics as last seen; `None` after a restart.
    configured: Option<Configured>,
    validated_topology_epoch: i32,
    /// `streams.num.standby.replicas` as the epoch knows it.
    standby_replicas: Option<i32>,
    assignment_epoch: i32,
    assigned_at_ms: i64,
    /// As the last heartbeat told it, for assignments that no heartbeat asks for.
    assignment_interval_ms: i32,
    members: BTreeMap<Str, Member>,
    target: BTreeMap<Str, Target>,
    holders: HashMap<(Str, i32), Holders>,
    /// Who asked for the end of the application.
    shutdown_requested_by: Option<Str>,
    /// Grows when somebody with an endpoint gets other tasks (KIP-535); starts anew with the broker, as in Kafka.
    endpoint_information_epoch: i32,
    /// What members said takes together.
    said_bytes: usize,
}

impl StreamsGroup {
    pub(crate) fn new(id: Str) -> Self {
        Self {
            id,
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            seen_image: None,
            topology: None,
            configured: None,
            validated_topology_epoch: 0,
            standby_replicas: None,
            assignment_epoch: FIRST_EPOCH,
            assigned_at_ms: 0,
            assignment_interval_ms: 0,
            members: BTreeMap::new(),
            target: BTreeMap::new(),
            holders: HashMap::new(),
            shutdown_requested_by: None,
            endpoint_information_epoch: 0,
            said_bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The state as ListGroups and StreamsGroupDescribe give it.
    pub(crate) fn state_name(&self) -> &'static str {
        let validated = |topology: &Topology| topology.epoch() == self.validated_topology_epoch;
        if self.members.is_empty() {
            "Empty"
        } else if !self.topology.as_ref().is_some_and(validated) {
            "NotReady"
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

    /// Whether a member reads the topic.
    pub(crate) fn is_subscribed_to(&self, topic: &Str) -> bool {
        let topology = self.topology.as_ref().filter(|_| !self.is_empty());
        topology.is_some_and(|topology| topology.reader_of(topic).is_some())
    }

    // --- members, with everything that belongs to them ----------------------------------------

    /// Takes a member's place, or adds it.
    fn put_member(&mut self, member: Member) {
        if let Some(old) = self.members.remove(&member.id) {
            self.said_bytes -= old.said.bytes();
            self.release(&old);
        }
        self.said_bytes += member.said.bytes();
        for held in [&member.assigned, &member.revoking] {
            self.hold(&member, held);
        }
        self.members.insert(member.id.clone(), member);
    }

    fn hold(&mut self, member: &Member, held: &Held) {
        for (subtopology, partition, _) in each_since(&held.active) {
            let holders = self.holders.entry((subtopology.clone(), partition)).or_default();
            let before = holders.active.replace(member.id.clone());
            debug_assert!(
                before.is_none(),
                "{} takes active task {subtopology}_{partition} from {before:?}",
                member.id
            );
            *holders
                .processes
                .entry(member.said.process_id.clone())
                .or_default() += 1;
        }
        for (subtopology, partition) in held.passive() {
            let holders = self.holders.entry((subtopology.clone(), partition)).or_default();
            *holders
                .processes
                .entry(member.said.process_id.clone())
                .or_default() += 1;
        }
    }

    fn release(&mut self, member: &Member) {
        for held in [&member.assigned, &member.revoking] {
            let active = each_since(&held.active).map(|(subtopology, partition, _)| (subtopology, partition));
            for (is_active, (subtopology, partition)) in active
                .map(|task| (true, task))
                .chain(held.passive().map(|task| (false, task)))
            {
                let key = (subtopology.clone(), partition);
                let Some(holders) = self.holders.get_mut(&key) else {
                    continue;
                };
                if is_active && holders.active.as_ref() == Some(&member.id) {
                    holders.active = None;
                }
                if let Some(count) = holders.processes.get_mut(&member.said.process_id) {
                    *count -= 1;
                    if *count == 0 {
                        holders.processes.remove(&member.said.process_id);
                    }
                }
                if holders.processes.is_empty() {
                    self.holders.remove(&key);
                }
            }
        }
    }

    /// Takes a member out for good: its tasks are free, and the rest gets a new epoch.
    fn remove_member(&mut self, step: &mut Step<'_>, member_id: &Str) {
        let Some(member) = self.members.remove(member_id) else {
            return;
        };
        self.said_bytes -= member.said.bytes();
        self.release(&member);
        step.cancel_session(&self.id, member_id);
        step.timers.cancel(self.revocation_timer(member_id));
        self.target.remove(member_id);
        self.forget_member(step.effects, member_id);
        self.bump(step.effects);
        if self.members.is_empty() {
            self.shutdown_requested_by = None;
        }
    }

    fn bump(&mut self, effects: &mut Effects) {
        self.epoch = self.epoch.saturating_add(1);
        self.store_group(effects);
    }

    // --- time ---------------------------------------------------------------------------------

    /// Starts the sessions of the members that were loaded.
    pub(crate) fn start_timers(&mut self, step: &mut Step<'_>) {
        self.assignment_interval_ms = step.config.streams.assignment_interval_ms;
        for member in self.members.values() {
            let timeout_ms = step.config.streams.session_timeout_ms;
            step.schedule_session(&self.id, &member.id, i64::from(timeout_ms));
            if member.state == MemberState::UnrevokedTasks {
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

    fn initial_rebalance_timer(&self) -> TimerKey {
        TimerKey::InitialRebalance {
            group: self.id.clone(),
        }
    }

    fn schedule_revocation(&self, step: &mut Step<'_>, member: &Member) {
        let timeout_ms = i64::from(member.said.rebalance_timeout_ms.max(0));
        let deadline_ms = step.now_ms.saturating_add(timeout_ms);
        step.timers
            .schedule(self.revocation_timer(&member.id), deadline_ms);
    }

    pub(crate) fn session_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        self.remove_member(step, member_id);
    }

    /// The member did not give up in time what it was told to.
    pub(crate) fn revocation_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        let late = self
            .members
            .get(member_id)
            .is_some_and(|member| member.state == MemberState::UnrevokedTasks);
        if late {
            self.remove_member(step, member_id);
        }
    }

    /// The group goes, or becomes another type.
    pub(crate) fn cancel_timers(&self, timers: &mut crate::timers::Timers) {
        timers.cancel(self.initial_rebalance_timer());
    }

    /// Asserts what must hold between steps.
    pub(crate) fn check_invariants(&self) {
        let id = &self.id;
        let mut holders: HashMap<(Str, i32), Holders> = HashMap::new();
        for member in self.members.values() {
            for held in [&member.assigned, &member.revoking] {
                for (subtopology, partition, _) in each_since(&held.active) {
                    let of_task = holders.entry((subtopology.clone(), partition)).or_default();
                    let other = of_task.active.replace(member.id.clone());
                    assert_eq!(other, None, "group {id}: an active task with two owners");
                    *of_task
                        .processes
                        .entry(member.said.process_id.clone())
                        .or_default() += 1;
                }
                for (subtopology, partition) in held.passive() {
                    let of_task = holders.entry((subtopology.clone(), partition)).or_default();
                    *of_task
                        .processes
                        .entry(member.said.process_id.clone())
                        .or_default() += 1;
                }
            }
            assert!(
                member.epoch <= self.assignment_epoch,
                "group {id}: {} is ahead of the assignment",
                member.id
            );
            assert_eq!(
                member.revoking.is_empty(),
                member.state != MemberState::UnrevokedTasks,
                "group {id}: what {} gives up",
                member.id
            );
        }
        assert_eq!(holders, self.holders, "group {id}: holders");
        let said: usize = self.members.values().map(|member| member.said.bytes()).sum();
        assert_eq!(said, self.said_bytes, "group {id}: bytes of what members said");
        assert!(self.assignment_epoch <= self.epoch, "group {id}: epochs");
        assert!(
            self.target.keys().all(|member| self.members.contains_key(member)),
            "group {id}: a target without a member"
        );
    }
}
