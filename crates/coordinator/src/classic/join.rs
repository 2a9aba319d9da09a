//! JoinGroup: who becomes a member, who is sent back, and whose joining starts a rebalance.

use milena_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use milena_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};
use milena_protocol::{ErrorCode, Str};

use super::{ClassicGroup, Member, Parked, Protocol, State, Step, join_error};
use crate::limits::{
    MAX_GROUP_METADATA_BYTES, MAX_MEMBER_ID_PREFIX_BYTES, MAX_MEMBER_PROTOCOLS_BYTES, MAX_MEMBERS_PER_GROUP,
    MAX_NAME_BYTES, MAX_PENDING_MEMBERS_PER_GROUP, NEW_MEMBER_JOIN_TIMEOUT_MS,
};
use crate::{Client, Reply};

/// From this version on, a new dynamic member is first given an id to join with (KIP-394).
pub(crate) const FIRST_VERSION_REQUIRING_MEMBER_ID: i16 = 4;
/// From this version on, a static leader that comes back may be told to skip the assignment (KIP-814).
const FIRST_VERSION_SKIPPING_ASSIGNMENT: i16 = 9;

/// A JoinGroup that passed the checks which need no group.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) parked: Parked,
    pub(crate) member_id: Str,
    pub(crate) instance_id: Option<Str>,
    pub(crate) client: Client,
    pub(crate) protocol_type: Str,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
}

impl Join {
    /// Version 0 knows one timeout for both purposes.
    pub(crate) fn new(parked: Parked, client: &Client, request: &JoinGroupRequest) -> Self {
        let rebalance_timeout_ms = if parked.version == 0 {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        };
        Self {
            parked,
            member_id: request.member_id.detached(),
            instance_id: request.group_instance_id.as_ref().map(Str::detached),
            client: Client {
                client_id: client.client_id.detached(),
                client_host: client.client_host.detached(),
            },
            protocol_type: request.protocol_type.detached(),
            protocols: request.protocols.iter().map(Protocol::from).collect(),
            rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
        }
    }

    fn metadata_bytes(&self) -> usize {
        self.protocols.iter().map(Protocol::size_bytes).sum()
    }

    /// Why nobody may join like this, whatever the group; asked before anything is copied.
    pub(crate) fn refusal(client: &Client, request: &JoinGroupRequest) -> Option<ErrorCode> {
        let size = |protocol: &JoinGroupRequestProtocol| {
            size_of::<Protocol>() + protocol.name.len() + protocol.metadata.len()
        };
        let too_large = request.protocols.iter().map(size).sum::<usize>() > MAX_MEMBER_PROTOCOLS_BYTES;
        let names = request.protocols.iter().map(|protocol| &protocol.name);
        let mut names = names
            .chain([&request.protocol_type, &client.client_id])
            .chain(&request.group_instance_id);
        (too_large || names.any(|name| name.len() > MAX_NAME_BYTES)).then_some(ErrorCode::InvalidRequest)
    }

    fn into_member(self, id: Str) -> Member {
        Member {
            id,
            instance_id: self.instance_id,
            client_id: self.client.client_id,
            client_host: self.client.client_host,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            protocols: self.protocols,
            assignment: bytes::Bytes::new(),
            is_new: true,
            awaiting_join: Some(self.parked),
            awaiting_sync: None,
        }
    }
}

impl ClassicGroup {
    /// `fresh_suffix` makes the random part of a new member's id.
    pub(crate) fn join(&mut self, step: &mut Step<'_>, join: Join, fresh_suffix: impl FnOnce() -> String) {
        if !self.accepts_joining_member(step, &join.member_id) {
            let member_id = join.member_id.clone();
            step.fail_join(join.parked, &Str::default(), ErrorCode::GroupMaxSizeReached);
            self.remove(step, &member_id);
            // The member that was turned away may have been the last that the others waited for.
            return self.maybe_complete_join_phase(step);
        }
        if !self.supports_protocols(&join.protocol_type, &join.protocols) {
            return step.fail_join(join.parked, &join.member_id, ErrorCode::InconsistentGroupProtocol);
        }
        let is_member = self.members.contains_key(&join.member_id);
        if !is_member && self.metadata_bytes + join.metadata_bytes() > MAX_GROUP_METADATA_BYTES {
            return step.fail_join(join.parked, &Str::default(), ErrorCode::GroupMaxSizeReached);
        }
        if join.member_id.is_empty() {
            self.join_new_member(step, join, fresh_suffix);
        } else {
            self.join_known_member(step, join);
        }
    }

    fn accepts_joining_member(&self, step: &Step<'_>, member_id: &Str) -> bool {
        let limit = usize::try_from(step.config.max_group_size)
            .unwrap_or(0)
            .min(MAX_MEMBERS_PER_GROUP);
        match self.state {
            State::Empty => true,
            // Those who wait are counted, not the members: if the limit was lowered, the last to
            // join again are the ones who have to go.
            State::PreparingRebalance => {
                let waits = |member: &Member| member.awaiting_join.is_some();
                self.members.get(member_id).is_some_and(waits) || self.awaiting_join < limit
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < limit
            }
        }
    }

    fn join_new_member(&mut self, step: &mut Step<'_>, join: Join, fresh_suffix: impl FnOnce() -> String) {
        let named_after = join.instance_id.as_ref().unwrap_or(&join.client.client_id);
        let end = named_after.floor_char_boundary(MAX_MEMBER_ID_PREFIX_BYTES);
        let new_id = Str::from(format!("{}-{}", &named_after[..end], fresh_suffix()));
        match &join.instance_id {
            Some(instance) => match self.static_members.get(instance).cloned() {
                Some(old_id) => self.replace_static_member(step, join, &old_id, new_id),
                None => self.add_member(step, join, new_id),
            },
            None if join.parked.version >= FIRST_VERSION_REQUIRING_MEMBER_ID => {
                self.add_pending_member(step, &join, new_id);
            }
            None => self.add_member(step, join, new_id),
        }
    }

    fn add_pending_member(&mut self, step: &mut Step<'_>, join: &Join, new_id: Str) {
        while self.pending_joins.len() >= MAX_PENDING_MEMBERS_PER_GROUP {
            let Some(oldest) = self.pending_joins.oldest().cloned() else {
                break;
            };
            self.remove(step, &oldest);
        }
        self.pending_joins.insert(new_id.clone());
        step.schedule_session(&self.id, &new_id, i64::from(join.session_timeout_ms));
        step.fail_join(join.parked, &new_id, ErrorCode::MemberIdRequired);
    }

    fn add_member(&mut self, step: &mut Step<'_>, join: Join, id: Str) {
        if self.state == State::PreparingRebalance && self.previous_state == State::Empty {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.insert_member(join.into_member(id.clone()));
        step.schedule_session(&self.id, &id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.maybe_prepare_rebalance_or_complete_join(step);
    }

    fn join_known_member(&mut self, step: &mut Step<'_>, join: Join) {
        let member_id = join.member_id.clone();
        if self.pending_joins.contains(&member_id) {
            if join.instance_id.is_some() {
                // Ids of pending members are given to dynamic members only.
                return step.fail_join(join.parked, &member_id, ErrorCode::UnknownServerError);
            }
            return self.add_member(step, join, member_id);
        }
        if let Err(error) = self.validate_member(&member_id, join.instance_id.as_ref()) {
            return step.answer_join(join.parked, join_error(&member_id, error));
        }
        let unchanged = self
            .members
            .get(&member_id)
            .is_some_and(|member| member.protocols == join.protocols);
        let rebalance = match self.state {
            State::PreparingRebalance => true,
            // It may have missed the reply to its first JoinGroup.
            State::CompletingRebalance => !unchanged,
            // The leader joins again to have the assignment made anew, as when a topic grows.
            State::Stable => !unchanged || self.is_leader(&member_id),
            State::Empty => return step.fail_join(join.parked, &member_id, ErrorCode::UnknownMemberId),
        };
        if rebalance {
            self.update_member(step, &member_id, join);
            self.maybe_prepare_rebalance_or_complete_join(step);
        } else {
            let tells_members = self.state == State::CompletingRebalance;
            let response = self.join_response(&member_id, tells_members);
            step.answer_join(join.parked, response);
        }
    }

    /// The current generation as a member is told of it; only the leader is told the members.
    pub(super) fn join_response(&self, member_id: &Str, tells_members: bool) -> JoinGroupResponse {
        let mut response = JoinGroupResponse {
            error_code: ErrorCode::None.code(),
            member_id: member_id.clone(),
            generation_id: self.generation,
            protocol_name: self.protocol_name.clone(),
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            ..JoinGroupResponse::default()
        };
        if tells_members && self.is_leader(member_id) {
            let protocol = self.protocol_name.as_ref();
            response.members = self
                .members
                .values()
                .map(|member| member.join_response_member(protocol))
                .collect();
        }
        response
    }

    /// Takes over what a member's new JoinGroup says and parks it. A JoinGroup of the same member
    /// that is parked already was given up by its client; it is answered so that nothing waits
    /// for ever (Kafka forgets it).
    fn update_member(&mut self, step: &mut Step<'_>, member_id: &Str, join: Join) {
        let waited_for_sync = self.pending_sync.contains(member_id);
        let Some(mut member) = self.take_member(member_id) else {
            return;
        };
        if let Some(superseded) = member.awaiting_join.replace(join.parked) {
            step.fail_join(superseded, member_id, ErrorCode::RebalanceInProgress);
        }
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        if waited_for_sync {
            self.pending_sync.insert(member_id.clone());
        }
        self.insert_member(member);
    }

    /// A static member came back without its id (KIP-345): it gets a new one, whoever still uses
    /// the old one is fenced, and if the protocol stays the same the assignment does too.
    fn replace_static_member(&mut self, step: &mut Step<'_>, join: Join, old_id: &Str, new_id: Str) {
        let client_version = join.parked.version;
        let previous_leader = self.leader.clone();
        self.rename_static_member(step, old_id, &new_id);
        self.update_member(step, &new_id, join);
        self.reschedule_session(step, &new_id);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol_name => {
                let mut response =
                    self.join_response(&new_id, client_version >= FIRST_VERSION_SKIPPING_ASSIGNMENT);
                if client_version >= FIRST_VERSION_SKIPPING_ASSIGNMENT {
                    response.skip_assignment = self.is_leader(&new_id);
                } else {
                    // An older client that finds itself the leader would make a new assignment,
                    // which nobody asked for: it is told the name of the leader that it was.
                    response.leader = previous_leader.unwrap_or_default();
                }
                self.persist(step.effects);
                self.complete_join(step, &new_id, response);
            }
            State::Stable => self.maybe_prepare_rebalance_or_complete_join(step),
            // The old id may already be with the leader, whose assignment would miss the new one.
            State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join_phase(step),
        }
    }

    fn rename_static_member(&mut self, step: &mut Step<'_>, old_id: &Str, new_id: &Str) {
        let (leads, waited_for_sync) = (self.is_leader(old_id), self.pending_sync.contains(old_id));
        step.cancel_session(&self.id, old_id);
        let Some(mut member) = self.take_member(old_id) else {
            return;
        };
        if let Some(parked) = member.awaiting_join.take() {
            step.answer_join(parked, join_error(old_id, ErrorCode::FencedInstanceId));
        }
        if let Some(ticket) = member.awaiting_sync.take() {
            let response = SyncGroupResponse {
                error_code: ErrorCode::FencedInstanceId.code(),
                ..SyncGroupResponse::default()
            };
            step.effects.reply(ticket, Reply::SyncGroup(response));
        }
        member.id = new_id.clone();
        member.is_new = false;
        if leads {
            self.leader = Some(new_id.clone());
        }
        if waited_for_sync {
            self.pending_sync.insert(new_id.clone());
        }
        self.insert_member(member);
    }
}
