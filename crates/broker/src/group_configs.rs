//! The configs that groups were given: a shard of facts with one row `<group>/<config>` for each, the value as
//! the client set it. A group need not exist to have configs, and no group's end takes them away, as in Kafka.
//!
//! Left to others: which configs there are and what may be set (`config`).

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_protocol::Str;
use milena_state::{Change, Row};

use crate::api_error::ApiError;
use crate::small_facts::{FromRows, SmallFacts, changed_rows, text_of};
use crate::topics::Overrides;

pub(crate) const SHARD: &str = "group-configs";
/// Groups that have configs of their own. A request that would make them more is refused.
const MAX_GROUPS: usize = 10_000;

pub(crate) type GroupConfigs = SmallFacts<Groups>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups(BTreeMap<Str, Arc<Overrides>>);

impl Groups {
    /// None for a group that was given none.
    pub(crate) fn of(&self, group: &str) -> Arc<Overrides> {
        self.given_to(group).cloned().unwrap_or_default()
    }

    pub(crate) fn given_to(&self, group: &str) -> Option<&Arc<Overrides>> {
        self.0.get(group)
    }

    /// Every group that was given configs.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Str> {
        self.0.keys()
    }

    /// With other configs of one group, and the rows that change.
    fn with(&self, group: &Str, new: Overrides) -> Result<(Self, Vec<Change>), ApiError> {
        let old = self.of(group);
        let mut groups = self.clone();
        if new.is_empty() {
            groups.0.remove(group);
        } else {
            groups.0.insert(group.clone(), Arc::new(new.clone()));
        }
        if groups.0.len() > MAX_GROUPS.max(self.0.len()) {
            return Err(ApiError::invalid_request(format!(
                "There are {MAX_GROUPS} groups with configs already."
            )));
        }
        Ok((groups, changed_rows(group, &old, &new)))
    }
}

impl FromRows for Groups {
    fn from_rows(rows: Vec<Row>) -> Result<Self, String> {
        let mut groups: BTreeMap<Str, Overrides> = BTreeMap::new();
        for fact in &rows {
            let (key, value) = text_of(fact)?;
            // A group's name may hold slashes, a config's does not.
            let (group, config) = key
                .rsplit_once('/')
                .ok_or_else(|| format!("the fact {key:?} is no config of a group"))?;
            groups
                .entry(Str::from(group.to_owned()))
                .or_default()
                .insert(config.to_owned(), value.to_owned());
        }
        let shared = groups
            .into_iter()
            .map(|(group, configs)| (group, Arc::new(configs)));
        Ok(Self(shared.collect()))
    }
}

impl GroupConfigs {
    /// Changes a group's configs to what `change` makes of them (it validates, too). With `validate_only`
    /// nothing is stored.
    ///
    /// # Errors
    /// Those of `change`, too many groups, and facts that cannot be stored.
    pub(crate) async fn alter(
        &self,
        group: &Str,
        validate_only: bool,
        change: impl FnOnce(&Overrides) -> Result<Overrides, ApiError>,
    ) -> Result<(), ApiError> {
        self.change(|groups| {
            let new = change(&groups.of(group))?;
            match validate_only {
                true => Ok((groups.clone(), Vec::new())),
                false => groups.with(group, new),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn what_was_stored_is_what_is_read_and_only_what_changed_is_written() {
        let group = Str::from("a/b c");
        let (first, changes) = Groups::default()
            .with(&group, overrides(&[("x.ms", "1"), ("y.ms", "2")]))
            .unwrap();
        let rows = changes
            .into_iter()
            .filter_map(|change| Some((change.key, change.value?)))
            .collect();
        assert_eq!(Groups::from_rows(rows).unwrap(), first);
        let (second, changes) = first
            .with(&group, overrides(&[("y.ms", "2"), ("z.ms", "3")]))
            .unwrap();
        let rows: Vec<(&[u8], bool)> = changes
            .iter()
            .map(|change| (&*change.key, change.value.is_some()))
            .collect();
        assert_eq!(
            rows,
            [
                (b"a/b c/x.ms".as_slice(), false),
                (b"a/b c/z.ms".as_slice(), true)
            ]
        );
        let (none, _) = second.with(&group, Overrides::new()).unwrap();
        assert_eq!(none, Groups::default());
    }

    #[test]
    fn there_is_a_limit_of_groups_that_have_configs() {
        let one = overrides(&[("x.ms", "1")]);
        let named = |number: usize| Str::from(format!("group-{number}"));
        let full = Groups(
            (0..MAX_GROUPS)
                .map(|number| (named(number), Arc::new(one.clone())))
                .collect(),
        );
        assert!(full.with(&named(MAX_GROUPS), one).is_err());
        let other = overrides(&[("x.ms", "2")]);
        assert!(full.with(&named(7), other).is_ok());
        assert!(full.with(&named(MAX_GROUPS), Overrides::new()).is_ok());
    }
}
