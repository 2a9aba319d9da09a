//! OffsetFetch (API 9), versions 1 to 10: how far groups have read.
//!
//! Versions: 2 all topics (null) and an error for the group, 5 leader epoch (KIP-320), 6 flexible,
//! 7 stable offsets only (KIP-447), 8 several groups (KIP-709), 9 member epochs (KIP-848), 10
//! topics by id.
//!
//! Only what is stored is answered; from version 7 on a client may have partitions refused whose
//! offset an open transaction may change (UNSTABLE_OFFSET_COMMIT).

use std::sync::Arc;

use milena_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use milena_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::{BoxFuture, Outcome};

/// The first version that asks for several groups.
const GROUPS_VERSION: i16 = 8;
/// The first version with an error for the whole group.
const GROUP_ERROR_VERSION: i16 = 2;
/// The first version that names topics by id.
const TOPIC_IDS_VERSION: i16 = 10;

/// One group's answer: what is refused already, and what the coordinator knows.
struct Asked {
    group_id: Str,
    refused: Vec<OffsetFetchResponseTopics>,
    answer: BoxFuture<Result<OffsetFetchResponseGroup, ErrorCode>>,
}

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: OffsetFetchRequest,
) -> Outcome<OffsetFetchResponse> {
    let version = context.api_version;
    let by_id = version >= TOPIC_IDS_VERSION;
    let single = (version < GROUPS_VERSION).then(|| single_group(&request));
    let single_topics = single
        .as_ref()
        .and_then(|group| group.topics.clone())
        .unwrap_or_default();
    let asked: Vec<Asked> = single
        .into_iter()
        .chain(request.groups)
        .map(|group| ask(broker, by_id, request.require_stable, group))
        .collect();
    let broker = Arc::clone(broker);
    Outcome::Later(Box::pin(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for Asked {
            group_id,
            refused,
            answer,
        } in asked
        {
            let mut group = match answer.await {
                Ok(group) => group,
                Err(error) => OffsetFetchResponseGroup {
                    error_code: error.code(),
                    ..OffsetFetchResponseGroup::default()
                },
            };
            group.group_id = group_id;
            if group.error_code == ErrorCode::None.code() {
                if by_id {
                    add_topic_ids(&broker, &mut group);
                }
                group.topics.extend(refused);
            }
            groups.push(group);
        }
        if version >= GROUPS_VERSION {
            return OffsetFetchResponse {
                groups,
                ..OffsetFetchResponse::default()
            };
        }
        groups
            .pop()
            .map(|group| single_response(version, group, &single_topics))
            .unwrap_or_default()
    }))
}

/// The only group of an old request, in the form of a new one.
fn single_group(request: &OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.as_ref().map(|topics| {
        topics
            .iter()
            .map(|topic| OffsetFetchRequestTopics {
                name: topic.name.clone(),
                partition_indexes: topic.partition_indexes.clone(),
                ..OffsetFetchRequestTopics::default()
            })
            .collect()
    });
    OffsetFetchRequestGroup {
        group_id: request.group_id.clone(),
        topics,
        ..OffsetFetchRequestGroup::default()
    }
}

fn ask(broker: &Broker, by_id: bool, require_stable: bool, mut group: OffsetFetchRequestGroup) -> Asked {
    let mut refused = Vec::new();
    if by_id && let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match broker.topics.get_by_id(&topic.topic_id) {
            Some(known) => {
                topic.name = known.name.clone();
                true
            }
            None => {
                refused.push(refuse_topic(topic, ErrorCode::UnknownTopicId));
                false
            }
        });
    }
    let answer = broker.groups.read(&group.group_id, |groups| {
        groups.fetch_offsets(&group, require_stable)
    });
    Asked {
        group_id: group.group_id,
        refused,
        answer,
    }
}

fn refuse_topic(topic: &OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    let partitions = topic
        .partition_indexes
        .iter()
        .map(|index| OffsetFetchResponsePartitions {
            partition_index: *index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(Str::default()),
            error_code: error.code(),
            ..OffsetFetchResponsePartitions::default()
        })
        .collect();
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions,
        ..OffsetFetchResponseTopics::default()
    }
}

/// A topic without an id cannot be told in these versions: it was deleted, and so its offsets go.
fn add_topic_ids(broker: &Broker, group: &mut OffsetFetchResponseGroup) {
    group.topics.retain_mut(|topic| {
        if topic.topic_id == Uuid::ZERO
            && let Some(known) = broker.topics.get(&topic.name)
        {
            topic.topic_id = known.id;
        }
        topic.topic_id != Uuid::ZERO
    });
}

fn single_response(
    version: i16,
    group: OffsetFetchResponseGroup,
    asked: &[OffsetFetchRequestTopics],
) -> OffsetFetchResponse {
    let error = ErrorCode::from_code(group.error_code);
    let topics = if version < GROUP_ERROR_VERSION && error != ErrorCode::None {
        asked.iter().map(|topic| refuse_topic(topic, error)).collect()
    } else {
        group.topics
    };
    let topics = topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|partition| OffsetFetchResponsePartition {
                    partition_index: partition.partition_index,
                    committed_offset: partition.committed_offset,
                    committed_leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.metadata,
                    error_code: partition.error_code,
                    ..OffsetFetchResponsePartition::default()
                })
                .collect(),
            ..OffsetFetchResponseTopic::default()
        })
        .collect();
    OffsetFetchResponse {
        topics,
        error_code: group.error_code,
        ..OffsetFetchResponse::default()
    }
}
