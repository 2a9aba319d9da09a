//! What a log knows of its idempotent producers (KIP-98, KIP-360): the epoch and the last batches
//! of each, by which a batch that comes twice is told from one that comes too early.

use std::collections::{HashMap, VecDeque};

use milena_protocol::records::BatchHeader;

use crate::{ActiveProducer, LogError};

/// A producer may have this many batches under way, so that many can come again.
pub const SEQUENCED_BATCHES: usize = 5;

const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;

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
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceCheck {
    Append,
    /// It was appended before, as this.
    Duplicate(SequencedBatch),
}

/// All producers of a log. Its size is bounded by `producer.id.expiration.ms` ([`Self::expire`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers(HashMap<i64, Producer>);

impl Producers {
    /// Whether a batch follows what its producer sent before.
    ///
    /// # Errors
    /// [`LogError::InvalidProducerEpoch`] for a fenced producer, [`LogError::OutOfOrderSequence`]
    /// when batches are missing in between.
    pub fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, LogError> {
        if !header.has_producer_id() {
            return Ok(SequenceCheck::Append);
        }
        // A producer that nothing is known of may start anywhere: what it sent before may be gone.
        let Some(known) = self.0.get(&header.producer_id) else {
            return Ok(SequenceCheck::Append);
        };
        let out_of_order = |expected| LogError::OutOfOrderSequence {
            producer_id: header.producer_id,
            expected,
            found: header.base_sequence,
        };
        if header.producer_epoch < known.epoch {
            return Err(LogError::InvalidProducerEpoch {
                producer_id: header.producer_id,
                current: known.epoch,
                found: header.producer_epoch,
            });
        }
        if header.producer_epoch > known.epoch {
            let good = header.base_sequence == 0 || known.epoch == NO_EPOCH;
            return if good {
                Ok(SequenceCheck::Append)
            } else {
                Err(out_of_order(0))
            };
        }
        let twin = known.batches.iter().find(|batch| {
            batch.base_sequence() == header.base_sequence && batch.last_sequence == header.last_sequence()
        });
        if let Some(twin) = twin {
            return Ok(SequenceCheck::Duplicate(*twin));
        }
        let expected = match known.last_sequence() {
            i32::MAX => 0,
            last => last + 1,
        };
        if header.base_sequence == expected {
            Ok(SequenceCheck::Append)
        } else {
            Err(out_of_order(expected))
        }
    }

    /// Notes a batch that was appended, with its offsets set.
    pub fn appended(&mut self, header: &BatchHeader) {
        if !header.has_producer_id() || header.is_control() {
            return;
        }
        let producer = self.0.entry(header.producer_id).or_insert_with(|| Producer {
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
        if producer.batches.len() == SEQUENCED_BATCHES {
            producer.batches.pop_front();
        }
        producer.last_timestamp_ms = header.max_timestamp;
        producer.batches.push_back(SequencedBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp_ms: header.max_timestamp,
        });
    }

    /// Puts back what a snapshot kept.
    pub fn restore(&mut self, producer_id: i64, producer: Producer) {
        self.0.insert(producer_id, producer);
    }

    /// Forgets producers that sent nothing for `producer.id.expiration.ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.0.retain(|_, producer| {
            producer.transaction_start >= 0
                || now_ms.saturating_sub(producer.last_timestamp_ms) < expiration_ms
        });
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.0.iter().map(|(id, producer)| (*id, producer))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
            assert_eq!(producers.check(&header).unwrap(), SequenceCheck::Append);
            producers.appended(&header);
            offset += i64::from(count);
        }
        producers
    }

    #[test]
    fn a_duplicate_of_the_last_five_batches_is_answered_with_its_first_offset() {
        let producers = after(&[(0, 0, 2), (0, 2, 2), (0, 4, 2), (0, 6, 2), (0, 8, 2), (0, 10, 2)]);
        for (at, sequence) in [(102, 2), (104, 4), (106, 6), (108, 8), (110, 10)] {
            let Ok(SequenceCheck::Duplicate(twin)) = producers.check(&header(0, sequence, 2, 0)) else {
                panic!("sequence {sequence} is no duplicate");
            };
            assert_eq!(twin.base_offset(), at);
        }
        assert!(matches!(
            producers.check(&header(0, 0, 2, 0)),
            Err(LogError::OutOfOrderSequence { .. })
        ));
    }

    #[test]
    fn a_gap_is_out_of_order_and_an_unknown_producer_starts_anywhere() {
        assert!(matches!(
            after(&[(0, 0, 2)]).check(&header(0, 3, 1, 0)),
            Err(LogError::OutOfOrderSequence {
                expected: 2,
                found: 3,
                ..
            })
        ));
        assert_eq!(
            Producers::default().check(&header(4, 77, 1, 0)).unwrap(),
            SequenceCheck::Append
        );
    }

    #[test]
    fn the_sequence_goes_on_at_zero_after_the_largest() {
        let producers = after(&[(0, i32::MAX - 1, 2), (0, 0, 3)]);
        assert_eq!(
            producers.check(&header(0, 3, 1, 0)).unwrap(),
            SequenceCheck::Append
        );
        let across = after(&[(0, i32::MAX - 1, 4)]);
        assert_eq!(across.check(&header(0, 2, 1, 0)).unwrap(), SequenceCheck::Append);
        assert!(matches!(
            across.check(&header(0, i32::MAX - 1, 4, 0)),
            Ok(SequenceCheck::Duplicate(_))
        ));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let producers = after(&[(0, 0, 2)]);
        assert!(matches!(
            producers.check(&header(1, 2, 1, 0)),
            Err(LogError::OutOfOrderSequence { .. })
        ));
        let producers = after(&[(0, 0, 2), (1, 0, 1)]);
        assert!(matches!(
            producers.check(&header(0, 2, 1, 0)),
            Err(LogError::InvalidProducerEpoch { .. })
        ));
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
