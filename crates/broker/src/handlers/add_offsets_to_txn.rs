//! AddOffsetsToTxn (API 25), versions 0 to 4: makes the offsets of a group part of a producer's
//! transaction (KIP-98). They are told as a partition of `__consumer_offsets`, as in Kafka.
//!
//! Versions: 2 PRODUCER_FENCED, 3 flexible, 4 TRANSACTION_ABORTABLE.

use std::sync::Arc;

use milena_coordinator::AddPartitions;
use milena_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::transactions::{OFFSETS_TOPIC, offsets_partition};

/// The first version whose clients know PRODUCER_FENCED.
const FENCED_VERSION: i16 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let add = AddPartitions {
        transactional_id: request.transactional_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        partitions: vec![(Str::from(OFFSETS_TOPIC), offsets_partition(&request.group_id))],
        verify_only: false,
        bumps_epoch: false,
    };
    let error = broker.transactions.add_partitions(add).await.pop();
    let error = match error.unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::ProducerFenced if context.api_version < FENCED_VERSION => ErrorCode::InvalidProducerEpoch,
        other => other,
    };
    AddOffsetsToTxnResponse {
        error_code: error.code(),
        ..AddOffsetsToTxnResponse::default()
    }
}
