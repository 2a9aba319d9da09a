//! Deadlines by name: scheduling a name again moves it, so there is one entry per name and the
//! structure is bounded by what the names belong to. Every operation is O(log n).

use std::collections::{BTreeSet, HashMap};

use milena_protocol::Str;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// Look for expired offsets and groups.
    Expiry,
    /// The join phase of a group ends.
    Join { group: Str },
    /// The members of a group who joined must have synced.
    Sync { group: Str },
    /// A member's session (or a pending member's, or a new member's wait) ends.
    Session { group: Str, member: Str },
    /// A member of a consumer group must have given up what it was told to.
    Revocation { group: Str, member: Str },
    /// A classic member of a consumer group must have joined again, or synced.
    Rejoin { group: Str, member: Str },
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: HashMap<TimerKey, i64>,
    queue: BTreeSet<(i64, TimerKey)>,
}

impl Timers {
    pub(crate) fn schedule(&mut self, key: TimerKey, deadline_ms: i64) {
        match self.deadlines.insert(key.clone(), deadline_ms) {
            Some(old) if old == deadline_ms => return,
            Some(old) => {
                let removed = self.queue.remove(&(old, key.clone()));
                debug_assert!(removed, "a deadline without its place in the queue");
            }
            None => {}
        }
        self.queue.insert((deadline_ms, key));
    }

    pub(crate) fn is_scheduled(&self, key: &TimerKey) -> bool {
        self.deadlines.contains_key(key)
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.queue.remove(&(deadline, key));
        }
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the earliest entry that is due, if any.
    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<TimerKey> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.deadlines.remove(&key);
        Some(key)
    }

    pub(crate) fn clear(&mut self) {
        self.deadlines.clear();
        self.queue.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(member: &'static str) -> TimerKey {
        TimerKey::Session {
            group: Str::from("g"),
            member: Str::from(member),
        }
    }

    #[test]
    fn scheduling_a_name_again_moves_it_and_leaves_one_entry() {
        let mut timers = Timers::default();
        timers.schedule(session("a"), 10);
        timers.schedule(session("b"), 20);
        timers.schedule(session("a"), 30);
        assert_eq!(timers.len(), 2);
        assert_eq!(timers.next_deadline_ms(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(40), Some(session("b")));
        assert_eq!(timers.pop_due(40), Some(session("a")));
        assert_eq!(timers.pop_due(40), None);
    }

    #[test]
    fn a_cancelled_deadline_does_not_fire() {
        let mut timers = Timers::default();
        timers.schedule(session("a"), 10);
        timers.cancel(session("a"));
        assert_eq!(timers.pop_due(100), None);
        assert_eq!(timers.next_deadline_ms(), None);
    }
}
