//! DescribeTopicPartitions (key 75, version 0; KIP-966): topics' partitions, page by page.
//!
//! Authorisation: DESCRIBE on the topic (none yet). An empty list of topics means all of them. A
//! page has at most `max.request.partition.size.limit` partitions, or as few as the client asks
//! for; the cursor of the answer says where the next page starts.

use std::collections::BTreeSet;
use std::sync::Arc;

use milena_protocol::messages::DescribeTopicPartitionsRequest;
use milena_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use milena_protocol::{ErrorCode, Str};

use super::{NO_LEADER, TOPIC_OPERATIONS};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::partitions::Partition;
use crate::topics::{self, Topic};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (first_topic, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index),
        None => (Str::default(), 0),
    };
    let asked: BTreeSet<Str> = request
        .topics
        .iter()
        .map(|topic| topic.name.clone())
        .filter(|name| *name >= first_topic)
        .collect();
    let all = request.topics.is_empty();
    let cursor_is_elsewhere = !all && request.cursor.is_some() && !asked.contains(&first_topic);
    if cursor_is_elsewhere || first_partition < 0 {
        return invalid(&request);
    }
    let limit = broker
        .config
        .max_request_partition_size_limit
        .min(request.response_partition_limit)
        .max(1);
    let mut page = Page {
        response: DescribeTopicPartitionsResponse::default(),
        room: usize::try_from(limit).unwrap_or(1),
    };
    let node_id = broker.config.node_id;
    let start = |name: &Str| {
        if *name == first_topic {
            usize::try_from(first_partition).unwrap_or(0)
        } else {
            0
        }
    };
    if all {
        // Every topic has a partition, so one more than fit tells where the next page starts.
        let listed = broker.topics.list_from(&first_topic, page.room + 1);
        for topic in listed {
            if !page.add(&topic.name, Some(&topic), start(&topic.name), node_id) {
                break;
            }
        }
    } else {
        for name in asked {
            if !page.add(&name, broker.topics.get(&name).as_deref(), start(&name), node_id) {
                break;
            }
        }
    }
    page.response
}

fn invalid(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refuse = |name: &Str| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(name.clone()),
        ..Default::default()
    };
    let topics = request.topics.iter().map(|topic| refuse(&topic.name)).collect();
    DescribeTopicPartitionsResponse {
        topics,
        ..Default::default()
    }
}

fn describe(partition: &Partition, node_id: i32) -> DescribeTopicPartitionsResponsePartition {
    let described = DescribeTopicPartitionsResponsePartition {
        partition_index: partition.index(),
        leader_id: node_id,
        leader_epoch: partition.leader_epoch(),
        replica_nodes: vec![node_id],
        isr_nodes: vec![node_id],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    };
    if !partition.is_offline() {
        return described;
    }
    DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode::LeaderNotAvailable.code(),
        leader_id: NO_LEADER,
        offline_replicas: vec![node_id],
        ..described
    }
}

struct Page {
    response: DescribeTopicPartitionsResponse,
    /// Partitions that still fit.
    room: usize,
}

impl Page {
    /// Adds what fits of a topic. `false`: the page is full, and its cursor is set.
    fn add(&mut self, name: &Str, topic: Option<&Topic>, start: usize, node_id: i32) -> bool {
        if self.room == 0 {
            self.next(name, 0);
            return false;
        }
        let Some(topic) = topic else {
            let error = match topics::validate_name(name) {
                Ok(()) => ErrorCode::UnknownTopicOrPartition,
                Err(_) => ErrorCode::InvalidTopicException,
            };
            self.response.topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: error.code(),
                name: Some(name.clone()),
                is_internal: topics::is_internal(name),
                topic_authorized_operations: TOPIC_OPERATIONS,
                ..Default::default()
            });
            return true;
        };
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .skip(start)
            .take(self.room)
            .map(|partition| describe(partition, node_id))
            .collect();
        let end = start + partitions.len();
        self.room -= partitions.len();
        self.response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions,
            topic_authorized_operations: TOPIC_OPERATIONS,
            ..Default::default()
        });
        if end < topic.partitions.len() {
            self.next(name, end);
            return false;
        }
        true
    }

    fn next(&mut self, topic: &Str, partition: usize) {
        self.response.next_cursor = Some(Cursor {
            topic_name: topic.clone(),
            partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
            ..Default::default()
        });
    }
}
