//! Members of the classic protocol in a consumer group (KIP-848's online migration): to them an epoch is a
//! generation, and what changes is a rebalance that they hear of by a heartbeat and follow by joining again.
//!
//! A classic group becomes a consumer group when a member of the new protocol joins it, and a consumer group
//! a classic one when the last of these has left.

use std::collections::BTreeSet;

use bytes::Bytes;
use milena_protocol::messages::{HeartbeatRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse};
use milena_protocol::stored::GroupMetadataValue;
use milena_protocol::stored::group_metadata_value::MemberMetadata;
use milena_protocol::{ErrorCode, Str};

use super::member::{Classic, Member, MemberState};
use super::{ConsumerGroup, ConsumerGroupConfig};
use crate::classic::{ClassicGroup, FIRST_VERSION_REQUIRING_MEMBER_ID, Join};
use crate::modern::{Refusal, TopicPartitions};
use crate::step::Step;
use crate::subscription::{
    CONSUMER_PROTOCOL_TYPE, NamedPartitions, Subscription, read_assignment, write_assignment,
};
use crate::topics::TopicImage;
use crate::{Reply, Ticket};

/// Topics that are gone are left out.
fn by_id(named: &NamedPartitions, topics: &TopicImage) -> TopicPartitions {
    let known = named.iter().filter(|(_, partitions)| !partitions.is_empty());
    known
        .filter_map(|(name, partitions)| Some((topics.get(name)?.id, partitions.iter().copied().collect())))
        .collect()
}

/// What a member has, as its own protocol writes it.
fn assignment_bytes(member: &Member, classic: &Classic, topics: &TopicImage) -> Bytes {
    let named = member.assigned.iter().filter_map(|(id, partitions)| {
        let name = topics.get_by_id(id)?.name.clone();
        Some((name, partitions.keys().copied().collect()))
    });
    let metadata = classic.protocols.first().map(|protocol| &protocol.metadata);
    let version = metadata
        .and_then(|metadata| Subscription::read(metadata))
        .map_or(0, |subscription| subscription.version);
    write_assignment(version, &named.collect())
}

impl ConsumerGroup {
    // --- from a classic group and back --------------------------------------------------------

    /// The consumer group that takes a classic group's place: its members have what its leader gave them.
    pub(crate) fn from_classic(old: &ClassicGroup, topics: &TopicImage) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::new(
                ErrorCode::GroupIdNotFound,
                format!(
                    "Cannot upgrade the classic group {} to consumer group because the embedded consumer \
                     protocol is malformed.",
                    old.id
                ),
            )
        };
        let mut group = Self::new(old.id.clone());
        group.epoch = old.generation;
        group.assignment_epoch = old.generation;
        for member in old.members.values() {
            let chosen = old.protocol_name.as_ref().map(|name| member.metadata(name));
            let metadata = chosen.or_else(|| Some(member.protocols.first()?.metadata.clone()));
            let subscription = metadata
                .and_then(|metadata| Subscription::read(&metadata))
                .ok_or_else(malformed)?;
            let named = read_assignment(&member.assignment).ok_or_else(malformed)?;
            let mut new = Member {
                epoch: old.generation,
                previous_epoch: old.generation,
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                topics: subscription.topics.into_iter().collect(),
                classic: Some(Classic {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
                ..Member::new(member.id.clone())
            };
            let mut target = TopicPartitions::new();
            for (topic, partitions) in by_id(&named, topics) {
                for partition in partitions {
                    // A leader may have given one partition to two; the first one keeps it.
                    if !group.owners.contains_key(&(topic, partition)) {
                        target.entry(topic).or_default().insert(partition);
                        let assigned = new.assigned.entry(topic).or_default();
                        assigned.insert(partition, old.generation);
                    }
                }
            }
            group.target.insert(new.id.clone(), target);
            group.put_member(new);
        }
        Ok(group)
    }

    /// Puts everything that a group which was a classic one has among the facts, and starts its timers.
    pub(crate) fn begin(&mut self, step: &mut Step<'_>) {
        self.store_group(step.effects);
        self.store_assignment(step.effects);
        for member in self.members.values() {
            self.store_member(step.effects, member);
            self.store_current(step.effects, member);
            if let Some(target) = self.target.get(&member.id) {
                self.store_target(step.effects, &member.id, target);
            }
        }
        self.start_timers(step);
    }

    /// Whether only members of the classic protocol are left.
    pub(crate) fn is_classic_by_now(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.classic.is_some())
    }

    /// The classic group that takes this one's place; everybody is to join it anew.
    pub(crate) fn to_classic(&self, step: &mut Step<'_>) -> ClassicGroup {
        let common = self.common_protocols();
        let stored = self.members.values().filter_map(|member| {
            let classic = member.classic.as_ref()?;
            let chosen = common.first();
            let protocol = classic
                .protocols
                .iter()
                .find(|protocol| Some(&protocol.name) == chosen);
            Some(MemberMetadata {
                member_id: member.id.clone(),
                group_instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: member.rebalance_timeout_ms,
                session_timeout: classic.session_timeout_ms,
                subscription: protocol
                    .map(|protocol| protocol.metadata.clone())
                    .unwrap_or_default(),
                assignment: assignment_bytes(member, classic, step.topics),
                ..MemberMetadata::default()
            })
        });
        let value = GroupMetadataValue {
            protocol_type: Str::from(CONSUMER_PROTOCOL_TYPE),
            // The last one that members have reached: whoever heard of no other yet goes on from it.
            generation: self.assignment_epoch,
            protocol: common.first().cloned(),
            current_state_timestamp: step.now_ms,
            members: stored.collect(),
            ..GroupMetadataValue::default()
        };
        for member in self.members.keys() {
            self.cancel_timers(step, member);
        }
        self.forget(step.effects);
        let mut group = ClassicGroup::load(self.id.clone(), value);
        group.persist(step.effects);
        group.start_timers(step);
        group.prepare_rebalance(step);
        group
    }

    /// The protocols that all classic members support.
    fn common_protocols(&self) -> BTreeSet<Str> {
        let names = |classic: &Classic| -> BTreeSet<Str> {
            let protocols = classic.protocols.iter();
            protocols.map(|protocol| protocol.name.clone()).collect()
        };
        let mut all = self
            .members
            .values()
            .filter_map(|member| member.classic.as_ref())
            .map(names);
        let first = all.next().unwrap_or_default();
        all.fold(first, |common, names| {
            common.intersection(&names).cloned().collect()
        })
    }

    // --- the requests of classic members ------------------------------------------------------

    /// JoinGroup. `new_id` names a member that has no id yet.
    pub(crate) fn join_classic(
        &mut self,
        step: &mut Step<'_>,
        config: &ConsumerGroupConfig,
        join: Join,
        new_id: impl FnOnce() -> Str,
    ) {
        let parked = join.parked;
        let is_unknown = join.member_id.is_empty();
        let id = match is_unknown {
            true => new_id(),
            false => join.member_id.clone(),
        };
        let needs_id =
            is_unknown && parked.version >= FIRST_VERSION_REQUIRING_MEMBER_ID && join.instance_id.is_none();
        match self.admit_classic(config, &join) {
            Ok(_) if needs_id => step.fail_join(parked, &id, ErrorCode::MemberIdRequired),
            Ok(subscription) => match self.classic_member(&join, &id, is_unknown) {
                Ok((member, replaced)) => {
                    let response = self.follow_classic(step, config, join, subscription, &member, replaced);
                    step.answer_join(parked, response);
                }
                Err(error) => step.fail_join(parked, &Str::default(), error),
            },
            Err(error) => step.fail_join(parked, &Str::default(), error),
        }
    }

    /// Whether there is room for the member, and whether the others speak one of its protocols.
    fn admit_classic(&self, config: &ConsumerGroupConfig, join: &Join) -> Result<Subscription, ErrorCode> {
        let is_member = self.members.contains_key(&join.member_id);
        self.admit(config, is_member).map_err(|refusal| refusal.error)?;
        let common = self.common_protocols();
        let is_first = self.members.values().all(|member| member.classic.is_none());
        let mut protocols = join.protocols.iter();
        let fits = protocols.any(|protocol| is_first || common.contains(&protocol.name));
        if &*join.protocol_type != CONSUMER_PROTOCOL_TYPE || !fits {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let metadata = join.protocols.first().map(|protocol| &protocol.metadata);
        metadata
            .and_then(|metadata| Subscription::read(metadata))
            .ok_or(ErrorCode::InconsistentGroupProtocol)
    }

    /// The member that joins, and the id of the one whose place it takes.
    fn classic_member(
        &self,
        join: &Join,
        id: &Str,
        is_unknown: bool,
    ) -> Result<(Member, Option<Str>), ErrorCode> {
        let known = self.members.get(id).cloned();
        let Some(instance) = &join.instance_id else {
            return Ok((known.unwrap_or_else(|| Member::new(id.clone())), None));
        };
        let existing = self.static_members.get(instance);
        match existing.and_then(|id| self.members.get(id)) {
            None if is_unknown => Ok((Member::new(id.clone()), None)),
            None => Err(ErrorCode::UnknownMemberId),
            Some(existing) if is_unknown => {
                let member = Member {
                    id: id.clone(),
                    epoch: 0,
                    previous_epoch: 0,
                    ..existing.clone()
                };
                Ok((member, Some(existing.id.clone())))
            }
            Some(existing) if existing.id != *id => Err(ErrorCode::FencedInstanceId),
            Some(existing) => Ok((existing.clone(), None)),
        }
    }

    fn follow_classic(
        &mut self,
        step: &mut Step<'_>,
        config: &ConsumerGroupConfig,
        join: Join,
        subscription: Subscription,
        member: &Member,
        replaced: Option<Str>,
    ) -> JoinGroupResponse {
        if let Some(old_id) = &replaced {
            self.replace_member(step, old_id, member);
        }
        let protocol_name = join.protocols.first().map(|protocol| protocol.name.clone());
        let updated = Member {
            instance_id: join.instance_id.or(member.instance_id.clone()),
            rack_id: subscription.rack.or(member.rack_id.clone()),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            client_id: join.client.client_id,
            client_host: join.client.client_host,
            topics: subscription.topics.into_iter().collect(),
            regex: None,
            assignor: None,
            classic: Some(Classic {
                session_timeout_ms: join.session_timeout_ms,
                protocols: join.protocols,
            }),
            ..member.clone()
        };
        let owned = by_id(&subscription.owned, step.topics);
        let next = self.go_on(step, config, member, updated, Some(&owned), replaced.is_some());
        step.schedule_session(&self.id, &next.id, i64::from(join.session_timeout_ms));
        // It has to sync in time.
        let deadline_ms = step
            .now_ms
            .saturating_add(i64::from(next.rebalance_timeout_ms.max(0)));
        step.timers.schedule(self.rejoin_timer(&next.id), deadline_ms);
        JoinGroupResponse {
            member_id: next.id,
            generation_id: next.epoch,
            protocol_type: Some(Str::from(CONSUMER_PROTOCOL_TYPE)),
            protocol_name,
            ..JoinGroupResponse::default()
        }
    }

    fn validate_classic(
        &self,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
    ) -> Result<(&Member, &Classic), ErrorCode> {
        if let Some(instance) = instance_id {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(id) if id != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let classic = member.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        match member.epoch == generation {
            true => Ok((member, classic)),
            false => Err(ErrorCode::IllegalGeneration),
        }
    }

    fn must_join_again(&self, step: &mut Step<'_>, member: &Member) -> ErrorCode {
        let timer = self.rejoin_timer(&member.id);
        if !step.timers.is_scheduled(&timer) {
            let timeout_ms = i64::from(member.rebalance_timeout_ms.max(0));
            step.timers
                .schedule(timer, step.now_ms.saturating_add(timeout_ms));
        }
        ErrorCode::RebalanceInProgress
    }

    /// SyncGroup: the member fetches what it was given; nobody leads.
    pub(crate) fn sync_classic(&self, step: &mut Step<'_>, ticket: Ticket, request: &SyncGroupRequest) {
        match self.try_sync_classic(step, request) {
            Ok(response) => step.effects.reply(ticket, Reply::SyncGroup(response)),
            Err(error) => step.fail_sync(ticket, error),
        }
    }

    fn try_sync_classic(
        &self,
        step: &mut Step<'_>,
        request: &SyncGroupRequest,
    ) -> Result<SyncGroupResponse, ErrorCode> {
        let instance = request.group_instance_id.as_ref();
        let (member, classic) = self.validate_classic(&request.member_id, instance, request.generation_id)?;
        let own = classic.protocols.first().map(|protocol| &protocol.name);
        let given_type = request.protocol_type.as_deref();
        let given_name = request.protocol_name.as_ref();
        if given_type.is_some_and(|given| given != CONSUMER_PROTOCOL_TYPE)
            || (given_name.is_some() && given_name != own)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.assignment_epoch > member.epoch && member.state != MemberState::UnrevokedPartitions {
            return Err(self.must_join_again(step, member));
        }
        step.timers.cancel(self.rejoin_timer(&member.id));
        step.schedule_session(&self.id, &member.id, i64::from(classic.session_timeout_ms));
        Ok(SyncGroupResponse {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: assignment_bytes(member, classic, step.topics),
            ..SyncGroupResponse::default()
        })
    }

    /// Heartbeat: whether the member has to join again, because the group has changed, because it is to give
    /// partitions up, or because those that it waits for are free.
    pub(crate) fn heartbeat_classic(
        &self,
        step: &mut Step<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        let instance = request.group_instance_id.as_ref();
        let (member, classic) = self.validate_classic(&request.member_id, instance, request.generation_id)?;
        step.schedule_session(&self.id, &member.id, i64::from(classic.session_timeout_ms));
        let has_changed = match member.state {
            _ if member.epoch < self.assignment_epoch => true,
            MemberState::Stable => false,
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !self.waits_for_others(member),
        };
        match has_changed {
            true => Err(self.must_join_again(step, member)),
            false => Ok(()),
        }
    }

    /// Whether somebody else still has one of the partitions that the member is to have.
    fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.target.get(&member.id).into_iter().flatten();
        target
            .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
            .any(|partition| {
                let owner = self.owners.get(&partition);
                owner.is_some_and(|owner| *owner != member.id)
            })
    }
}
