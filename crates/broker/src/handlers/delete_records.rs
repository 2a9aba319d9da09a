//! DeleteRecords (API 21), versions 0 to 2: moves the start of logs up (KIP-107).
//!
//! Versions: 2 flexible. An offset of -1 means the high watermark; one beyond it is
//! OFFSET_OUT_OF_RANGE; one that is gone already changes nothing. A topic whose `cleanup.policy`
//! does not contain `delete` is refused with POLICY_VIOLATION.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::delete_records_request::DeleteRecordsRequest;
use milena_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::topics::Topic;

/// The high watermark, as a request names it.
const HIGH_WATERMARK: i64 = -1;
const INVALID_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let known = broker.topics.get(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let deleted = match &known {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(topic) => delete(topic, wanted.partition_index, wanted.offset).await,
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: wanted.partition_index,
                low_watermark: deleted.unwrap_or(INVALID_LOW_WATERMARK),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
                ..DeleteRecordsPartitionResult::default()
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name.clone(),
            partitions,
            ..DeleteRecordsTopicResult::default()
        });
    }
    DeleteRecordsResponse {
        topics,
        ..DeleteRecordsResponse::default()
    }
}

async fn delete(topic: &Topic, index: i32, offset: i64) -> Result<i64, ErrorCode> {
    let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.is_internal() {
        return Err(ErrorCode::InvalidTopicException);
    }
    if !partition.config().cleanup_policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    if offset < HIGH_WATERMARK {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    partition
        .log()
        .delete_records(offset)
        .await
        .map_err(|error| error.code())
}
