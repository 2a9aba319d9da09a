//! A partition's log as far as transactions see it: records, markers, epochs, the last stable offset.
//! Written for this test alone, so that it is not the engines' own idea of it.

use std::collections::BTreeMap;

use super::mutant::Mutant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Data { producer_id: i64, value: u64 },
    Marker { producer_id: i64, commit: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Fenced,
    /// The guard is void: a marker came in between.
    NotVerified,
    OutOfOrder,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    epochs: BTreeMap<i64, i16>,
    coordinator_epochs: BTreeMap<i64, i32>,
    /// By producer, the last sequence of the present epoch.
    sequences: BTreeMap<i64, i32>,
    /// First offset of each open transaction.
    open: BTreeMap<i64, usize>,
    guards: BTreeMap<i64, u64>,
    next_guard: u64,
    /// First and marker's offset.
    aborted: Vec<(i64, usize, usize)>,
}

impl Log {
    pub(crate) fn has_open(&self, mutant: Mutant, producer_id: i64, epoch: i16) -> bool {
        let is_it = mutant == Mutant::MissedFence || self.epochs.get(&producer_id) == Some(&epoch);
        self.open.contains_key(&producer_id) && is_it
    }

    pub(crate) fn guard(&mut self, producer_id: i64) -> u64 {
        self.next_guard += 1;
        *self.guards.entry(producer_id).or_insert(self.next_guard)
    }

    /// Whether it was appended; not so when it is there already.
    pub(crate) fn append(
        &mut self,
        mutant: Mutant,
        (producer_id, epoch): (i64, i16),
        sequence: i32,
        value: u64,
        guard: Option<u64>,
    ) -> Result<bool, Refusal> {
        let known = *self.epochs.get(&producer_id).unwrap_or(&-1);
        if epoch < known && mutant != Mutant::MissedFence {
            return Err(Refusal::Fenced);
        }
        if epoch > known {
            if sequence != 0 {
                return Err(Refusal::OutOfOrder);
            }
            self.epochs.insert(producer_id, epoch);
            self.sequences.remove(&producer_id);
        }
        let last = *self.sequences.get(&producer_id).unwrap_or(&-1);
        if epoch == self.epochs[&producer_id] {
            if sequence <= last {
                return Ok(false);
            }
            if sequence != last + 1 {
                return Err(Refusal::OutOfOrder);
            }
        }
        if !self.open.contains_key(&producer_id) {
            let is_guarded = guard.is_some() && self.guards.get(&producer_id).copied() == guard;
            if !is_guarded {
                return Err(Refusal::NotVerified);
            }
            self.open.insert(producer_id, self.entries.len());
            self.guards.remove(&producer_id);
        }
        self.sequences.insert(producer_id, sequence);
        self.entries.push(Entry::Data { producer_id, value });
        Ok(true)
    }

    /// False if the marker is a former coordinator's.
    pub(crate) fn end(
        &mut self,
        mutant: Mutant,
        (producer_id, epoch): (i64, i16),
        coordinator_epoch: i32,
        commit: bool,
    ) -> bool {
        if epoch < *self.epochs.get(&producer_id).unwrap_or(&-1) {
            return true;
        }
        let known = self.coordinator_epochs.entry(producer_id).or_insert(-1);
        if coordinator_epoch < *known && mutant != Mutant::StaleMarkers {
            return false;
        }
        *known = coordinator_epoch;
        if self.epochs.insert(producer_id, epoch) != Some(epoch) {
            self.sequences.remove(&producer_id);
        }
        self.guards.remove(&producer_id);
        if let Some(first) = self.open.remove(&producer_id)
            && !commit
        {
            self.aborted.push((producer_id, first, self.entries.len()));
        }
        self.entries.push(Entry::Marker { producer_id, commit });
        true
    }

    pub(crate) fn last_stable(&self, mutant: Mutant) -> usize {
        let mut open: Vec<usize> = self.open.values().copied().collect();
        open.sort_unstable();
        if mutant == Mutant::LastStableTooHigh && !open.is_empty() {
            open.remove(0);
        }
        open.first().copied().unwrap_or(self.entries.len())
    }

    /// What a committed reader makes of the first `end` entries.
    pub(crate) fn read_committed(&self, end: usize) -> Vec<u64> {
        let is_aborted = |at: usize, id: i64| {
            let mut aborted = self.aborted.iter();
            aborted.any(|(producer, first, marker)| *producer == id && (*first..*marker).contains(&at))
        };
        let read = self.entries[..end].iter().enumerate();
        read.filter_map(|(at, entry)| match entry {
            Entry::Data { producer_id, value } if !is_aborted(at, *producer_id) => Some(*value),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn has_any_open(&self) -> bool {
        !self.open.is_empty()
    }
}
