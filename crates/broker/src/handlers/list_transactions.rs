//! ListTransactions (API 66), versions 0 to 2: every transactional id of this broker (KIP-664).
//!
//! Versions: 1 a least duration (KIP-994), 2 a pattern of ids, which must match whole (KIP-1152).

use std::sync::Arc;

use milena_coordinator::{TransactionFilter, whole_match};
use milena_protocol::ErrorCode;
use milena_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ListTransactionsRequest,
) -> Outcome<ListTransactionsResponse> {
    let refused = |error: ErrorCode| ListTransactionsResponse {
        error_code: error.code(),
        ..ListTransactionsResponse::default()
    };
    let pattern = request
        .transactional_id_pattern
        .filter(|pattern| !pattern.is_empty());
    let pattern = match pattern.map(|pattern| whole_match(&pattern)).transpose() {
        Ok(pattern) => pattern,
        Err(error) => return Outcome::Now(refused(error)),
    };
    let filter = TransactionFilter {
        states: request.state_filters,
        producer_ids: request.producer_id_filters,
        duration_ms: request.duration_filter,
        pattern,
    };
    let now_ms = broker.clock.now_ms();
    let listed = broker
        .transactions
        .read_all(|transactions| transactions.list(now_ms, &filter));
    Outcome::Later(Box::pin(async move {
        let mut response = ListTransactionsResponse {
            unknown_state_filters: filter.unknown_states(),
            ..ListTransactionsResponse::default()
        };
        for shard in listed {
            match shard.await {
                Ok(states) => response.transaction_states.extend(states),
                Err(error) => return refused(error),
            }
        }
        response
    }))
}
