//! PushTelemetry (key 72, version 0; KIP-714): a client's metrics, in OTLP.
//!
//! Authorisation: none. What is answered without an error is in the log of [`crate::client_metrics::TOPIC`].
//!
//! Differences: Kafka has this API only when a plugin takes the metrics.

use std::sync::Arc;

use bytes::Bytes;
use milena_protocol::messages::{PushTelemetryRequest, PushTelemetryResponse};
use milena_protocol::records::{Compression, RecordError, decompress};
use milena_protocol::{ErrorCode, Uuid};

use crate::broker::Broker;
use crate::client_metrics::{MAX_METRICS_BYTES, Push, Who, keep};
use crate::context::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: PushTelemetryRequest,
) -> PushTelemetryResponse {
    let error = match take(broker, context, &request).await {
        Ok(()) => ErrorCode::None,
        Err(error) => error,
    };
    PushTelemetryResponse {
        error_code: error.code(),
        ..Default::default()
    }
}

async fn take(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: &PushTelemetryRequest,
) -> Result<(), ErrorCode> {
    let id = request.client_instance_id;
    if is_reserved(&id) {
        return Err(ErrorCode::InvalidRequest);
    }
    let who = Who::new(&id, context);
    let push = Push {
        subscription_id: request.subscription_id,
        terminating: request.terminating,
        compression_type: request.compression_type,
        bytes: request.metrics.len(),
        max_bytes: usize::try_from(broker.config.telemetry_max_bytes).unwrap_or(0),
    };
    let metrics = &broker.client_metrics;
    metrics.instances().push(
        metrics.subscriptions.current(),
        &id,
        who.clone(),
        push,
        broker.clock.now_ms(),
    )?;
    if request.metrics.is_empty() {
        return Ok(());
    }
    let metrics = decompressed(request)?;
    keep(broker, &id, &who, metrics).await.map_err(|error| {
        tracing::warn!(?error, client = %id, "a client's metrics cannot be kept");
        match error.code {
            ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => ErrorCode::TelemetryTooLarge,
            ErrorCode::InvalidRecord => ErrorCode::InvalidRecord,
            // What clients take for a reason to push again after their interval.
            _ => ErrorCode::ThrottlingQuotaExceeded,
        }
    })
}

/// Zero is nobody's id, and one is that of the metadata topic.
fn is_reserved(id: &Uuid) -> bool {
    let (last, others) = id.as_bytes().split_last().unwrap_or((&0, &[]));
    *last <= 1 && others.iter().all(|byte| *byte == 0)
}

fn decompressed(request: &PushTelemetryRequest) -> Result<Bytes, ErrorCode> {
    let codec = Compression::from_id(request.compression_type.into()).unwrap_or(Compression::None);
    if codec == Compression::None {
        return Ok(request.metrics.clone());
    }
    decompress(codec, &request.metrics, MAX_METRICS_BYTES).map_err(|error| match error {
        RecordError::TooLarge { .. } => ErrorCode::TelemetryTooLarge,
        _ => ErrorCode::InvalidRecord,
    })
}
