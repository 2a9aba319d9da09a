//! Levels of features: changed, told to clients, and kept.

use milena_protocol::ErrorCode;
use milena_protocol::messages::update_features_request::FeatureUpdateKey;
use milena_protocol::messages::{ApiVersionsRequest, UpdateFeaturesRequest};

use crate::harness::{Client, TestBroker, error, text};

const DOWNGRADE: i8 = 2;

fn to_level(level: i16, upgrade_type: i8, validate_only: bool) -> UpdateFeaturesRequest {
    let update = FeatureUpdateKey {
        feature: text("transaction.version"),
        max_version_level: level,
        upgrade_type,
        ..FeatureUpdateKey::default()
    };
    UpdateFeaturesRequest {
        feature_updates: vec![update],
        validate_only,
        ..UpdateFeaturesRequest::default()
    }
}

/// The level that clients are told, and the epoch of all levels.
async fn told(client: &mut Client) -> (Option<i16>, i64) {
    let request = ApiVersionsRequest {
        client_software_name: text("test"),
        client_software_version: text("1"),
        ..ApiVersionsRequest::default()
    };
    let response = client.call(&request, 4).await;
    let level = response
        .finalized_features
        .iter()
        .find(|feature| &*feature.name == "transaction.version")
        .map(|feature| feature.max_version_level);
    (level, response.finalized_features_epoch)
}

#[tokio::test]
async fn a_level_that_is_changed_is_told_and_kept() {
    let mut broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    assert_eq!(told(&mut client).await, (Some(2), 0));
    for (level, validate_only, expected) in [
        (1, true, (Some(2), 0)),
        (1, false, (Some(1), 1)),
        (0, false, (None, 2)),
    ] {
        let response = client.call(&to_level(level, DOWNGRADE, validate_only), 1).await;
        assert_eq!(error(response.error_code), ErrorCode::None);
        assert_eq!(response.results.len(), 1);
        assert_eq!(told(&mut client).await, expected);
    }
    broker.restart().await;
    let mut client = broker.connect().await;
    assert_eq!(told(&mut client).await, (None, 2));
    let refused = client.call(&to_level(1, DOWNGRADE, false), 2).await;
    assert_eq!(error(refused.error_code), ErrorCode::InvalidUpdateVersion);
    assert_eq!(told(&mut client).await, (None, 2));
}
