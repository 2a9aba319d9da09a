//! Settings of groups (KIP-848, KIP-932, KIP-1071): what Kafka says about a group's overrides, and about the
//! broker's own values that a group without overrides has.

use super::definition::group_configs;
use super::value::Value;
use super::{BrokerConfig, ConfigError, Layers, Properties};

/// The broker's bounds of one setting of groups. A group's `consumer.session.timeout.ms` lies between the
/// broker's `group.consumer.min.session.timeout.ms` and `group.consumer.max.session.timeout.ms`.
#[derive(Debug)]
struct Bounds {
    name: &'static str,
    min: Option<&'static str>,
    max: &'static str,
}

macro_rules! bounds {
    ($kind:literal, $rest:literal) => {
        Bounds {
            name: concat!($kind, ".", $rest),
            min: Some(concat!("group.", $kind, ".min.", $rest)),
            max: concat!("group.", $kind, ".max.", $rest),
        }
    };
}

/// In the order in which Kafka looks at them.
const BOUNDED: [Bounds; 13] = [
    bounds!("consumer", "heartbeat.interval.ms"),
    bounds!("consumer", "session.timeout.ms"),
    bounds!("consumer", "assignment.interval.ms"),
    bounds!("share", "heartbeat.interval.ms"),
    bounds!("share", "session.timeout.ms"),
    bounds!("share", "record.lock.duration.ms"),
    bounds!("share", "delivery.count.limit"),
    bounds!("share", "partition.max.record.locks"),
    bounds!("share", "assignment.interval.ms"),
    bounds!("streams", "heartbeat.interval.ms"),
    bounds!("streams", "session.timeout.ms"),
    Bounds {
        name: "streams.num.standby.replicas",
        min: None,
        max: "group.streams.max.standby.replicas",
    },
    bounds!("streams", "assignment.interval.ms"),
];

/// The kinds of groups whose session has to be longer than their heartbeat's interval.
const KINDS: [&str; 3] = ["consumer", "share", "streams"];

/// Says what Kafka says about a group's overrides: unknown names first, then each value, then the broker's
/// bounds, then what contradicts each other. The last two look at what the group has in the end.
///
/// # Errors
/// [`ConfigError::Invalid`] with Kafka's sentence.
pub fn validate_group(config: &BrokerConfig, overrides: &Properties) -> Result<(), ConfigError> {
    if let Some(name) = overrides.keys().find(|name| group_configs().get(name).is_none()) {
        return Err(ConfigError::Invalid(format!("Unknown group config name: {name}")));
    }
    for def in group_configs().iter() {
        if let Some(text) = overrides.get(def.name) {
            def.parse(text)?;
        }
    }
    let layers = config.layers();
    for bounds in &BOUNDED {
        let value = integer(layers, overrides, bounds.name)?;
        let limit = |name| layers.integer(name).map(|limit| limit.unwrap_or(value));
        if let Some(min) = bounds.min
            && value < limit(min)?
        {
            return Err(must_be(bounds.name, "greater than or equal to", min));
        }
        if value > limit(bounds.max)? {
            return Err(must_be(bounds.name, "less than or equal to", bounds.max));
        }
    }
    for kind in KINDS {
        let session = format!("{kind}.session.timeout.ms");
        let heartbeat = format!("{kind}.heartbeat.interval.ms");
        if integer(layers, overrides, &session)? <= integer(layers, overrides, &heartbeat)? {
            return Err(must_be(&session, "greater than", &heartbeat));
        }
    }
    Ok(())
}

/// The same about what the broker gives to groups without overrides.
pub(super) fn check_broker(layers: &Layers) -> Result<(), ConfigError> {
    for bounds in BOUNDED.iter() {
        let name = format!("group.{}", bounds.name);
        let Some(value) = layers.integer(&name)? else {
            continue;
        };
        let limit = |name| layers.integer(name).map(|limit| limit.unwrap_or(value));
        let max = limit(bounds.max)?;
        if let Some(min) = bounds.min {
            if max < limit(min)? {
                return Err(must_be(bounds.max, "greater than or equal to", min));
            }
            if value < limit(min)? {
                return Err(must_be(&name, "greater than or equal to", min));
            }
        }
        if value > max {
            return Err(must_be(&name, "less than or equal to", bounds.max));
        }
    }
    for kind in KINDS {
        let session = format!("group.{kind}.session.timeout.ms");
        let heartbeat = format!("group.{kind}.heartbeat.interval.ms");
        if layers.integer(&heartbeat)? >= layers.integer(&session)? {
            return Err(must_be(&heartbeat, "less than", &session));
        }
    }
    Ok(())
}

fn must_be(name: &str, relation: &str, other: &str) -> ConfigError {
    ConfigError::Invalid(format!("{name} must be {relation} {other}"))
}

/// The value in force for a group; `None` is Kafka's null.
pub(super) fn value(
    layers: &Layers,
    overrides: &Properties,
    name: &str,
) -> Result<Option<Value>, ConfigError> {
    let def = group_configs()
        .get(name)
        .ok_or_else(|| ConfigError::Invalid(format!("Unknown group config name: {name}")))?;
    match (overrides.get(name), broker_name(name)) {
        (Some(text), _) => def.parse(text).map(Some),
        (None, Some(inherited)) => layers.value(&inherited),
        (None, None) => def.default_value(),
    }
}

/// What is in force for one group: its overrides, else the broker's settings. Overrides were checked when
/// they were set; bounds of the broker that changed since hold for them all the same.
#[derive(Debug)]
pub struct GroupSettings<'a> {
    config: &'a BrokerConfig,
    overrides: &'a Properties,
}

impl<'a> GroupSettings<'a> {
    #[must_use]
    pub fn new(config: &'a BrokerConfig, overrides: &'a Properties) -> Self {
        Self { config, overrides }
    }

    /// A group config (such as `consumer.session.timeout.ms`) that is an INT.
    #[must_use]
    pub fn integer(&self, name: &str) -> i32 {
        let layers = self.config.layers();
        let value = integer(layers, self.overrides, name)
            .or_else(|_| integer(layers, &Properties::new(), name))
            .unwrap_or_default();
        let limit = |name| layers.integer(name).ok().flatten();
        let value = BOUNDED
            .iter()
            .find(|bounds| bounds.name == name)
            .map_or(value, |bounds| {
                let least = bounds.min.and_then(limit).unwrap_or(value);
                let most = limit(bounds.max).unwrap_or(value);
                value.max(least).min(most)
            });
        i32::try_from(value).unwrap_or(i32::MAX)
    }

    /// A setting of the broker about groups, that is an INT.
    #[must_use]
    pub fn of_broker(&self, name: &str) -> i32 {
        let value = self.config.layers().integer(name).ok().flatten();
        i32::try_from(value.unwrap_or_default()).unwrap_or(i32::MAX)
    }

    /// A group config that is a STRING.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        match value(self.config.layers(), self.overrides, name) {
            Ok(Some(Value::Text(text))) => text,
            _ => String::new(),
        }
    }

    /// A group config that is a BOOLEAN.
    #[must_use]
    pub fn boolean(&self, name: &str) -> bool {
        matches!(
            value(self.config.layers(), self.overrides, name),
            Ok(Some(Value::Boolean(true)))
        )
    }
}

/// The broker setting that a group's setting falls back to, if there is one.
pub(super) fn broker_name(name: &str) -> Option<String> {
    let inherited = format!("group.{name}");
    super::broker_configs().get(&inherited).map(|_| inherited)
}

fn integer(layers: &Layers, overrides: &Properties, name: &str) -> Result<i64, ConfigError> {
    match value(layers, overrides, name)? {
        Some(Value::Integer(value)) => Ok(value),
        _ => Err(ConfigError::Invalid(format!(
            "Configuration {name} has no usable value"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn answer(overrides: &[(&str, &str)]) -> Result<(), String> {
        let config = BrokerConfig::new(Properties::new()).unwrap();
        validate_group(&config, &properties(overrides)).map_err(|error| {
            assert_eq!(error.code(), milena_protocol::ErrorCode::InvalidConfig);
            error.to_string()
        })
    }

    #[test]
    fn a_groups_overrides_are_in_force_within_the_brokers_bounds() {
        let broker = properties(&[("group.consumer.max.session.timeout.ms", "50000")]);
        let config = BrokerConfig::new(broker).unwrap();
        let overrides = properties(&[
            ("consumer.session.timeout.ms", "60000"),
            ("share.auto.offset.reset", "earliest"),
            ("share.renew.acknowledge.enable", "false"),
        ]);
        let settings = GroupSettings::new(&config, &overrides);
        assert_eq!(settings.integer("consumer.session.timeout.ms"), 50_000);
        assert_eq!(settings.integer("consumer.heartbeat.interval.ms"), 5_000);
        assert_eq!(settings.integer("streams.num.standby.replicas"), 0);
        assert_eq!(settings.text("share.auto.offset.reset"), "earliest");
        assert_eq!(settings.text("share.isolation.level"), "read_uncommitted");
        assert!(!settings.boolean("share.renew.acknowledge.enable"));
    }

    #[test]
    fn every_bound_is_a_setting_of_the_broker() {
        let known = |name: &str| super::super::broker_configs().get(name).is_some();
        for bounds in &BOUNDED {
            assert!(group_configs().get(bounds.name).is_some(), "{}", bounds.name);
            assert!(bounds.min.is_none_or(known), "{:?}", bounds.min);
            assert!(known(bounds.max), "{}", bounds.max);
        }
    }

    /// Each pair of a name and a value is answered as Kafka 4.3.1 answers it.
    #[test]
    fn overrides_are_refused_in_kafkas_words() {
        let cases: [(&str, &str, Option<&str>); 19] = [
            ("nope", "1", Some("Unknown group config name: nope")),
            (
                "consumer.session.timeout.ms",
                "x",
                Some(
                    "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
                ),
            ),
            (
                "consumer.session.timeout.ms",
                "0",
                Some(
                    "Invalid value 0 for configuration consumer.session.timeout.ms: Value must be at least 1",
                ),
            ),
            (
                "consumer.session.timeout.ms",
                "1",
                Some(
                    "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
                ),
            ),
            (
                "consumer.session.timeout.ms",
                "99999999",
                Some(
                    "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
                ),
            ),
            ("consumer.session.timeout.ms", " 46000 ", None),
            (
                "consumer.assignment.interval.ms",
                "-1",
                Some(
                    "Invalid value -1 for configuration consumer.assignment.interval.ms: Value must be at least 0",
                ),
            ),
            (
                "consumer.assignment.interval.ms",
                "99999",
                Some(
                    "consumer.assignment.interval.ms must be less than or equal to group.consumer.max.assignment.interval.ms",
                ),
            ),
            ("consumer.assignment.interval.ms", "14000", None),
            (
                "share.record.lock.duration.ms",
                "999",
                Some(
                    "Invalid value 999 for configuration share.record.lock.duration.ms: Value must be at least 1000",
                ),
            ),
            (
                "share.record.lock.duration.ms",
                "14000",
                Some(
                    "share.record.lock.duration.ms must be greater than or equal to group.share.min.record.lock.duration.ms",
                ),
            ),
            (
                "share.partition.max.record.locks",
                "14000",
                Some(
                    "share.partition.max.record.locks must be less than or equal to group.share.max.partition.max.record.locks",
                ),
            ),
            (
                "streams.num.standby.replicas",
                "3",
                Some(
                    "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
                ),
            ),
            ("streams.num.standby.replicas", "2", None),
            (
                "share.auto.offset.reset",
                "by_duration:PT-1H",
                Some(
                    "Invalid value by_duration:PT-1H for configuration share.auto.offset.reset: Invalid value `by_duration:PT-1H` for configuration share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.",
                ),
            ),
            ("share.auto.offset.reset", "by_duration:PT1H", None),
            (
                "share.isolation.level",
                "READ_COMMITTED",
                Some(
                    "Invalid value READ_COMMITTED for configuration share.isolation.level: String must be one of: read_committed, read_uncommitted",
                ),
            ),
            (
                "share.renew.acknowledge.enable",
                "maybe",
                Some(
                    "Invalid value maybe for configuration share.renew.acknowledge.enable: Expected value to be either true or false",
                ),
            ),
            ("share.renew.acknowledge.enable", "FALSE", None),
        ];
        for (name, text, expected) in cases {
            assert_eq!(
                answer(&[(name, text)]).err().as_deref(),
                expected,
                "{name}={text}"
            );
        }
    }

    #[test]
    fn a_session_outlasts_a_heartbeat_also_where_one_of_them_is_the_brokers() {
        let broker = properties(&[("group.consumer.min.session.timeout.ms", "6000")]);
        let config = BrokerConfig::new(broker).unwrap();
        let overrides = properties(&[
            ("consumer.session.timeout.ms", "10000"),
            ("consumer.heartbeat.interval.ms", "10000"),
        ]);
        assert_eq!(
            validate_group(&config, &overrides).unwrap_err().to_string(),
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        );
        let overrides = properties(&[("consumer.session.timeout.ms", "6000")]);
        assert_eq!(validate_group(&config, &overrides), Ok(()));
    }

    #[test]
    fn what_the_broker_gives_to_groups_lies_between_its_own_bounds() {
        let refused = |pairs: &[(&str, &str)]| BrokerConfig::new(properties(pairs)).unwrap_err().to_string();
        assert_eq!(
            refused(&[("group.consumer.assignment.interval.ms", "100000")]),
            "group.consumer.assignment.interval.ms must be less than or equal to group.consumer.max.assignment.interval.ms"
        );
        assert_eq!(
            refused(&[("group.share.min.session.timeout.ms", "60001")]),
            "group.share.max.session.timeout.ms must be greater than or equal to group.share.min.session.timeout.ms"
        );
        assert_eq!(
            refused(&[
                ("group.streams.min.session.timeout.ms", "5000"),
                ("group.streams.session.timeout.ms", "5000")
            ]),
            "group.streams.heartbeat.interval.ms must be less than group.streams.session.timeout.ms"
        );
    }
}
