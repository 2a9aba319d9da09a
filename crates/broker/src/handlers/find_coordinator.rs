//! FindCoordinator (API 10), versions 0 to 6: which broker looks after a group or a
//! transactional id. Here: this one, at the advertised address of the listener that the client came by.
//!
//! Versions: 1 key type and error message, 3 flexible, 4 several keys (KIP-699), 5 transactions
//! (KIP-890), 6 share groups (KIP-932).
//!
//! Difference from Kafka: share groups are not implemented yet. A share key is refused with
//! INVALID_REQUEST, as Kafka does where share groups are off.

use std::sync::Arc;

use milena_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use milena_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// The first version that asks for several keys at once.
const BATCHED_VERSION: i16 = 4;

const NO_ADDRESS: &str = "No address is advertised for this listener.";
/// What Kafka says of a kind of coordinator that it does not know: the text of INVALID_REQUEST.
const INVALID_REQUEST: &str = "This most likely occurs because of a request being malformed by the client library or \
                               the message was sent to an incompatible broker. See the broker logs for more details.";
const NO_SHARE_GROUPS: &str = "Share groups are not implemented yet.";

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let found = match (request.key_type, broker.endpoint(context)) {
        (GROUP | TRANSACTION, Some(endpoint)) => Ok(endpoint),
        (GROUP | TRANSACTION, None) => Err((ErrorCode::CoordinatorNotAvailable, NO_ADDRESS)),
        (SHARE, _) => Err((ErrorCode::InvalidRequest, NO_SHARE_GROUPS)),
        _ => Err((ErrorCode::InvalidRequest, INVALID_REQUEST)),
    };
    let coordinator = match found {
        Ok(endpoint) => Coordinator {
            node_id: broker.config.node_id,
            host: endpoint.host,
            port: i32::from(endpoint.port),
            ..Coordinator::default()
        },
        Err((error, message)) => Coordinator {
            node_id: -1,
            port: -1,
            error_code: error.code(),
            error_message: Some(Str::from(message)),
            ..Coordinator::default()
        },
    };
    if context.api_version >= BATCHED_VERSION {
        let coordinators = request
            .coordinator_keys
            .into_iter()
            .map(|key| Coordinator {
                key,
                ..coordinator.clone()
            })
            .collect();
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
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
