//! What is in force for one group, from the broker's settings and the group's own configs.

use std::sync::Arc;

use milena_coordinator::{ConsumerGroupConfig, ShareGroupConfig, StreamsGroupConfig};

use crate::broker::Broker;
use crate::config::{BrokerConfig, GroupSettings};
use crate::features;
use crate::settings::Derived;
use crate::topics::Overrides;

/// Most groups have no configs of their own, and what they have in common is made once.
fn in_force<T>(
    broker: &Broker,
    group_id: &str,
    defaults: &Derived<T>,
    of: impl Fn(&BrokerConfig, &Overrides) -> T,
) -> Arc<T> {
    let config = broker.topics.settings().current();
    match broker.group_configs.current().given_to(group_id) {
        Some(overrides) => Arc::new(of(&config, overrides)),
        None => defaults.of(config, |config| of(config, &Overrides::default())),
    }
}

/// `group.coordinator.rebalance.protocols` and the feature `group.version` let members use the consumer protocol.
pub(crate) fn consumer_groups_are_on(broker: &Broker) -> bool {
    broker
        .config
        .rebalance_protocols
        .iter()
        .any(|name| name == "consumer")
        && broker.features.current().of(&features::GROUP_VERSION) > 0
}

pub(crate) fn consumer(broker: &Broker, group_id: &str) -> Arc<ConsumerGroupConfig> {
    in_force(broker, group_id, &broker.consumer_defaults, consumer_of)
}

/// `group.coordinator.rebalance.protocols` and the feature `streams.version` let members use the streams protocol.
pub(crate) fn streams_groups_are_on(broker: &Broker) -> bool {
    let protocols = &broker.config.rebalance_protocols;
    protocols.iter().any(|name| name == "streams")
        && broker.features.current().of(&features::STREAMS_VERSION) > 0
}

pub(crate) fn streams(broker: &Broker, group_id: &str) -> Arc<StreamsGroupConfig> {
    in_force(broker, group_id, &broker.streams_defaults, streams_of)
}

/// The feature `share.version` lets there be share groups; as in Kafka, `group.coordinator.rebalance.protocols` has no say.
pub(crate) fn share_groups_are_on(broker: &Broker) -> bool {
    broker.features.current().of(&features::SHARE_VERSION) > 0
}

pub(crate) fn share(broker: &Broker, group_id: &str) -> Arc<ShareGroupConfig> {
    in_force(broker, group_id, &broker.share_defaults, share_of)
}

/// Of a group without configs of its own, if `overrides` is empty.
pub(crate) fn streams_of(config: &BrokerConfig, overrides: &Overrides) -> StreamsGroupConfig {
    let settings = GroupSettings::new(config, overrides);
    StreamsGroupConfig {
        session_timeout_ms: settings.integer("streams.session.timeout.ms"),
        heartbeat_interval_ms: settings.integer("streams.heartbeat.interval.ms"),
        assignment_interval_ms: settings.integer("streams.assignment.interval.ms"),
        initial_rebalance_delay_ms: settings.integer("streams.initial.rebalance.delay.ms"),
        standby_replicas: settings.integer("streams.num.standby.replicas"),
        max_size: config.group_streams_max_size,
    }
}

/// The same of a share group.
pub(crate) fn share_of(config: &BrokerConfig, overrides: &Overrides) -> ShareGroupConfig {
    let settings = GroupSettings::new(config, overrides);
    ShareGroupConfig {
        session_timeout_ms: settings.integer("share.session.timeout.ms"),
        heartbeat_interval_ms: settings.integer("share.heartbeat.interval.ms"),
        assignment_interval_ms: settings.integer("share.assignment.interval.ms"),
        max_size: config.group_share_max_size,
        ..ShareGroupConfig::default()
    }
}

/// Of a group without configs of its own, if `overrides` is empty.
pub(crate) fn consumer_of(config: &BrokerConfig, overrides: &Overrides) -> ConsumerGroupConfig {
    let settings = GroupSettings::new(config, overrides);
    ConsumerGroupConfig {
        session_timeout_ms: settings.integer("consumer.session.timeout.ms"),
        heartbeat_interval_ms: settings.integer("consumer.heartbeat.interval.ms"),
        assignment_interval_ms: settings.integer("consumer.assignment.interval.ms"),
        upgrade: config.group_consumer_migration_policy.upgrade,
        downgrade: config.group_consumer_migration_policy.downgrade,
        max_size: config.group_consumer_max_size,
        assignors: config.group_consumer_assignors.clone(),
    }
}
