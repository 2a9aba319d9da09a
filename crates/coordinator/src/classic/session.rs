//! Heartbeat, LeaveGroup and the end of sessions: how a group knows who is there.

use milena_protocol::messages::HeartbeatRequest;
use milena_protocol::messages::leave_group_request::MemberIdentity;
use milena_protocol::messages::leave_group_response::MemberResponse;
use milena_protocol::{ErrorCode, Str};

use super::{ClassicGroup, State, Step};
use crate::Ticket;

impl ClassicGroup {
    pub(crate) fn heartbeat(&mut self, step: &mut Step<'_>, ticket: Ticket, request: &HeartbeatRequest) {
        if let Err(error) = self.validate_member(&request.member_id, request.group_instance_id.as_ref()) {
            return step.answer_heartbeat(ticket, error);
        }
        if request.generation_id != self.generation {
            return step.answer_heartbeat(ticket, ErrorCode::IllegalGeneration);
        }
        let error = match self.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => ErrorCode::RebalanceInProgress,
            // A member may heartbeat before it has its assignment.
            State::CompletingRebalance | State::Stable => ErrorCode::None,
        };
        self.reschedule_session(step, &request.member_id);
        step.answer_heartbeat(ticket, error);
    }

    /// Removes the members that are named, and tells of each what became of it. An administrator
    /// names a static member by its instance id alone (KIP-345).
    pub(crate) fn leave(&mut self, step: &mut Step<'_>, members: &[MemberIdentity]) -> Vec<MemberResponse> {
        let mut responses = Vec::with_capacity(members.len());
        let mut anybody_left = false;
        for identity in members {
            let error = match self.leaving_member(identity) {
                Ok(member_id) => {
                    self.remove(step, &member_id);
                    anybody_left = true;
                    ErrorCode::None
                }
                Err(error) => error,
            };
            let response = MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: error.code(),
                ..MemberResponse::default()
            };
            responses.push(response);
        }
        if anybody_left {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
                State::PreparingRebalance => self.maybe_complete_join_phase(step),
                State::Empty => {}
            }
        }
        responses
    }

    fn leaving_member(&self, identity: &MemberIdentity) -> Result<Str, ErrorCode> {
        let (member_id, instance_id) = (&identity.member_id, identity.group_instance_id.as_ref());
        if member_id.is_empty() {
            let named = instance_id.and_then(|instance| self.static_members.get(instance));
            return named.cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        if !self.pending_joins.contains(member_id) {
            self.validate_member(member_id, instance_id)?;
        }
        Ok(member_id.clone())
    }

    /// A session ended without a heartbeat.
    pub(crate) fn session_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        if self.pending_joins.contains(member_id) {
            self.remove(step, member_id);
            if self.state == State::PreparingRebalance && self.has_all_members_joined() {
                self.complete_join_phase(step);
            }
            return;
        }
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        if member.has_satisfied_heartbeat() {
            return;
        }
        self.remove(step, member_id);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance if self.has_all_members_joined() => self.complete_join_phase(step),
            State::PreparingRebalance | State::Empty => {}
        }
    }
}
