//! UnregisterBroker (key 64, version 0; KIP-631): takes a broker that is gone off the cluster's list.
//!
//! Authorisation: ALTER on the cluster (none yet). Only this broker is on the list. Kafka would
//! unregister it while it runs and leave its partitions without a leader until it starts anew; here
//! that is refused, because the broker that would be gone is the one that answers.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = request.broker_id;
    let error = if id == broker.config.node_id {
        ApiError::invalid_request(format!(
            "Broker ID {id} is running and the only broker of the cluster: stop it instead."
        ))
    } else {
        ApiError::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("Broker ID {id} is not currently registered"),
        )
    };
    UnregisterBrokerResponse {
        error_code: error.code.code(),
        error_message: error.wire_message(),
        ..Default::default()
    }
}
