//! ListPartitionReassignments (key 46, version 0; KIP-455): the reassignments that are under way.
//!
//! Authorisation: DESCRIBE on the cluster (none yet). With one broker a reassignment is complete when
//! it is accepted (see `alter_partition_reassignments`), so the list is empty. Topics that do not
//! exist are left out, as in Kafka.

use std::sync::Arc;

use milena_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub(crate) async fn handle(
    _broker: &Arc<Broker>,
    _context: &RequestContext,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse {
        error_message: None,
        ..Default::default()
    }
}
