//! FindCoordinator (API 10), versions 0 to 6: which broker looks after a group, a
//! transactional id or a share group's partition (`group:topic id:partition`). Here: this one, at the advertised address of the listener that the client came by.
//!
//! Versions: 1 key type and error message, 3 flexible, 4 several keys (KIP-699), 5 transactions
//! (KIP-890), 6 share groups (KIP-932).

use std::sync::Arc;

use milena_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use milena_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::broker::Broker;
use crate::context::RequestContext;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// The first version that asks for several keys at once.
const BATCHED_VERSION: i16 = 4;
/// The first version that asks for share groups' partitions.
const SHARE_VERSION: i16 = 6;

const NO_ADDRESS: &str = "No address is advertised for this listener.";
/// What Kafka says of a kind of coordinator that it does not know: the text of INVALID_REQUEST.
const INVALID_REQUEST: &str = "This most likely occurs because of a request being malformed by the client library or \
                               the message was sent to an incompatible broker. See the broker logs for more details.";

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let endpoint = broker.endpoint(context);
    let find = |key: &Str| {
        let is_known = match request.key_type {
            GROUP | TRANSACTION => true,
            SHARE => context.api_version >= SHARE_VERSION && is_share_partition(key),
            _ => false,
        };
        if !is_known {
            // Kafka says nothing of one among several.
            let is_silent = request.key_type == SHARE && context.api_version >= BATCHED_VERSION;
            let sentence = if is_silent { "" } else { INVALID_REQUEST };
            return nowhere(ErrorCode::InvalidRequest, sentence);
        }
        match &endpoint {
            Some(endpoint) => Coordinator {
                node_id: broker.config.node_id,
                host: endpoint.host.clone(),
                port: i32::from(endpoint.port),
                ..Coordinator::default()
            },
            None => nowhere(ErrorCode::CoordinatorNotAvailable, NO_ADDRESS),
        }
    };
    if context.api_version >= BATCHED_VERSION {
        let coordinators = request
            .coordinator_keys
            .iter()
            .map(|key| Coordinator {
                key: key.clone(),
                ..find(key)
            })
            .collect();
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let coordinator = find(&request.key);
    FindCoordinatorResponse {
        error_code: coordinator.error_code,
        // Kafka says NONE where there is no error.
        error_message: match coordinator.error_code {
            0 => Some(Str::from("NONE")),
            _ => coordinator.error_message,
        },
        node_id: coordinator.node_id,
        host: coordinator.host,
        port: coordinator.port,
        ..FindCoordinatorResponse::default()
    }
}

fn nowhere(error: ErrorCode, message: &'static str) -> Coordinator {
    Coordinator {
        node_id: -1,
        port: -1,
        error_code: error.code(),
        error_message: Some(Str::from(message)),
        ..Coordinator::default()
    }
}

/// Whether the key is `group:topic id:partition`. The group may hold colons, so that it is read from the end.
fn is_share_partition(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let (partition, topic, group) = (parts.next(), parts.next(), parts.next());
    partition.is_some_and(|partition| partition.parse::<i32>().is_ok())
        && topic.is_some_and(|topic| topic.parse::<Uuid>().is_ok())
        && group.is_some_and(|group| !group.trim().is_empty())
}
