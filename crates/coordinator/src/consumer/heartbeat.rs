//! ConsumerGroupHeartbeat: joining, going on, and leaving.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedPartitions;
use milena_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, TopicPartitions as GivenPartitions,
};
use milena_protocol::messages::leave_group_request::MemberIdentity;
use milena_protocol::messages::leave_group_response::MemberResponse;
use milena_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::assignor::{self, Subscriber};
use super::member::{Assigned, Member, MemberState};
use super::reconcile::{Target, is_subset, partitions_of, reconcile};
use super::{Assignor, ConsumerGroup, ConsumerGroupConfig, regex};
use crate::limits::{
    MAX_GROUP_METADATA_BYTES, MAX_MEMBER_PROTOCOLS_BYTES, MAX_MEMBERS_PER_GROUP, MAX_NAME_BYTES,
    MAX_PATTERNS_PER_GROUP,
};
use crate::modern::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Refusal, TopicPartitions};
use crate::step::Step;
use crate::topics::TopicImage;
use crate::{Client, Effects};

/// ConsumerGroupHeartbeat from this version on expects the client to name itself.
const FIRST_VERSION_WITH_CLIENT_MEMBER_IDS: i16 = 1;
const NOT_GIVEN: i32 = -1;

/// Checks that need no group.
pub(crate) fn validate(
    config: &ConsumerGroupConfig,
    version: i16,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<(), Refusal> {
    let invalid = |sentence: &str| Err(Refusal::new(ErrorCode::InvalidRequest, sentence));
    let is_blank = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    let names_itself = version >= FIRST_VERSION_WITH_CLIENT_MEMBER_IDS
        || request.member_epoch > 0
        || request.member_epoch == LEAVE_EPOCH;
    if names_itself && request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if is_blank(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if is_blank(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    match request.member_epoch {
        0 => {
            if request.rebalance_timeout_ms == NOT_GIVEN {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if request
                .topic_partitions
                .as_ref()
                .is_none_or(|owned| !owned.is_empty())
            {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        }
        LEAVE_STATIC_EPOCH if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        epoch if epoch < LEAVE_STATIC_EPOCH => {
            return invalid("MemberEpoch is invalid.");
        }
        _ => {}
    }
    let names = [Some(&request.group_id), Some(&request.member_id)];
    let optional = [request.instance_id.as_ref(), request.rack_id.as_ref()];
    if names
        .into_iter()
        .chain(optional)
        .flatten()
        .any(|name| name.len() > MAX_NAME_BYTES)
    {
        return invalid("A name is longer than can be stored.");
    }
    let topics = request.subscribed_topic_names.iter().flatten();
    if topics.map(|name| name.len()).sum::<usize>() > MAX_MEMBER_PROTOCOLS_BYTES {
        return invalid("SubscribedTopicNames take more than can be stored.");
    }
    if let Some(assignor) = &request.server_assignor {
        let known = Assignor::from_name(assignor);
        if known.is_none_or(|known| !config.assignors.contains(&known)) {
            let supported: Vec<&str> = config.assignors.iter().map(|known| known.name()).collect();
            return Err(Refusal::new(
                ErrorCode::UnsupportedAssignor,
                format!(
                    "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
                    supported.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

fn owned_partitions(owned: &[OwnedPartitions]) -> TopicPartitions {
    let mut partitions = TopicPartitions::new();
    for topic in owned {
        if !topic.partitions.is_empty() {
            let of_topic = partitions.entry(topic.topic_id).or_default();
            of_topic.extend(topic.partitions.iter().copied());
        }
    }
    partitions
}

fn given(assigned: &Assigned) -> Assignment {
    let topic = |(topic, partitions): (&Uuid, &BTreeMap<i32, i32>)| GivenPartitions {
        topic_id: *topic,
        partitions: partitions.keys().copied().collect(),
        ..GivenPartitions::default()
    };
    Assignment {
        topic_partitions: assigned.iter().map(topic).collect(),
        ..Assignment::default()
    }
}

impl ConsumerGroup {
    /// A member that joins, or goes on. `member_id` is the request's, or a new one where that is empty.
    pub(crate) fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        config: &ConsumerGroupConfig,
        client: &Client,
        member_id: &Str,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        if let Some(member) = self.member_at_rest(step, client, request) {
            step.schedule_session(&self.id, &member.id, i64::from(config.session_timeout_ms));
            return Ok(ConsumerGroupHeartbeatResponse {
                member_id: Some(member.id.clone()),
                member_epoch: member.epoch,
                heartbeat_interval_ms: config.heartbeat_interval_ms,
                ..ConsumerGroupHeartbeatResponse::default()
            });
        }
        let owned = request.topic_partitions.as_deref().map(owned_partitions);
        let joins = request.member_epoch == 0;
        let is_member = !request.member_id.is_empty() && self.members.contains_key(&request.member_id);
        self.admit(config, is_member)?;
        let pattern = request.subscribed_topic_regex.as_ref();
        self.admit_pattern(pattern.filter(|text| !text.is_empty()))?;
        let (member, replaced) = match &request.instance_id {
            None => (
                self.dynamic_member(member_id, request.member_epoch, owned.as_ref())?,
                None,
            ),
            Some(instance) => {
                self.static_member(instance, member_id, request.member_epoch, owned.as_ref())?
            }
        };
        if let Some(old_id) = &replaced {
            self.replace_member(step, old_id, &member);
        }
        let mut updated = member.clone();
        take_over(&mut updated, client, request);
        updated.classic = None;
        let next = self.go_on(step, config, &member, updated, owned.as_ref(), replaced.is_some());
        step.timers.cancel(self.rejoin_timer(&next.id));
        step.schedule_session(&self.id, &next.id, i64::from(config.session_timeout_ms));

        let is_full = joins
            || (request.rebalance_timeout_ms != NOT_GIVEN
                && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
                && request.topic_partitions.is_some());
        let moved = partitions_of(&next.assigned) != partitions_of(&member.assigned);
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(next.id.clone()),
            member_epoch: next.epoch,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            assignment: (is_full || moved).then(|| given(&next.assigned)),
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// The member, if it has what it is to have and says nothing new: so are nearly all heartbeats.
    fn member_at_rest(
        &self,
        step: &Step<'_>,
        client: &Client,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Option<&Member> {
        let is_settled =
            self.epoch == self.assignment_epoch && self.seen_image == Some(step.topics.version());
        let says_nothing = request.topic_partitions.is_none()
            && request.subscribed_topic_names.is_none()
            && request.subscribed_topic_regex.is_none()
            && request.server_assignor.is_none()
            && request.rack_id.is_none()
            && request.rebalance_timeout_ms == NOT_GIVEN;
        let member = self.members.get(&request.member_id)?;
        let is_at_rest = is_settled
            && says_nothing
            && request.member_epoch == member.epoch
            && request.instance_id == member.instance_id
            && client.client_id == member.client_id
            && client.client_host == member.client_host
            && member.classic.is_none()
            && member.is_reconciled_to(self.assignment_epoch);
        is_at_rest.then_some(member)
    }

    /// A member has said something: what follows for the group, and then for the member, which is returned as it is
    /// then. `before` is what it was; `owned` what it says that it has, if it says it.
    pub(super) fn go_on(
        &mut self,
        step: &mut Step<'_>,
        config: &ConsumerGroupConfig,
        before: &Member,
        updated: Member,
        owned: Option<&TopicPartitions>,
        replaces: bool,
    ) -> Member {
        let is_new = !self.members.contains_key(&before.id);
        let changed = is_new || !updated.says_the_same_as(before);
        let subscribes_anew = updated.topics != before.topics || updated.pattern() != before.pattern();
        if changed {
            self.put_member(updated.clone());
            self.store_member(step.effects, &updated);
        }
        if self.epoch == 0 {
            // Every group starts so, also one whose first member subscribes to nothing.
            self.bump(step.effects);
        }
        self.follow_changes(step, subscribes_anew);
        self.assign_when_due(step, config);

        let no_target = TopicPartitions::new();
        let subscribed = self.subscriptions(&updated, step.topics);
        let target = Target {
            epoch: self.assignment_epoch,
            partitions: self.target.get(&updated.id).unwrap_or(&no_target),
            subscribed: &subscribed,
        };
        let owners = &self.owners;
        let next = reconcile(&updated, &target, owned, |topic, partition| {
            !owners.contains_key(&(*topic, partition))
        });
        if next != updated || is_new || replaces {
            self.store_current(step.effects, &next);
            if next.state == MemberState::UnrevokedPartitions {
                self.schedule_revocation(step, &next);
            } else {
                step.timers.cancel(self.revocation_timer(&next.id));
            }
            self.put_member(next.clone());
        }
        next
    }

    /// Whether there is room for a member, who may be one already, and for what it says.
    pub(super) fn admit(&self, config: &ConsumerGroupConfig, is_member: bool) -> Result<(), Refusal> {
        let most = usize::try_from(config.max_size)
            .unwrap_or(0)
            .min(MAX_MEMBERS_PER_GROUP);
        let has_room = is_member || self.members.len() < most;
        if has_room && self.said_bytes < MAX_GROUP_METADATA_BYTES {
            return Ok(());
        }
        let most = most.min(self.members.len());
        Err(Refusal::new(
            ErrorCode::GroupMaxSizeReached,
            format!("The consumer group has reached its maximum capacity of {most} members."),
        ))
    }

    /// A pattern that is known was checked when it came.
    fn admit_pattern(&self, pattern: Option<&Str>) -> Result<(), Refusal> {
        match pattern.filter(|pattern| !self.regexes.contains_key(*pattern)) {
            None => Ok(()),
            Some(_) if self.regexes.len() >= MAX_PATTERNS_PER_GROUP => Err(Refusal::new(
                ErrorCode::GroupMaxSizeReached,
                format!("The consumer group has reached its maximum of {MAX_PATTERNS_PER_GROUP} patterns."),
            )),
            Some(pattern) => regex::compile(pattern).map(|_| ()),
        }
    }

    fn dynamic_member(
        &self,
        member_id: &Str,
        epoch: i32,
        owned: Option<&TopicPartitions>,
    ) -> Result<Member, Refusal> {
        match self.members.get(member_id) {
            Some(member) => check_epoch(member, epoch, owned).map(|()| member.clone()),
            None if epoch == 0 => Ok(Member::new(member_id.detached())),
            None => Err(self.unknown_member(member_id)),
        }
    }

    /// The member, and the id of the one whose place it takes.
    fn static_member(
        &self,
        instance: &Str,
        member_id: &Str,
        epoch: i32,
        owned: Option<&TopicPartitions>,
    ) -> Result<(Member, Option<Str>), Refusal> {
        let existing = self
            .static_members
            .get(instance)
            .and_then(|id| self.members.get(id));
        let Some(existing) = existing else {
            return match epoch {
                0 => self
                    .dynamic_member(member_id, epoch, owned)
                    .map(|member| (member, None)),
                _ => Err(unknown_instance(instance)),
            };
        };
        if epoch == 0 {
            // A member of the other protocol does not say that it leaves for a while.
            if existing.epoch != LEAVE_STATIC_EPOCH && existing.classic.is_none() {
                return Err(Refusal::new(
                    ErrorCode::UnreleasedInstanceId,
                    format!(
                        "Static member {member_id} with instance id {instance} cannot join the group because the \
                         instance id is owned by {} member.",
                        existing.id
                    ),
                ));
            }
            let mut member = existing.clone();
            member.id = member_id.detached();
            member.epoch = 0;
            member.previous_epoch = 0;
            return Ok((member, Some(existing.id.clone())));
        }
        self.check_fenced(existing, member_id, instance)?;
        check_epoch(existing, epoch, owned)?;
        Ok((existing.clone(), None))
    }

    pub(super) fn check_fenced(
        &self,
        existing: &Member,
        member_id: &Str,
        instance: &Str,
    ) -> Result<(), Refusal> {
        if existing.id == *member_id {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::FencedInstanceId,
            format!(
                "Static member {member_id} with instance id {instance} was fenced by member {}.",
                existing.id
            ),
        ))
    }

    pub(super) fn unknown_member(&self, member_id: &Str) -> Refusal {
        Refusal::new(
            ErrorCode::UnknownMemberId,
            format!("Member {member_id} is not a member of group {}.", self.id),
        )
    }

    /// A static member comes back under a new id, and gets what the old one had.
    pub(super) fn replace_member(&mut self, step: &mut Step<'_>, old_id: &Str, member: &Member) {
        let target = self.target.remove(old_id);
        self.cancel_timers(step, old_id);
        self.take_member(old_id);
        if *old_id != member.id {
            self.forget_member(step.effects, old_id);
        }
        self.put_member(member.clone());
        self.store_member(step.effects, member);
        if let Some(target) = target {
            self.store_target(step.effects, &member.id, &target);
            self.target.insert(member.id.clone(), target);
        }
    }

    /// Looks at the topics where they or the subscriptions changed, and bumps the group epoch where that makes a
    /// difference, or where `changed` says so.
    fn follow_changes(&mut self, step: &mut Step<'_>, changed: bool) {
        if !changed && self.seen_image == Some(step.topics.version()) {
            return;
        }
        self.resolve_patterns(step);
        let hash = self.current_hash(step.topics);
        self.seen_image = Some(step.topics.version());
        if changed || hash != self.metadata_hash {
            self.metadata_hash = hash;
            self.bump(step.effects);
        }
    }

    fn bump(&mut self, effects: &mut Effects) {
        self.epoch = self.epoch.saturating_add(1);
        self.store_group(effects);
    }

    /// Matches new patterns, and all of them when topics came or went; forgets those that nobody has any more.
    fn resolve_patterns(&mut self, step: &mut Step<'_>) {
        let wanted: BTreeSet<Str> = self
            .members
            .values()
            .filter_map(Member::pattern)
            .cloned()
            .collect();
        let gone: Vec<Str> = self
            .regexes
            .keys()
            .filter(|known| !wanted.contains(*known))
            .cloned()
            .collect();
        for pattern in gone {
            self.regexes.remove(&pattern);
            self.forget_regex(step.effects, &pattern);
        }
        for pattern in wanted {
            let version = step.topics.version();
            let known = self.regexes.get(&pattern);
            if known.is_some_and(|known| known.image_version == version) {
                continue;
            }
            // It was compiled when it came, or by the release that stored it.
            let topics = regex::compile(&pattern)
                .map(|compiled| regex::resolve(&compiled, step.topics))
                .unwrap_or_default();
            let differs = known.is_none_or(|known| known.topics != topics);
            let resolved = super::Resolved {
                topics,
                image_version: version,
            };
            if differs {
                self.store_regex(step.effects, &pattern, &resolved, step.now_ms);
            }
            self.regexes.insert(pattern, resolved);
        }
    }

    /// Computes a new target when the group has changed since the last one, but not more often than the
    /// assignment interval allows.
    fn assign_when_due(&mut self, step: &mut Step<'_>, config: &ConsumerGroupConfig) {
        if self.epoch <= self.assignment_epoch {
            return;
        }
        let due_ms = self
            .assigned_at_ms
            .saturating_add(i64::from(config.assignment_interval_ms));
        // The clock may have gone back; a group must not wait for it.
        let recent = (self.assigned_at_ms..due_ms).contains(&step.now_ms);
        if recent && self.assignment_epoch > 0 {
            return;
        }
        let target = self.compute_target(step, config);
        for (member, partitions) in &target {
            if self.target.get(member) != Some(partitions) {
                self.store_target(step.effects, member, partitions);
            }
        }
        self.target = target;
        self.assignment_epoch = self.epoch;
        self.assigned_at_ms = step.now_ms;
        self.store_assignment(step.effects);
    }

    /// The topics that a member subscribes to and that exist.
    fn subscriptions(&self, member: &Member, topics: &TopicImage) -> BTreeSet<Uuid> {
        let matched = member.pattern().and_then(|pattern| self.regexes.get(pattern));
        let matched = matched.iter().flat_map(|resolved| &resolved.topics);
        let names = member.topics.iter().chain(matched);
        names
            .filter_map(|name| topics.get(name))
            .map(|topic| topic.id)
            .collect()
    }

    fn compute_target(
        &self,
        step: &Step<'_>,
        config: &ConsumerGroupConfig,
    ) -> BTreeMap<Str, TopicPartitions> {
        let subscribers: Vec<Subscriber<'_>> = self
            .members
            .values()
            .map(|member| Subscriber {
                id: &member.id,
                instance_id: member.instance_id.as_ref(),
                topics: self.subscriptions(member, step.topics),
                target: self.target.get(&member.id),
            })
            .collect();
        let partitions = |id: &Uuid| step.topics.get_by_id(id).map_or(0, |topic| topic.partitions);
        match self.assignor(config) {
            Assignor::Uniform => assignor::uniform(&subscribers, partitions),
            Assignor::Range => assignor::range(&subscribers, partitions),
        }
    }

    /// The one that most members ask for, else the broker's first.
    pub(super) fn assignor(&self, config: &ConsumerGroupConfig) -> Assignor {
        let default = config.assignors.first().copied().unwrap_or(Assignor::Uniform);
        let votes = |wanted: Assignor| {
            let asked = self
                .members
                .values()
                .filter_map(|member| member.assignor.as_ref());
            asked.filter(|name| &***name == wanted.name()).count()
        };
        config
            .assignors
            .iter()
            .copied()
            .filter(|assignor| votes(*assignor) > 0)
            .max_by_key(|assignor| votes(*assignor))
            .unwrap_or(default)
    }

    /// A member that goes: for good (-1), or, being static, for a while (-2).
    pub(crate) fn leave(
        &mut self,
        step: &mut Step<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let member_id = match &request.instance_id {
            None => {
                let member = self.members.get(&request.member_id);
                member
                    .ok_or_else(|| self.unknown_member(&request.member_id))?
                    .id
                    .clone()
            }
            Some(instance) => {
                let existing = self
                    .static_members
                    .get(instance)
                    .and_then(|id| self.members.get(id));
                let existing = existing.ok_or_else(|| unknown_instance(instance))?;
                self.check_fenced(existing, &request.member_id, instance)?;
                existing.id.clone()
            }
        };
        if request.member_epoch == LEAVE_STATIC_EPOCH {
            if let Some(mut member) = self.members.get(&member_id).cloned() {
                member.epoch = LEAVE_STATIC_EPOCH;
                member.revoking = Assigned::new();
                // Whoever comes back has them from the beginning, whatever its epoch is then.
                let since = member.assigned.values_mut().flat_map(BTreeMap::values_mut);
                since.for_each(|since| *since = 0);
                self.store_current(step.effects, &member);
                step.timers.cancel(self.revocation_timer(&member_id));
                self.put_member(member);
            }
        } else {
            self.remove_member(step, &member_id);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// LeaveGroup: how an administrator takes members out, whatever their protocol.
    pub(crate) fn leave_classic(
        &mut self,
        step: &mut Step<'_>,
        members: &[MemberIdentity],
    ) -> Vec<MemberResponse> {
        let mut left = Vec::with_capacity(members.len());
        let before = self.members.len();
        for identity in members {
            let error = match self.member_to_leave(identity) {
                Ok(id) => {
                    self.take_out(step, &id);
                    ErrorCode::None
                }
                Err(error) => error,
            };
            left.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: error.code(),
                ..MemberResponse::default()
            });
        }
        if self.members.len() < before {
            self.bump_without(step);
        }
        left
    }

    fn member_to_leave(&self, identity: &MemberIdentity) -> Result<Str, ErrorCode> {
        let Some(instance) = &identity.group_instance_id else {
            let member = self.members.get(&identity.member_id);
            return member
                .map(|member| member.id.clone())
                .ok_or(ErrorCode::UnknownMemberId);
        };
        let id = self
            .static_members
            .get(instance)
            .ok_or(ErrorCode::UnknownMemberId)?;
        if identity.member_id.is_empty() || identity.member_id == *id {
            Ok(id.clone())
        } else {
            Err(ErrorCode::FencedInstanceId)
        }
    }

    /// Takes a member out for good: its partitions are free, and the rest gets a new epoch.
    pub(super) fn remove_member(&mut self, step: &mut Step<'_>, member_id: &Str) {
        if self.members.contains_key(member_id) {
            self.take_out(step, member_id);
            self.bump_without(step);
        }
    }

    fn take_out(&mut self, step: &mut Step<'_>, member_id: &Str) {
        self.take_member(member_id);
        self.cancel_timers(step, member_id);
        self.target.remove(member_id);
        self.forget_member(step.effects, member_id);
    }

    /// Members have gone.
    fn bump_without(&mut self, step: &mut Step<'_>) {
        // The patterns of those who are left; the topics are looked at with the next heartbeat.
        let kept: BTreeSet<&Str> = self.members.values().filter_map(Member::pattern).collect();
        let gone: Vec<Str> = self
            .regexes
            .keys()
            .filter(|known| !kept.contains(known))
            .cloned()
            .collect();
        for pattern in gone {
            self.regexes.remove(&pattern);
            self.forget_regex(step.effects, &pattern);
        }
        self.metadata_hash = self.current_hash(step.topics);
        self.bump(step.effects);
    }
}

/// What the request says of the member; what it leaves out stays.
fn take_over(member: &mut Member, client: &Client, request: &ConsumerGroupHeartbeatRequest) {
    let keep = |old: &mut Option<Str>, new: &Option<Str>| {
        if new.is_some() && old != new {
            *old = new.as_ref().map(Str::detached);
        }
    };
    keep(&mut member.instance_id, &request.instance_id);
    keep(&mut member.rack_id, &request.rack_id);
    keep(&mut member.assignor, &request.server_assignor);
    keep(&mut member.regex, &request.subscribed_topic_regex);
    if request.rebalance_timeout_ms != NOT_GIVEN {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        member.topics = names.iter().map(Str::detached).collect();
    }
    if member.client_id != client.client_id {
        member.client_id = client.client_id.detached();
    }
    if member.client_host != client.client_host {
        member.client_host = client.client_host.detached();
    }
}

fn check_epoch(member: &Member, epoch: i32, owned: Option<&TopicPartitions>) -> Result<(), Refusal> {
    if epoch == 0 {
        // It joins again, as one that was fenced does.
        return Ok(());
    }
    let relation = match epoch.cmp(&member.epoch) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => "greater",
        // The reply that told the new epoch may be lost.
        std::cmp::Ordering::Less if epoch == member.previous_epoch && is_subset(owned, &member.assigned) => {
            return Ok(());
        }
        std::cmp::Ordering::Less => "smaller",
    };
    Err(Refusal::new(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The consumer group member has a {relation} member epoch ({epoch}) than the one known by the group \
             coordinator ({}). The member must abandon all its partitions and rejoin.",
            member.epoch
        ),
    ))
}

fn unknown_instance(instance: &Str) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownMemberId,
        format!("Instance id {instance} is unknown."),
    )
}
