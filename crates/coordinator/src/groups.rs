//! A shard of groups: finds the group that a request is for, and keeps the shard's timers; in `share` and `streams`
//! what is for groups of these types only.

mod share;
mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use milena_protocol::messages::consumer_group_describe_response;
use milena_protocol::messages::describe_groups_response::DescribedGroup;
use milena_protocol::messages::leave_group_request::MemberIdentity;
use milena_protocol::messages::leave_group_response::MemberResponse;
use milena_protocol::messages::list_groups_response::ListedGroup;
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use milena_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetDeleteRequest, OffsetDeleteResponse,
    SyncGroupRequest, TxnOffsetCommitRequest,
};
use milena_protocol::stored::{GroupMetadataValue, OffsetCommitValue};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::classic::{ClassicGroup, Join, Parked, State};
use crate::consumer::{self, ConsumerGroup, ConsumerGroupConfig};
use crate::facts::{self, Key, LoadError, PartsOf};
use crate::group::{Group, Membership};
use crate::limits::{MAX_GROUPS_PER_SHARD, MAX_NAME_BYTES};
use crate::modern::Refusal;
use crate::offsets::{self, pending};
use crate::step::Step;
use crate::timers::{TimerKey, Timers};
use crate::topics::TopicImage;
use crate::{Client, Effects, GroupConfig, Reply, Ticket};

/// OffsetCommit from this version on tells that the group is unknown, and not its generation.
const FIRST_COMMIT_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 9;
/// DescribeGroups from this version on tells that the group is unknown, and not that it is Dead.
const FIRST_DESCRIBE_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 6;
/// LeaveGroup from this version on names its members in a list.
const FIRST_LEAVE_VERSION_WITH_MEMBERS: i16 = 3;

/// One shard of groups, with its timers.
pub struct Groups {
    config: GroupConfig,
    new_member_suffix: Box<dyn FnMut() -> Uuid + Send>,
    groups: BTreeMap<Str, Group>,
    timers: Timers,
    topics: Arc<TopicImage>,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups")
            .field("groups", &self.groups.len())
            .field("timers", &self.timers.len())
            .finish()
    }
}

impl Groups {
    /// An empty shard. `new_member_suffix` gives the random part of new member ids; it is a
    /// parameter so that a test can repeat what happened.
    pub fn new(config: GroupConfig, new_member_suffix: impl FnMut() -> Uuid + Send + 'static) -> Self {
        Self {
            config,
            new_member_suffix: Box::new(new_member_suffix),
            groups: BTreeMap::new(),
            timers: Timers::default(),
            topics: Arc::default(),
        }
    }

    /// Takes the place of whatever the shard held with what is stored; all sessions start anew.
    /// Must be called once before anything else, also when nothing is stored yet.
    pub fn load(
        &mut self,
        now_ms: i64,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), LoadError> {
        self.groups.clear();
        self.timers.clear();
        let mut offsets = Vec::new();
        let mut pending = Vec::new();
        let mut in_parts: BTreeMap<(PartsOf, Str), Membership> = BTreeMap::new();
        for (key, value) in rows {
            match facts::parse_key(&key)? {
                Key::Group { group } => {
                    let value: GroupMetadataValue = facts::decode(&key, &value)?;
                    self.groups
                        .insert(group.clone(), Group::load_classic(group, value));
                }
                Key::Offset {
                    group,
                    topic,
                    partition,
                } => {
                    let value: OffsetCommitValue = facts::decode(&key, &value)?;
                    offsets.push((group, topic, partition, value));
                }
                Key::Pending {
                    group,
                    producer_id,
                    topic,
                    partition,
                } => {
                    let value: OffsetCommitValue = facts::decode(&key, &value)?;
                    pending.push((group, producer_id, topic, partition, value));
                }
                Key::Part { of, group, part } => {
                    let empty = || Membership::in_parts(of, group.clone());
                    let loaded = in_parts.entry((of, group.clone())).or_insert_with(empty);
                    loaded.load_part(part, &key, &value)?;
                }
                Key::Transaction { .. } | Key::ShareState(_) => return Err(LoadError::UnknownKey(key)),
            }
        }
        for ((_, id), mut membership) in in_parts {
            membership.all_parts_loaded();
            self.groups.insert(id.clone(), Group::of(id, membership));
        }
        for (id, topic, partition, value) in offsets {
            let group = self
                .groups
                .entry(id.clone())
                .or_insert_with(|| Group::new(id, now_ms));
            group.offsets.load(topic, partition, value);
        }
        for (id, producer_id, topic, partition, value) in pending {
            let group = self
                .groups
                .entry(id.clone())
                .or_insert_with(|| Group::new(id, now_ms));
            group.offsets.load_pending(producer_id, topic, partition, value);
        }
        self.start_timers(now_ms);
        Ok(())
    }

    fn start_timers(&mut self, now_ms: i64) {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(now_ms, &mut effects);
        for group in groups.values_mut() {
            group.start_timers(&mut step);
        }
        debug_assert!(
            effects == Effects::default(),
            "loading changes nothing and nobody waits"
        );
        self.schedule_expiry(now_ms);
    }

    pub fn update_config(&mut self, now_ms: i64, config: GroupConfig) {
        self.config = config;
        self.schedule_expiry(now_ms);
    }

    /// Shows the topics as they are from now on.
    pub fn see_topics(&mut self, topics: &Arc<TopicImage>) {
        if !Arc::ptr_eq(&self.topics, topics) {
            self.topics = topics.clone();
        }
    }

    fn schedule_expiry(&mut self, now_ms: i64) {
        let interval_ms = self.config.offsets_retention_check_interval_ms.max(1);
        self.timers
            .schedule(TimerKey::Expiry, now_ms.saturating_add(interval_ms));
    }

    fn step<'a>(
        &'a mut self,
        now_ms: i64,
        effects: &'a mut Effects,
    ) -> (Step<'a>, &'a mut BTreeMap<Str, Group>) {
        (
            Step {
                now_ms,
                config: &self.config,
                topics: &self.topics,
                timers: &mut self.timers,
                effects,
            },
            &mut self.groups,
        )
    }

    // --- membership ---------------------------------------------------------------------------

    /// JoinGroup; `consumer` are the settings of its group, should that be a consumer group.
    pub fn join(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        version: i16,
        client: &Client,
        consumer: &ConsumerGroupConfig,
        request: &JoinGroupRequest,
    ) -> Effects {
        let parked = Parked { ticket, version };
        let mut effects = Effects::default();
        let refused = self.refuse_join(client, request);
        let suffix = &mut self.new_member_suffix;
        let mut step = Step {
            now_ms,
            config: &self.config,
            topics: &self.topics,
            timers: &mut self.timers,
            effects: &mut effects,
        };
        if let Some(error) = refused {
            step.fail_join(parked, &request.member_id, error);
            return effects;
        }
        let join = Join::new(parked, client, request);
        match self.groups.get_mut(&request.group_id) {
            Some(group) => {
                // A consumer group that everybody has left is as good as none.
                group.become_classic_if_empty(&mut step);
                match &mut group.membership {
                    Membership::Classic(group) => group.join(&mut step, join, || uuid_text(suffix())),
                    Membership::Consumer(of_broker) => {
                        let new_id = || Str::from(suffix().to_string());
                        of_broker.join_classic(&mut step, consumer, join, new_id);
                        group.become_classic_if_it_is(&mut step);
                    }
                    Membership::Streams(_) | Membership::Share(_) => {
                        step.fail_join(join.parked, &Str::default(), ErrorCode::InconsistentGroupProtocol);
                    }
                }
            }
            None => {
                let id = request.group_id.detached();
                let mut group = ClassicGroup::new(id.clone(), now_ms);
                let mut creation = Effects::default();
                group.persist(&mut creation);
                group.join(&mut step, join, || uuid_text(suffix()));
                let group = Group::of(id, Membership::Classic(group));
                // A group that a refused request would have created is not created.
                if !group.is_vacant() {
                    step.effects.facts.append(&mut creation.facts);
                    self.groups.insert(group.id.clone(), group);
                }
            }
        }
        effects
    }

    fn refuse_join(&self, client: &Client, request: &JoinGroupRequest) -> Option<ErrorCode> {
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if request.group_id.is_empty() || request.group_id.len() > MAX_NAME_BYTES {
            return Some(ErrorCode::InvalidGroupId);
        }
        if !allowed.contains(&request.session_timeout_ms) {
            return Some(ErrorCode::InvalidSessionTimeout);
        }
        if let Some(error) = Join::refusal(client, request) {
            return Some(error);
        }
        if self.groups.contains_key(&request.group_id) {
            None
        } else if !request.member_id.is_empty() {
            Some(ErrorCode::UnknownMemberId)
        } else {
            (self.groups.len() >= MAX_GROUPS_PER_SHARD).then_some(ErrorCode::CoordinatorNotAvailable)
        }
    }

    pub fn sync(&mut self, now_ms: i64, ticket: Ticket, request: &SyncGroupRequest) -> Effects {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(now_ms, &mut effects);
        match groups.get_mut(&request.group_id) {
            _ if request.group_id.is_empty() => step.fail_sync(ticket, ErrorCode::InvalidGroupId),
            None => step.fail_sync(ticket, ErrorCode::UnknownMemberId),
            Some(group) => match &mut group.membership {
                Membership::Classic(group) => group.sync(&mut step, ticket, request),
                Membership::Consumer(group) => group.sync_classic(&mut step, ticket, request),
                Membership::Streams(_) | Membership::Share(_) => {
                    step.fail_sync(ticket, ErrorCode::UnknownMemberId)
                }
            },
        }
        effects
    }

    pub fn heartbeat(&mut self, now_ms: i64, ticket: Ticket, request: &HeartbeatRequest) -> Effects {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(now_ms, &mut effects);
        match groups.get_mut(&request.group_id) {
            _ if request.group_id.is_empty() => step.answer_heartbeat(ticket, ErrorCode::InvalidGroupId),
            None => step.answer_heartbeat(ticket, ErrorCode::UnknownMemberId),
            Some(group) => match &mut group.membership {
                Membership::Classic(group) => group.heartbeat(&mut step, ticket, request),
                Membership::Consumer(group) => {
                    let answer = group.heartbeat_classic(&mut step, request);
                    step.answer_heartbeat(ticket, answer.err().unwrap_or(ErrorCode::None));
                }
                Membership::Streams(_) | Membership::Share(_) => {
                    step.answer_heartbeat(ticket, ErrorCode::UnknownMemberId)
                }
            },
        }
        effects
    }

    pub fn leave(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        version: i16,
        request: &LeaveGroupRequest,
    ) -> Effects {
        let mut response = LeaveGroupResponse::default();
        let mut effects = Effects::default();
        if request.group_id.is_empty() {
            response.error_code = ErrorCode::InvalidGroupId.code();
            effects.reply(ticket, Reply::LeaveGroup(response));
            return effects;
        }
        let single = version < FIRST_LEAVE_VERSION_WITH_MEMBERS;
        let members = if single {
            vec![only_member(&request.member_id)]
        } else {
            request.members.clone()
        };
        let (mut step, groups) = self.step(now_ms, &mut effects);
        let left = match groups.get_mut(&request.group_id) {
            Some(group) => match &mut group.membership {
                Membership::Classic(group) => group.leave(&mut step, &members),
                Membership::Consumer(of_broker) => {
                    let left = of_broker.leave_classic(&mut step, &members);
                    group.become_classic_if_it_is(&mut step);
                    left
                }
                Membership::Streams(_) | Membership::Share(_) => members.iter().map(unknown_member).collect(),
            },
            None => members.iter().map(unknown_member).collect(),
        };
        if single {
            response.error_code = left.first().map_or(0, |member| member.error_code);
        } else {
            response.members = left;
        }
        effects.reply(ticket, Reply::LeaveGroup(response));
        effects
    }

    /// ConsumerGroupHeartbeat, with the settings of its group.
    pub fn consumer_heartbeat(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        version: i16,
        client: &Client,
        config: &ConsumerGroupConfig,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let response = consumer::validate(config, version, request)
            .and_then(|()| self.try_consumer_heartbeat(now_ms, &mut effects, client, config, request));
        let response = response.unwrap_or_else(|refusal| ConsumerGroupHeartbeatResponse {
            error_code: refusal.error.code(),
            error_message: Some(refusal.message),
            ..ConsumerGroupHeartbeatResponse::default()
        });
        effects.reply(ticket, Reply::ConsumerGroupHeartbeat(response));
        effects
    }

    fn try_consumer_heartbeat(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        client: &Client,
        config: &ConsumerGroupConfig,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let member_id = match request.member_id.is_empty() {
            true => Str::from((self.new_member_suffix)().to_string()),
            false => request.member_id.clone(),
        };
        let full = self.groups.len() >= MAX_GROUPS_PER_SHARD;
        let (mut step, groups) = self.step(now_ms, effects);
        let group = groups.get_mut(&request.group_id);
        if request.member_epoch < 0 {
            let group = group.ok_or_else(|| no_group(&request.group_id))?;
            let not_one = || not_a_consumer_group(&request.group_id);
            let group = group.consumer_mut().ok_or_else(not_one)?;
            let left = group.leave(&mut step, request)?;
            if let Some(group) = groups.get_mut(&request.group_id) {
                group.become_classic_if_it_is(&mut step);
            }
            return Ok(left);
        }
        match group {
            Some(group) => {
                if let Membership::Consumer(group) = &mut group.membership {
                    return group.heartbeat(&mut step, config, client, &member_id, request);
                }
                let not_one = || not_a_consumer_group(&request.group_id);
                let classic = group.classic().ok_or_else(not_one)?;
                let mut new = if request.member_epoch != 0 {
                    return Err(not_one());
                } else if group.is_empty() {
                    ConsumerGroup::new(group.id.clone())
                } else if config.upgrade
                    && classic.uses_consumer_protocol()
                    && i32::try_from(classic.members.len()).is_ok_and(|count| count <= config.max_size)
                {
                    ConsumerGroup::from_classic(classic, step.topics)?
                } else {
                    return Err(not_one());
                };
                let mut effects = Effects::default();
                let mut joining = Step {
                    now_ms,
                    config: step.config,
                    topics: step.topics,
                    timers: &mut *step.timers,
                    effects: &mut effects,
                };
                let response = new.heartbeat(&mut joining, config, client, &member_id, request)?;
                group.become_consumer(&mut step, new);
                step.effects.facts.append(&mut effects.facts);
                Ok(response)
            }
            None if request.member_epoch != 0 => Err(no_consumer_group(&request.group_id)),
            None if full => Err(Refusal::new(
                ErrorCode::CoordinatorNotAvailable,
                "The coordinator holds as many groups as it can.",
            )),
            None => {
                let id = request.group_id.detached();
                let mut new = ConsumerGroup::new(id.clone());
                let response = new.heartbeat(&mut step, config, client, &member_id, request)?;
                groups.insert(id.clone(), Group::of(id, Membership::Consumer(new)));
                Ok(response)
            }
        }
    }

    // --- offsets ------------------------------------------------------------------------------

    /// Commits for topics that the caller has checked; their names must be set, ids may be.
    pub fn commit_offsets(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let full = self.groups.len() >= MAX_GROUPS_PER_SHARD;
        let (mut step, groups) = self.step(now_ms, &mut effects);
        let response = match groups.get_mut(&request.group_id) {
            Some(group) => group.commit_offsets(&mut step, version, request),
            None if request.generation_id_or_member_epoch >= 0 => {
                let tells = version >= FIRST_COMMIT_VERSION_WITH_GROUP_ID_NOT_FOUND;
                let error = if tells {
                    ErrorCode::GroupIdNotFound
                } else {
                    ErrorCode::IllegalGeneration
                };
                offsets::commit_error(request, error)
            }
            None if request.group_id.len() > MAX_NAME_BYTES => {
                offsets::commit_error(request, ErrorCode::InvalidGroupId)
            }
            None if full => offsets::commit_error(request, ErrorCode::CoordinatorNotAvailable),
            None => {
                // A group that is used for its offsets only exists by having some.
                let mut group = Group::new(request.group_id.detached(), now_ms);
                let response = group.commit_offsets(&mut step, version, request);
                if !group.is_vacant() {
                    groups.insert(group.id.clone(), group);
                }
                response
            }
        };
        effects.reply(ticket, Reply::OffsetCommit(response));
        effects
    }

    /// Keeps offsets that are committed when the producer's transaction is (KIP-98). Whoever calls it has
    /// checked that this is open, and sees to it that [`Self::end_transaction`] comes after it.
    pub fn commit_transactional_offsets(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        request: &TxnOffsetCommitRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let full = self.groups.len() >= MAX_GROUPS_PER_SHARD;
        let (mut step, groups) = self.step(now_ms, &mut effects);
        let response = match groups.get_mut(&request.group_id) {
            Some(group) => group.commit_transactional_offsets(&mut step, request),
            None if request.generation_id >= 0 => pending::refuse(request, ErrorCode::IllegalGeneration),
            None if request.group_id.is_empty() || request.group_id.len() > MAX_NAME_BYTES => {
                pending::refuse(request, ErrorCode::InvalidGroupId)
            }
            None if full => pending::refuse(request, ErrorCode::CoordinatorNotAvailable),
            None => {
                let mut group = Group::new(request.group_id.detached(), now_ms);
                let response = group.commit_transactional_offsets(&mut step, request);
                if !group.is_vacant() {
                    groups.insert(group.id.clone(), group);
                }
                response
            }
        };
        effects.reply(ticket, Reply::TxnOffsetCommit(response));
        effects
    }

    /// A producer's transaction has ended: its offsets take effect in every group of the shard, or go.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) -> Effects {
        let mut effects = Effects::default();
        for group in self.groups.values_mut() {
            group.end_transaction(&mut effects, producer_id, commit);
        }
        effects
    }

    /// What a group has committed.
    /// `require_stable`: an offset that a transaction may change is answered with UNSTABLE_OFFSET_COMMIT.
    pub fn fetch_offsets(
        &self,
        request: &OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        if let Some(group) = self.groups.get(&request.group_id)
            && let Err(error) = group.validate_offset_fetch(request.member_id.as_ref(), request.member_epoch)
        {
            return OffsetFetchResponseGroup {
                group_id: request.group_id.clone(),
                error_code: error.code(),
                ..OffsetFetchResponseGroup::default()
            };
        }
        offsets::fetch(
            self.groups.get(&request.group_id).map(|group| &group.offsets),
            request,
            require_stable,
        )
    }

    pub fn delete_offsets(&mut self, ticket: Ticket, request: &OffsetDeleteRequest) -> Effects {
        let mut effects = Effects::default();
        let refuse = |error: ErrorCode| OffsetDeleteResponse {
            error_code: error.code(),
            ..OffsetDeleteResponse::default()
        };
        let response = match self.groups.get_mut(&request.group_id) {
            _ if request.group_id.is_empty() => refuse(ErrorCode::InvalidGroupId),
            None => refuse(ErrorCode::GroupIdNotFound),
            Some(group) => group.delete_offsets(&mut effects, request),
        };
        effects.reply(ticket, Reply::OffsetDelete(response));
        effects
    }

    /// Topics were deleted: so are the offsets that were committed for them. The groups must have been shown the
    /// topics without them ([`Self::see_topics`]).
    pub fn topic_deleted(&mut self, now_ms: i64, topics: &[Str]) -> Effects {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(now_ms, &mut effects);
        for group in groups.values_mut() {
            for topic in topics {
                group.offsets.forget_topic(&group.id, topic, step.effects);
            }
            if let Some(share) = group.share_mut() {
                share.forget_missing_topics(&mut step);
            }
        }
        effects
    }

    // --- administration -----------------------------------------------------------------------

    /// Answered with [`Reply::DeleteShareGroup`] when the group has states that must be removed before.
    pub fn delete_group(&mut self, ticket: Ticket, group_id: &Str) -> Effects {
        let mut effects = Effects::default();
        let error = match self.groups.get(group_id).map(Group::is_empty) {
            None => ErrorCode::GroupIdNotFound,
            Some(true) => {
                if let Some(states) = self.begin_to_delete_share_group(&mut effects, group_id) {
                    effects.reply(ticket, Reply::DeleteShareGroup(Box::new(states)));
                    return effects;
                }
                self.forget_group(group_id, &mut effects);
                ErrorCode::None
            }
            Some(false) => ErrorCode::NonEmptyGroup,
        };
        effects.reply(ticket, Reply::DeleteGroup(error));
        effects
    }

    /// Removes an empty group with its offsets; members who were only given an id yet will find
    /// it unknown and join afresh.
    fn forget_group(&mut self, group_id: &Str, effects: &mut Effects) {
        if let Some(group) = self.groups.remove(group_id) {
            group.forget(&mut self.timers, effects);
        }
    }

    pub fn describe(&self, group_id: &Str, version: i16) -> DescribedGroup {
        let mut described = DescribedGroup {
            group_id: group_id.clone(),
            ..DescribedGroup::default()
        };
        let Some(group) = self.groups.get(group_id).and_then(Group::classic) else {
            described.group_state = Str::from("Dead");
            if version >= FIRST_DESCRIBE_VERSION_WITH_GROUP_ID_NOT_FOUND {
                described.error_code = ErrorCode::GroupIdNotFound.code();
                let problem = match self.groups.contains_key(group_id) {
                    true => "is not a classic group.",
                    false => "not found.",
                };
                described.error_message = Some(Str::from(format!("Group {group_id} {problem}")));
            }
            return described;
        };
        // Only in a stable group do the members agree on what their metadata means.
        let protocol = group
            .protocol_name
            .as_ref()
            .filter(|_| group.state == State::Stable);
        described.group_state = Str::from(group.state.name());
        described.protocol_type = group.protocol_type.clone().unwrap_or_default();
        described.protocol_data = protocol.cloned().unwrap_or_default();
        described.members = group
            .members
            .values()
            .map(|member| member.describe(protocol))
            .collect();
        described
    }

    /// ConsumerGroupDescribe, with the settings of the group.
    pub fn describe_consumer_group(
        &self,
        group_id: &Str,
        config: &ConsumerGroupConfig,
        topics: &TopicImage,
    ) -> consumer_group_describe_response::DescribedGroup {
        let refusal = match self.groups.get(group_id) {
            Some(group) => match group.consumer() {
                Some(group) => return group.describe(config, topics),
                None => not_a_consumer_group(group_id),
            },
            None => no_group(group_id),
        };
        consumer_group_describe_response::DescribedGroup {
            group_id: group_id.clone(),
            error_code: refusal.error.code(),
            error_message: Some(refusal.message),
            ..Default::default()
        }
    }

    /// The shard's groups; filters that are empty let everything through, and neither minds case.
    pub fn list(&self, states: &[Str], types: &[Str]) -> Vec<ListedGroup> {
        let has = |filter: &[Str], name: &str| {
            filter.is_empty()
                || filter
                    .iter()
                    .any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let wanted = self.groups.values().filter(|group| {
            has(types, group.group_type())
                && (has(states, group.state_name()) || has(states, group.state_in_filters()))
        });
        wanted
            .map(|group| ListedGroup {
                group_id: group.id.clone(),
                protocol_type: group.protocol_type(),
                group_state: Str::from(group.state_name()),
                group_type: Str::from(group.group_type()),
                ..ListedGroup::default()
            })
            .collect()
    }

    // --- time ---------------------------------------------------------------------------------

    /// When [`Groups::tick`] is next needed; earlier calls do no harm.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.timers.next_deadline_ms()
    }

    /// Does everything whose time has come.
    pub fn tick(&mut self, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        while let Some(key) = self.timers.pop_due(now_ms) {
            let (mut step, groups) = self.step(now_ms, &mut effects);
            match key {
                TimerKey::Expiry => self.expire(now_ms, &mut effects),
                TimerKey::Join { group } => {
                    if let Some(group) = groups.get_mut(&group).and_then(Group::classic_mut) {
                        group.join_timer_fired(&mut step);
                    }
                }
                TimerKey::Sync { group } => {
                    if let Some(group) = groups.get_mut(&group).and_then(Group::classic_mut) {
                        group.sync_timer_fired(&mut step);
                    }
                }
                TimerKey::InitialRebalance { group } => {
                    let group = groups.get_mut(&group).map(|group| &mut group.membership);
                    if let Some(Membership::Streams(group)) = group {
                        group.initial_rebalance_due(&mut step);
                    }
                }
                TimerKey::Revocation { group, member } => {
                    if let Some(group) = groups.get_mut(&group) {
                        match &mut group.membership {
                            Membership::Classic(_) | Membership::Share(_) => {}
                            Membership::Consumer(group) => group.revocation_expired(&mut step, &member),
                            Membership::Streams(group) => group.revocation_expired(&mut step, &member),
                        }
                        group.become_classic_if_it_is(&mut step);
                    }
                }
                TimerKey::Rejoin { group, member } => {
                    if let Some(group) = groups.get_mut(&group) {
                        if let Some(of_broker) = group.consumer_mut() {
                            of_broker.session_expired(&mut step, &member);
                        }
                        group.become_classic_if_it_is(&mut step);
                    }
                }
                TimerKey::Session { group, member } => {
                    if let Some(group) = groups.get_mut(&group) {
                        group.session_expired(&mut step, &member);
                        group.become_classic_if_it_is(&mut step);
                    }
                }
            }
        }
        effects
    }

    fn expire(&mut self, now_ms: i64, effects: &mut Effects) {
        let mut unused = Vec::new();
        let (mut step, groups) = self.step(now_ms, effects);
        for group in groups.values_mut() {
            let without_offsets = group.expire_offsets(&mut step);
            if without_offsets && group.is_unused() {
                unused.push(group.id.clone());
            }
        }
        for id in &unused {
            self.forget_group(id, effects);
        }
        self.schedule_expiry(now_ms);
    }

    /// Answers everybody who waits with NOT_COORDINATOR, because the shard is given up. Nothing
    /// is stored; what the shard held is forgotten.
    pub fn unload(&mut self) -> Effects {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(0, &mut effects);
        for group in groups.values_mut() {
            group.unload(&mut step, ErrorCode::NotCoordinator);
        }
        self.groups.clear();
        self.timers.clear();
        effects
    }

    /// How many groups the shard holds; the limit is [`MAX_GROUPS_PER_SHARD`].
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many members all groups have together.
    pub fn member_count(&self) -> usize {
        self.groups.values().map(Group::member_count).sum()
    }

    /// Panics if something that must hold between steps does not. For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        for (id, group) in &self.groups {
            assert_eq!(*id, group.id);
            group.check_invariants();
        }
    }
}

fn not_a_consumer_group(group_id: &Str) -> Refusal {
    let sentence = format!("Group {group_id} is not a consumer group.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}

fn no_group(group_id: &Str) -> Refusal {
    let sentence = format!("Group {group_id} not found.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}

fn no_consumer_group(group_id: &Str) -> Refusal {
    let sentence = format!("Consumer group {group_id} not found.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}

fn only_member(member_id: &Str) -> MemberIdentity {
    MemberIdentity {
        member_id: member_id.clone(),
        ..MemberIdentity::default()
    }
}

fn unknown_member(identity: &MemberIdentity) -> MemberResponse {
    MemberResponse {
        member_id: identity.member_id.clone(),
        group_instance_id: identity.group_instance_id.clone(),
        error_code: ErrorCode::UnknownMemberId.code(),
        ..MemberResponse::default()
    }
}

/// A UUID as Java writes it, as Kafka puts it into member ids.
fn uuid_text(id: Uuid) -> String {
    let bytes = id.as_bytes();
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
