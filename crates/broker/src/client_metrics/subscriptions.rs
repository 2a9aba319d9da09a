//! The subscriptions: facts, checked in Kafka's words.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::ErrorCode;
use milena_state::{Change, Row};
use regex::{Regex, RegexBuilder};

use super::Who;
use crate::api_error::ApiError;
use crate::config::{ConfigEntry, ConfigSource, ConfigSynonym, ConfigType};
use crate::small_facts::{FromRows, changed_rows, text_of};
use crate::topics::Overrides;

/// How many there may be.
const MAX_SUBSCRIPTIONS: usize = 1_000;
/// What a compiled expression of `match` may take.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;

const METRICS: &str = "metrics";
const INTERVAL: &str = "interval.ms";
const MATCH: &str = "match";
/// Names, defaults and types.
const CONFIGS: [(&str, &str, ConfigType); 3] = [
    (INTERVAL, "300000", ConfigType::Int),
    (MATCH, "", ConfigType::List),
    (METRICS, "", ConfigType::List),
];
pub(super) const DEFAULT_INTERVAL_MS: i32 = 300_000;
/// All metrics.
pub(super) const ALL: &str = "*";
/// What clients can be told apart by.
const ATTRIBUTES: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// All subscriptions by name, with what was set and what that means.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscriptions(BTreeMap<String, (Overrides, Subscription)>);

#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) metrics: BTreeSet<String>,
    pub(super) interval_ms: i32,
    /// All have to fit; none fits everybody.
    patterns: Vec<(&'static str, Regex)>,
}

impl Subscription {
    pub(super) fn fits(&self, who: &Who) -> bool {
        self.patterns.iter().all(|(attribute, pattern)| {
            let value = who.attributes.get(attribute);
            value.is_some_and(|value| pattern.is_match(value))
        })
    }

    /// In the order in which Kafka looks.
    fn parse(overrides: &Overrides) -> Result<Self, ApiError> {
        let known = |name: &str| CONFIGS.iter().any(|(known, ..)| *known == name);
        if let Some(name) = overrides.keys().find(|name| !known(name)) {
            return Err(ApiError::invalid_request(format!(
                "Unknown client metrics configuration: {name}"
            )));
        }
        let interval_ms = match overrides.get(INTERVAL) {
            None => DEFAULT_INTERVAL_MS,
            Some(text) => text.trim().parse().map_err(|_| {
                ApiError::new(
                    ErrorCode::InvalidConfig,
                    format!("Invalid value {text} for configuration {INTERVAL}: Not a number of type INT"),
                )
            })?,
        };
        if !(100..=3_600_000).contains(&interval_ms) {
            return Err(ApiError::invalid_request(format!(
                "Invalid value {interval_ms} for {INTERVAL}, interval must be between 100 and 3600000 (1 hour)"
            )));
        }
        let items = |name| {
            overrides
                .get(name)
                .map(String::as_str)
                .unwrap_or_default()
                .split(',')
        };
        let patterns = items(MATCH)
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| {
                pattern(item).ok_or_else(|| {
                    ApiError::new(
                        ErrorCode::InvalidConfig,
                        format!("Illegal client matching pattern: {item}"),
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            metrics: items(METRICS)
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect(),
            interval_ms,
            patterns,
        })
    }
}

/// `attribute=expression`, which has to fit the whole value. The syntax is that of RE2, so without
/// looking around and back references.
fn pattern(item: &str) -> Option<(&'static str, Regex)> {
    let (attribute, expression) = item.split_once('=')?;
    let attribute = ATTRIBUTES.iter().find(|known| **known == attribute.trim())?;
    let expression = expression.trim_end_matches('=').trim();
    if expression.is_empty() || expression.contains('=') {
        return None;
    }
    let whole = format!("^(?:{expression})$");
    let expression = RegexBuilder::new(&whole).size_limit(MAX_EXPRESSION_BYTES).build();
    Some((*attribute, expression.ok()?))
}

impl Subscriptions {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Subscription> {
        self.0.values().map(|(_, subscription)| subscription)
    }

    /// What a subscription is set to; nothing of one that nobody made.
    pub(crate) fn overrides(&self, name: &str) -> Overrides {
        self.0
            .get(name)
            .map(|(overrides, _)| overrides.clone())
            .unwrap_or_default()
    }

    /// The subscription set to `new`, or gone if nothing is set, and what is to be stored.
    pub(crate) fn with(&self, name: &str, new: Overrides) -> Result<(Self, Vec<Change>), ApiError> {
        let changes = changed_rows(name, &self.overrides(name), &new);
        let mut next = self.clone();
        if new.is_empty() {
            next.0.remove(name);
            return Ok((next, changes));
        }
        let subscription = Subscription::parse(&new)?;
        next.0.insert(name.to_owned(), (new, subscription));
        if next.0.len() > MAX_SUBSCRIPTIONS {
            return Err(ApiError::new(
                ErrorCode::PolicyViolation,
                format!("There are {MAX_SUBSCRIPTIONS} client metrics subscriptions already."),
            ));
        }
        Ok((next, changes))
    }

    /// As DescribeConfigs answers.
    pub(crate) fn describe(&self, name: &str) -> Vec<ConfigEntry> {
        let overrides = self.overrides(name);
        let entry = |(name, default, config_type): (&str, &str, ConfigType)| {
            let set = overrides.get(name);
            let synonym = |value: &String| ConfigSynonym {
                name: name.to_owned(),
                value: Some(value.clone()),
                source: ConfigSource::ClientMetricsConfig,
            };
            ConfigEntry {
                name: name.to_owned(),
                value: Some(set.cloned().unwrap_or_else(|| default.to_owned())),
                read_only: false,
                is_sensitive: false,
                source: match set {
                    Some(_) => ConfigSource::ClientMetricsConfig,
                    None => ConfigSource::DefaultConfig,
                },
                synonyms: set.map(synonym).into_iter().collect(),
                config_type,
            }
        };
        CONFIGS.into_iter().map(entry).collect()
    }
}

impl FromRows for Subscriptions {
    fn from_rows(rows: Vec<Row>) -> Result<Self, String> {
        let mut set: BTreeMap<String, Overrides> = BTreeMap::new();
        for row in &rows {
            let (key, value) = text_of(row)?;
            let (name, config) = key.rsplit_once('/').ok_or_else(|| {
                format!("the client metrics fact {key:?} is not known to this version of Milena")
            })?;
            set.entry(name.to_owned())
                .or_default()
                .insert(config.to_owned(), value.to_owned());
        }
        let mut subscriptions = Self::default();
        for (name, overrides) in set {
            let subscription = Subscription::parse(&overrides)
                .map_err(|error| format!("the stored client metrics subscription {name:?}: {error:?}"))?;
            subscriptions.0.insert(name, (overrides, subscription));
        }
        Ok(subscriptions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Subscription, ApiError> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Subscription::parse(&pairs.iter().map(pair).collect())
    }

    fn who(client_id: &str) -> Who {
        Who {
            peer: "127.0.0.1:1".parse().unwrap(),
            attributes: BTreeMap::from([("client_id", client_id.to_owned())]),
        }
    }

    #[test]
    fn a_match_fits_whole_values_of_clients_that_have_them() {
        let fits = |pattern: &str, id: &str| parsed(&[(MATCH, pattern)]).unwrap().fits(&who(id));
        assert!(fits("client_id=app-.*", "app-1"));
        assert!(!fits("client_id=app", "app-1"));
        assert!(!fits("client_id=a|b", "ab"));
        assert!(!fits("client_id=app-1, client_software_name=.*", "app-1"));
        assert!(fits("", "anybody"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for pattern in [
            "client_id",
            "client_id=",
            "client_id=a=b",
            "colour=red",
            "client_id=[",
        ] {
            let error = parsed(&[(MATCH, pattern)]).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig, "{pattern}");
        }
        for interval in ["99", "3600001"] {
            assert_eq!(
                parsed(&[(INTERVAL, interval)]).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
    }

    #[test]
    fn what_is_stored_is_read_back_also_with_slashes_in_names() {
        let overrides = Overrides::from([(METRICS.to_owned(), "a,b".to_owned())]);
        let (subscriptions, changes) = Subscriptions::default().with("a/b", overrides.clone()).unwrap();
        let rows = changes
            .into_iter()
            .map(|change| (change.key, change.value.unwrap()))
            .collect();
        let read = Subscriptions::from_rows(rows).unwrap();
        assert_eq!(read.overrides("a/b"), overrides);
        let (gone, changes) = subscriptions.with("a/b", Overrides::new()).unwrap();
        assert_eq!((gone.names().count(), changes.len()), (0, 1));
    }
}
