//! DescribeGroups (API 15), versions 0 to 6: the members of classic groups and what they have.
//!
//! Versions: 3 authorized operations (KIP-430), 4 static members (KIP-345), 5 flexible, 6
//! GROUP_ID_NOT_FOUND instead of a group that is Dead (KIP-1043).

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use milena_protocol::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeGroupsRequest,
) -> Outcome<DescribeGroupsResponse> {
    let version = context.api_version;
    let answers: Vec<_> = request
        .groups
        .into_iter()
        .map(|group_id| {
            let described = broker
                .groups
                .read(&group_id, |groups| groups.describe(&group_id, version));
            (group_id, described)
        })
        .collect();
    let operations = if request.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    Outcome::Later(Box::pin(async move {
        let mut groups = Vec::with_capacity(answers.len());
        for (group_id, described) in answers {
            let mut group = described.await.unwrap_or_else(|error| DescribedGroup {
                group_id,
                error_code: error.code(),
                ..DescribedGroup::default()
            });
            group.authorized_operations = if group.error_code == ErrorCode::None.code() {
                operations
            } else {
                OPERATIONS_NOT_ASKED
            };
            groups.push(group);
        }
        DescribeGroupsResponse {
            groups,
            ..DescribeGroupsResponse::default()
        }
    }))
}
