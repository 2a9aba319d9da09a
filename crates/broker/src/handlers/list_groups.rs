//! ListGroups (API 16), versions 0 to 5: every group of this broker.
//!
//! Versions: 3 flexible, 4 states (KIP-518), 5 types (KIP-848).

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ListGroupsRequest,
) -> Outcome<ListGroupsResponse> {
    let shards = broker
        .groups
        .read_all(|groups| groups.list(&request.states_filter, &request.types_filter));
    Outcome::Later(Box::pin(async move {
        let mut response = ListGroupsResponse::default();
        for shard in shards {
            match shard.await {
                Ok(listed) => response.groups.extend(listed),
                // A part of the list would look like the whole.
                Err(error) => {
                    return ListGroupsResponse {
                        error_code: error.code(),
                        ..ListGroupsResponse::default()
                    };
                }
            }
        }
        debug_assert_eq!(response.error_code, ErrorCode::None.code());
        response
    }))
}
