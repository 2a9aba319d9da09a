//! UpdateFeatures (key 57, versions 0-2; KIP-584, KIP-778): changes the levels of features, all or none.
//!
//! Authorisation: ALTER on the cluster (none yet). Forwardable. v1 kinds of upgrades and `validate_only`; v2 has
//! no results for each feature, because one error is the error of all.
//!
//! Differences: the features are those of [`crate::features`]. As in Kafka, the `allow_downgrade` of v0 is
//! not looked at.

use std::sync::Arc;

use milena_protocol::messages::UpdateFeaturesRequest;
use milena_protocol::messages::update_features_response::{UpdatableFeatureResult, UpdateFeaturesResponse};
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::eligible_replicas;
use crate::features::UpgradeType;

/// From this version on only the answer as a whole has a result.
const FIRST_VERSION_WITHOUT_RESULTS: i16 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let updates = request.feature_updates.iter().map(|update| {
        let upgrade = UpgradeType::from_code(update.upgrade_type);
        (&*update.feature, update.max_version_level, upgrade)
    });
    let changed = broker.features.change(|levels| {
        let (next, changes) = levels.update(updates)?;
        Ok((
            next,
            if request.validate_only {
                Vec::new()
            } else {
                changes
            },
        ))
    });
    let changed = match changed.await {
        Ok(()) if !request.validate_only => eligible_replicas::settle(broker).await,
        changed => changed,
    };
    if let Err(error) = changed {
        let why = error.message.unwrap_or_default();
        return UpdateFeaturesResponse {
            error_code: error.code.code(),
            error_message: Some(Str::from(format!(
                "The update failed for all features since the following feature had an error: {why}"
            ))),
            ..Default::default()
        };
    }
    let result = |feature: &Str| UpdatableFeatureResult {
        feature: feature.clone(),
        error_message: Some(Str::from("NONE")),
        ..Default::default()
    };
    let mut response = UpdateFeaturesResponse {
        error_code: ErrorCode::None.code(),
        error_message: None,
        ..Default::default()
    };
    if context.api_version < FIRST_VERSION_WITHOUT_RESULTS {
        response.results = request
            .feature_updates
            .iter()
            .map(|update| result(&update.feature))
            .collect();
    }
    response
}
