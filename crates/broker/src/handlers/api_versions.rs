//! ApiVersions (key 18, versions 0-4; KIP-35, KIP-511, KIP-584): which APIs and versions there are.
//!
//! Authorisation: none. A version that is not known is answered in the form of version 0 with
//! UNSUPPORTED_VERSION and the range of ApiVersions itself, so that the client can ask again; the
//! response's header is always version 0 (dispatch and `milena_protocol::frame` see to both).
//!
//! v1 throttle time. v3 client software's name and version (checked as Kafka does), features.
//! v4 features whose lowest version is 0 (before it they are left out).
//!
//! As in Kafka, telemetry is told of only where somebody takes it: when there is a subscription. Else each
//! client of librdkafka would tell its user about it.
//!
//! Differences: only what is implemented is told, also of the features ([`crate::features`]).

use std::sync::Arc;

use milena_protocol::messages::ApiVersionsRequest;
use milena_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use milena_protocol::{ApiKey, ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::dispatch::ADVERTISED;
use crate::features::{self, Feature};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let named = |name: &str| is_software_name(name);
    if context.api_version >= 3
        && !(named(&request.client_software_name) && named(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..Default::default()
        };
    }
    if context.api_version >= 3 {
        // Who says it twice is who it said first.
        let _ = context.connection.software.set((
            request.client_software_name.to_string(),
            request.client_software_version.to_string(),
        ));
    }
    let mut response = ranges(ErrorCode::None, ADVERTISED);
    if broker.client_metrics.subscriptions.current().is_empty() {
        let is_telemetry = |api: &ApiVersion| TELEMETRY.iter().any(|key| key.code() == api.api_key);
        response.api_keys.retain(|api| !is_telemetry(api));
    }
    let levels = broker.features.current();
    response.finalized_features_epoch = levels.epoch();
    for feature in &features::SUPPORTED {
        if feature.min > 0 || context.api_version >= FIRST_VERSION_WITH_ALL_FEATURES {
            response.supported_features.push(supported(feature));
        }
        let level = levels.of(feature);
        if level > 0 {
            response.finalized_features.push(FinalizedFeatureKey {
                name: Str::from(feature.name),
                min_version_level: level,
                max_version_level: level,
                ..Default::default()
            });
        }
    }
    response
}

/// Versions 0 to 2 of Produce are gone (KIP-896), yet Kafka goes on telling them: librdkafka takes a
/// broker without them for one that cannot compress (KAFKA-18659). A request in one of them is refused.
const PRODUCE_MIN_VERSION: i16 = 0;

const TELEMETRY: [ApiKey; 2] = [ApiKey::GetTelemetrySubscriptions, ApiKey::PushTelemetry];

/// Clients of versions before it take a feature's version 0 for a mistake.
const FIRST_VERSION_WITH_ALL_FEATURES: i16 = 4;

/// The answer to a version that is not known.
pub(crate) fn unsupported_version() -> ApiVersionsResponse {
    ranges(ErrorCode::UnsupportedVersion, &[ApiKey::ApiVersions])
}

fn ranges(error: ErrorCode, apis: &[ApiKey]) -> ApiVersionsResponse {
    let range = |api: &ApiKey| ApiVersion {
        api_key: api.code(),
        min_version: match api {
            ApiKey::Produce => PRODUCE_MIN_VERSION,
            _ => *api.stable_versions().start(),
        },
        max_version: *api.stable_versions().end(),
        ..Default::default()
    };
    ApiVersionsResponse {
        error_code: error.code(),
        api_keys: apis.iter().map(range).collect(),
        ..Default::default()
    }
}

fn supported(feature: &Feature) -> SupportedFeatureKey {
    SupportedFeatureKey {
        name: Str::from(feature.name),
        min_version: feature.min,
        max_version: feature.max,
        ..Default::default()
    }
}

/// Letters and digits, with dashes and dots between them.
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|byte| inner(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["apache-kafka-java", "3.9.0", "a", "librdkafka.2"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", ".", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
