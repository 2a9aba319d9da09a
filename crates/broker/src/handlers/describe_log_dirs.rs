//! DescribeLogDirs (key 35, versions 1-5; KIP-113): log directories, their space and partitions.
//!
//! Authorisation: DESCRIBE on the cluster (none yet). v3 an error for the whole answer; v4 total
//! and usable bytes (KIP-827); v5 whether the directory is cordoned (KIP-1066). A replica that moves to another
//! directory is in both, in the other one as a future one with its lag.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use milena_log::{LogDir, PartitionId, StoredReplica};
use milena_protocol::messages::DescribeLogDirsRequest;
use milena_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;

/// The partitions asked for, by topic; `None` for all.
type Wanted = Option<HashMap<Str, HashSet<i32>>>;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted: Wanted = request.topics.map(|topics| {
        let mut wanted: HashMap<Str, HashSet<i32>> = HashMap::new();
        for topic in topics {
            wanted.entry(topic.topic).or_default().extend(topic.partitions);
        }
        wanted
    });
    let results = broker
        .logs
        .log_dirs()
        .iter()
        .map(|dir| describe(dir, &wanted))
        .collect();
    DescribeLogDirsResponse {
        results,
        ..Default::default()
    }
}

fn describe(dir: &LogDir, wanted: &Wanted) -> DescribeLogDirsResult {
    let log_dir = Str::from(dir.path.to_string_lossy().into_owned());
    if dir.error.is_some() {
        return DescribeLogDirsResult {
            error_code: ErrorCode::KafkaStorageError.code(),
            log_dir,
            ..Default::default()
        };
    }
    let is_wanted = |id: &PartitionId| match wanted {
        None => true,
        Some(wanted) => wanted
            .get(&id.topic)
            .is_some_and(|partitions| partitions.contains(&id.partition)),
    };
    let mut topics: BTreeMap<Str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    let wanted = dir.replicas.iter().filter(|it| is_wanted(&it.partition));
    for StoredReplica {
        partition,
        size_bytes,
        is_future,
        offset_lag,
    } in wanted
    {
        topics
            .entry(partition.topic.clone())
            .or_default()
            .push(DescribeLogDirsPartition {
                partition_index: partition.partition,
                partition_size: i64::try_from(*size_bytes).unwrap_or(i64::MAX),
                offset_lag: *offset_lag,
                is_future_key: *is_future,
                ..Default::default()
            });
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| DescribeLogDirsTopic {
            name,
            partitions,
            ..Default::default()
        })
        .collect();
    DescribeLogDirsResult {
        log_dir,
        topics,
        total_bytes: dir.total_bytes,
        usable_bytes: dir.usable_bytes,
        is_cordoned: dir.is_cordoned,
        ..Default::default()
    }
}
