//! What quotas there are, for whom (KIP-13, KIP-55, KIP-546, KIP-612): facts, changed and described in Kafka's words.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::ErrorCode;
use milena_state::{Change, Row};

use super::Kind;
use crate::api_error::ApiError;
use crate::small_facts::{FromRows, changed_rows, text_of};

pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";
pub(crate) const IP: &str = "ip";

/// How many entities there may be.
const MAX_ENTITIES: usize = 10_000;

/// For whom a quota is: types of entities with their names; no name means everybody who has no quota of their own.
pub(crate) type Entity = BTreeMap<String, Option<String>>;

/// The quotas of one entity.
pub(crate) type Values = BTreeMap<String, f64>;

/// All quotas. A row's key is `<entity as JSON>/<quota>`, its value the number.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct QuotaConfigs(BTreeMap<Entity, Values>);

/// One change: a number, or nothing for the default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Alteration<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: Option<f64>,
}

/// Whose rate is measured together: everybody that a quota is for without naming.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tags {
    pub(super) user: String,
    pub(super) client_id: String,
}

fn entity<'a>(parts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Entity {
    parts
        .into_iter()
        .map(|(kind, name)| (kind.to_owned(), name.map(str::to_owned)))
        .collect()
}

impl QuotaConfigs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Entity, &Values)> {
        self.0.iter()
    }

    /// The quota in force for a user's client and whose rate counts, the most specific first.
    pub(super) fn find(&self, kind: Kind, user: &str, client_id: &str) -> Option<(f64, Tags)> {
        let key = kind.key();
        let candidates = [
            (Some(Some(user)), Some(Some(client_id))),
            (Some(Some(user)), Some(None)),
            (Some(Some(user)), None),
            (Some(None), Some(Some(client_id))),
            (Some(None), Some(None)),
            (Some(None), None),
            (None, Some(Some(client_id))),
            (None, Some(None)),
        ];
        candidates.into_iter().find_map(|(for_user, for_client)| {
            let user_part = for_user.map(|name| (USER, name));
            let client_part = for_client.map(|name| (CLIENT_ID, name));
            let values = self.0.get(&entity(user_part.into_iter().chain(client_part)))?;
            let tag = |part: Option<Option<&str>>, own: &str| part.map_or(String::new(), |_| own.to_owned());
            let tags = Tags {
                user: tag(for_user, user),
                client_id: tag(for_client, client_id),
            };
            values.get(key).map(|quota| (*quota, tags))
        })
    }

    /// New connections per second that hosts may make, by name or address; without one what every other may.
    pub(super) fn connection_rates(&self) -> impl Iterator<Item = (Option<&str>, f64)> {
        self.0.iter().filter_map(|(entity, values)| {
            let host = entity.get(IP)?;
            Some((host.as_deref(), *values.get(Kind::ConnectionRate.key())?))
        })
    }

    /// Changes an entity's quotas, all or none, and says what is to be stored.
    pub(crate) fn alter(
        &mut self,
        entity: &Entity,
        alterations: &[Alteration<'_>],
    ) -> Result<Vec<Change>, ApiError> {
        let kinds = kinds_for(entity)?;
        let mut values = self.0.get(entity).cloned().unwrap_or_default();
        let mut seen = BTreeSet::new();
        for Alteration { key, value } in alterations {
            if !seen.insert(*key) {
                return Err(ApiError::invalid_request(format!(
                    "Duplicate quota key {key} not updating quota for this entity {}",
                    shown(entity)
                )));
            }
            match value {
                None => {
                    values.remove(*key);
                }
                Some(value) => {
                    check(kinds, key, *value)?;
                    values.insert((*key).to_owned(), *value);
                }
            }
        }
        let old = self.0.get(entity).cloned().unwrap_or_default();
        let id = serde_json::to_string(entity)
            .map_err(|error| ApiError::new(ErrorCode::UnknownServerError, error.to_string()))?;
        let changes = changed_rows(&id, &old, &values);
        if values.is_empty() {
            self.0.remove(entity);
        } else {
            self.0.insert(entity.clone(), values);
        }
        if self.0.len() > MAX_ENTITIES {
            return Err(ApiError::new(
                ErrorCode::PolicyViolation,
                format!("There are quotas for {MAX_ENTITIES} entities already."),
            ));
        }
        Ok(changes)
    }
}

/// As Kafka prints an entity.
fn shown(entity: &Entity) -> String {
    let parts: Vec<String> = entity
        .iter()
        .map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("null")))
        .collect();
    format!("ClientQuotaEntity(entries={{{}}})", parts.join(", "))
}

/// The quotas that an entity may have.
fn kinds_for(entity: &Entity) -> Result<&'static [Kind], ApiError> {
    let refuse = |sentence: String| Err(ApiError::invalid_request(sentence));
    for (kind, name) in entity {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return refuse(format!("Unhandled client quota entity type: {kind}"));
        }
        if name.as_deref() == Some("") {
            return refuse(format!("Empty {kind} not supported"));
        }
    }
    match (entity.contains_key(IP), entity.len()) {
        (_, 0) => refuse("Invalid empty client quota entity".to_owned()),
        (true, 1) => Ok(&[Kind::ConnectionRate]),
        (true, _) => refuse(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId"
                .to_owned(),
        ),
        (false, _) => Ok(&[Kind::Produce, Kind::Fetch, Kind::Request, Kind::Mutation]),
    }
}

fn check(kinds: &[Kind], key: &str, value: f64) -> Result<(), ApiError> {
    let refuse = |sentence: String| Err(ApiError::invalid_request(sentence));
    let Some(kind) = kinds.iter().find(|kind| kind.key() == key) else {
        return refuse(format!("Invalid configuration key {key}"));
    };
    // Also what is no number.
    if value.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return refuse(format!("Quota {key} must be greater than 0"));
    }
    let too_large = match kind {
        Kind::Produce | Kind::Fetch => (value > 9_223_372_036_854_775_807.0).then_some("LONG"),
        Kind::ConnectionRate => (value > f64::from(i32::MAX)).then_some("INT"),
        Kind::Request | Kind::Mutation => return Ok(()),
    };
    if let Some(name) = too_large {
        return refuse(format!("Proposed value for {key} is too large for a {name}."));
    }
    if value % 1.0 > 1e-6 {
        return refuse(format!("{key} cannot be a fractional value."));
    }
    Ok(())
}

impl FromRows for QuotaConfigs {
    fn from_rows(rows: Vec<Row>) -> Result<Self, String> {
        let mut configs = Self::default();
        for row in &rows {
            let (key, value) = text_of(row)?;
            let bad = || {
                format!("the quota fact {key:?} with value {value:?} is not known to this version of Milena")
            };
            let (id, quota) = key.rsplit_once('/').ok_or_else(bad)?;
            let entity: Entity = serde_json::from_str(id).map_err(|_| bad())?;
            let value: f64 = value.parse().map_err(|_| bad())?;
            configs
                .0
                .entry(entity)
                .or_default()
                .insert(quota.to_owned(), value);
        }
        Ok(configs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(configs: &mut QuotaConfigs, parts: &[(&str, Option<&str>)], value: f64) -> Vec<Change> {
        let alteration = Alteration {
            key: Kind::Produce.key(),
            value: Some(value),
        };
        configs
            .alter(&entity(parts.iter().copied()), &[alteration])
            .unwrap()
    }

    #[test]
    fn the_most_specific_quota_is_in_force_and_tells_who_shares_it() {
        let mut configs = QuotaConfigs::default();
        let found = |configs: &QuotaConfigs| {
            configs
                .find(Kind::Produce, "alice", "app")
                .map(|(quota, tags)| (quota, tags.user, tags.client_id))
        };
        let tagged =
            |quota, user: &str, client_id: &str| Some((quota, user.to_owned(), client_id.to_owned()));
        assert_eq!(found(&configs), None);
        set(&mut configs, &[(CLIENT_ID, None)], 8.0);
        assert_eq!(found(&configs), tagged(8.0, "", "app"));
        set(&mut configs, &[(CLIENT_ID, Some("app"))], 7.0);
        assert_eq!(found(&configs), tagged(7.0, "", "app"));
        set(&mut configs, &[(USER, None)], 6.0);
        assert_eq!(found(&configs), tagged(6.0, "alice", ""));
        set(&mut configs, &[(USER, None), (CLIENT_ID, None)], 5.0);
        assert_eq!(found(&configs), tagged(5.0, "alice", "app"));
        set(&mut configs, &[(USER, None), (CLIENT_ID, Some("app"))], 4.0);
        assert_eq!(found(&configs), tagged(4.0, "alice", "app"));
        set(&mut configs, &[(USER, Some("alice"))], 3.0);
        assert_eq!(found(&configs), tagged(3.0, "alice", ""));
        set(&mut configs, &[(USER, Some("alice")), (CLIENT_ID, None)], 2.0);
        assert_eq!(found(&configs), tagged(2.0, "alice", "app"));
        set(
            &mut configs,
            &[(USER, Some("alice")), (CLIENT_ID, Some("app"))],
            1.0,
        );
        assert_eq!(found(&configs), tagged(1.0, "alice", "app"));
        // Another quota is not in the way.
        assert!(configs.find(Kind::Fetch, "alice", "app").is_none());
    }

    #[test]
    fn what_is_stored_is_read_back_and_what_is_unset_is_gone() {
        let mut configs = QuotaConfigs::default();
        let changes = set(&mut configs, &[(USER, Some("a/b\"c")), (CLIENT_ID, None)], 1e15);
        let rows: Vec<Row> = changes
            .into_iter()
            .map(|change| (change.key, change.value.unwrap()))
            .collect();
        assert_eq!(QuotaConfigs::from_rows(rows), Ok(configs.clone()));
        let unset = Alteration {
            key: Kind::Produce.key(),
            value: None,
        };
        let entity = entity([(USER, Some("a/b\"c")), (CLIENT_ID, None)]);
        let changes = configs.alter(&entity, &[unset]).unwrap();
        assert!(configs.is_empty() && changes.len() == 1 && changes[0].value.is_none());
    }

    #[test]
    fn what_is_no_quota_is_refused() {
        let refused = |parts: &[(&str, Option<&str>)], key: &'static str, value: f64| {
            let alteration = Alteration {
                key,
                value: Some(value),
            };
            QuotaConfigs::default()
                .alter(&entity(parts.iter().copied()), &[alteration])
                .unwrap_err()
                .message
                .unwrap()
        };
        let user = &[(USER, Some("a"))][..];
        assert!(refused(&[], "producer_byte_rate", 1.0).contains("empty client quota entity"));
        assert!(refused(&[("group", None)], "producer_byte_rate", 1.0).contains("Unhandled"));
        assert!(refused(&[(USER, Some(""))], "producer_byte_rate", 1.0).contains("Empty user"));
        assert!(refused(&[(IP, None), (USER, None)], "producer_byte_rate", 1.0).contains("combination"));
        assert!(refused(user, "connection_creation_rate", 1.0).contains("Invalid configuration key"));
        assert!(refused(user, "producer_byte_rate", 0.0).contains("greater than 0"));
        assert!(refused(user, "producer_byte_rate", f64::NAN).contains("greater than 0"));
        assert!(refused(user, "producer_byte_rate", 1.5).contains("fractional"));
        assert!(refused(user, "producer_byte_rate", 1e30).contains("too large for a LONG"));
        assert!(refused(&[(IP, None)], "connection_creation_rate", 1e10).contains("too large for a INT"));
    }
}
