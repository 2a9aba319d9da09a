//! Metadata (key 3, versions 0-13): the broker, the cluster, and topics with their partitions.
//!
//! Authorisation: DESCRIBE on topics (none yet). Topics that do not exist are created where
//! `auto.create.topics.enable` and the request (v4+) allow it.
//!
//! v1 controller, rack, null topics mean all (in v0 the empty list does); v2 cluster id; v4 the
//! request says whether topics may be created; v5 offline replicas; v7 leader epoch (KIP-320); v8 authorised operations (KIP-430; those of
//! the cluster until v10); v10 topic ids in the answer and v12 in the request (KIP-516); v13 an
//! error for the whole answer.
//!
//! Difference: Kafka answers UNKNOWN_TOPIC_OR_PARTITION for a topic that it has only begun to
//! create, and the client asks again. Here the topic is there when the answer is.

use std::collections::HashSet;
use std::sync::Arc;

use milena_protocol::messages::MetadataRequest;
use milena_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::{CLUSTER_OPERATIONS, NO_LEADER, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, create_topics};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::topics::{self, Topic};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: MetadataRequest,
) -> MetadataResponse {
    let version = context.api_version;
    if let Some(refusal) = refuse(&request, version) {
        return refusal;
    }
    broker.diagnose_advertised(context);
    let mut topics = find_topics(broker, context, &request).await;
    if version >= 8 && request.include_topic_authorized_operations {
        // Not for ids that name no topic, as in Kafka.
        for topic in topics.iter_mut().filter(|topic| topic.name.is_some()) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let asks_cluster = (8..=10).contains(&version) && request.include_cluster_authorized_operations;
    MetadataResponse {
        brokers: brokers(broker, context),
        cluster_id: Some(broker.cluster_id.clone()),
        controller_id: broker.config.node_id,
        topics,
        cluster_authorized_operations: if asks_cluster {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        },
        ..Default::default()
    }
}

/// Versions 10 and 11 have the fields of topic ids in the request, but not their meaning; and a topic
/// without name and id is nothing in any version (Kafka answers that with UNKNOWN_SERVER_ERROR).
fn refuse(request: &MetadataRequest, version: i16) -> Option<MetadataResponse> {
    let topics = request.topics.as_ref()?;
    let wrong = |name: &Option<Str>, id: &Uuid| match (name, *id) {
        (None, Uuid::ZERO) => true,
        (Some(_), Uuid::ZERO) => false,
        (_, _) => version < 12,
    };
    if !topics.iter().any(|topic| wrong(&topic.name, &topic.topic_id)) {
        return None;
    }
    let error_code = ErrorCode::InvalidRequest.code();
    let answer =
        |topic: &milena_protocol::messages::metadata_request::MetadataRequestTopic| MetadataResponseTopic {
            error_code,
            name: Some(topic.name.clone().unwrap_or_default()),
            topic_id: topic.topic_id,
            ..Default::default()
        };
    Some(MetadataResponse {
        error_code,
        topics: topics.iter().map(answer).collect(),
        ..Default::default()
    })
}

fn brokers(broker: &Broker, context: &RequestContext) -> Vec<MetadataResponseBroker> {
    let node = |endpoint: crate::net::Endpoint| MetadataResponseBroker {
        node_id: broker.config.node_id,
        host: endpoint.host,
        port: i32::from(endpoint.port),
        rack: broker.config.broker_rack.clone().map(Str::from),
        ..Default::default()
    };
    broker.endpoint(context).map(node).into_iter().collect()
}

async fn find_topics(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: &MetadataRequest,
) -> Vec<MetadataResponseTopic> {
    let asked = match &request.topics {
        None => return all_topics(broker),
        Some(asked) if asked.is_empty() && context.api_version == 0 => return all_topics(broker),
        Some(asked) => asked,
    };
    // A request that names an id is about ids only, as in Kafka.
    let ids: Vec<Uuid> = distinct(
        asked
            .iter()
            .map(|topic| topic.topic_id)
            .filter(|id| *id != Uuid::ZERO),
    );
    if !ids.is_empty() {
        return ids.into_iter().map(|id| by_id(broker, id)).collect();
    }
    let names = distinct(asked.iter().filter_map(|topic| topic.name.clone()));
    by_name(broker, names, request.allow_auto_topic_creation).await
}

fn distinct<T: Clone + Eq + std::hash::Hash>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

fn all_topics(broker: &Broker) -> Vec<MetadataResponseTopic> {
    broker
        .topics
        .list()
        .iter()
        .map(|topic| describe(broker, topic))
        .collect()
}

fn by_id(broker: &Broker, id: Uuid) -> MetadataResponseTopic {
    match broker.topics.get_by_id(&id) {
        Some(topic) => describe(broker, &topic),
        None => MetadataResponseTopic {
            error_code: ErrorCode::UnknownTopicId.code(),
            name: None,
            topic_id: id,
            ..Default::default()
        },
    }
}

async fn by_name(broker: &Arc<Broker>, names: Vec<Str>, may_create: bool) -> Vec<MetadataResponseTopic> {
    let missing: Vec<Str> = names
        .iter()
        .filter(|name| broker.topics.get(name).is_none())
        .cloned()
        .collect();
    let mut failed = std::collections::HashMap::new();
    if !missing.is_empty() && may_create && broker.config.auto_create_topics_enable {
        failed = create_topics::auto_create(broker, missing).await;
    }
    let answer = |name: Str| match broker.topics.get(&name) {
        Some(topic) => describe(broker, &topic),
        None => {
            let error = match failed.get(&name) {
                Some(error) => *error,
                None if topics::validate_name(&name).is_err() => ErrorCode::InvalidTopicException,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            MetadataResponseTopic {
                error_code: error.code(),
                is_internal: topics::is_internal(&name),
                name: Some(name),
                ..Default::default()
            }
        }
    };
    names.into_iter().map(answer).collect()
}

fn describe(broker: &Broker, topic: &Topic) -> MetadataResponseTopic {
    let node_id = broker.config.node_id;
    let partitions = topic.partitions.iter().map(|partition| {
        let described = MetadataResponsePartition {
            partition_index: partition.index(),
            leader_id: node_id,
            leader_epoch: partition.leader_epoch(),
            replica_nodes: vec![node_id],
            isr_nodes: vec![node_id],
            ..Default::default()
        };
        if !partition.is_offline() {
            return described;
        }
        MetadataResponsePartition {
            error_code: ErrorCode::LeaderNotAvailable.code(),
            leader_id: NO_LEADER,
            offline_replicas: vec![node_id],
            ..described
        }
    });
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        ..Default::default()
    }
}
