//! The join phase: from the moment that a group must rebalance until everybody who is there has
//! joined and the next generation begins.

use milena_protocol::{ErrorCode, Str};

use super::{ClassicGroup, State, Step};
use crate::limits::MIN_REBALANCE_RETRY_MS;
use crate::timers::TimerKey;

/// The first rebalance of an empty group waits for more members (KIP-134): in slices, one more as
/// long as members keep coming and the rebalance timeout is not used up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InitialDelay {
    slice_ms: i64,
    remaining_ms: i64,
}

impl ClassicGroup {
    fn join_timer(&self) -> TimerKey {
        TimerKey::Join {
            group: self.id.clone(),
        }
    }

    pub(super) fn sync_timer(&self) -> TimerKey {
        TimerKey::Sync {
            group: self.id.clone(),
        }
    }

    pub(super) fn maybe_prepare_rebalance_or_complete_join(&mut self, step: &mut Step<'_>) {
        if self.state == State::PreparingRebalance {
            self.maybe_complete_join_phase(step);
        } else {
            self.prepare_rebalance(step);
        }
    }

    /// Ends the join phase if everybody is there. The initial rebalance ends by its timer only.
    pub(super) fn maybe_complete_join_phase(&mut self, step: &mut Step<'_>) {
        let initial = self.previous_state == State::Empty;
        if self.state == State::PreparingRebalance && !initial && self.has_all_members_joined() {
            self.complete_join_phase(step);
        }
    }

    pub(crate) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        if self.state == State::CompletingRebalance {
            self.refuse_waiting_syncs(step, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        step.timers.cancel(self.sync_timer());
        let initial = self.state == State::Empty;
        self.transition_to(State::PreparingRebalance, step.now_ms);
        if initial {
            let slice_ms = i64::from(step.config.initial_rebalance_delay_ms.max(0));
            let remaining_ms = (self.rebalance_timeout_ms() - slice_ms).max(0);
            self.new_member_added = false;
            self.initial_delay = Some(InitialDelay {
                slice_ms,
                remaining_ms,
            });
            step.timers
                .schedule(self.join_timer(), step.now_ms.saturating_add(slice_ms));
        } else if self.has_all_members_joined() {
            self.complete_join_phase(step);
        } else {
            let deadline = step.now_ms.saturating_add(self.rebalance_timeout_ms());
            step.timers.schedule(self.join_timer(), deadline);
        }
    }

    /// The join phase's timer: the initial delay or the rebalance timeout is over.
    pub(crate) fn join_timer_fired(&mut self, step: &mut Step<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match self.initial_delay {
            Some(delay) if self.new_member_added && delay.remaining_ms != 0 => {
                self.new_member_added = false;
                let configured = i64::from(step.config.initial_rebalance_delay_ms.max(0));
                let slice_ms = configured.min(delay.remaining_ms);
                let remaining_ms = (delay.remaining_ms - delay.slice_ms).max(0);
                self.initial_delay = Some(InitialDelay {
                    slice_ms,
                    remaining_ms,
                });
                step.timers
                    .schedule(self.join_timer(), step.now_ms.saturating_add(slice_ms));
            }
            _ => self.complete_join_phase(step),
        }
    }

    /// Begins the next generation with those who have joined. Dynamic members who have not are
    /// out; static members stay, they may be restarting (KIP-345).
    pub(super) fn complete_join_phase(&mut self, step: &mut Step<'_>) {
        assert!(
            self.state == State::PreparingRebalance,
            "group {} completes a join phase",
            self.id
        );
        step.timers.cancel(self.join_timer());
        self.initial_delay = None;
        let late = |member: &&super::Member| member.awaiting_join.is_none() && member.instance_id.is_none();
        let late: Vec<Str> = self
            .members
            .values()
            .filter(late)
            .map(|member| member.id.clone())
            .collect();
        for id in &late {
            self.remove(step, id);
        }
        if self.members.is_empty() {
            self.become_empty(step);
        } else if self.elect_joined_leader() {
            self.begin_generation(step);
        } else {
            // Nobody joined, and those who are left are static members: wait until their sessions
            // end or one of them joins.
            let wait_ms = self.rebalance_timeout_ms().max(MIN_REBALANCE_RETRY_MS);
            step.timers
                .schedule(self.join_timer(), step.now_ms.saturating_add(wait_ms));
        }
    }

    /// Makes sure that the leader is somebody who joined; false if nobody did.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &Str| {
            self.members
                .get(id)
                .is_some_and(|member| member.awaiting_join.is_some())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let successor = self
            .members
            .values()
            .find(|member| member.awaiting_join.is_some());
        let Some(successor) = successor.map(|member| member.id.clone()) else {
            return false;
        };
        self.leader = Some(successor);
        true
    }

    fn become_empty(&mut self, step: &mut Step<'_>) {
        self.next_generation();
        self.protocol_name = None;
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition_to(State::Empty, step.now_ms);
        self.persist(step.effects);
    }

    fn begin_generation(&mut self, step: &mut Step<'_>) {
        self.next_generation();
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition_to(State::CompletingRebalance, step.now_ms);
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let response = self.join_response(&id, true);
            self.complete_join(step, &id, response);
            self.reschedule_session(step, &id);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.pending_sync.insert(id);
        }
        let deadline = step.now_ms.saturating_add(self.rebalance_timeout_ms());
        step.timers.schedule(self.sync_timer(), deadline);
    }

    fn next_generation(&mut self) {
        self.pending_sync.clear();
        // After 2^31 rebalances it starts again, rather than going negative: -1 means none.
        self.generation = self.generation.checked_add(1).unwrap_or(0);
    }

    /// Members who joined and never synced are out, and the others rebalance without them.
    pub(crate) fn sync_timer_fired(&mut self, step: &mut Step<'_>) {
        let waiting = matches!(self.state, State::CompletingRebalance | State::Stable);
        if !waiting || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove(step, &id);
        }
        self.prepare_rebalance(step);
    }
}
