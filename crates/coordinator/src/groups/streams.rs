//! What a shard offers to streams groups (KIP-1071).

use milena_protocol::messages::streams_group_describe_response::DescribedGroup;
use milena_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use milena_protocol::{ErrorCode, Str};

use super::{Groups, no_group};
use crate::group::{Group, Membership};
use crate::limits::MAX_GROUPS_PER_SHARD;
use crate::modern::Refusal;
use crate::step::Step;
use crate::streams::{self, Answer, StreamsGroup, StreamsGroupConfig};
use crate::{Client, Effects, Reply, Ticket};

impl Groups {
    /// StreamsGroupHeartbeat, with the settings of its group. The reply names the internal topics that are to be created.
    pub fn streams_heartbeat(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        client: &Client,
        config: &StreamsGroupConfig,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Effects {
        let mut effects = Effects::default();
        let answer = streams::validate(request)
            .and_then(|()| self.try_streams_heartbeat(now_ms, &mut effects, client, config, request));
        let answer = answer.unwrap_or_else(|refusal| Answer {
            response: StreamsGroupHeartbeatResponse {
                error_code: refusal.error.code(),
                error_message: Some(refusal.message),
                ..StreamsGroupHeartbeatResponse::default()
            },
            missing_topics: Vec::new(),
        });
        let reply = Reply::StreamsGroupHeartbeat(Box::new(answer.response), answer.missing_topics);
        effects.reply(ticket, reply);
        effects
    }

    fn try_streams_heartbeat(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        client: &Client,
        config: &StreamsGroupConfig,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Answer, Refusal> {
        let full = self.groups.len() >= MAX_GROUPS_PER_SHARD;
        let (mut step, groups) = self.step(now_ms, effects);
        let joins = request.member_epoch == 0;
        let Some(group) = groups.get_mut(&request.group_id) else {
            return match request.member_epoch {
                epoch if epoch < 0 => Err(no_group(&request.group_id)),
                0 if full => Err(Refusal::new(
                    ErrorCode::CoordinatorNotAvailable,
                    "The coordinator holds as many groups as it can.",
                )),
                0 => {
                    let id = request.group_id.detached();
                    let mut new = StreamsGroup::new(id.clone());
                    let answer = new.heartbeat(&mut step, config, client, request, true)?;
                    groups.insert(id.clone(), Group::of(id, Membership::Streams(new)));
                    Ok(answer)
                }
                _ => Err(no_streams_group(&request.group_id)),
            };
        };
        if let Membership::Streams(group) = &mut group.membership {
            return match request.member_epoch {
                epoch if epoch < 0 => group.leave(&mut step, request),
                _ => group.heartbeat(&mut step, config, client, request, false),
            };
        }
        let is_empty_classic = group.classic().is_some() && group.is_empty();
        if !joins || !is_empty_classic {
            return Err(not_a_streams_group(&request.group_id));
        }
        let mut new = StreamsGroup::new(group.id.clone());
        let mut effects = Effects::default();
        let mut joining = Step {
            now_ms,
            config: step.config,
            topics: step.topics,
            timers: &mut *step.timers,
            effects: &mut effects,
        };
        let answer = new.heartbeat(&mut joining, config, client, request, true)?;
        group.become_streams(&mut step, new);
        step.effects.facts.append(&mut effects.facts);
        Ok(answer)
    }

    /// StreamsGroupDescribe.
    pub fn describe_streams_group(&self, group_id: &Str) -> DescribedGroup {
        let refusal = match self.groups.get(group_id) {
            Some(group) => match &group.membership {
                Membership::Streams(group) => return group.describe(),
                _ => not_a_streams_group(group_id),
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
}

fn not_a_streams_group(group_id: &Str) -> Refusal {
    let sentence = format!("Group {group_id} is not a streams group.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}

fn no_streams_group(group_id: &Str) -> Refusal {
    let sentence = format!("Streams group {group_id} not found.");
    Refusal::new(ErrorCode::GroupIdNotFound, sentence)
}
