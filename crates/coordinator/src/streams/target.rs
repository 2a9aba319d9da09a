//! When a streams group's target assignment is computed, and of what.

use std::collections::BTreeMap;

use milena_protocol::Str;

use super::StreamsGroup;
use super::assignor::{self, Subscriber, Work};
use super::tasks::Target;
use crate::step::Step;

/// Why there is no newer target yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delay {
    /// The group was empty, and more members may come.
    InitialRebalance,
    /// The last one is too recent.
    Interval,
}

impl Delay {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::InitialRebalance => "Assignment delayed due to the configured initial rebalance delay.",
            Self::Interval => "Assignment delayed due to the configured assignment interval.",
        }
    }
}

impl StreamsGroup {
    /// Computes a new target when the group has changed since the last one, unless it is too early for that.
    pub(super) fn assign_when_due(&mut self, step: &mut Step<'_>) -> Option<Delay> {
        if step.timers.is_scheduled(&self.initial_rebalance_timer()) {
            return Some(Delay::InitialRebalance);
        }
        if self.epoch <= self.assignment_epoch {
            return None;
        }
        let due_ms = self
            .assigned_at_ms
            .saturating_add(i64::from(self.assignment_interval_ms));
        // The clock may have gone back; a group must not wait for it.
        let recent = (self.assigned_at_ms..due_ms).contains(&step.now_ms);
        if recent && self.assigned_at_ms > 0 {
            return Some(Delay::Interval);
        }
        let target = self.compute_target();
        for (member, tasks) in &target {
            if self.target.get(member) != Some(tasks) {
                self.store_target(step.effects, member, tasks);
            }
        }
        self.target = target;
        self.assignment_epoch = self.epoch;
        self.assigned_at_ms = step.now_ms;
        self.store_assignment(step.effects);
        None
    }

    /// Those who came while the group waited get their share.
    pub(crate) fn initial_rebalance_due(&mut self, step: &mut Step<'_>) {
        if !self.members.is_empty() && self.configured.is_some() {
            self.assign_when_due(step);
        }
    }

    fn compute_target(&self) -> BTreeMap<Str, Target> {
        let configured = self
            .configured
            .as_ref()
            .filter(|configured| configured.is_ready());
        let tasks = configured.and_then(|configured| configured.tasks.as_ref());
        let Some(tasks) = tasks else {
            let nobody_has_any = self.members.keys().map(|id| (id.clone(), Target::default()));
            return nobody_has_any.collect();
        };
        let is_stateful = |id: &Str| {
            let subtopology = self.topology.as_ref().and_then(|topology| topology.get(id));
            subtopology.is_some_and(|subtopology| !subtopology.state_changelog_topics.is_empty())
        };
        let work: Vec<Work<'_>> = tasks
            .iter()
            .map(|(subtopology, tasks)| Work {
                subtopology,
                tasks: *tasks,
                is_stateful: is_stateful(subtopology),
            })
            .collect();
        let subscribers: Vec<Subscriber<'_>> = self
            .members
            .values()
            .map(|member| Subscriber {
                id: &member.id,
                process_id: &member.said.process_id,
                target: self.target.get(&member.id),
            })
            .collect();
        let replicas = self.standby_replicas.unwrap_or(0);
        assignor::assign(&subscribers, &work, usize::try_from(replicas).unwrap_or(0))
    }
}
