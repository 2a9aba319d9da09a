//! What a log knows of transactions (KIP-98, KIP-890): which are open, which ended above the high
//! watermark, and which appends wait for the transaction coordinator's word that they belong to one.
//!
//! Left to others: the producers themselves (`producers`), and where aborted ones are kept for readers.

use std::collections::{BTreeMap, HashMap};

use crate::AbortedTransaction;

/// The end of a transaction of one producer in one partition, as its coordinator decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransaction {
    pub producer_id: i64,
    /// With `transaction_version` 2, the epoch that the producer goes on with.
    pub producer_epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub leader_epoch: i32,
    /// The feature `transaction.version` that the transaction was made by: 2 is KIP-890's.
    pub transaction_version: i16,
    pub now_ms: i64,
}

/// What a batch that may open a transaction is announced by, before the coordinator is asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartVerification {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// Whether the client bumps its epoch with each transaction (Produce v12 on, KIP-890): its first
    /// batch is then the one of sequence 0.
    pub supports_epoch_bump: bool,
    pub now_ms: i64,
}

/// Lets one append open a transaction, unless a marker comes in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(u64);

impl VerificationGuard {
    /// For `transaction.partition.verification.enable=false`.
    pub const NOT_REQUIRED: Self = Self(0);
}

/// An append that was announced and did not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verification {
    guard: VerificationGuard,
    /// Nothing later may come first, else the producer would never get in again what it retries.
    lowest_sequence: i32,
    epoch: i16,
    supports_epoch_bump: bool,
    started_ms: i64,
}

/// The appends that wait for the coordinator. Bounded by `producer.id.expiration.ms`, as producers are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verifications {
    by_producer: HashMap<i64, Verification>,
    last_guard: u64,
}

impl Verifications {
    pub(crate) fn start(&mut self, start: &StartVerification) -> VerificationGuard {
        let next = VerificationGuard(self.last_guard + 1);
        let found = self
            .by_producer
            .entry(start.producer_id)
            .or_insert_with(|| Verification {
                guard: next,
                lowest_sequence: start.base_sequence,
                epoch: start.producer_epoch,
                supports_epoch_bump: start.supports_epoch_bump,
                started_ms: start.now_ms,
            });
        if found.guard == next {
            self.last_guard += 1;
        }
        if start.producer_epoch > found.epoch {
            found.epoch = start.producer_epoch;
            found.lowest_sequence = start.base_sequence;
        } else if start.producer_epoch == found.epoch {
            found.lowest_sequence = found.lowest_sequence.min(start.base_sequence);
        }
        found.guard
    }

    /// Whether a batch with this guard may open a transaction.
    pub(crate) fn allow(&self, producer_id: i64, guard: Option<VerificationGuard>) -> bool {
        match guard {
            Some(VerificationGuard::NOT_REQUIRED) => true,
            Some(guard) => self
                .by_producer
                .get(&producer_id)
                .is_some_and(|waiting| waiting.guard == guard),
            None => false,
        }
    }

    /// The highest sequence that may come next, if it is known. `is_new`: the log knows no batch of the
    /// producer's.
    pub(crate) fn most_sequence(&self, producer_id: i64, is_new: bool) -> Option<i32> {
        let waiting = self.by_producer.get(&producer_id)?;
        if waiting.supports_epoch_bump && is_new {
            Some(0)
        } else {
            Some(waiting.lowest_sequence)
        }
    }

    /// Makes a guard void: the transaction is open, or over.
    pub(crate) fn clear(&mut self, producer_id: i64) {
        self.by_producer.remove(&producer_id);
    }

    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_producer
            .retain(|_, waiting| now_ms.saturating_sub(waiting.started_ms) < expiration_ms);
        if self.by_producer.is_empty() {
            self.by_producer.shrink_to_fit();
        }
    }
}

/// A transaction that a marker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
    /// Everything below it was decided then: where the earliest transaction begins that was still open.
    pub last_stable_offset: i64,
}

impl EndedTransaction {
    /// Whether a read of these offsets meets records of it.
    #[must_use]
    pub fn overlaps(&self, from: i64, to: i64) -> bool {
        self.last_offset >= from && self.first_offset < to
    }

    #[must_use]
    pub fn aborted(&self) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: self.producer_id,
            first_offset: self.first_offset,
        }
    }
}

/// The transactions that keep the last stable offset back. There are no more of them than producers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unstable {
    /// Producers by the first offset of their open transaction.
    open: BTreeMap<i64, i64>,
    /// Markers that are not below the high watermark yet, by the first offset of their transaction.
    ended: BTreeMap<i64, i64>,
}

impl Unstable {
    pub(crate) fn opened(&mut self, first_offset: i64, producer_id: i64) {
        self.open.insert(first_offset, producer_id);
    }

    /// Notes the marker of an open transaction.
    pub(crate) fn ended(&mut self, producer_id: i64, first_offset: i64, marker: i64) -> EndedTransaction {
        self.open.remove(&first_offset);
        self.ended.insert(first_offset, marker);
        let still_open = self.open.first_key_value().map(|(first, _)| *first);
        EndedTransaction {
            producer_id,
            first_offset,
            last_offset: marker,
            last_stable_offset: still_open.unwrap_or(marker + 1),
        }
    }

    /// Lets go what ended below the high watermark.
    pub(crate) fn reached(&mut self, high_watermark: i64) {
        if !self.ended.is_empty() {
            self.ended.retain(|_, marker| *marker >= high_watermark);
        }
    }

    pub(crate) fn first(&self) -> Option<i64> {
        let open = self.open.first_key_value().map(|(first, _)| *first);
        let ended = self.ended.first_key_value().map(|(first, _)| *first);
        open.into_iter().chain(ended).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(epoch: i16, sequence: i32) -> StartVerification {
        StartVerification {
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence: sequence,
            supports_epoch_bump: false,
            now_ms: 10,
        }
    }

    #[test]
    fn a_guard_is_good_until_it_is_cleared_and_is_never_given_again() {
        let mut waiting = Verifications::default();
        assert!(!waiting.allow(9, None));
        let guard = waiting.start(&start(0, 4));
        assert_eq!(waiting.start(&start(0, 6)), guard, "one per producer");
        assert!(waiting.allow(9, Some(guard)));
        assert!(!waiting.allow(8, Some(guard)), "it is another producer's");
        waiting.clear(9);
        assert!(!waiting.allow(9, Some(guard)));
        assert_ne!(waiting.start(&start(0, 4)), guard);
        assert!(!waiting.allow(9, Some(guard)), "the one before is void");
        assert!(waiting.allow(9, Some(VerificationGuard::NOT_REQUIRED)));
    }

    #[test]
    fn the_lowest_sequence_that_waits_comes_first_in_each_epoch() {
        let mut waiting = Verifications::default();
        waiting.start(&start(1, 4));
        waiting.start(&start(1, 2));
        waiting.start(&start(1, 7));
        assert_eq!(waiting.most_sequence(9, true), Some(2));
        waiting.start(&start(0, 0));
        assert_eq!(
            waiting.most_sequence(9, true),
            Some(2),
            "an older epoch does not count"
        );
        waiting.start(&start(2, 5));
        assert_eq!(waiting.most_sequence(9, true), Some(5));
        waiting.expire(1_009, 1_000);
        assert_eq!(waiting.most_sequence(9, true), Some(5));
        waiting.expire(1_010, 1_000);
        assert_eq!(waiting.most_sequence(9, true), None);
    }

    #[test]
    fn a_client_that_bumps_its_epoch_starts_at_zero() {
        let mut waiting = Verifications::default();
        waiting.start(&StartVerification {
            supports_epoch_bump: true,
            ..start(1, 4)
        });
        assert_eq!(waiting.most_sequence(9, true), Some(0));
        assert_eq!(waiting.most_sequence(9, false), Some(4));
    }

    #[test]
    fn what_ended_stays_unstable_until_the_high_watermark_passes_its_marker() {
        let mut unstable = Unstable::default();
        unstable.opened(10, 1);
        unstable.opened(12, 2);
        assert_eq!(unstable.first(), Some(10));
        let ended = unstable.ended(1, 10, 15);
        assert_eq!(ended.last_stable_offset, 12);
        unstable.reached(15);
        assert_eq!(unstable.first(), Some(10), "the marker itself is not below it");
        unstable.reached(16);
        assert_eq!(unstable.first(), Some(12));
        assert_eq!(unstable.ended(2, 12, 20).last_stable_offset, 21);
        unstable.reached(21);
        assert_eq!(unstable.first(), None);
    }
}
