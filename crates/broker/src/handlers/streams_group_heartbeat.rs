//! StreamsGroupHeartbeat (API 88), version 0: a member of a streams group joins with its topology, goes on or leaves, and
//! hears which tasks it has and what is wrong with the group's topics (KIP-1071).
//!
//! Internal topics that are missing are created by the rules of CreateTopics before the answer leaves; errors are told by
//! the status of later heartbeats, as Kafka tells them.
//!
//! Differences from Kafka: a member that says that it has other tasks than it was given is told them again, as the answer
//! that gave them may be lost; Kafka tells them once, and leaves the member without. With source topics missing, members
//! with an endpoint are told without partitions, where Kafka fails with UNKNOWN_SERVER_ERROR.

use std::collections::HashSet;
use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::messages::streams_group_heartbeat_request::Topology;
use milena_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use milena_protocol::{ErrorCode, Str};

use super::group_reply;
use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::{internal_topics, settings};
use crate::outcome::Outcome;
use crate::topics;

/// The status that internal topics are missing.
const MISSING_INTERNAL_TOPICS: i8 = 3;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: StreamsGroupHeartbeatRequest,
) -> Outcome<StreamsGroupHeartbeatResponse> {
    if !settings::streams_groups_are_on(broker) {
        return Outcome::Now(refuse(&ApiError::bare(ErrorCode::UnsupportedVersion)));
    }
    if let Err(error) = request.topology.as_ref().map_or(Ok(()), check_names) {
        return Outcome::Now(refuse(&error));
    }
    let client = context.client();
    let config = settings::streams(broker, &request.group_id);
    let reply = broker
        .groups
        .ask_seeing(&broker.topics, &request.group_id, |groups, now_ms, ticket| {
            groups.streams_heartbeat(now_ms, ticket, &client, &config, &request)
        });
    let keep_errors_ms = i64::from(config.heartbeat_interval_ms) * 2;
    let (broker, context) = (Arc::clone(broker), context.clone());
    Outcome::Later(Box::pin(async move {
        let answer = group_reply(reply.await, |reply| match reply {
            Reply::StreamsGroupHeartbeat(response, missing) => Some((*response, missing)),
            _ => None,
        });
        let (mut response, missing) = match answer {
            Ok(answer) => answer,
            Err(error) => return refuse(&ApiError::bare(error)),
        };
        if !missing.is_empty() {
            let failed = broker
                .internal_topics
                .what_failed(&missing, broker.clock.now_ms());
            internal_topics::create(&broker, &context, missing, keep_errors_ms).await;
            let mut statuses = response.status.iter_mut().flatten();
            let status = statuses.find(|status| status.status_code == MISSING_INTERNAL_TOPICS);
            if let Some((status, failed)) = status.zip(failed) {
                let detail = format!("{}; Creation failed: {failed}.", status.status_detail);
                status.status_detail = Str::from(detail);
            }
        }
        response
    }))
}

/// What no topic can be called is not asked of the coordinator.
fn check_names(topology: &Topology) -> Result<(), ApiError> {
    let mut seen = HashSet::new();
    let all = topology.subtopologies.iter().flat_map(|subtopology| {
        let sources = subtopology.source_topics.iter();
        let repartition = subtopology.repartition_source_topics.iter();
        sources.chain(&subtopology.repartition_sink_topics).chain(
            repartition
                .chain(&subtopology.state_changelog_topics)
                .map(|topic| &topic.name),
        )
    });
    let all: Vec<&str> = all
        .filter(|name| seen.insert(*name))
        .map(|name| &**name)
        .collect();
    let invalid = |sentence: String| Err(ApiError::new(ErrorCode::StreamsInvalidTopology, sentence));
    let internal: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| topics::is_internal(name))
        .collect();
    if !internal.is_empty() {
        return invalid(format!(
            "Use of Kafka internal topics {} in a Kafka Streams topology is prohibited.",
            internal.join(",")
        ));
    }
    let bad: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| topics::validate_name(name).is_err())
        .collect();
    if !bad.is_empty() {
        return invalid(format!(
            "Topic names {} are not valid topic names.",
            bad.join(",")
        ));
    }
    Ok(())
}

fn refuse(error: &ApiError) -> StreamsGroupHeartbeatResponse {
    StreamsGroupHeartbeatResponse {
        error_code: error.code.code(),
        error_message: error.wire_message(),
        ..StreamsGroupHeartbeatResponse::default()
    }
}
