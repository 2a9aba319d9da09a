//! What the feature `eligible.leader.replicas.version` means for the settings of brokers (KIP-966): there is one
//! `min.insync.replicas` for all of them, and there always is one.

use std::sync::Arc;

use milena_protocol::ErrorCode;

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use crate::settings::BrokerEntity;
use crate::topics::Overrides;

pub(crate) const MINIMUM: &str = "min.insync.replicas";

/// Whether a change of the settings leaves it so. `named`: it is about the minimum.
pub(crate) fn check(entity: BrokerEntity, named: bool, new: &Overrides) -> Result<(), ApiError> {
    let refuse = |sentence: &str| Err(ApiError::new(ErrorCode::InvalidConfig, sentence));
    match entity {
        BrokerEntity::This if named => {
            refuse("Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
        }
        BrokerEntity::Default if !new.contains_key(MINIMUM) => {
            refuse("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.")
        }
        _ => Ok(()),
    }
}

/// Makes it so, if the feature is on: the broker's own setting becomes that of all.
///
/// # Errors
/// A change that cannot be stored.
pub(crate) async fn settle(broker: &Arc<Broker>) -> Result<(), ApiError> {
    if broker.features.current().of(&ELIGIBLE_LEADER_REPLICAS_VERSION) == 0 {
        return Ok(());
    }
    let settings = broker.topics.settings();
    if !settings.overrides(BrokerEntity::Default).contains_key(MINIMUM) {
        let value = settings.current().min_insync_replicas.to_string();
        let change = |old: &Overrides| {
            let mut new = old.clone();
            new.insert(MINIMUM.to_owned(), value);
            Ok(new)
        };
        let topics = &broker.topics;
        topics
            .alter_broker_configs(BrokerEntity::Default, false, change)
            .await?;
    }
    if settings.overrides(BrokerEntity::This).contains_key(MINIMUM) {
        let change = |old: &Overrides| {
            let mut new = old.clone();
            new.remove(MINIMUM);
            Ok(new)
        };
        let topics = &broker.topics;
        topics
            .alter_broker_configs(BrokerEntity::This, false, change)
            .await?;
    }
    Ok(())
}
