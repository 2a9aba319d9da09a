//! DescribeTransactions (API 65), version 0: the state of transactional ids, and the partitions of what
//! is open (KIP-664).

use std::sync::Arc;

use milena_protocol::messages::describe_transactions_response::TransactionState;
use milena_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeTransactionsRequest,
) -> Outcome<DescribeTransactionsResponse> {
    let described: Vec<_> = request
        .transactional_ids
        .into_iter()
        .map(|id| {
            let described = broker
                .transactions
                .read(&id, |transactions| transactions.describe(&id));
            (id, described)
        })
        .collect();
    Outcome::Later(Box::pin(async move {
        let mut response = DescribeTransactionsResponse::default();
        for (transactional_id, described) in described {
            let state = described.await.unwrap_or_else(|error| TransactionState {
                error_code: error.code(),
                transactional_id,
                ..TransactionState::default()
            });
            response.transaction_states.push(state);
        }
        response
    }))
}
