//! InitProducerId (API 22), versions 0 to 5: gives a producer its id and epoch.
//!
//! Versions: 2 flexible, 3 the producer's present id and epoch (KIP-360), 4 PRODUCER_FENCED, 5
//! TRANSACTION_ABORTABLE (KIP-890). Without a transactional id Kafka gives a new id with epoch 0,
//! whatever id and epoch the producer had: idempotent producers bump their epoch themselves. With one,
//! the transaction coordinator fences whoever had it, and ends what that left open.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

const NO_PRODUCER_ID: i64 = -1;
const NO_PRODUCER_EPOCH: i16 = -1;
/// The first version whose clients know PRODUCER_FENCED.
const FENCED_VERSION: i16 = 4;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: InitProducerIdRequest,
) -> Outcome<InitProducerIdResponse> {
    let half_given = (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH);
    if half_given || request.transactional_id.as_deref() == Some("") {
        return Outcome::Now(refused(ErrorCode::InvalidRequest));
    }
    let fresh = match broker.producer_ids.generate().await {
        Ok(fresh) => fresh,
        Err(error) => return Outcome::Now(refused(error)),
    };
    let Some(transactional_id) = request.transactional_id.clone() else {
        return Outcome::Now(InitProducerIdResponse {
            producer_id: fresh,
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        });
    };
    let version = context.api_version;
    let reply = broker
        .transactions
        .ask(&transactional_id, |transactions, now_ms, ticket| {
            transactions.init_producer_id(now_ms, ticket, &request, fresh)
        });
    Outcome::Later(Box::pin(async move {
        let given = group_reply(reply.await, |reply| match reply {
            Reply::InitProducerId(response) => Some(response),
            _ => None,
        });
        let mut response = given.unwrap_or_else(refused);
        if version < FENCED_VERSION && response.error_code == ErrorCode::ProducerFenced.code() {
            response.error_code = ErrorCode::InvalidProducerEpoch.code();
        }
        response
    }))
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        ..InitProducerIdResponse::default()
    }
}
