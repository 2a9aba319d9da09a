//! AlterReplicaLogDirs (key 34, versions 1-2; KIP-113): moves replicas to other log directories while they
//! are in use, and has partitions that do not exist yet be created in a certain one.
//!
//! Authorisation: ALTER on the cluster (none yet). Versions: 2 flexible. The answer comes when the move has
//! begun; DescribeLogDirs shows the future replica until it is done. A second request for a replica that
//! moves ends the move first; one to where the replica is ends it for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_protocol::messages::AlterReplicaLogDirsRequest;
use milena_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;

/// The name of a future replica's folder is the partition's, a point, 32 digits and `-future`.
const FUTURE_NAME_BYTES: usize = 1 + 32 + "-future".len();
const MOST_NAME_BYTES: usize = 255;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    // Of a partition that is named with several directories, the last counts, as in Kafka.
    let mut wanted: BTreeMap<(Str, i32), Str> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            for partition in topic.partitions {
                wanted.insert((topic.name.clone(), partition), dir.path.clone());
            }
        }
    }
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    for ((topic, partition), log_dir) in wanted {
        let error_code = alter(broker, &topic, partition, &log_dir)
            .await
            .err()
            .unwrap_or(ErrorCode::None);
        let result = AlterReplicaLogDirPartitionResult {
            partition_index: partition,
            error_code: error_code.code(),
            ..Default::default()
        };
        match results.last_mut().filter(|last| last.topic_name == topic) {
            Some(last) => last.partitions.push(result),
            None => results.push(AlterReplicaLogDirTopicResult {
                topic_name: topic,
                partitions: vec![result],
                ..Default::default()
            }),
        }
    }
    AlterReplicaLogDirsResponse {
        results,
        ..Default::default()
    }
}

async fn alter(broker: &Broker, topic: &Str, index: i32, log_dir: &str) -> Result<(), ErrorCode> {
    if topic.len() + 1 + index.to_string().len() + FUTURE_NAME_BYTES > MOST_NAME_BYTES {
        return Err(ErrorCode::InvalidTopicException);
    }
    let known = broker.topics.get(topic);
    let partition = known.as_ref().and_then(|topic| topic.partition(index));
    let done = match partition {
        Some(partition) => broker.logs.move_to(partition.id(), log_dir).await,
        None => match broker.logs.prefer_log_dir(topic, index, log_dir) {
            Ok(()) => return Err(ErrorCode::UnknownTopicOrPartition),
            refused => refused,
        },
    };
    done.map_err(|error| {
        tracing::warn!(topic = &**topic, partition = index, log_dir, %error, "the replica is not moved");
        error.code()
    })
}
