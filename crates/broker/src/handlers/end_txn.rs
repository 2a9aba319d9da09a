//! EndTxn (API 26), versions 0 to 5: commits or aborts a producer's transaction (KIP-98).
//!
//! Versions: 2 PRODUCER_FENCED, 3 flexible, 4 TRANSACTION_ABORTABLE, 5 bumps the producer's epoch and
//! answers what it goes on with (KIP-890). It is answered when the decision is stored; the partitions
//! get to know in the background, and the producer's next transaction waits for that.

use std::sync::Arc;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::group_reply;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

/// The first version whose clients know PRODUCER_FENCED.
const FENCED_VERSION: i16 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: EndTxnRequest,
) -> Outcome<EndTxnResponse> {
    let version = context.api_version;
    let fresh = match broker.producer_ids.generate().await {
        Ok(fresh) => fresh,
        Err(error) => return Outcome::Now(refused(error)),
    };
    let id = request.transactional_id.clone();
    let reply = broker.transactions.ask(&id, |transactions, now_ms, ticket| {
        transactions.end(now_ms, ticket, version, &request, fresh)
    });
    Outcome::Later(Box::pin(async move {
        let ended = group_reply(reply.await, |reply| match reply {
            Reply::EndTxn(response) => Some(response),
            _ => None,
        });
        let mut response = ended.unwrap_or_else(refused);
        if version < FENCED_VERSION && response.error_code == ErrorCode::ProducerFenced.code() {
            response.error_code = ErrorCode::InvalidProducerEpoch.code();
        }
        response
    }))
}

fn refused(error: ErrorCode) -> EndTxnResponse {
    EndTxnResponse {
        error_code: error.code(),
        ..EndTxnResponse::default()
    }
}
