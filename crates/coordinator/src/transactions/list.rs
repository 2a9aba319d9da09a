//! ListTransactions and DescribeTransactions (KIP-664, KIP-994).

use milena_protocol::messages::describe_transactions_response::{self, TopicData};
use milena_protocol::messages::list_transactions_response;
use milena_protocol::{ErrorCode, Str};
use regex::Regex;

use super::{TransactionState, Transactions};

/// Which transactions are wanted. Empty lists let everything through.
#[derive(Debug, Default)]
pub struct TransactionFilter {
    pub states: Vec<Str>,
    pub producer_ids: Vec<i64>,
    /// Only what is open for longer than this, in ms; -1: whatever its age.
    pub duration_ms: i64,
    /// The whole id must match.
    pub pattern: Option<Regex>,
}

impl TransactionFilter {
    /// The names in it that are no states.
    #[must_use]
    pub fn unknown_states(&self) -> Vec<Str> {
        let unknown = |name: &&Str| !TransactionState::is_name(name);
        self.states.iter().filter(unknown).cloned().collect()
    }
}

/// A pattern that the whole of an id must match.
///
/// # Errors
/// INVALID_REGULAR_EXPRESSION.
pub fn whole_match(pattern: &str) -> Result<Regex, ErrorCode> {
    // Alone first: what follows could make a pattern of it that it is not.
    let whole = Regex::new(pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$")));
    whole.map_err(|_| ErrorCode::InvalidRegularExpression)
}

impl Transactions {
    #[must_use]
    pub fn list(
        &self,
        now_ms: i64,
        filter: &TransactionFilter,
    ) -> Vec<list_transactions_response::TransactionState> {
        let wanted = self.transactions.iter().filter(|(id, transaction)| {
            let state = transaction.state.name();
            (filter.producer_ids.is_empty() || filter.producer_ids.contains(&transaction.producer_id))
                && (filter.states.is_empty() || filter.states.iter().any(|name| **name == *state))
                && (filter.duration_ms < 0
                    || now_ms.saturating_sub(transaction.started_ms) > filter.duration_ms)
                && filter.pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
        });
        wanted
            .map(|(id, transaction)| list_transactions_response::TransactionState {
                transactional_id: id.clone(),
                producer_id: transaction.producer_id,
                transaction_state: Str::from(transaction.state.name()),
                ..Default::default()
            })
            .collect()
    }

    #[must_use]
    pub fn describe(&self, transactional_id: &Str) -> describe_transactions_response::TransactionState {
        let mut described = describe_transactions_response::TransactionState {
            transactional_id: transactional_id.clone(),
            ..Default::default()
        };
        let Some(transaction) = self.transactions.get(transactional_id) else {
            let error = match transactional_id.is_empty() {
                true => ErrorCode::InvalidRequest,
                false => ErrorCode::TransactionalIdNotFound,
            };
            described.error_code = error.code();
            return described;
        };
        described.transaction_state = Str::from(transaction.state.name());
        described.transaction_timeout_ms = transaction.timeout_ms;
        described.transaction_start_time_ms = transaction.started_ms;
        described.producer_id = transaction.producer_id;
        described.producer_epoch = transaction.producer_epoch;
        for (topic, partition) in &transaction.partitions {
            match described.topics.last_mut() {
                Some(last) if last.topic == *topic => last.partitions.push(*partition),
                _ => described.topics.push(TopicData {
                    topic: topic.clone(),
                    partitions: vec![*partition],
                    ..TopicData::default()
                }),
            }
        }
        described
    }
}
