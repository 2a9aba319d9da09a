//! InitProducerId (API 22), versions 0 to 5: gives an idempotent producer its id.
//!
//! Versions: 2 flexible, 3 the producer's present id and epoch (KIP-360), 4 PRODUCER_FENCED, 5
//! TRANSACTION_ABORTABLE (KIP-890). Without a transactional id Kafka gives a new id with epoch 0,
//! whatever id and epoch the producer had: idempotent producers bump their epoch themselves.
//!
//! Difference from Kafka: transactions are not implemented yet. A transactional id is refused with
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client reports at once; the coordinator
//! errors that would fit as well are retried for ever.

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

const NO_PRODUCER_ID: i64 = -1;
const NO_PRODUCER_EPOCH: i16 = -1;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let half_given = (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH);
    let given = match request.transactional_id.as_deref() {
        _ if half_given => Err(ErrorCode::InvalidRequest),
        Some("") => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => broker.producer_ids.generate().await,
    };
    match given {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        },
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            ..InitProducerIdResponse::default()
        },
    }
}
