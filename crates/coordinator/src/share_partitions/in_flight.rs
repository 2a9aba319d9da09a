//! What is in flight of one share partition: the records between its start offset and its end offset that were given
//! to members, with what has become of each.
//!
//! Records are held in the batches that they were acquired in, because what is given out together is mostly acknowledged
//! together: a whole batch has one state. Once part of one is treated otherwise it is *split*, and each of its records
//! counts by itself; neighbours of the same state are still one run, so what is held does not grow with the number of records.
//!
//! Everything here happens in memory; which of it is stored, and when, is decided in `super::live`.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::Str;

use super::batches::{RecordState, StateBatch};

/// No log reaches further. What clients of the state APIs stored beyond it is not read.
const FURTHEST_OFFSET: i64 = i64::MAX >> 1;

/// One state of neighbouring records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: RecordState,
    pub(super) delivery_count: i16,
    /// Who has acquired it, and until when; nobody in any other state.
    pub(super) lock: Option<Lock>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) member: Str,
    pub(super) until_ms: i64,
}

impl Record {
    pub(super) fn acquired(delivery_count: i16, member: &Str, until_ms: i64) -> Self {
        Self {
            state: RecordState::Acquired,
            delivery_count,
            lock: Some(Lock {
                member: member.clone(),
                until_ms,
            }),
        }
    }

    pub(super) fn free(state: RecordState, delivery_count: i16) -> Self {
        assert!(state != RecordState::Acquired, "an acquired record is somebody's");
        Self {
            state,
            delivery_count,
            lock: None,
        }
    }

    /// The record after its member is done with it. What was delivered often enough is not delivered again.
    pub(super) fn given_back(&self, state: RecordState, max_delivery_count: i16) -> Self {
        let state = match state {
            RecordState::Available if self.delivery_count >= max_delivery_count => RecordState::Archived,
            other => other,
        };
        Self::free(state, self.delivery_count)
    }

    pub(super) fn is_held_by(&self, member: &str) -> bool {
        self.lock.as_ref().is_some_and(|lock| *lock.member == *member)
    }
}

/// Records that say the same, up to an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) last: i64,
    pub(super) record: Record,
}

/// A batch; its first offset is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) last: i64,
    /// Its records count one by one.
    pub(super) is_split: bool,
    /// By first offset: from the batch's first to its last, without gaps.
    pub(super) runs: BTreeMap<i64, Run>,
    /// Its place among the locks.
    armed_ms: Option<i64>,
}

impl Batch {
    pub(super) fn whole(first: i64, last: i64, record: Record) -> Self {
        Self {
            last,
            is_split: false,
            runs: BTreeMap::from([(first, Run { last, record })]),
            armed_ms: None,
        }
    }

    /// The state of all its records, if it has one.
    pub(super) fn record(&self) -> Option<&Record> {
        match self.is_split {
            true => None,
            false => self.runs.values().next().map(|run| &run.record),
        }
    }

    /// Sets the records from `first` to `last`, which lie in the batch. Neighbours that say the same become one run.
    pub(super) fn set(&mut self, first: i64, last: i64, record: Record) {
        self.cut(first);
        if let Some(behind) = last.checked_add(1) {
            self.cut(behind);
        }
        let covered: Vec<i64> = self.runs.range(first..=last).map(|(at, _)| *at).collect();
        for at in covered {
            self.runs.remove(&at);
        }
        self.runs.insert(first, Run { last, record });
        self.join(first);
        if let Some(behind) = last.checked_add(1).filter(|behind| *behind <= self.last) {
            self.join(behind);
        }
    }

    /// A run begins at the offset, if it lies inside of one.
    fn cut(&mut self, at: i64) {
        let Some((first, run)) = self.runs.range_mut(..at).next_back() else {
            return;
        };
        debug_assert!(*first < at);
        if run.last >= at {
            let behind = run.clone();
            run.last = at - 1;
            self.runs.insert(at, behind);
        }
    }

    /// Joins the run that begins at the offset with the one before, if they say the same.
    fn join(&mut self, at: i64) {
        let Some(run) = self.runs.get(&at).cloned() else {
            return;
        };
        if let Some((_, before)) = self.runs.range_mut(..at).next_back()
            && before.record == run.record
        {
            before.last = run.last;
            self.runs.remove(&at);
        }
    }

    /// The parts of its runs between two offsets.
    pub(super) fn parts(&self, first: i64, last: i64) -> Vec<(i64, i64, Record)> {
        self.runs
            .iter()
            .filter(|(at, run)| **at <= last && run.last >= first)
            .map(|(at, run)| ((*at).max(first), run.last.min(last), run.record.clone()))
            .collect()
    }

    fn next_lock_ms(&self) -> Option<i64> {
        let locks = self.runs.values().filter_map(|run| run.record.lock.as_ref());
        locks.map(|lock| lock.until_ms).min()
    }
}

/// What was in the log when it was stored but is in no stored batch: nobody was given it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    start: i64,
    end: i64,
}

/// See the head of the module.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    /// The share partition's start offset: all before it is done.
    pub(super) start: i64,
    /// The last offset that was acquired; where the next is acquired when nothing is in flight.
    pub(super) end: i64,
    pub(super) batches: BTreeMap<i64, Batch>,
    gap: Option<Gap>,
    /// Records before the end may be available.
    may_be_available: bool,
    /// When locks of batches end: the time, and the batch's first offset.
    locks: BTreeSet<(i64, i64)>,
}

impl InFlight {
    /// From what is stored. Acquired records are never stored, but by clients of the state APIs: they are available.
    ///
    /// `None` if it contradicts itself.
    pub(super) fn load(start: i64, stored: &[StateBatch]) -> Option<Self> {
        let mut loaded = Self {
            start,
            end: start,
            batches: BTreeMap::new(),
            gap: None,
            may_be_available: false,
            locks: BTreeSet::new(),
        };
        let mut gap_start = None;
        if !(-1..=FURTHEST_OFFSET).contains(&start) {
            return None;
        }
        let mut previous = start - 1;
        for batch in stored {
            let state = match RecordState::of_id(batch.state)? {
                RecordState::Acquired => RecordState::Available,
                other => other,
            };
            if batch.first <= previous || batch.last < batch.first || batch.last > FURTHEST_OFFSET {
                return None;
            }
            if batch.first > previous + 1 && gap_start.is_none() {
                gap_start = Some(previous + 1);
            }
            previous = batch.last;
            let record = Record::free(state, batch.delivery_count);
            loaded
                .batches
                .insert(batch.first, Batch::whole(batch.first, batch.last, record));
        }
        if !loaded.batches.is_empty() {
            loaded.may_be_available = true;
            loaded.end = previous;
            loaded.gap = gap_start.map(|start| Gap { start, end: previous });
            loaded.move_start();
        }
        Some(loaded)
    }

    /// How many offsets lie between start and end.
    pub(super) fn count(&self) -> i64 {
        match self.batches.is_empty() {
            true => 0,
            false => self.end - self.start + 1,
        }
    }

    pub(super) fn found_available(&mut self) {
        self.may_be_available = true;
    }

    /// Where to read what is to be acquired next.
    pub(super) fn next_fetch_offset(&mut self) -> i64 {
        let last = self.batches.last_key_value().map(|(_, batch)| batch.last);
        if last.is_none_or(|last| self.start > last) {
            self.may_be_available = false;
            return self.end;
        }
        if !self.may_be_available {
            return self.end + 1;
        }
        let mut gap_start = self.gap_start();
        for (first, batch) in &self.batches {
            if let Some(start) = gap_start {
                if *first > start {
                    return start;
                }
                gap_start = Some(start.max(batch.last + 1));
            }
            let mut runs = batch.runs.iter();
            if let Some((at, _)) = runs.find(|(_, run)| run.record.state == RecordState::Available) {
                return *at;
            }
        }
        self.may_be_available = false;
        self.end + 1
    }

    /// Where the gap begins, as long as nothing was acquired behind it.
    pub(super) fn gap_start(&self) -> Option<i64> {
        self.gap.filter(|gap| gap.end == self.end).map(|gap| gap.start)
    }

    /// What lies before the offset of the gap was acquired.
    pub(super) fn narrow_gap(&mut self, offset: i64) {
        if let Some(gap) = &mut self.gap {
            if gap.end == self.end && offset <= gap.end {
                gap.start = offset;
            } else {
                self.gap = None;
            }
        }
    }

    /// First offsets of the batches that begin between two offsets.
    pub(super) fn batches_between(&self, first: i64, last: i64) -> Vec<i64> {
        match first <= last {
            true => self.batches.range(first..=last).map(|(at, _)| *at).collect(),
            false => Vec::new(),
        }
    }

    /// The batch that begins at the offset, or the nearest before it.
    pub(super) fn floor(&self, offset: i64) -> Option<(i64, &Batch)> {
        self.batches
            .range(..=offset)
            .next_back()
            .map(|(first, batch)| (*first, batch))
    }

    pub(super) fn insert(&mut self, first: i64, batch: Batch) {
        debug_assert!(
            self.floor(batch.last)
                .is_none_or(|(_, before)| before.last < first),
            "batches do not overlap"
        );
        self.batches.insert(first, batch);
        self.rearm(first);
    }

    /// Keeps the place of a batch among the locks. Must follow every change of its records.
    pub(super) fn rearm(&mut self, first: i64) {
        let Some(batch) = self.batches.get_mut(&first) else {
            return;
        };
        let next_ms = batch.next_lock_ms();
        if next_ms == batch.armed_ms {
            return;
        }
        if let Some(armed_ms) = std::mem::replace(&mut batch.armed_ms, next_ms) {
            self.locks.remove(&(armed_ms, first));
        }
        if let Some(next_ms) = next_ms {
            self.locks.insert((next_ms, first));
        }
    }

    pub(super) fn remove(&mut self, first: i64) {
        if let Some(batch) = self.batches.remove(&first)
            && let Some(armed_ms) = batch.armed_ms
        {
            self.locks.remove(&(armed_ms, first));
        }
    }

    /// Puts a batch back as it was.
    pub(super) fn restore(&mut self, first: i64, mut batch: Batch) {
        self.remove(first);
        batch.armed_ms = None;
        self.insert(first, batch);
    }

    pub(super) fn next_lock_ms(&self) -> Option<i64> {
        self.locks.first().map(|(until_ms, _)| *until_ms)
    }

    /// Batches of which a lock has ended.
    pub(super) fn batches_due(&self, now_ms: i64) -> Vec<i64> {
        self.locks
            .iter()
            .take_while(|(until_ms, _)| *until_ms <= now_ms)
            .map(|(_, first)| *first)
            .collect()
    }

    /// Gives acquired records of a batch back: those for which `ends` holds. What lies before the start offset is
    /// archived. Gives what changed.
    pub(super) fn give_back(
        &mut self,
        first: i64,
        max_delivery_count: i16,
        ends: impl Fn(&Lock) -> bool,
    ) -> Vec<StateBatch> {
        let start = self.start;
        let Some(batch) = self.batches.get_mut(&first) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        for (at, last, record) in batch.parts(first, batch.last) {
            if !record.lock.as_ref().is_some_and(&ends) {
                continue;
            }
            for (from, to, state) in [
                (at, last.min(start - 1), RecordState::Archived),
                (at.max(start), last, RecordState::Available),
            ] {
                if from > to {
                    continue;
                }
                if from != first || to != batch.last {
                    batch.is_split = true;
                }
                let record = record.given_back(state, max_delivery_count);
                self.may_be_available |= record.state == RecordState::Available;
                changes.push(change(from, to, &record));
                batch.set(from, to, record);
            }
        }
        self.rearm(first);
        changes
    }

    /// Archives the records of one state between two offsets; says whether there were any.
    pub(super) fn archive(&mut self, first: i64, last: i64, state: RecordState) -> bool {
        let from = self.floor(first).map_or(first, |(at, _)| at);
        let mut any = false;
        for at in self.batches_between(from, last) {
            let Some(batch) = self.batches.get_mut(&at) else {
                continue;
            };
            for (from, to, record) in batch.parts(first, last) {
                if record.state != state {
                    continue;
                }
                if from != at || to != batch.last {
                    batch.is_split = true;
                }
                batch.set(
                    from,
                    to,
                    Record::free(RecordState::Archived, record.delivery_count),
                );
                any = true;
            }
            self.rearm(at);
        }
        any
    }

    /// Records from the start offset on that nobody is given any more.
    pub(super) fn complete_count(&self) -> i32 {
        let from = self.floor(self.start).map_or(self.start, |(at, _)| at);
        let runs = self.batches.range(from..).flat_map(|(_, batch)| &batch.runs);
        let counts = runs
            .filter(|(_, run)| run.record.state.is_terminal() && run.last >= self.start)
            .map(|(at, run)| run.last - (*at).max(self.start) + 1);
        i32::try_from(counts.sum::<i64>()).unwrap_or(i32::MAX)
    }

    /// The log begins later now.
    pub(super) fn log_start_moved(&mut self, log_start: i64) {
        if log_start <= self.start {
            return;
        }
        if self.batches.is_empty() {
            self.start = log_start;
            self.end = self.end.max(log_start);
            return;
        }
        self.archive(self.start, log_start - 1, RecordState::Available);
        if self.gap_start().is_some_and(|gap| gap < log_start) {
            self.narrow_gap(log_start);
        }
        self.may_be_available = true;
        self.start = log_start;
        self.end = self.end.max(log_start);
        self.move_start();
    }

    /// Moves the start offset behind what is done, and lets go of it. It never goes back.
    pub(super) fn move_start(&mut self) -> bool {
        let before = (self.start, self.batches.len());
        let Some(done) = self.last_done() else {
            return false;
        };
        let Some(last) = self.batches.last_key_value().map(|(_, batch)| batch.last) else {
            return false;
        };
        if done == last {
            self.start = self.start.max(last + 1);
            self.end = self.start;
            self.batches.clear();
            self.locks.clear();
            return true;
        }
        let Some((at, batch)) = self.floor(done) else {
            return false;
        };
        let keep_from = if batch.last == done {
            let next = self
                .batches
                .range(done + 1..)
                .next()
                .map_or(done + 1, |(at, _)| *at);
            let next = self.gap_start().map_or(next, |gap| gap.min(next));
            self.start = self.start.max(next);
            done + 1
        } else {
            self.start = self.start.max(done + 1);
            at
        };
        let gone: Vec<i64> = self.batches.range(..keep_from).map(|(at, _)| *at).collect();
        for at in gone {
            self.remove(at);
        }
        before != (self.start, self.batches.len())
    }

    /// The last offset up to which everything is done.
    fn last_done(&self) -> Option<i64> {
        let mut done = None;
        for batch in self.batches.values() {
            if self.gap_start().is_some_and(|gap| batch.last >= gap) {
                return done;
            }
            for run in batch.runs.values() {
                if !run.record.state.is_terminal() {
                    return done;
                }
                done = Some(run.last);
            }
        }
        done
    }

    /// Panics if something that must hold between steps does not.
    pub(super) fn check_invariants(&self) {
        let mut before = None;
        let mut locks = BTreeSet::new();
        for (first, batch) in &self.batches {
            assert!(
                before.is_none_or(|before| before < *first),
                "batches do not overlap"
            );
            before = Some(batch.last);
            assert!(batch.last <= self.end, "nothing is in flight behind the end");
            assert!(
                batch.is_split || batch.runs.len() == 1,
                "a whole batch has one state"
            );
            let mut at = *first;
            for (from, run) in &batch.runs {
                assert_eq!(*from, at, "runs have no gaps");
                assert!(run.last >= at, "a run has records");
                assert_eq!(
                    run.record.state == RecordState::Acquired,
                    run.record.lock.is_some(),
                    "acquired by somebody, or not at all"
                );
                at = run.last + 1;
            }
            assert_eq!(at, batch.last + 1, "runs reach to the end of their batch");
            assert_eq!(batch.armed_ms, batch.next_lock_ms(), "every lock ends");
            locks.extend(batch.armed_ms.map(|armed_ms| (armed_ms, *first)));
        }
        assert_eq!(locks, self.locks, "every lock has its place");
        assert!(
            self.start <= self.end.saturating_add(1),
            "the start is not behind the end"
        );
    }
}

/// What is stored of records that changed.
pub(super) fn change(first: i64, last: i64, record: &Record) -> StateBatch {
    StateBatch {
        first,
        last,
        state: record.state.id(),
        delivery_count: record.delivery_count,
    }
}
