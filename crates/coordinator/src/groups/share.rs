//! What a shard offers for share groups (KIP-932).

use milena_protocol::messages::share_group_describe_response::DescribedGroup;
use milena_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse, DeleteShareGroupStateRequest, InitializeShareGroupStateRequest,
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::{Groups, no_group};
use crate::group::{Group, Membership};
use crate::limits::{MAX_GROUPS_PER_SHARD, MAX_NAME_BYTES};
use crate::modern::{Refusal, TopicPartitions};
use crate::share::{self, ShareGroup, ShareGroupConfig};
use crate::topics::TopicImage;
use crate::{Client, Effects, Reply, Ticket};

impl Groups {
    /// ShareGroupHeartbeat, with the settings of its group.
    pub fn share_heartbeat(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        client: &Client,
        config: &ShareGroupConfig,
        request: &ShareGroupHeartbeatRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let answer = share::validate(request)
            .and_then(|()| self.try_share_heartbeat(now_ms, &mut effects, client, config, request));
        let (response, initialize) = answer.unwrap_or_else(|refusal| {
            let response = ShareGroupHeartbeatResponse {
                error_code: refusal.error.code(),
                error_message: Some(refusal.message),
                ..ShareGroupHeartbeatResponse::default()
            };
            (response, None)
        });
        effects.reply(
            ticket,
            Reply::ShareGroupHeartbeat(response, initialize.map(Box::new)),
        );
        effects
    }

    fn try_share_heartbeat(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        client: &Client,
        config: &ShareGroupConfig,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<
        (
            ShareGroupHeartbeatResponse,
            Option<InitializeShareGroupStateRequest>,
        ),
        Refusal,
    > {
        let full = self.groups.len() >= MAX_GROUPS_PER_SHARD;
        let (mut step, groups) = self.step(now_ms, effects);
        let group = groups.get_mut(&request.group_id);
        if request.member_epoch < 0 {
            let group = group.ok_or_else(|| no_group(&request.group_id))?;
            let not_one = || not_a_share_group(&request.group_id);
            let left = group.share_mut().ok_or_else(not_one)?.leave(&mut step, request)?;
            return Ok((left, None));
        }
        match group {
            Some(group) => {
                let group = group
                    .share_mut()
                    .ok_or_else(|| not_a_share_group(&request.group_id))?;
                group.heartbeat(&mut step, config, client, request)
            }
            None if request.member_epoch != 0 => Err(no_share_group(&request.group_id)),
            None if full => Err(shard_is_full()),
            None => {
                let id = request.group_id.detached();
                let mut new = ShareGroup::new(id.clone());
                let answer = new.heartbeat(&mut step, config, client, request)?;
                groups.insert(id.clone(), Group::of(id, Membership::Share(new)));
                Ok(answer)
            }
        }
    }

    /// The states that a heartbeat or AlterShareGroupOffsets asked for are initialized.
    pub fn share_states_initialized(
        &mut self,
        now_ms: i64,
        group_id: &Str,
        partitions: &TopicPartitions,
    ) -> Effects {
        self.change_share_group(now_ms, group_id, |group, step| {
            group.states_initialized(step, partitions);
        })
    }

    /// They could not be.
    pub fn share_states_not_initialized(
        &mut self,
        now_ms: i64,
        group_id: &Str,
        partitions: &TopicPartitions,
    ) -> Effects {
        self.change_share_group(now_ms, group_id, |group, step| {
            group.states_not_initialized(step, partitions);
        })
    }

    /// The states that DeleteShareGroupOffsets asked to remove are gone.
    pub fn share_states_deleted(&mut self, now_ms: i64, group_id: &Str, topics: &[Uuid]) -> Effects {
        self.change_share_group(now_ms, group_id, |group, step| group.states_deleted(step, topics))
    }

    /// A group that was deleted meanwhile is left alone.
    fn change_share_group(
        &mut self,
        now_ms: i64,
        group_id: &Str,
        change: impl FnOnce(&mut ShareGroup, &mut crate::step::Step<'_>),
    ) -> Effects {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(now_ms, &mut effects);
        if let Some(group) = groups.get_mut(group_id).and_then(Group::share_mut) {
            change(group, &mut step);
        }
        effects
    }

    /// AlterShareGroupOffsets; creates a group that there is not.
    pub fn alter_share_offsets(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        request: &AlterShareGroupOffsetsRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let full = self.groups.len() >= MAX_GROUPS_PER_SHARD;
        let (mut step, groups) = self.step(now_ms, &mut effects);
        let answer = match groups.get_mut(&request.group_id) {
            Some(group) => match group.share_mut() {
                Some(group) if group.is_empty() => Ok(group.alter_offsets(&mut step, request)),
                Some(_) => Err(not_empty()),
                None => Err(not_a_share_group(&request.group_id)),
            },
            None if request.group_id.len() > MAX_NAME_BYTES => Err(Refusal::new(
                ErrorCode::InvalidGroupId,
                "The group's name is longer than can be stored.",
            )),
            None if full => Err(shard_is_full()),
            None => {
                let id = request.group_id.detached();
                let mut new = ShareGroup::new(id.clone());
                let answer = new.alter_offsets(&mut step, request);
                // It exists by the states that it gets.
                if answer.1.is_some() {
                    groups.insert(id.clone(), Group::of(id, Membership::Share(new)));
                }
                Ok(answer)
            }
        };
        let (response, initialize) = answer.unwrap_or_else(|refusal| {
            let response = AlterShareGroupOffsetsResponse {
                error_code: refusal.error.code(),
                error_message: Some(refusal.message),
                ..AlterShareGroupOffsetsResponse::default()
            };
            (response, None)
        });
        effects.reply(
            ticket,
            Reply::AlterShareGroupOffsets(response, initialize.map(Box::new)),
        );
        effects
    }

    pub fn delete_share_offsets(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        request: &DeleteShareGroupOffsetsRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let (mut step, groups) = self.step(now_ms, &mut effects);
        let answer = match groups.get_mut(&request.group_id) {
            Some(group) => match group.share_mut() {
                Some(group) if group.is_empty() => Ok(group.delete_offsets(&mut step, request)),
                Some(_) => Err(not_empty()),
                None => Err(not_a_share_group(&request.group_id)),
            },
            None => Err(no_group(&request.group_id)),
        };
        let (response, delete) = answer.unwrap_or_else(|refusal| {
            let response = DeleteShareGroupOffsetsResponse {
                error_code: refusal.error.code(),
                error_message: Some(refusal.message),
                ..DeleteShareGroupOffsetsResponse::default()
            };
            (response, None)
        });
        effects.reply(
            ticket,
            Reply::DeleteShareGroupOffsets(response, delete.map(Box::new)),
        );
        effects
    }

    /// The states to remove before an empty group can be deleted, if it is a share group that has any.
    pub(super) fn begin_to_delete_share_group(
        &mut self,
        effects: &mut Effects,
        group_id: &Str,
    ) -> Option<DeleteShareGroupStateRequest> {
        // No timer follows from it.
        let (mut step, groups) = self.step(0, effects);
        let group = groups.get_mut(group_id).and_then(Group::share_mut)?;
        group.delete_all_states(&mut step)
    }

    /// Goes on with a deletion whose states are removed.
    pub fn delete_share_group(&mut self, ticket: Ticket, group_id: &Str) -> Effects {
        let mut effects = Effects::default();
        let error = match self.groups.get(group_id).and_then(Group::share) {
            None => ErrorCode::GroupIdNotFound,
            Some(group) if !group.is_empty() => ErrorCode::NonEmptyGroup,
            Some(_) => {
                self.forget_group(group_id, &mut effects);
                ErrorCode::None
            }
        };
        effects.reply(ticket, Reply::DeleteGroup(error));
        effects
    }

    pub fn describe_share_group(&self, group_id: &Str, topics: &TopicImage) -> DescribedGroup {
        let refusal = match self.groups.get(group_id) {
            Some(group) => match group.share() {
                Some(group) => return group.describe(topics),
                None => not_a_share_group(group_id),
            },
            None => no_group(group_id),
        };
        DescribedGroup {
            group_id: group_id.clone(),
            error_code: refusal.error.code(),
            error_message: Some(refusal.message),
            ..DescribedGroup::default()
        }
    }

    /// The partitions of a share group whose state is initialized; none of a group that there is not.
    pub fn initialized_share_partitions(&self, group_id: &Str) -> TopicPartitions {
        let group = self.groups.get(group_id).and_then(Group::share);
        group.map(ShareGroup::initialized_partitions).unwrap_or_default()
    }
}

fn not_a_share_group(group_id: &Str) -> Refusal {
    let sentence = format!("Group {group_id} is not a share group.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}

fn no_share_group(group_id: &Str) -> Refusal {
    let sentence = format!("Share group {group_id} not found.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}

fn not_empty() -> Refusal {
    Refusal::new(ErrorCode::NonEmptyGroup, "The group is not empty.")
}

fn shard_is_full() -> Refusal {
    Refusal::new(
        ErrorCode::CoordinatorNotAvailable,
        "The coordinator holds as many groups as it can.",
    )
}
