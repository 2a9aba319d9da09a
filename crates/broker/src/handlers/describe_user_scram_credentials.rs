//! DescribeUserScramCredentials (key 50, version 0; KIP-554): the credentials that users have.
//!
//! Authorisation: DESCRIBE on the cluster (none yet).
//!
//! Differences: there is no authentication yet, so no user has any. `kafka-configs` asks for them wherever it describes
//! users.

use std::collections::BTreeSet;
use std::sync::Arc;

use milena_protocol::messages::DescribeUserScramCredentialsRequest;
use milena_protocol::messages::describe_user_scram_credentials_response::{
    DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use milena_protocol::{ErrorCode, Str};

use super::config_resources::repeated;
use crate::broker::Broker;
use crate::context::RequestContext;

pub(crate) async fn handle(
    _broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let asked = request.users.unwrap_or_default();
    let names = || asked.iter().map(|user| user.name.clone());
    let repeated = repeated(names());
    let result = |user: Str| {
        let (error, sentence) = if repeated.contains(&user) {
            (
                ErrorCode::DuplicateResource,
                "Cannot describe SCRAM credentials for the same user twice in a single request",
            )
        } else {
            (
                ErrorCode::ResourceNotFound,
                "Attempt to describe a user credential that does not exist",
            )
        };
        DescribeUserScramCredentialsResult {
            error_code: error.code(),
            error_message: Some(Str::from(format!("{sentence}: {user}"))),
            user,
            ..Default::default()
        }
    };
    DescribeUserScramCredentialsResponse {
        results: names().collect::<BTreeSet<_>>().into_iter().map(result).collect(),
        ..Default::default()
    }
}
