//! ShareGroupDescribe (API 77), version 1: the members of share groups and what they read from (KIP-932).

use std::sync::Arc;

use milena_protocol::ErrorCode;
use milena_protocol::messages::share_group_describe_request::ShareGroupDescribeRequest;
use milena_protocol::messages::share_group_describe_response::{DescribedGroup, ShareGroupDescribeResponse};

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::groups::settings;
use crate::outcome::{BoxFuture, Outcome};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ShareGroupDescribeRequest,
) -> Outcome<ShareGroupDescribeResponse> {
    let refuse = |group_id, error: ErrorCode| DescribedGroup {
        group_id,
        error_code: error.code(),
        authorized_operations: OPERATIONS_NOT_ASKED,
        ..DescribedGroup::default()
    };
    if !settings::share_groups_are_on(broker) {
        let groups = request.group_ids.into_iter();
        return Outcome::Now(ShareGroupDescribeResponse {
            groups: groups
                .map(|group_id| refuse(group_id, ErrorCode::UnsupportedVersion))
                .collect(),
            ..ShareGroupDescribeResponse::default()
        });
    }
    let topics = broker.topics.image();
    let answers: Vec<_> = request
        .group_ids
        .into_iter()
        .map(|group_id| {
            if group_id.is_empty() {
                let refused: BoxFuture<_> = Box::pin(async { Err(ErrorCode::InvalidGroupId) });
                return (group_id, refused);
            }
            let described = broker.groups.read(&group_id, |groups| {
                groups.describe_share_group(&group_id, &topics)
            });
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
            let mut group = described.await.unwrap_or_else(|error| refuse(group_id, error));
            group.authorized_operations = if group.error_code == ErrorCode::None.code() {
                operations
            } else {
                OPERATIONS_NOT_ASKED
            };
            groups.push(group);
        }
        ShareGroupDescribeResponse {
            groups,
            ..ShareGroupDescribeResponse::default()
        }
    }))
}
