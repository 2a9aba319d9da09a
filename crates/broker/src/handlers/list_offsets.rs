//! ListOffsets (API 2), versions 1 to 11: the offset at a timestamp, or at a named place.
//!
//! Versions: 2 isolation level (KIP-98), 4 leader epochs (KIP-320), 6 flexible, 7 the record with
//! the largest timestamp (-3, KIP-734), 8 the earliest local offset (-4, KIP-405), 9 the latest
//! tiered one (-5, KIP-1005), 10 a timeout for tiered storage (KIP-1075), 11 the earliest that
//! waits for upload (-6, KIP-1023).
//!
//! Nothing is tiered here, so the earliest local offset is the earliest one, and -5 and -6 answer
//! offset -1, as Kafka does for a topic without tiered storage.
//!
//! Difference from Kafka: a request with a `replica_id` sees what a consumer sees, not the log end.

use std::collections::HashSet;
use std::sync::Arc;

use milena_log::ReadBound;
use milena_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use milena_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::partitions::Partition;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The first version in which answers carry a leader epoch.
const LEADER_EPOCH_VERSION: i16 = 4;

/// What a place is: `(timestamp, offset, leader epoch)`, each -1 when there is none.
type Place = (i64, i64, i32);

const NOWHERE: Place = (-1, -1, -1);

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let bound = if request.isolation_level == 1 {
        ReadBound::LastStable
    } else {
        ReadBound::HighWatermark
    };
    let duplicates = duplicates(&request);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let known = broker.topics.get(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let place = if duplicates.contains(&(&topic.name, wanted.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else if !is_supported(wanted.timestamp, context.api_version) {
                Err(ErrorCode::UnsupportedVersion)
            } else {
                match known
                    .as_ref()
                    .and_then(|topic| topic.partition(wanted.partition_index))
                {
                    None => Err(ErrorCode::UnknownTopicOrPartition),
                    Some(partition) => find(partition, wanted, bound).await,
                }
            };
            partitions.push(answer(wanted.partition_index, place, context.api_version));
        }
        topics.push(ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions,
            ..ListOffsetsTopicResponse::default()
        });
    }
    ListOffsetsResponse {
        topics,
        ..ListOffsetsResponse::default()
    }
}

/// Partitions that the request names more than once.
fn duplicates(request: &ListOffsetsRequest) -> HashSet<(&Str, i32)> {
    let mut seen = HashSet::new();
    let mut duplicates = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((&topic.name, partition.partition_index)) {
                duplicates.insert((&topic.name, partition.partition_index));
            }
        }
    }
    duplicates
}

fn is_supported(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        EARLIEST_PENDING_UPLOAD => version >= 11,
        _ => false,
    }
}

async fn find(
    partition: &Partition,
    wanted: &ListOffsetsPartition,
    bound: ReadBound,
) -> Result<Place, ErrorCode> {
    partition.check()?;
    partition.check_leader_epoch(wanted.current_leader_epoch)?;
    let log = partition.log();
    let watermarks = log.watermarks();
    let last_fetchable = match bound {
        ReadBound::HighWatermark => watermarks.high_watermark,
        ReadBound::LastStable => watermarks.last_stable,
    };
    let found = match wanted.timestamp {
        LATEST => return Ok((-1, last_fetchable, partition.leader_epoch())),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = match log.epoch_for_offset(watermarks.log_start) {
                Some(epoch) => epoch,
                None if watermarks.log_start == watermarks.log_end => partition.leader_epoch(),
                None => -1,
            };
            return Ok((-1, watermarks.log_start, epoch));
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(NOWHERE),
        MAX_TIMESTAMP => log.max_timestamp().await,
        timestamp => log.offset_for_timestamp(timestamp, bound).await,
    };
    match found.map_err(|error| error.code())? {
        Some(found) if found.offset < last_fetchable => {
            Ok((found.timestamp_ms, found.offset, found.leader_epoch))
        }
        _ => Ok(NOWHERE),
    }
}

fn answer(index: i32, place: Result<Place, ErrorCode>, version: i16) -> ListOffsetsPartitionResponse {
    let (error, (timestamp, offset, leader_epoch)) = match place {
        Ok(place) => (ErrorCode::None, place),
        Err(error) => (error, NOWHERE),
    };
    ListOffsetsPartitionResponse {
        partition_index: index,
        error_code: error.code(),
        timestamp,
        offset,
        leader_epoch: if version >= LEADER_EPOCH_VERSION {
            leader_epoch
        } else {
            -1
        },
        ..ListOffsetsPartitionResponse::default()
    }
}
