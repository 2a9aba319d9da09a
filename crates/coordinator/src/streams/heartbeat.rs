//! StreamsGroupHeartbeat: joining, going on, and leaving.

use std::collections::BTreeMap;

use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::streams_group_heartbeat_request::{
    TaskIds as OwnedTasks, Topology as SaidTopology,
};
use milena_protocol::messages::streams_group_heartbeat_response::{Status, TaskIds};
use milena_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use milena_protocol::{ErrorCode, Str};

use super::configure::{Configured, StatusCode, configure};
use super::member::{Member, MemberState};
use super::reconcile::reconcile;
use super::tasks::{Owned, Target, Tasks, owned_tasks, without_epochs};
use super::topology::{Topology, unusable};
use super::{NOT_VALIDATED, StreamsGroup, StreamsGroupConfig};
use crate::Client;
use crate::limits::{
    MAX_GROUP_METADATA_BYTES, MAX_MEMBER_PROTOCOLS_BYTES, MAX_MEMBERS_PER_GROUP, MAX_NAME_BYTES,
};
use crate::modern::{LEAVE_STATIC_EPOCH, Refusal, metadata_hash};
use crate::step::Step;

const NOT_GIVEN: i32 = -1;

/// What a heartbeat is answered, and the internal topics that are to be created for it.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) response: StreamsGroupHeartbeatResponse,
    pub(crate) missing_topics: Vec<CreatableTopic>,
}

fn invalid(sentence: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, sentence)
}

/// Checks that need no group: first for what Kafka does not do yet, then for what is wrong.
pub(crate) fn validate(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    validate_features(request)?;
    let is_blank = |text: &Str| text.trim().is_empty();
    if is_blank(&request.member_id) {
        return Err(invalid("MemberId can't be empty."));
    }
    if is_blank(&request.group_id) {
        return Err(invalid("GroupId can't be empty."));
    }
    if request.rack_id.as_ref().is_some_and(is_blank) {
        return Err(invalid("RackId can't be empty."));
    }
    match request.member_epoch {
        0 => validate_join(request)?,
        LEAVE_STATIC_EPOCH => return Err(invalid("InstanceId can't be null.")),
        epoch if epoch < LEAVE_STATIC_EPOCH => {
            return Err(invalid(format!(
                "MemberEpoch is {epoch}, but must be greater than or equal to -2."
            )));
        }
        _ => {}
    }
    let kinds = [
        &request.active_tasks,
        &request.standby_tasks,
        &request.warmup_tasks,
    ];
    let given = kinds.into_iter().filter(|tasks| tasks.is_some()).count();
    if given != 0 && given != kinds.len() {
        return Err(invalid("If one task-type is non-null, all must be non-null."));
    }
    if request.member_epoch != 0 && request.topology.is_some() {
        return Err(invalid("Topology can only be provided when (re-)joining."));
    }
    validate_sizes(request)
}

fn validate_features(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    if request.instance_id.is_some() {
        return Err(invalid("Static membership is not yet supported."));
    }
    if request.task_offsets.is_some() {
        return Err(invalid("TaskOffsets are not supported yet."));
    }
    if request.task_end_offsets.is_some() {
        return Err(invalid("TaskEndOffsets are not supported yet."));
    }
    if request
        .warmup_tasks
        .as_ref()
        .is_some_and(|tasks| !tasks.is_empty())
    {
        return Err(invalid("WarmupTasks are not supported yet."));
    }
    let mut subtopologies = request
        .topology
        .iter()
        .flat_map(|topology| &topology.subtopologies);
    if subtopologies.any(|subtopology| !subtopology.source_topic_regex.is_empty()) {
        return Err(invalid(
            "Regular expressions for source topics are not supported yet.",
        ));
    }
    Ok(())
}

fn validate_join(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    if request.rebalance_timeout_ms == NOT_GIVEN {
        return Err(invalid("RebalanceTimeoutMs must be provided in first request."));
    }
    let kinds = [
        ("ActiveTasks", &request.active_tasks),
        ("StandbyTasks", &request.standby_tasks),
        ("WarmupTasks", &request.warmup_tasks),
    ];
    for (name, tasks) in kinds {
        if tasks.as_ref().is_none_or(|tasks| !tasks.is_empty()) {
            return Err(invalid(format!("{name} must be empty when (re-)joining.")));
        }
    }
    let topology = request.topology.as_ref();
    let topology = topology.ok_or_else(|| invalid("Topology must be non-null when (re-)joining."))?;
    let mut changelogs = topology
        .subtopologies
        .iter()
        .flat_map(|one| &one.state_changelog_topics);
    match changelogs.find(|topic| topic.partitions != 0) {
        None => Ok(()),
        Some(topic) => Err(Refusal::new(
            ErrorCode::StreamsInvalidTopology,
            format!(
                "Changelog topic {} must have an undefined partition count, but it is set to {}.",
                topic.name, topic.partitions
            ),
        )),
    }
}

/// Nothing is kept that could not be stored.
fn validate_sizes(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    let endpoint = request.user_endpoint.as_ref().map(|endpoint| &endpoint.host);
    let optional = [request.rack_id.as_ref(), request.process_id.as_ref(), endpoint];
    let tags = request.client_tags.iter().flatten();
    let tags = tags.flat_map(|tag| [&tag.key, &tag.value]);
    let names = [&request.group_id, &request.member_id].into_iter();
    let mut names = names.chain(optional.into_iter().flatten()).chain(tags.clone());
    if names.any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(invalid("A name is longer than can be stored."));
    }
    if tags.map(|text| text.len()).sum::<usize>() > MAX_MEMBER_PROTOCOLS_BYTES {
        return Err(invalid("ClientTags take more than can be stored."));
    }
    Ok(())
}

/// What the member says that it has; it says all of it or nothing.
fn owned(request: &StreamsGroupHeartbeatRequest) -> Option<Owned> {
    Some(Owned {
        active: owned_tasks(request.active_tasks.as_ref()?),
        standby: owned_tasks(request.standby_tasks.as_ref()?),
        warmup: owned_tasks(request.warmup_tasks.as_ref()?),
    })
}

fn given(tasks: &Tasks) -> Option<Vec<TaskIds>> {
    let of_subtopology = tasks.iter().map(|(subtopology, partitions)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.iter().copied().collect(),
        ..TaskIds::default()
    });
    Some(of_subtopology.collect())
}

fn status(code: StatusCode, detail: impl Into<String>) -> Status {
    Status {
        status_code: code as i8,
        status_detail: Str::from(detail.into()),
        ..Status::default()
    }
}

/// What a heartbeat means for the group, worked out before anything is changed: it may be refused until then.
struct Plan {
    /// One that the group has not had.
    topology: Option<Topology>,
    /// If it is not the one that the group has.
    configured: Option<Configured>,
    metadata_hash: i64,
    validated_topology_epoch: i32,
}

impl StreamsGroup {
    /// A member that joins, or goes on. `is_new`: the group is there only for this request.
    pub(crate) fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        config: &StreamsGroupConfig,
        client: &Client,
        request: &StreamsGroupHeartbeatRequest,
        is_new: bool,
    ) -> Result<Answer, Refusal> {
        if let Some(answer) = self.answer_at_rest(step, config, client, request) {
            return Ok(answer);
        }
        let joins = request.member_epoch == 0;
        let owned = owned(request);
        let before = self.member_for(config, request, owned.as_ref())?;
        let mut updated = before.clone();
        updated.said.take_over(client, request);
        let plan = self.plan(step, request)?;

        let mut statuses = Vec::new();
        statuses.extend(self.stale_topology(&updated));
        self.wait_for_more_members(step, config);
        let changed = updated.said != before.said;
        if changed {
            self.put_member(updated.clone());
            self.store_member(step.effects, &updated);
        }
        self.carry_out(step, config, plan, changed);
        let next = self.go_on(step, updated, owned.as_ref(), &mut statuses);
        step.schedule_session(&self.id, &next.id, i64::from(config.session_timeout_ms));
        if request.shutdown_application && self.shutdown_requested_by.is_none() {
            self.shutdown_requested_by = Some(next.id.clone());
        }
        let mut response = StreamsGroupHeartbeatResponse {
            member_id: next.id.clone(),
            member_epoch: next.epoch,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            ..StreamsGroupHeartbeatResponse::default()
        };
        let moved = joins || next.assigned != before.assigned;
        if moved || owned.is_some_and(|owned| !owned.is_all_of(&next.assigned)) {
            response.active_tasks = given(&without_epochs(&next.assigned.active));
            response.standby_tasks = given(&next.assigned.standby);
            response.warmup_tasks = given(&next.assigned.warmup);
            if moved && next.said.endpoint.is_some() {
                self.endpoint_information_epoch = self.endpoint_information_epoch.saturating_add(1);
            }
        }
        if self.endpoint_information_epoch != request.endpoint_information_epoch {
            response.partitions_by_user_endpoint = Some(self.partitions_by_endpoint(step.topics));
        }
        if is_new {
            // Kafka keeps the epoch of a group only once it has one.
            self.endpoint_information_epoch = 0;
        }
        response.endpoint_information_epoch = self.endpoint_information_epoch;
        let missing_topics = self.tell_problems(&mut statuses);
        response.status = Some(statuses);
        Ok(Answer {
            response,
            missing_topics,
        })
    }

    /// The answer to a member that has what it is to have and says nothing new: so are nearly all heartbeats.
    fn answer_at_rest(
        &self,
        step: &mut Step<'_>,
        config: &StreamsGroupConfig,
        client: &Client,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Option<Answer> {
        let is_settled = self.epoch == self.assignment_epoch
            && self.seen_image == Some(step.topics.version())
            && self.configured.as_ref().is_some_and(Configured::is_ready)
            && self.standby_replicas == Some(config.standby_replicas)
            && self.shutdown_requested_by.is_none()
            && self.endpoint_information_epoch == request.endpoint_information_epoch;
        let says_nothing = request.rack_id.is_none()
            && request.rebalance_timeout_ms == NOT_GIVEN
            && request.topology.is_none()
            && request.active_tasks.is_none()
            && request.process_id.is_none()
            && request.user_endpoint.is_none()
            && request.client_tags.is_none()
            && !request.shutdown_application;
        let member = self.members.get(&request.member_id)?;
        let is_at_rest = is_settled
            && says_nothing
            && request.member_epoch == member.epoch
            && request.member_epoch != 0
            && client.client_id == member.said.client_id
            && client.client_host == member.said.client_host
            && self.stale_topology(member).is_none()
            && member.is_reconciled_to(self.assignment_epoch)
            && !step.timers.is_scheduled(&self.initial_rebalance_timer());
        if !is_at_rest {
            return None;
        }
        step.schedule_session(&self.id, &member.id, i64::from(config.session_timeout_ms));
        Some(Answer {
            response: StreamsGroupHeartbeatResponse {
                member_id: member.id.clone(),
                member_epoch: member.epoch,
                heartbeat_interval_ms: config.heartbeat_interval_ms,
                endpoint_information_epoch: self.endpoint_information_epoch,
                ..StreamsGroupHeartbeatResponse::default()
            },
            missing_topics: Vec::new(),
        })
    }

    fn member_for(
        &self,
        config: &StreamsGroupConfig,
        request: &StreamsGroupHeartbeatRequest,
        owned: Option<&Owned>,
    ) -> Result<Member, Refusal> {
        let member = self.members.get(&request.member_id);
        if request.member_epoch != 0 {
            let member = member.ok_or_else(|| self.unknown_member(&request.member_id))?;
            check_epoch(member, request.member_epoch, owned)?;
            return Ok(member.clone());
        }
        let most = usize::try_from(config.max_size).unwrap_or(0);
        let is_full = self.members.len() >= most.min(MAX_MEMBERS_PER_GROUP);
        if is_full || self.said_bytes >= MAX_GROUP_METADATA_BYTES {
            let most = most.min(self.members.len());
            return Err(Refusal::new(
                ErrorCode::GroupMaxSizeReached,
                format!("The streams group has reached its maximum capacity of {most} members."),
            ));
        }
        Ok(member
            .cloned()
            .unwrap_or_else(|| Member::new(request.member_id.detached())))
    }

    fn unknown_member(&self, member_id: &Str) -> Refusal {
        Refusal::new(
            ErrorCode::UnknownMemberId,
            format!("Member {member_id} is not a member of group {}.", self.id),
        )
    }

    /// The topology that the member brings, if the group has none.
    fn new_topology(&self, said: Option<&SaidTopology>) -> Result<Option<Topology>, Refusal> {
        let said = match (said, &self.topology) {
            (None, Some(_)) => return Ok(None),
            (None, None) => {
                return Err(unusable(
                    "The topology is null and the group topology is also null.",
                ));
            }
            (Some(said), _) => Topology::said(said)?,
        };
        match &self.topology {
            None => Ok(Some(said)),
            Some(known) if known.epoch() > said.epoch() || known.says_the_same_as(&said) => Ok(None),
            Some(_) => Err(invalid("Topology updates are not supported yet.")),
        }
    }

    fn plan(&self, step: &Step<'_>, request: &StreamsGroupHeartbeatRequest) -> Result<Plan, Refusal> {
        let new = self.new_topology(request.topology.as_ref())?;
        let Some(topology) = new.as_ref().or(self.topology.as_ref()) else {
            return Err(unusable("The group has no topology."));
        };
        let mut hash = self.metadata_hash;
        let is_unseen = self.seen_image != Some(step.topics.version());
        if new.is_some() || self.configured.is_none() || is_unseen {
            hash = metadata_hash(step.topics, topology.required_topics());
        }
        let known = self.configured.as_ref();
        let known = known.filter(|_| new.is_none() && hash == self.metadata_hash);
        let configured = match known {
            Some(_) => None,
            None => Some(configure(topology, step.topics)?),
        };
        let mut validated_topology_epoch = NOT_VALIDATED;
        if let Some(in_force) = configured.as_ref().or(known)
            && in_force.is_ready()
        {
            validated_topology_epoch = topology.epoch();
            let tasks = in_force.tasks.as_ref();
            for kind in [
                &request.active_tasks,
                &request.standby_tasks,
                &request.warmup_tasks,
            ] {
                check_tasks(tasks, kind.as_deref().unwrap_or_default())?;
            }
        }
        Ok(Plan {
            topology: new,
            configured,
            metadata_hash: hash,
            validated_topology_epoch,
        })
    }

    /// Makes what was planned the group's state, and bumps its epoch where that makes a difference, or where
    /// `changed` says so.
    fn carry_out(&mut self, step: &mut Step<'_>, config: &StreamsGroupConfig, plan: Plan, changed: bool) {
        if let Some(topology) = plan.topology {
            self.topology = Some(topology);
            self.store_topology(step.effects);
        }
        if let Some(configured) = plan.configured {
            self.configured = Some(configured);
        }
        self.seen_image = Some(step.topics.version());
        self.assignment_interval_ms = config.assignment_interval_ms;
        let bumps = changed
            || plan.metadata_hash != self.metadata_hash
            || plan.validated_topology_epoch != self.validated_topology_epoch
            || self.standby_replicas != Some(config.standby_replicas);
        if bumps {
            self.metadata_hash = plan.metadata_hash;
            self.validated_topology_epoch = plan.validated_topology_epoch;
            self.standby_replicas = Some(config.standby_replicas);
            self.bump(step.effects);
        }
    }

    /// What follows for the member, which is returned as it is then.
    fn go_on(
        &mut self,
        step: &mut Step<'_>,
        updated: Member,
        owned: Option<&Owned>,
        statuses: &mut Vec<Status>,
    ) -> Member {
        let delay = self.assign_when_due(step);
        statuses.extend(delay.map(|delay| status(StatusCode::AssignmentDelayed, delay.sentence())));
        let nothing = Target::default();
        let target = match delay {
            Some(super::target::Delay::InitialRebalance) => &nothing,
            _ => self.target.get(&updated.id).unwrap_or(&nothing),
        };
        let holders = |subtopology: &Str, partition: i32| self.holders.get(&(subtopology.clone(), partition));
        let process = &updated.said.process_id;
        let next = reconcile(
            &updated,
            self.assignment_epoch,
            target,
            owned,
            |subtopology, partition| {
                holders(subtopology, partition).is_some_and(|holders| holders.active.is_some())
            },
            |subtopology, partition| {
                holders(subtopology, partition).is_some_and(|holders| holders.processes.contains_key(process))
            },
        );
        if next != updated {
            self.store_current(step.effects, &next);
            if next.state == MemberState::UnrevokedTasks {
                self.schedule_revocation(step, &next);
            } else {
                step.timers.cancel(self.revocation_timer(&next.id));
            }
            self.put_member(next.clone());
        }
        next
    }

    /// An empty group is not assigned at once.
    fn wait_for_more_members(&self, step: &mut Step<'_>, config: &StreamsGroupConfig) {
        let timer = self.initial_rebalance_timer();
        let delay_ms = i64::from(config.initial_rebalance_delay_ms);
        if self.members.is_empty() && delay_ms > 0 && !step.timers.is_scheduled(&timer) {
            step.timers.schedule(timer, step.now_ms.saturating_add(delay_ms));
        }
    }

    fn stale_topology(&self, member: &Member) -> Option<Status> {
        let of_group = self.topology.as_ref()?.epoch();
        let of_member = member.said.topology_epoch;
        (of_member < of_group).then(|| {
            let sentence = format!(
                "The member's topology epoch {of_member} is behind the group's topology epoch {of_group}."
            );
            status(StatusCode::StaleTopology, sentence)
        })
    }

    /// What is wrong with the topics, with those that the broker is to create; and whether the application is to end.
    fn tell_problems(&self, statuses: &mut Vec<Status>) -> Vec<CreatableTopic> {
        let mut missing = Vec::new();
        if let Some(configured) = &self.configured
            && let Some(problem) = &configured.problem
        {
            missing.clone_from(&configured.missing);
            statuses.push(status(problem.status, problem.detail.clone()));
        }
        if let Some(member) = &self.shutdown_requested_by {
            let sentence = format!(
                "Streams group member {member} encountered a fatal error and requested a shutdown for the entire \
                 application."
            );
            statuses.push(status(StatusCode::ShutdownApplication, sentence));
        }
        missing
    }

    /// A member that goes.
    pub(crate) fn leave(
        &mut self,
        step: &mut Step<'_>,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Answer, Refusal> {
        if request.shutdown_application && self.shutdown_requested_by.is_none() && !self.is_empty() {
            self.shutdown_requested_by = Some(request.member_id.detached());
        }
        if !self.members.contains_key(&request.member_id) {
            return Err(self.unknown_member(&request.member_id));
        }
        self.remove_member(step, &request.member_id);
        Ok(Answer {
            response: StreamsGroupHeartbeatResponse {
                member_id: request.member_id.clone(),
                member_epoch: request.member_epoch,
                ..StreamsGroupHeartbeatResponse::default()
            },
            missing_topics: Vec::new(),
        })
    }
}

fn check_epoch(member: &Member, epoch: i32, owned: Option<&Owned>) -> Result<(), Refusal> {
    let has_its_own = || owned.is_some_and(|owned| owned.is_within(&member.assigned));
    let relation = match epoch.cmp(&member.epoch) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => "greater",
        // The reply that told the new epoch may be lost.
        std::cmp::Ordering::Less if epoch == member.previous_epoch && has_its_own() => return Ok(()),
        std::cmp::Ordering::Less => "smaller",
    };
    Err(Refusal::new(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The streams group member has a {relation} member epoch ({epoch}) than the one known by the group \
             coordinator ({}). The member must abandon all its partitions and rejoin.",
            member.epoch
        ),
    ))
}

/// Whether the tasks are ones that there are.
fn check_tasks(tasks: Option<&BTreeMap<Str, i32>>, owned: &[OwnedTasks]) -> Result<(), Refusal> {
    for of_subtopology in owned {
        let id = &of_subtopology.subtopology_id;
        let Some(count) = tasks.and_then(|tasks| tasks.get(id)).copied() else {
            return Err(invalid(format!(
                "Subtopology {id} does not exist in the topology."
            )));
        };
        let mut partitions = of_subtopology.partitions.iter();
        if let Some(partition) = partitions.find(|partition| !(0..count).contains(*partition)) {
            return Err(invalid(format!(
                "Task {partition} for subtopology {id} is invalid. Number of tasks for this subtopology: {count}"
            )));
        }
    }
    Ok(())
}
