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
    /// A member of a consumer or streams group must have given up what it was told to.
    Revocation { group: Str, member: Str },
    /// A streams group that was empty has waited for more members.
    InitialRebalance { group: Str },
    /// A classic member of a consumer group must have joined again, or synced.
    Rejoin { group: Str, member: Str },
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: HashMap<TimerKey, Deadline>,
    queue: BTreeSet<(i64, TimerKey)>,
}

/// A deadline that moves away, as every heartbeat does with a session's, keeps its place in the queue until that
/// comes up.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    due_ms: i64,
    /// Its place; not after `due_ms`.
    queued_ms: i64,
}

impl Timers {
    pub(crate) fn schedule(&mut self, key: TimerKey, due_ms: i64) {
        if let Some(known) = self.deadlines.get_mut(&key) {
            known.due_ms = due_ms;
            if known.queued_ms <= due_ms {
                return;
            }
            let queued_ms = std::mem::replace(&mut known.queued_ms, due_ms);
            let removed = self.queue.remove(&(queued_ms, key.clone()));
            debug_assert!(removed, "a deadline without its place in the queue");
        } else {
            let queued_ms = due_ms;
            self.deadlines.insert(key.clone(), Deadline { due_ms, queued_ms });
        }
        self.queue.insert((due_ms, key));
    }

    pub(crate) fn is_scheduled(&self, key: &TimerKey) -> bool {
        self.deadlines.contains_key(key)
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.queue.remove(&(deadline.queued_ms, key));
        }
    }

    /// When to look again: nothing is due before.
    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.queue.first().map(|(queued_ms, _)| *queued_ms)
    }

    /// Takes the earliest entry that is due, if any.
    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<TimerKey> {
        while self.next_deadline_ms()? <= now_ms {
            let (_, key) = self.queue.pop_first()?;
            match self.deadlines.get_mut(&key) {
                Some(moved) if moved.due_ms > now_ms => {
                    moved.queued_ms = moved.due_ms;
                    self.queue.insert((moved.due_ms, key));
                }
                _ => {
                    self.deadlines.remove(&key);
                    return Some(key);
                }
            }
        }
        None
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
        assert_eq!(timers.next_deadline_ms(), Some(10));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.next_deadline_ms(), Some(20));
        assert_eq!(timers.pop_due(40), Some(session("b")));
        assert_eq!(timers.pop_due(40), Some(session("a")));
        assert_eq!(timers.pop_due(40), None);
    }

    #[test]
    fn a_deadline_that_comes_nearer_is_not_late() {
        let mut timers = Timers::default();
        timers.schedule(session("a"), 30);
        timers.schedule(session("a"), 40);
        timers.schedule(session("a"), 10);
        assert_eq!(timers.len(), 1);
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(10), Some(session("a")));
        assert_eq!(timers.pop_due(50), None);
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
