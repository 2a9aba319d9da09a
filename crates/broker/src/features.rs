//! Features of the cluster (KIP-584): which there are, and the levels that clients are told to go by.
//!
//! A feature is here when its levels mean something, or when there is nothing that they could mean to one broker. `transaction.version` 2 has clients leave their
//! partitions to the broker and bump their epoch with each transaction (KIP-890); what a request means
//! follows from its own version, so that clients of all levels are served side by side, as in Kafka.
//! `metadata.version` is the release whose APIs and settings there are, and the only one.

use std::collections::BTreeMap;

use milena_protocol::ErrorCode;
use milena_state::{Change, Row};

use crate::api_error::ApiError;
use crate::small_facts::{FromRows, SmallFacts, row, text_of};

pub(crate) const SHARD: &str = "features";
/// `level/<feature>`: the level that somebody chose, in decimal.
const LEVEL: &str = "level/";
/// How often levels were changed, in decimal.
const EPOCH: &str = "epoch";

/// A feature and its levels. Level 0 is being off.
#[derive(Debug)]
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// In force until somebody chooses another.
    pub(crate) initial: i16,
}

pub(crate) const SUPPORTED: [Feature; 7] = [
    ELIGIBLE_LEADER_REPLICAS_VERSION,
    GROUP_VERSION,
    KRAFT_VERSION,
    Feature {
        name: "metadata.version",
        min: METADATA_4_3_IV0,
        max: METADATA_4_3_IV0,
        initial: METADATA_4_3_IV0,
    },
    SHARE_VERSION,
    STREAMS_VERSION,
    Feature {
        name: "transaction.version",
        min: 0,
        max: 2,
        initial: 2,
    },
];
const METADATA_4_3_IV0: i16 = 30;

/// Level 1: eligible leader replicas (KIP-966). The only replica of a partition leads it or is offline, so that
/// none is ever eligible besides; what shows is that `min.insync.replicas` is one setting of all brokers.
pub(crate) const ELIGIBLE_LEADER_REPLICAS_VERSION: Feature = Feature {
    name: "eligible.leader.replicas.version",
    min: 0,
    max: 1,
    initial: 1,
};

/// Level 1: consumer groups (KIP-848).
pub(crate) const GROUP_VERSION: Feature = Feature {
    name: "group.version",
    min: 0,
    max: 1,
    initial: 1,
};

/// Level 1: streams groups (KIP-1071).
pub(crate) const STREAMS_VERSION: Feature = Feature {
    name: "streams.version",
    min: 0,
    max: 1,
    initial: 1,
};

/// Level 1: share groups (KIP-932).
pub(crate) const SHARE_VERSION: Feature = Feature {
    name: "share.version",
    min: 0,
    max: 1,
    initial: 1,
};

/// Level 1: the voters of the quorum may change (KIP-853), which does not change that there is one.
const KRAFT_VERSION: Feature = Feature {
    name: "kraft.version",
    min: 0,
    max: 1,
    initial: 0,
};

pub(crate) type Features = SmallFacts<Levels>;

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    chosen: BTreeMap<&'static str, i16>,
    epoch: i64,
}

/// How a level may change (Kafka's `FeatureUpdate.UpgradeType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpgradeType {
    Unknown,
    Upgrade,
    /// Kafka tells a safe from an unsafe one only for `metadata.version`.
    Downgrade,
}

impl UpgradeType {
    pub(crate) fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Upgrade,
            2 | 3 => Self::Downgrade,
            _ => Self::Unknown,
        }
    }
}

impl Levels {
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The level in force.
    pub(crate) fn of(&self, feature: &Feature) -> i16 {
        self.chosen.get(feature.name).copied().unwrap_or(feature.initial)
    }

    /// All updates or none, and what is to be stored.
    pub(crate) fn update<'a>(
        &self,
        updates: impl Iterator<Item = (&'a str, i16, UpgradeType)>,
    ) -> Result<(Self, Vec<Change>), ApiError> {
        let mut next = self.clone();
        for (name, level, upgrade) in updates {
            let feature = self.check(name, level, upgrade).map_err(|why| {
                ApiError::new(
                    ErrorCode::InvalidUpdateVersion,
                    format!("Invalid update version {level} for feature {name}. {why}"),
                )
            })?;
            next.chosen.insert(feature.name, level);
        }
        let changed = |(name, level): (&&'static str, &i16)| {
            let feature = SUPPORTED.iter().find(|feature| feature.name == *name)?;
            (self.of(feature) != *level).then(|| row(format!("{LEVEL}{name}"), Some(level.to_string())))
        };
        let mut changes: Vec<Change> = next.chosen.iter().filter_map(changed).collect();
        if !changes.is_empty() {
            next.epoch = next.epoch.saturating_add(1);
            changes.push(row(EPOCH.to_owned(), Some(next.epoch.to_string())));
        }
        Ok((next, changes))
    }

    /// In Kafka's order and words.
    fn check(&self, name: &str, level: i16, upgrade: UpgradeType) -> Result<&'static Feature, String> {
        if upgrade == UpgradeType::Unknown {
            return Err("The controller does not support the given upgrade type.".to_owned());
        }
        if level < 0 {
            return Err("A feature version cannot be less than 0.".to_owned());
        }
        let Some(feature) = SUPPORTED.iter().find(|feature| feature.name == name) else {
            return Err(match level {
                0 => format!("Feature {name} not found."),
                _ => "Local controller 1 does not support this feature.".to_owned(),
            });
        };
        let (min, max) = (feature.min, feature.max);
        if !(min..=max).contains(&level) {
            return Err(format!("Local controller 1 only supports versions {min}-{max}"));
        }
        match (level.cmp(&self.of(feature)), upgrade) {
            (std::cmp::Ordering::Less, UpgradeType::Upgrade) => Err(
                "Can't downgrade the version of this feature without setting the upgrade type to either safe or \
                 unsafe downgrade."
                    .to_owned(),
            ),
            (std::cmp::Ordering::Less, _) if feature.name == KRAFT_VERSION.name => {
                Err("Can't downgrade the version of this feature.".to_owned())
            }
            (std::cmp::Ordering::Greater, UpgradeType::Downgrade) => {
                Err("Can't downgrade to a newer version.".to_owned())
            }
            _ => Ok(feature),
        }
    }
}

impl FromRows for Levels {
    fn from_rows(rows: Vec<Row>) -> Result<Self, String> {
        let mut levels = Self::default();
        for row in &rows {
            let (key, value) = text_of(row)?;
            let bad = || {
                format!(
                    "the feature fact {key:?} with value {value:?} is not known to this version of Milena"
                )
            };
            if key == EPOCH {
                levels.epoch = value.parse().map_err(|_| bad())?;
                continue;
            }
            let name = key.strip_prefix(LEVEL).ok_or_else(bad)?;
            let feature = SUPPORTED.iter().find(|feature| feature.name == name);
            let feature = feature.ok_or_else(bad)?;
            let level: i16 = value.parse().map_err(|_| bad())?;
            if !(feature.min..=feature.max).contains(&level) {
                return Err(bad());
            }
            levels.chosen.insert(feature.name, level);
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTIONS: &Feature = &SUPPORTED[SUPPORTED.len() - 1];

    fn update(levels: &Levels, level: i16, upgrade: UpgradeType) -> Result<(Levels, usize), String> {
        let update = [(TRANSACTIONS.name, level, upgrade)];
        match levels.update(update.into_iter()) {
            Ok((next, changes)) => Ok((next, changes.len())),
            Err(error) => Err(error.message.unwrap()),
        }
    }

    #[test]
    fn a_level_goes_down_only_by_a_downgrade_and_up_by_an_upgrade() {
        let levels = Levels::default();
        assert_eq!((levels.of(TRANSACTIONS), levels.epoch()), (2, 0));
        assert_eq!(update(&levels, 2, UpgradeType::Downgrade).unwrap().1, 0);
        assert!(
            update(&levels, 1, UpgradeType::Upgrade)
                .unwrap_err()
                .contains("Can't downgrade the version")
        );
        let (lower, changes) = update(&levels, 0, UpgradeType::Downgrade).unwrap();
        assert_eq!((lower.of(TRANSACTIONS), lower.epoch(), changes), (0, 1, 2));
        assert!(
            update(&lower, 1, UpgradeType::Downgrade)
                .unwrap_err()
                .contains("to a newer version")
        );
        let (higher, _) = update(&lower, 2, UpgradeType::Upgrade).unwrap();
        assert_eq!((higher.of(TRANSACTIONS), higher.epoch()), (2, 2));
    }

    #[test]
    fn one_wrong_update_refuses_all() {
        let updates = [
            (TRANSACTIONS.name, 1, UpgradeType::Downgrade),
            ("unknown", 1, UpgradeType::Upgrade),
        ];
        let error = Levels::default().update(updates.into_iter()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidUpdateVersion);
        assert!(error.message.unwrap().contains("does not support this feature"));
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let (lower, changes) = Levels::default()
            .update([(TRANSACTIONS.name, 1, UpgradeType::Downgrade)].into_iter())
            .unwrap();
        let rows = changes
            .into_iter()
            .map(|change| (change.key, change.value.unwrap()))
            .collect();
        assert_eq!(Levels::from_rows(rows), Ok(lower));
        let later = vec![("level/other.version".into(), "1".into())];
        assert!(Levels::from_rows(later).unwrap_err().contains("other.version"));
    }
}
