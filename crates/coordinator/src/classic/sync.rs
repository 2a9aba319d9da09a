//! SyncGroup: the leader gives the assignment, everybody gets theirs.

use std::collections::HashMap;

use bytes::Bytes;
use milena_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use milena_protocol::{ErrorCode, Str};

use super::{ClassicGroup, Member, State, Step, detached_bytes};
use crate::limits::MAX_GROUP_METADATA_BYTES;
use crate::{Reply, Ticket};

impl ClassicGroup {
    pub(crate) fn sync(&mut self, step: &mut Step<'_>, ticket: Ticket, request: &SyncGroupRequest) {
        if let Err(error) = self.validate_sync(request) {
            return step.fail_sync(ticket, error);
        }
        match self.state {
            State::Empty => step.fail_sync(ticket, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => step.fail_sync(ticket, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.park_sync(step, ticket, &request.member_id);
                if self.is_leader(&request.member_id) {
                    self.assign(step, request);
                }
            }
            State::Stable => {
                self.remove_pending_sync(step, &request.member_id);
                if let Some(member) = self.members.get(&request.member_id) {
                    let response = self.assignment_of(member);
                    step.effects.reply(ticket, Reply::SyncGroup(response));
                }
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // Version 5 tells what the member believes was chosen (KIP-559).
        let differs = |told: &Option<Str>, own: &Option<Str>| told.is_some() && told != own;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn park_sync(&mut self, step: &mut Step<'_>, ticket: Ticket, member_id: &Str) {
        self.remove_pending_sync(step, member_id);
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        // A SyncGroup of the same member that waits already was given up by its client.
        if let Some(superseded) = member.awaiting_sync.replace(ticket) {
            step.fail_sync(superseded, ErrorCode::RebalanceInProgress);
        }
    }

    fn remove_pending_sync(&mut self, step: &mut Step<'_>, member_id: &Str) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            step.timers.cancel(self.sync_timer());
        }
    }

    /// Takes the leader's assignment, also to members that it left out: they get an empty one,
    /// so that everybody is answered.
    fn assign(&mut self, step: &mut Step<'_>, request: &SyncGroupRequest) {
        let size: usize = request
            .assignments
            .iter()
            .map(|given| given.assignment.len())
            .sum();
        if size > MAX_GROUP_METADATA_BYTES {
            self.refuse_waiting_syncs(step, ErrorCode::UnknownServerError);
            return self.prepare_rebalance(step);
        }
        let assignments: HashMap<&Str, &Bytes> = request
            .assignments
            .iter()
            .map(|given| (&given.member_id, &given.assignment))
            .collect();
        for member in self.members.values_mut() {
            member.assignment = assignments
                .get(&member.id)
                .map(|bytes| detached_bytes(bytes))
                .unwrap_or_default();
        }
        self.transition_to(State::Stable, step.now_ms);
        self.persist(step.effects);
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(ticket) = self
                .members
                .get_mut(&id)
                .and_then(|member| member.awaiting_sync.take())
            else {
                continue;
            };
            if let Some(member) = self.members.get(&id) {
                let response = self.assignment_of(member);
                step.effects.reply(ticket, Reply::SyncGroup(response));
            }
            // Its session was not counted while it waited here.
            self.reschedule_session(step, &id);
        }
    }

    fn assignment_of(&self, member: &Member) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: member.assignment.clone(),
            ..SyncGroupResponse::default()
        }
    }

    /// The generation ends before its assignment came: whoever waits for it has to join again.
    pub(super) fn refuse_waiting_syncs(&mut self, step: &mut Step<'_>, error: ErrorCode) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.assignment = Bytes::new();
            if let Some(ticket) = member.awaiting_sync.take() {
                step.fail_sync(ticket, error);
                self.reschedule_session(step, &id);
            }
        }
    }
}
