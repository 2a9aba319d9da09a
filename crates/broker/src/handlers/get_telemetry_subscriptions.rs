//! GetTelemetrySubscriptions (key 71, version 0; KIP-714): what metrics a client is to push, and how often.
//!
//! Authorisation: none. A client that has no id yet is given one.
//!
//! Differences: Kafka has this API only when a plugin takes the metrics; here [`crate::client_metrics`] does.

use std::sync::Arc;

use milena_protocol::messages::GetTelemetrySubscriptionsRequest;
use milena_protocol::messages::GetTelemetrySubscriptionsResponse;
use milena_protocol::{Str, Uuid};

use crate::broker::Broker;
use crate::client_metrics::Who;
use crate::context::RequestContext;

/// Zstd, lz4, gzip, snappy: clients take the first that they have.
const ACCEPTED_COMPRESSION_TYPES: [i8; 4] = [4, 3, 1, 2];

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let id = match request.client_instance_id {
        known if !known.is_zero() => known,
        _ => Uuid::from_bytes(rand::random()),
    };
    let metrics = &broker.client_metrics;
    let given = metrics.instances().get(
        metrics.subscriptions.current(),
        &id,
        Who::new(&id, context),
        broker.clock.now_ms(),
    );
    match given {
        Ok(given) => GetTelemetrySubscriptionsResponse {
            client_instance_id: id,
            subscription_id: given.subscription_id,
            accepted_compression_types: ACCEPTED_COMPRESSION_TYPES.to_vec(),
            push_interval_ms: given.interval_ms,
            telemetry_max_bytes: broker.config.telemetry_max_bytes,
            delta_temporality: true,
            requested_metrics: given.metrics.into_iter().map(Str::from).collect(),
            ..Default::default()
        },
        Err(error) => GetTelemetrySubscriptionsResponse {
            error_code: error.code(),
            ..Default::default()
        },
    }
}
