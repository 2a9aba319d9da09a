//! Metrics that clients push (KIP-714): who is to push what, how often, and what becomes of it.
//!
//! A subscription is a config resource of type CLIENT_METRICS: which metrics, of which clients, at which interval. Clients
//! ask for theirs (GetTelemetrySubscriptions) and push (PushTelemetry); [`Instances`] decides what they are told.
//! What they push is OTLP, which the broker does not look into: it becomes a record of the topic [`TOPIC`], where
//! consumers and collectors read it. Without a subscription no client is told of any of this; one that connected
//! before the first subscription pushes after it has connected again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use milena_protocol::Uuid;
use milena_state::StateStore;

use crate::broker::StartError;
use crate::context::RequestContext;
use crate::small_facts::SmallFacts;

mod instances;
mod keep;
mod subscriptions;

pub(crate) use instances::{Instances, Push};
pub(crate) use keep::{MAX_METRICS_BYTES, keep};
pub(crate) use subscriptions::Subscriptions;

const SHARD: &str = "client-metrics";
/// Where pushed metrics are kept: the key is the client's instance id, the value OTLP's `MetricsData`, the headers
/// tell who it was. Made at the first push; its settings can be changed like any topic's.
pub(crate) const TOPIC: &str = "__client_metrics";

#[derive(Debug)]
pub(crate) struct ClientMetrics {
    pub(crate) subscriptions: SmallFacts<Subscriptions>,
    instances: Mutex<Instances>,
}

impl ClientMetrics {
    pub(crate) async fn load(facts: Arc<dyn StateStore>) -> Result<Self, StartError> {
        Ok(Self {
            subscriptions: SmallFacts::load(facts, SHARD).await?,
            instances: Mutex::new(Instances::default()),
        })
    }

    pub(crate) fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who a client is, by the names that a subscription's `match` has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    peer: SocketAddr,
    attributes: BTreeMap<&'static str, String>,
}

impl Who {
    pub(crate) fn new(instance_id: &Uuid, context: &RequestContext) -> Self {
        let peer = context.connection.peer;
        let mut attributes = BTreeMap::from([
            ("client_instance_id", instance_id.to_string()),
            ("client_source_address", peer.ip().to_canonical().to_string()),
            ("client_source_port", peer.port().to_string()),
        ]);
        if let Some(client_id) = &context.client_id {
            attributes.insert("client_id", client_id.to_string());
        }
        if let Some((name, version)) = context.connection.software.get() {
            attributes.insert("client_software_name", name.clone());
            attributes.insert("client_software_version", version.clone());
        }
        Self { peer, attributes }
    }
}
