//! WriteTxnMarkers (API 27), versions 1 and 2: ends transactions in partitions, whatever their
//! coordinator says. In Kafka coordinators send it to leaders; people send it to end a hanging
//! transaction by hand (`kafka-transactions --abort`).
//!
//! Versions: 2 the transaction version (KIP-1228). A partition of `__consumer_offsets` ends what the
//! producer has pending in every group.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use milena_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use milena_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::{BoxFuture, Outcome};
use crate::transactions::{OFFSETS_TOPIC, write_marker};

/// The topic of a marker, and each of its partitions with what becomes of it.
type Topics = Vec<(milena_protocol::Str, Vec<(i32, BoxFuture<Result<(), ErrorCode>>)>)>;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: WriteTxnMarkersRequest,
) -> Outcome<WriteTxnMarkersResponse> {
    // All are appended before the first is waited for.
    let markers: Vec<(i64, Topics)> = request
        .markers
        .iter()
        .map(|marker| (marker.producer_id, write(broker, marker)))
        .collect();
    Outcome::Later(Box::pin(async move {
        let mut response = WriteTxnMarkersResponse::default();
        for (producer_id, topics) in markers {
            let mut result = WritableTxnMarkerResult {
                producer_id,
                ..WritableTxnMarkerResult::default()
            };
            for (name, written) in topics {
                let mut partitions = Vec::with_capacity(written.len());
                for (partition_index, written) in written {
                    partitions.push(WritableTxnMarkerPartitionResult {
                        partition_index,
                        error_code: written.await.err().unwrap_or(ErrorCode::None).code(),
                        ..WritableTxnMarkerPartitionResult::default()
                    });
                }
                result.topics.push(WritableTxnMarkerTopicResult {
                    name,
                    partitions,
                    ..WritableTxnMarkerTopicResult::default()
                });
            }
            response.markers.push(result);
        }
        response
    }))
}

fn write(broker: &Arc<Broker>, marker: &WritableTxnMarker) -> Topics {
    let write_one = |topic: &str, index: i32| -> BoxFuture<Result<(), ErrorCode>> {
        if topic == OFFSETS_TOPIC {
            let broker = Arc::clone(broker);
            let (producer_id, commit) = (marker.producer_id, marker.transaction_result);
            return Box::pin(async move { broker.groups.end_transaction(producer_id, commit).await });
        }
        let found = broker
            .topics
            .get(topic)
            .and_then(|topic| topic.partition(index).cloned());
        let Some(partition) = found else {
            return Box::pin(async { Err(ErrorCode::UnknownTopicOrPartition) });
        };
        let end = milena_log::EndTransaction {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            commit: marker.transaction_result,
            coordinator_epoch: marker.coordinator_epoch,
            leader_epoch: partition.leader_epoch(),
            transaction_version: i16::from(marker.transaction_version),
            now_ms: broker.clock.now_ms(),
        };
        write_marker(partition, end)
    };
    marker
        .topics
        .iter()
        .map(|topic| {
            let indexes = topic.partition_indexes.iter();
            let written = indexes
                .map(|index| (*index, write_one(&topic.name, *index)))
                .collect();
            (topic.name.clone(), written)
        })
        .collect()
}
