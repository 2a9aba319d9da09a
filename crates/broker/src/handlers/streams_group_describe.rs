//! StreamsGroupDescribe (API 89), version 0: the topology of streams groups, their members, what they have and what they
//! are to have (KIP-1071).

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::StreamsGroupDescribeRequest;
use milena_protocol::messages::streams_group_describe_response::{
    DescribedGroup, StreamsGroupDescribeResponse,
};

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::settings;
use crate::outcome::{BoxFuture, Outcome};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: StreamsGroupDescribeRequest,
) -> Outcome<StreamsGroupDescribeResponse> {
    let refuse = |group_id, error: ErrorCode| DescribedGroup {
        group_id,
        error_code: error.code(),
        ..DescribedGroup::default()
    };
    if !settings::streams_groups_are_on(broker) {
        let groups = request.group_ids.into_iter();
        return Outcome::Now(StreamsGroupDescribeResponse {
            groups: groups
                .map(|group_id| refuse(group_id, ErrorCode::UnsupportedVersion))
                .collect(),
            ..StreamsGroupDescribeResponse::default()
        });
    }
    let answers = request.group_ids.into_iter().map(|group_id| {
        if group_id.is_empty() {
            let refused: BoxFuture<_> = Box::pin(async { Err(ErrorCode::InvalidGroupId) });
            return (group_id, refused);
        }
        let described = broker
            .groups
            .read(&group_id, |groups| groups.describe_streams_group(&group_id));
        (group_id, described)
    });
    let answers: Vec<_> = answers.collect();
    let operations = if request.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    Outcome::Later(Box::pin(async move {
        let mut groups = Vec::with_capacity(answers.len());
        for (group_id, described) in answers {
            let mut group = described.await.unwrap_or_else(|error| refuse(group_id, error));
            if group.error_code == ErrorCode::None.code() {
                group.authorized_operations = operations;
            }
            groups.push(group);
        }
        StreamsGroupDescribeResponse {
            groups,
            ..StreamsGroupDescribeResponse::default()
        }
    }))
}
