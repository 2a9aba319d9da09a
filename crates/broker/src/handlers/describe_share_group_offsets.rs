//! DescribeShareGroupOffsets (API 90), versions 0 and 1: where share groups stand in partitions (KIP-932). A group that
//! there is not stands nowhere; that is no error.
//!
//! Versions: 1 how many records are ahead of the group (KIP-1226).

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use milena_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use milena_protocol::messages::read_share_group_state_summary_request::{
    PartitionData, ReadStateSummaryData,
};
use milena_protocol::messages::read_share_group_state_summary_response::PartitionResult;
use milena_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, ReadShareGroupStateSummaryRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::{settings, share};
use crate::outcome::Outcome;

const NO_START_OFFSET: i64 = -1;
const NO_DELIVERY_COMPLETE_COUNT: i32 = -1;
const NO_LAG: i64 = -1;

type Group = DescribeShareGroupOffsetsResponseGroup;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeShareGroupOffsetsRequest,
) -> Outcome<DescribeShareGroupOffsetsResponse> {
    let is_on = settings::share_groups_are_on(broker);
    let broker = Arc::clone(broker);
    Outcome::Later(Box::pin(async move {
        let mut response = DescribeShareGroupOffsetsResponse::default();
        for group in request.groups {
            let group_id = group.group_id.clone();
            let described = match is_on {
                true => describe(&broker, group).await.map_err(|error| Group {
                    error_message: share::sentence(error),
                    ..refuse(error)
                }),
                false => Err(refuse(ErrorCode::UnsupportedVersion)),
            };
            let mut described = described.unwrap_or_else(|refused| refused);
            described.group_id = group_id;
            response.groups.push(described);
        }
        response
    }))
}

fn refuse(error: ErrorCode) -> Group {
    Group {
        error_code: error.code(),
        ..Group::default()
    }
}

async fn describe(broker: &Broker, group: DescribeShareGroupOffsetsRequestGroup) -> Result<Group, ErrorCode> {
    let mut unknown = Vec::new();
    let mut asked: Vec<(Uuid, Str, Vec<i32>)> = Vec::new();
    match group.topics {
        Some(topics) => {
            for topic in topics {
                match broker.topics.get(&topic.topic_name) {
                    Some(known) => asked.push((known.id, known.name.clone(), topic.partitions)),
                    None => unknown.push(unknown_topic(topic)),
                }
            }
        }
        None => {
            let group_id = &group.group_id;
            let initialized = broker
                .groups
                .read(group_id, |groups| groups.initialized_share_partitions(group_id));
            for (id, partitions) in initialized.await? {
                // What is gone stands nowhere.
                if let Some(known) = broker.topics.get_by_id(&id) {
                    asked.push((id, known.name.clone(), partitions.into_iter().collect()));
                }
            }
        }
    }
    let mut described = Group::default();
    if !asked.is_empty() {
        described.topics = read(broker, group.group_id, asked).await?;
    }
    described.topics.append(&mut unknown);
    Ok(described)
}

/// It is treated as if it had no data.
fn unknown_topic(topic: DescribeShareGroupOffsetsRequestTopic) -> DescribeShareGroupOffsetsResponseTopic {
    let partitions = topic.partitions.into_iter();
    DescribeShareGroupOffsetsResponseTopic {
        topic_name: topic.topic_name,
        partitions: partitions.map(nowhere).collect(),
        ..DescribeShareGroupOffsetsResponseTopic::default()
    }
}

fn nowhere(partition_index: i32) -> DescribeShareGroupOffsetsResponsePartition {
    DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset: NO_START_OFFSET,
        lag: NO_LAG,
        ..DescribeShareGroupOffsetsResponsePartition::default()
    }
}

async fn read(
    broker: &Broker,
    group_id: Str,
    asked: Vec<(Uuid, Str, Vec<i32>)>,
) -> Result<Vec<DescribeShareGroupOffsetsResponseTopic>, ErrorCode> {
    let topics = asked
        .iter()
        .map(|(topic_id, _, partitions)| ReadStateSummaryData {
            topic_id: *topic_id,
            partitions: partitions
                .iter()
                .map(|partition| PartitionData {
                    partition: *partition,
                    ..PartitionData::default()
                })
                .collect(),
            ..ReadStateSummaryData::default()
        });
    let request = ReadShareGroupStateSummaryRequest {
        group_id,
        topics: topics.collect(),
        ..ReadShareGroupStateSummaryRequest::default()
    };
    let summary = broker.share.read_summary(&broker.topics, request).await?;
    let names: BTreeMap<Uuid, Str> = asked.into_iter().map(|(id, name, _)| (id, name)).collect();
    let topics = summary.results.into_iter().map(|topic| {
        let known = broker.topics.get_by_id(&topic.topic_id);
        let partition = |one: PartitionResult| {
            let end = known
                .as_ref()
                .and_then(|topic| topic.partition(one.partition))
                .ok_or(ErrorCode::UnknownTopicOrPartition)
                .and_then(|partition| {
                    partition.check()?;
                    Ok(partition.log().watermarks().high_watermark)
                });
            describe_partition(&one, end)
        };
        DescribeShareGroupOffsetsResponseTopic {
            topic_name: names.get(&topic.topic_id).cloned().unwrap_or_default(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.into_iter().map(partition).collect(),
            ..DescribeShareGroupOffsetsResponseTopic::default()
        }
    });
    Ok(topics.collect())
}

/// `end`: the offset behind the last record that can be read.
fn describe_partition(
    summary: &PartitionResult,
    end: Result<i64, ErrorCode>,
) -> DescribeShareGroupOffsetsResponsePartition {
    if summary.error_code != 0 {
        return nowhere(summary.partition);
    }
    let described = DescribeShareGroupOffsetsResponsePartition {
        start_offset: summary.start_offset,
        leader_epoch: summary.leader_epoch,
        ..nowhere(summary.partition)
    };
    if summary.start_offset == NO_START_OFFSET
        || summary.delivery_complete_count == NO_DELIVERY_COMPLETE_COUNT
    {
        return described;
    }
    match end {
        Ok(end) => DescribeShareGroupOffsetsResponsePartition {
            lag: end - summary.start_offset - i64::from(summary.delivery_complete_count),
            ..described
        },
        Err(error) => DescribeShareGroupOffsetsResponsePartition {
            partition_index: summary.partition,
            error_code: error.code(),
            error_message: share::sentence(error),
            ..DescribeShareGroupOffsetsResponsePartition::default()
        },
    }
}
