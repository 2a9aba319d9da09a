//! Members that were given an id (KIP-394) and have not joined with it: they hold the join phase
//! open until they do or their session ends, so their number is bounded.

use std::collections::{BTreeMap, HashMap};

use milena_protocol::Str;

#[derive(Debug, Default)]
pub(crate) struct PendingJoins {
    numbers: HashMap<Str, u64>,
    by_age: BTreeMap<u64, Str>,
    next: u64,
}

impl PendingJoins {
    pub(crate) fn insert(&mut self, member_id: Str) {
        self.remove(&member_id);
        self.numbers.insert(member_id.clone(), self.next);
        self.by_age.insert(self.next, member_id);
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, member_id: &Str) {
        if let Some(number) = self.numbers.remove(member_id) {
            self.by_age.remove(&number);
        }
    }

    pub(crate) fn contains(&self, member_id: &Str) -> bool {
        self.numbers.contains_key(member_id)
    }

    pub(crate) fn oldest(&self) -> Option<&Str> {
        self.by_age.values().next()
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Str> {
        self.by_age.values()
    }
}
