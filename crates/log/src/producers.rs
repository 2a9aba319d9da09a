//! What a log knows of its idempotent and transactional producers (KIP-98, KIP-360, KIP-890): the epoch
//! and the last batches of each, by which a batch that comes twice is told from one that comes too
//! early, and the transaction that each has open.

use std::collections::{HashMap, VecDeque};

use milena_protocol::records::{BatchHeader, EndTransactionMarker};

use crate::transactions::{Unstable, Verifications};
use crate::{
    ActiveProducer, EndTransaction, EndedTransaction, LogError, StartVerification, VerificationGuard,
};

/// A producer may have this many batches under way, so that many can come again.
pub const SEQUENCED_BATCHES: usize = 5;

const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;
/// From this `transaction.version` on each transaction has an epoch of its own (KIP-890).
const EPOCH_PER_TRANSACTION: i16 = 2;

/// A batch that was appended, as far as its producer may send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencedBatch {
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Last offset minus base offset.
    pub offset_delta: i32,
    pub timestamp_ms: i64,
}

impl SequencedBatch {
    #[must_use]
    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn base_sequence(&self) -> i32 {
        ((i64::from(self.last_sequence) - i64::from(self.offset_delta)) & i64::from(i32::MAX)) as i32
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    /// The last ones, oldest first; at most [`SEQUENCED_BATCHES`].
    pub batches: VecDeque<SequencedBatch>,
    pub coordinator_epoch: i32,
    pub last_timestamp_ms: i64,
    /// First offset of the open transaction, or -1.
    pub transaction_start: i64,
}

impl Producer {
    fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn next_sequence(&self) -> i32 {
        match self.last_sequence() {
            i32::MAX => 0,
            last => last + 1,
        }
    }

    /// The batch of the last ones that this one is again.
    fn twin(&self, header: &BatchHeader) -> Option<SequencedBatch> {
        let is_twin = |batch: &&SequencedBatch| {
            batch.base_sequence() == header.base_sequence && batch.last_sequence == header.last_sequence()
        };
        self.batches.iter().find(is_twin).copied()
    }

    fn check_epoch(&self, producer_id: i64, epoch: i16) -> Result<(), LogError> {
        if epoch >= self.epoch {
            return Ok(());
        }
        Err(LogError::InvalidProducerEpoch {
            producer_id,
            current: self.epoch,
            found: epoch,
        })
    }
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceCheck {
    Append,
    /// It was appended before, as this.
    Duplicate(SequencedBatch),
}

/// All producers of a log. Its size is bounded by `producer.id.expiration.ms` ([`Self::expire`]).
#[derive(Debug, Clone, Default)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
    unstable: Unstable,
    verifications: Verifications,
}

/// What outlasts a run counts: who waits for verification does not.
impl PartialEq for Producers {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id && self.unstable == other.unstable
    }
}

impl Producers {
    /// Whether a batch follows what its producer sent before, and belongs to a transaction if it says so.
    ///
    /// # Errors
    /// [`LogError::InvalidProducerEpoch`] for a fenced producer, [`LogError::OutOfOrderSequence`]
    /// when batches are missing in between, [`LogError::InvalidTxnState`] for a batch that would open a
    /// transaction that nobody verified, or that is in none while its producer has one open.
    pub fn check(
        &self,
        header: &BatchHeader,
        guard: Option<VerificationGuard>,
    ) -> Result<SequenceCheck, LogError> {
        if !header.has_producer_id() {
            return Ok(SequenceCheck::Append);
        }
        let producer_id = header.producer_id;
        let known = self.by_id.get(&producer_id);
        let of_epoch = known.filter(|known| known.epoch == header.producer_epoch);
        if let Some(twin) = of_epoch.and_then(|known| known.twin(header)) {
            return Ok(SequenceCheck::Duplicate(twin));
        }
        if let Some(known) = known {
            known.check_epoch(producer_id, header.producer_epoch)?;
        }
        // An epoch that is new here must be verified even if the one before left a transaction open.
        let is_open = of_epoch.is_some_and(|known| known.transaction_start >= 0);
        if header.is_transactional() && !is_open && !self.verifications.allow(producer_id, guard) {
            return Err(LogError::InvalidTxnState { producer_id });
        }
        self.check_sequence(header, known)?;
        if !header.is_transactional() && known.is_some_and(|known| known.transaction_start >= 0) {
            return Err(LogError::InvalidTxnState { producer_id });
        }
        Ok(SequenceCheck::Append)
    }

    fn check_sequence(&self, header: &BatchHeader, known: Option<&Producer>) -> Result<(), LogError> {
        let out_of_order = |expected| LogError::OutOfOrderSequence {
            producer_id: header.producer_id,
            expected,
            found: header.base_sequence,
        };
        let is_new = known.is_none_or(|known| known.batches.is_empty());
        if let Some(most) = self.verifications.most_sequence(header.producer_id, is_new)
            && header.base_sequence > most
        {
            return Err(out_of_order(most));
        }
        let expected = match known {
            // A producer that nothing is known of may start anywhere: what it sent before may be gone.
            None => return Ok(()),
            Some(known) if known.epoch == NO_EPOCH => return Ok(()),
            Some(known) if known.epoch < header.producer_epoch => 0,
            Some(known) => known.next_sequence(),
        };
        if header.base_sequence == expected {
            Ok(())
        } else {
            Err(out_of_order(expected))
        }
    }

    /// A guard for the append that is to open the producer's transaction here; `None` when it is open
    /// already and nothing is to be verified. It is void as soon as something of the producer's
    /// transaction is appended, or its marker.
    ///
    /// # Errors
    /// [`LogError::InvalidProducerEpoch`] for a fenced producer.
    pub fn start_verification(
        &mut self,
        start: &StartVerification,
    ) -> Result<Option<VerificationGuard>, LogError> {
        if let Some(known) = self.by_id.get(&start.producer_id) {
            known.check_epoch(start.producer_id, start.producer_epoch)?;
            if known.epoch == start.producer_epoch && known.transaction_start >= 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.verifications.start(start)))
    }

    /// Whether a marker may be written. One that was written already may be written again, as its
    /// coordinator cannot know.
    ///
    /// # Errors
    /// [`LogError::InvalidProducerEpoch`] for a marker of an earlier transaction,
    /// [`LogError::TransactionCoordinatorFenced`] for one of a coordinator that is none any more.
    pub fn check_end(&self, end: &EndTransaction) -> Result<(), LogError> {
        let Some(known) = self.by_id.get(&end.producer_id) else {
            return Ok(());
        };
        known.check_epoch(end.producer_id, end.producer_epoch)?;
        let is_again = known.transaction_start < 0 || end.producer_epoch == i16::MAX;
        if end.transaction_version >= EPOCH_PER_TRANSACTION && end.producer_epoch == known.epoch && !is_again
        {
            return Err(LogError::InvalidProducerEpoch {
                producer_id: end.producer_id,
                current: known.epoch,
                found: end.producer_epoch,
            });
        }
        if known.coordinator_epoch > end.coordinator_epoch {
            return Err(LogError::TransactionCoordinatorFenced {
                producer_id: end.producer_id,
                current: known.coordinator_epoch,
                found: end.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// The producer of a batch, in the batch's epoch.
    fn of_batch(&mut self, header: &BatchHeader) -> &mut Producer {
        let producer = self.by_id.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(1),
            coordinator_epoch: -1,
            last_timestamp_ms: header.max_timestamp,
            transaction_start: -1,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.last_timestamp_ms = header.max_timestamp;
        producer
    }

    /// Notes a batch that was appended, with its offsets set; of a control batch, what was in it
    /// ([`EndTransactionMarker::of`]). Gives the transaction that ended with it, if it was aborted.
    pub fn appended(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
    ) -> Option<EndedTransaction> {
        if !header.has_producer_id() {
            return None;
        }
        if header.is_transactional() {
            self.verifications.clear(header.producer_id);
        }
        if header.is_control() {
            return self.marked(header, marker);
        }
        let producer = self.of_batch(header);
        if producer.batches.len() == SEQUENCED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(SequencedBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp_ms: header.max_timestamp,
        });
        if header.is_transactional() && producer.transaction_start < 0 {
            producer.transaction_start = header.base_offset;
            self.unstable.opened(header.base_offset, header.producer_id);
        }
        None
    }

    fn marked(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
    ) -> Option<EndedTransaction> {
        let producer = self.of_batch(header);
        // What compaction emptied still says which epoch the producer is in.
        let marker = marker?;
        producer.coordinator_epoch = marker.coordinator_epoch;
        let first_offset = std::mem::replace(&mut producer.transaction_start, -1);
        if first_offset < 0 {
            return None;
        }
        let ended = self
            .unstable
            .ended(header.producer_id, first_offset, header.last_offset());
        (!marker.commit).then_some(ended)
    }

    /// The first offset that is not decided, or whose decision is not below the high watermark.
    #[must_use]
    pub fn first_unstable(&self) -> Option<i64> {
        self.unstable.first()
    }

    /// Lets the decisions below the high watermark count.
    pub fn reached(&mut self, high_watermark: i64) {
        self.unstable.reached(high_watermark);
    }

    /// Puts back what a snapshot kept.
    pub fn restore(&mut self, producer_id: i64, producer: Producer) {
        if producer.transaction_start >= 0 {
            self.unstable.opened(producer.transaction_start, producer_id);
        }
        self.by_id.insert(producer_id, producer);
    }

    /// Forgets producers that sent nothing for `producer.id.expiration.ms`, but for those with an open
    /// transaction, and appends that were announced and did not come for as long.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.verifications.expire(now_ms, expiration_ms);
        self.by_id.retain(|_, producer| {
            producer.transaction_start >= 0
                || now_ms.saturating_sub(producer.last_timestamp_ms) < expiration_ms
        });
        if self.by_id.is_empty() {
            self.by_id.shrink_to_fit();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    #[must_use]
    pub fn active(&self) -> Vec<ActiveProducer> {
        let mut active: Vec<ActiveProducer> = self
            .iter()
            .map(|(producer_id, producer)| ActiveProducer {
                producer_id,
                producer_epoch: producer.epoch,
                last_sequence: producer.last_sequence(),
                last_timestamp_ms: producer.last_timestamp_ms,
                coordinator_epoch: producer.coordinator_epoch,
                current_transaction_start_offset: producer.transaction_start,
            })
            .collect();
        active.sort_by_key(|producer| producer.producer_id);
        active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, base_sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        let zeros = [0; 61];
        let mut bytes = zeros;
        bytes[8..12].copy_from_slice(&100i32.to_be_bytes());
        bytes[16] = 2;
        BatchHeader {
            base_offset,
            last_offset_delta: count - 1,
            record_count: count,
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence,
            ..BatchHeader::parse(&bytes).unwrap()
        }
    }

    fn after(batches: &[(i16, i32, i32)]) -> Producers {
        let mut producers = Producers::default();
        let mut offset = 100;
        for &(epoch, sequence, count) in batches {
            let header = header(epoch, sequence, count, offset);
            assert_eq!(producers.check(&header, None).unwrap(), SequenceCheck::Append);
            producers.appended(&header, None);
            offset += i64::from(count);
        }
        producers
    }

    #[test]
    fn a_duplicate_of_the_last_five_batches_is_answered_with_its_first_offset() {
        let producers = after(&[(0, 0, 2), (0, 2, 2), (0, 4, 2), (0, 6, 2), (0, 8, 2), (0, 10, 2)]);
        for (at, sequence) in [(102, 2), (104, 4), (106, 6), (108, 8), (110, 10)] {
            let Ok(SequenceCheck::Duplicate(twin)) = producers.check(&header(0, sequence, 2, 0), None) else {
                panic!("sequence {sequence} is no duplicate");
            };
            assert_eq!(twin.base_offset(), at);
        }
        assert!(matches!(
            producers.check(&header(0, 0, 2, 0), None),
            Err(LogError::OutOfOrderSequence { .. })
        ));
    }

    #[test]
    fn a_gap_is_out_of_order_and_an_unknown_producer_starts_anywhere() {
        assert!(matches!(
            after(&[(0, 0, 2)]).check(&header(0, 3, 1, 0), None),
            Err(LogError::OutOfOrderSequence {
                expected: 2,
                found: 3,
                ..
            })
        ));
        assert_eq!(
            Producers::default().check(&header(4, 77, 1, 0), None).unwrap(),
            SequenceCheck::Append
        );
    }

    #[test]
    fn the_sequence_goes_on_at_zero_after_the_largest() {
        let producers = after(&[(0, i32::MAX - 1, 2), (0, 0, 3)]);
        assert_eq!(
            producers.check(&header(0, 3, 1, 0), None).unwrap(),
            SequenceCheck::Append
        );
        let across = after(&[(0, i32::MAX - 1, 4)]);
        assert_eq!(
            across.check(&header(0, 2, 1, 0), None).unwrap(),
            SequenceCheck::Append
        );
        assert!(matches!(
            across.check(&header(0, i32::MAX - 1, 4, 0), None),
            Ok(SequenceCheck::Duplicate(_))
        ));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let producers = after(&[(0, 0, 2)]);
        assert!(matches!(
            producers.check(&header(1, 2, 1, 0), None),
            Err(LogError::OutOfOrderSequence { .. })
        ));
        let producers = after(&[(0, 0, 2), (1, 0, 1)]);
        assert!(matches!(
            producers.check(&header(0, 2, 1, 0), None),
            Err(LogError::InvalidProducerEpoch { .. })
        ));
    }

    #[test]
    fn a_producer_with_an_open_transaction_does_not_expire() {
        let mut producers = Producers::default();
        let header = BatchHeader {
            attributes: 0x10,
            ..header(0, 0, 2, 100)
        };
        assert_eq!(producers.appended(&header, None), None);
        producers.expire(i64::MAX, 1000);
        assert_eq!(producers.first_unstable(), Some(100));
        let marker = BatchHeader {
            attributes: 0x30,
            base_sequence: -1,
            ..self::header(0, -1, 1, 102)
        };
        let abort = EndTransactionMarker {
            commit: false,
            coordinator_epoch: 5,
        };
        let ended = producers.appended(&marker, Some(abort)).unwrap();
        assert_eq!((ended.first_offset, ended.last_offset), (100, 102));
        assert_eq!(producers.active()[0].coordinator_epoch, 5);
        assert_eq!(producers.first_unstable(), Some(100), "the marker may be lost");
        producers.reached(103);
        assert_eq!(producers.first_unstable(), None);
        producers.expire(i64::MAX, 1000);
        assert!(producers.is_empty());
    }

    #[test]
    fn an_emptied_control_batch_tells_the_epoch_alone() {
        let mut producers = after(&[(0, 0, 2)]);
        let emptied = BatchHeader {
            attributes: 0x30,
            ..header(3, -1, 1, 102)
        };
        assert_eq!(producers.appended(&emptied, None), None);
        assert!(matches!(
            producers.check(&header(2, 0, 1, 0), None),
            Err(LogError::InvalidProducerEpoch { current: 3, .. })
        ));
        assert!(producers.check(&header(3, 0, 1, 0), None).is_ok());
    }

    #[test]
    fn a_quiet_producer_expires() {
        let mut producers = after(&[(0, 0, 2)]);
        producers.expire(999, 1000);
        assert!(!producers.is_empty());
        producers.expire(1000, 1000);
        assert!(producers.is_empty());
    }
}
