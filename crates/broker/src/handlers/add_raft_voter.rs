//! AddRaftVoter (key 80, versions 0-1; KIP-853): a controller more that votes on the metadata.
//!
//! Authorisation: ALTER on the cluster (none yet). v1 may ask for an answer before the change is
//! committed. There is no quorum that could be changed: answered as a Kafka whose voters are fixed
//! (kraft.version 0) does, after its checks of the request.

use std::sync::Arc;

use milena_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AddRaftVoterRequest,
) -> AddRaftVoterResponse {
    let error = refuse(
        broker,
        request.cluster_id.as_ref(),
        (request.voter_id, request.voter_directory_id),
        ("Add", "adding"),
    );
    AddRaftVoterResponse {
        error_code: error.code.code(),
        error_message: error.wire_message(),
        ..Default::default()
    }
}

/// Why voters are neither added nor removed; `what` names the request and what it does.
pub(super) fn refuse(
    broker: &Broker,
    cluster_id: Option<&Str>,
    (voter, directory): (i32, Uuid),
    what: (&str, &str),
) -> ApiError {
    if let Some(id) = cluster_id.filter(|id| **id != broker.cluster_id) {
        return ApiError::new(
            ErrorCode::InconsistentClusterId,
            format!(
                "The given id \"{id}\" doesn't match the cluster id \"{}\"",
                broker.cluster_id
            ),
        );
    }
    if voter < 0 || directory == Uuid::ZERO {
        return ApiError::invalid_request(format!("{} voter request didn't include a valid voter", what.0));
    }
    ApiError::new(
        ErrorCode::UnsupportedVersion,
        format!(
            "Cluster doesn't support {} voter because the kraft.version feature is 0",
            what.1
        ),
    )
}
