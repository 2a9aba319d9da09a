//! ShareGroupHeartbeat: joining, going on, and leaving.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::messages::initialize_share_group_state_request::{InitializeStateData, PartitionData};
use milena_protocol::messages::share_group_heartbeat_response::{
    Assignment, TopicPartitions as GivenPartitions,
};
use milena_protocol::messages::{
    InitializeShareGroupStateRequest, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::assignor::{self, Subscriber};
use super::member::Member;
use super::state_partitions::OfTopic;
use super::{ShareGroup, ShareGroupConfig};
use crate::limits::{
    MAX_GROUP_METADATA_BYTES, MAX_MEMBER_PROTOCOLS_BYTES, MAX_MEMBERS_PER_GROUP, MAX_NAME_BYTES,
};
use crate::modern::{LEAVE_EPOCH, Refusal, TopicPartitions};
use crate::step::Step;
use crate::topics::TopicImage;
use crate::{Client, Effects};

/// Where a state starts that nobody has set: at what `share.auto.offset.reset` says.
const UNINITIALIZED_START_OFFSET: i64 = -1;

/// Checks that need no group.
pub(crate) fn validate(request: &ShareGroupHeartbeatRequest) -> Result<(), Refusal> {
    let invalid = |sentence: &str| Err(Refusal::new(ErrorCode::InvalidRequest, sentence));
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request
        .rack_id
        .as_ref()
        .is_some_and(|rack| rack.trim().is_empty())
    {
        return invalid("RackId can't be empty.");
    }
    let topics = request.subscribed_topic_names.as_deref().unwrap_or_default();
    if request.member_epoch == 0 {
        if topics.is_empty() {
            return invalid("SubscribedTopicNames must be set in first request.");
        }
    } else if request.member_epoch < LEAVE_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    let names = [
        Some(&request.group_id),
        Some(&request.member_id),
        request.rack_id.as_ref(),
    ];
    if names
        .into_iter()
        .flatten()
        .any(|name| name.len() > MAX_NAME_BYTES)
    {
        return invalid("A name is longer than can be stored.");
    }
    if topics.iter().map(|name| name.len()).sum::<usize>() > MAX_MEMBER_PROTOCOLS_BYTES {
        return invalid("SubscribedTopicNames take more than can be stored.");
    }
    Ok(())
}

/// A heartbeat's answer, and the states that the broker must initialize once the heartbeat is stored.
pub(crate) type Answer = (
    ShareGroupHeartbeatResponse,
    Option<InitializeShareGroupStateRequest>,
);

impl ShareGroup {
    /// A member that joins, or goes on.
    pub(crate) fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        config: &ShareGroupConfig,
        client: &Client,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<Answer, Refusal> {
        if let Some(member) = self.member_at_rest(step, client, request) {
            step.schedule_session(&self.id, &member.id, i64::from(config.session_timeout_ms));
            return Ok((response(config, member, None), None));
        }
        self.admit(config, &request.member_id)?;
        let before = self.member(request)?;
        let mut updated = before.clone();
        take_over(&mut updated, client, request);
        let subscribes_anew = updated.topics != before.topics;
        if !updated.says_the_same_as(&before) {
            self.store_member(step.effects, &updated);
        }
        // Before the subscription changes, as in Kafka: what it brings is looked at by itself.
        let pending = self.epoch <= self.assignment_epoch && self.has_unassigned(step.topics);
        self.put_member(updated.clone());
        let bumped = self.follow_changes(step, subscribes_anew || pending);
        self.assign_when_due(step, config);
        let next = self.reconcile(step, updated, bumped);
        step.schedule_session(&self.id, &next.id, i64::from(config.session_timeout_ms));

        let is_full = request.member_epoch == 0 || request.subscribed_topic_names.is_some();
        let moved = next.assigned != before.assigned;
        let assignment = (is_full || moved).then(|| given(&next.assigned));
        let initialize = self.begin_initialization(step, config);
        if initialize.is_none() && self.states.initializing.is_empty() && !self.has_unassigned(step.topics) {
            self.settled_image = Some(step.topics.version());
        }
        Ok((response(config, &next, assignment), initialize))
    }

    /// The member, if it has what it is to have and says nothing new: so are nearly all heartbeats.
    fn member_at_rest(
        &self,
        step: &Step<'_>,
        client: &Client,
        request: &ShareGroupHeartbeatRequest,
    ) -> Option<&Member> {
        let version = Some(step.topics.version());
        let is_settled = self.epoch == self.assignment_epoch
            && self.seen_image == version
            && self.settled_image == version;
        let member = self.members.get(&request.member_id)?;
        let is_at_rest = is_settled
            && request.subscribed_topic_names.is_none()
            && request.rack_id.is_none()
            && request.member_epoch == member.epoch
            && client.client_id == member.client_id
            && client.client_host == member.client_host
            && member.epoch == self.assignment_epoch;
        is_at_rest.then_some(member)
    }

    fn admit(&self, config: &ShareGroupConfig, member_id: &Str) -> Result<(), Refusal> {
        let most = usize::try_from(config.max_size)
            .unwrap_or(0)
            .min(MAX_MEMBERS_PER_GROUP);
        let has_room = self.members.len() < most || self.members.contains_key(member_id);
        if has_room && self.said_bytes < MAX_GROUP_METADATA_BYTES {
            return Ok(());
        }
        let most = most.min(self.members.len());
        Err(Refusal::new(
            ErrorCode::GroupMaxSizeReached,
            format!("The share group has reached its maximum capacity of {most} members."),
        ))
    }

    fn member(&self, request: &ShareGroupHeartbeatRequest) -> Result<Member, Refusal> {
        match self.members.get(&request.member_id) {
            Some(member) => check_epoch(member, request.member_epoch).map(|()| member.clone()),
            None if request.member_epoch == 0 => Ok(Member::new(request.member_id.detached())),
            None => Err(self.unknown_member(&request.member_id)),
        }
    }

    fn unknown_member(&self, member_id: &Str) -> Refusal {
        Refusal::new(
            ErrorCode::UnknownMemberId,
            format!("Member {member_id} is not a member of group {}.", self.id),
        )
    }

    /// Whether something that is initialized and subscribed to is to be assigned still, or is assigned to nobody any more.
    fn has_unassigned(&self, topics: &TopicImage) -> bool {
        if self.members.is_empty() || self.states.initialized.is_empty() {
            return false;
        }
        let subscribed = self.subscribed_topics();
        let mut assigned: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        for (topic, partitions) in self.target.values().flatten() {
            assigned.entry(*topic).or_default().extend(partitions);
        }
        self.states.initialized.iter().any(|(topic, of_topic)| {
            // Those of a topic that is gone cannot be assigned.
            subscribed.contains(&of_topic.name)
                && topics.get_by_id(topic).is_some()
                && assigned.get(topic) != Some(&of_topic.partitions)
        })
    }

    /// Bumps the group epoch where `changed` says so, or where the topics have changed so that it makes a difference.
    fn follow_changes(&mut self, step: &mut Step<'_>, changed: bool) -> bool {
        if !changed && self.seen_image == Some(step.topics.version()) {
            return false;
        }
        let hash = self.current_hash(step.topics);
        self.seen_image = Some(step.topics.version());
        let bumps = changed || hash != self.metadata_hash;
        if bumps {
            self.metadata_hash = hash;
            self.bump(step.effects);
        }
        bumps
    }

    fn bump(&mut self, effects: &mut Effects) {
        self.epoch = self.epoch.saturating_add(1);
        self.settled_image = None;
        self.store_group(effects);
    }

    /// Computes a new target when the group has changed since the last one, but not more often than the
    /// assignment interval allows.
    fn assign_when_due(&mut self, step: &mut Step<'_>, config: &ShareGroupConfig) {
        if self.epoch <= self.assignment_epoch {
            return;
        }
        let due_ms = self
            .assigned_at_ms
            .saturating_add(i64::from(config.assignment_interval_ms));
        // The clock may have gone back; a group must not wait for it.
        let recent = (self.assigned_at_ms..due_ms).contains(&step.now_ms);
        if recent && self.assigned_at_ms != 0 {
            return;
        }
        let subscribers: Vec<Subscriber<'_>> = self
            .members
            .values()
            .map(|member| Subscriber {
                id: &member.id,
                topics: subscriptions(member, step.topics),
                target: self.target.get(&member.id),
            })
            .collect();
        let target = assignor::simple(&subscribers, &self.states.initialized_partitions());
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

    /// Takes the member to its target: at once, as nobody has to give anything up for it.
    fn reconcile(&mut self, step: &mut Step<'_>, member: Member, changed: bool) -> Member {
        if !changed && member.epoch == self.assignment_epoch {
            return member;
        }
        let subscribed = subscriptions(&member, step.topics);
        let target = self.target.get(&member.id).into_iter().flatten();
        let mut next = member.clone();
        next.assigned = target
            .filter(|(topic, _)| subscribed.contains(*topic))
            .map(|(topic, partitions)| (*topic, partitions.clone()))
            .collect();
        if next.epoch != self.assignment_epoch {
            next.previous_epoch = next.epoch;
            next.epoch = self.assignment_epoch;
        }
        if next != member {
            self.store_current(step.effects, &next);
            self.put_member(next.clone());
        }
        next
    }

    /// What is subscribed to and has no state: notes that it is being initialized.
    fn begin_initialization(
        &mut self,
        step: &mut Step<'_>,
        config: &ShareGroupConfig,
    ) -> Option<InitializeShareGroupStateRequest> {
        let retry_ms = i64::from(config.initialize_retry_interval_ms);
        let missing: Vec<(Uuid, OfTopic)> = self
            .subscribed_topics()
            .into_iter()
            .filter_map(|name| {
                let topic = step.topics.get(name)?;
                let known = self.states.known(&topic.id, step.now_ms, retry_ms);
                let partitions: BTreeSet<i32> = (0..topic.partitions)
                    .filter(|partition| !known.contains(partition))
                    .collect();
                let of_topic = OfTopic {
                    name: topic.name.clone(),
                    partitions,
                    since_ms: step.now_ms,
                };
                (!of_topic.partitions.is_empty()).then_some((topic.id, of_topic))
            })
            .collect();
        if missing.is_empty() {
            return None;
        }
        let topics = missing
            .iter()
            .map(|(topic, of_topic)| initialization(*topic, of_topic, self.epoch));
        let request = InitializeShareGroupStateRequest {
            group_id: self.id.clone(),
            topics: topics.collect(),
            ..InitializeShareGroupStateRequest::default()
        };
        for (topic, of_topic) in missing {
            self.states.begin(topic, of_topic);
        }
        self.store_states(step.effects);
        Some(request)
    }

    /// A member that goes.
    pub(crate) fn leave(
        &mut self,
        step: &mut Step<'_>,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        if !self.members.contains_key(&request.member_id) {
            return Err(self.unknown_member(&request.member_id));
        }
        self.remove_member(step, &request.member_id);
        Ok(ShareGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            ..ShareGroupHeartbeatResponse::default()
        })
    }

    /// Takes a member out for good; the rest gets a new epoch.
    pub(super) fn remove_member(&mut self, step: &mut Step<'_>, member_id: &Str) {
        if self.take_member(member_id).is_none() {
            return;
        }
        step.cancel_session(&self.id, member_id);
        self.target.remove(member_id);
        self.forget_member(step.effects, member_id);
        self.metadata_hash = self.current_hash(step.topics);
        self.bump(step.effects);
    }
}

fn initialization(topic: Uuid, of_topic: &OfTopic, state_epoch: i32) -> InitializeStateData {
    let partitions = of_topic.partitions.iter().map(|partition| PartitionData {
        partition: *partition,
        state_epoch,
        start_offset: UNINITIALIZED_START_OFFSET,
        ..PartitionData::default()
    });
    InitializeStateData {
        topic_id: topic,
        partitions: partitions.collect(),
        ..InitializeStateData::default()
    }
}

fn response(
    config: &ShareGroupConfig,
    member: &Member,
    assignment: Option<Assignment>,
) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        member_id: Some(member.id.clone()),
        member_epoch: member.epoch,
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        assignment,
        ..ShareGroupHeartbeatResponse::default()
    }
}

fn given(assigned: &TopicPartitions) -> Assignment {
    let topics = assigned.iter().map(|(topic, partitions)| GivenPartitions {
        topic_id: *topic,
        partitions: partitions.iter().copied().collect(),
        ..GivenPartitions::default()
    });
    Assignment {
        topic_partitions: topics.collect(),
        ..Assignment::default()
    }
}

/// The topics that a member subscribes to and that exist.
fn subscriptions(member: &Member, topics: &TopicImage) -> BTreeSet<Uuid> {
    let names = member.topics.iter();
    names
        .filter_map(|name| topics.get(name))
        .map(|topic| topic.id)
        .collect()
}

/// What the request says of the member; what it leaves out stays.
fn take_over(member: &mut Member, client: &Client, request: &ShareGroupHeartbeatRequest) {
    if request.rack_id.is_some() && request.rack_id != member.rack_id {
        member.rack_id = request.rack_id.as_ref().map(Str::detached);
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

fn check_epoch(member: &Member, epoch: i32) -> Result<(), Refusal> {
    let known = member.epoch;
    let sentence = match epoch.cmp(&known) {
        // Zero joins again.
        _ if epoch == 0 => return Ok(()),
        std::cmp::Ordering::Equal => return Ok(()),
        // The reply that told the new epoch may be lost.
        std::cmp::Ordering::Less if epoch == member.previous_epoch => return Ok(()),
        std::cmp::Ordering::Greater => format!(
            "The share group member has a greater member epoch ({epoch}) than the one known by the group coordinator \
             ({known}). The member must abandon all its partitions and rejoin."
        ),
        std::cmp::Ordering::Less => format!(
            "The share group member has a smaller member epoch ({epoch}) than the one known by the group coordinator \
             ({known}), and it does not match the previous member epoch ({}). The member must abandon all its \
             partitions and rejoin.",
            member.previous_epoch
        ),
    };
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, sentence))
}
