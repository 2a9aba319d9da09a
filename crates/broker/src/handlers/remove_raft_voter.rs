//! RemoveRaftVoter (key 81, version 0; KIP-853): a controller less that votes on the metadata.
//!
//! Authorisation: ALTER on the cluster (none yet). There is no quorum that could be changed: answered
//! as a Kafka whose voters are fixed does (see `add_raft_voter`).

use std::sync::Arc;

use milena_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::add_raft_voter;
use crate::broker::Broker;
use crate::context::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let error = add_raft_voter::refuse(
        broker,
        request.cluster_id.as_ref(),
        (request.voter_id, request.voter_directory_id),
        ("Remove", "removing"),
    );
    RemoveRaftVoterResponse {
        error_code: error.code.code(),
        error_message: error.wire_message(),
        ..Default::default()
    }
}
