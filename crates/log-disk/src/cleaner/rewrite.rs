//! What compaction leaves of one batch: which records stay, and when what stays is written anew.
//!
//! Promises: offsets, epochs, producers and sequences never change; a batch that loses nothing stays
//! as it is to the byte; a batch is only written anew when its CRC is right.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use milena_log::{EndedTransaction, Producers};
use milena_protocol::records::{
    Batch, BatchBuilder, BatchHeader, EndTransactionMarker, NewRecord, Record, RecordError,
};

use super::map::OffsetMap;

/// A compressed batch is held decompressed; it may take this much.
pub(crate) const MOST_DECOMPRESSED_BYTES: usize = 128 * 1024 * 1024;

/// Where an idempotent producer that the log still knows ends.
#[derive(Debug, Clone, Copy)]
struct LastRecord {
    /// `None` when the log only has markers of it.
    last_offset: Option<i64>,
    epoch: i16,
}

/// The last batches of the producers that the log still knows: they stay, if need be without records,
/// as their sequence is what the next start knows the producer by.
#[derive(Debug, Default)]
pub(crate) struct LastRecords(HashMap<i64, LastRecord>);

impl LastRecords {
    pub(crate) fn of(producers: &Producers) -> Self {
        let last = |(id, producer): (i64, &milena_log::Producer)| {
            let last_offset = producer.batches.back().map(|batch| batch.last_offset);
            let epoch = producer.epoch;
            (id, LastRecord { last_offset, epoch })
        };
        Self(producers.iter().map(last).collect())
    }

    fn is_last(&self, header: &BatchHeader) -> bool {
        header.has_producer_id()
            && self
                .0
                .get(&header.producer_id)
                .is_some_and(|last| match last.last_offset {
                    Some(offset) => header.last_offset() == offset,
                    None => header.is_control() && header.producer_epoch == last.epoch,
                })
    }
}

/// Follows the transactions through a log that is read from its start.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Still to come, the last one first.
    aborted: Vec<EndedTransaction>,
    /// Aborted transactions that are open here, and whether records of them were met.
    open_aborted: HashMap<i64, (EndedTransaction, bool)>,
    /// Those of them that ended; see [`Self::take_met`].
    met: Vec<EndedTransaction>,
    /// Producers whose records of another transaction were met.
    open_committed: BTreeSet<i64>,
}

impl Transactions {
    pub(crate) fn new(mut aborted: Vec<EndedTransaction>) -> Self {
        aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self {
            aborted,
            ..Self::default()
        }
    }

    fn reach(&mut self, offset: i64) {
        while let Some(next) = self.aborted.pop_if(|next| next.first_offset <= offset) {
            self.open_aborted.entry(next.producer_id).or_insert((next, false));
        }
    }

    /// The aborted transactions that ended since the last call, and of which something was met: their
    /// markers stay, and readers must know of them.
    pub(crate) fn take_met(&mut self) -> Vec<EndedTransaction> {
        std::mem::take(&mut self.met)
    }

    /// Whether the batch belongs to an aborted transaction.
    pub(crate) fn data(&mut self, header: &BatchHeader) -> bool {
        self.reach(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        if let Some((_, met)) = self.open_aborted.get_mut(&header.producer_id) {
            *met = true;
            return true;
        }
        self.open_committed.insert(header.producer_id);
        false
    }

    /// Whether nothing is left of the transaction that this marker ends.
    pub(crate) fn marker(&mut self, batch: &Batch) -> Result<bool, RecordError> {
        self.reach(batch.header.last_offset());
        let producer_id = batch.header.producer_id;
        Ok(match EndTransactionMarker::of(batch)? {
            Some(marker) if marker.commit => !self.open_committed.remove(&producer_id),
            Some(_) => match self.open_aborted.remove(&producer_id) {
                Some((ended, true)) => {
                    self.met.push(ended);
                    false
                }
                _ => true,
            },
            // Emptied before, or of a kind that is not known here.
            None => batch.header.record_count == 0,
        })
    }
}

/// What one round of compaction goes by.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) map: &'a OffsetMap,
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    /// The batch that ends here stays, if need be without records, so that it is known where the log was.
    pub(crate) round_end: i64,
    pub(crate) last_records: &'a LastRecords,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Keep,
    Drop,
    Replace(Bytes),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) outcome: Outcome,
    pub(crate) records_kept: usize,
    /// When tombstones or a marker in it may go.
    pub(crate) horizon_ms: Option<i64>,
}

impl Rules<'_> {
    fn stays(&self, header: &BatchHeader, record: &Record) -> bool {
        if record.offset > self.map.latest() {
            return true;
        }
        // Written before the topic was compacted; nobody could ever replace it.
        let Some(key) = &record.key else {
            return false;
        };
        let is_newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
        let expired = header
            .delete_horizon_ms()
            .is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
        is_newest && (record.value.is_some() || !expired)
    }

    /// What is left of a batch.
    pub(crate) fn filter(
        &self,
        batch: &Batch,
        transactions: &mut Transactions,
    ) -> Result<Filtered, RecordError> {
        let header = &batch.header;
        let old_horizon = header.delete_horizon_ms();
        let (without_records, ends_nothing) = if header.is_control() {
            let ends_nothing = transactions.marker(batch)?;
            let expired = old_horizon.is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
            (ends_nothing && expired, ends_nothing)
        } else {
            (transactions.data(header), false)
        };
        let must_stay = self.last_records.is_last(header) || header.next_offset() == self.round_end;
        if header.base_offset > self.map.latest() && !without_records {
            return Ok(Filtered {
                outcome: Outcome::Keep,
                records_kept: usize::try_from(header.record_count).unwrap_or(0),
                horizon_ms: None,
            });
        }
        let mut kept = Vec::new();
        let mut may_go = ends_nothing;
        if !without_records {
            for record in batch.records(MOST_DECOMPRESSED_BYTES)? {
                let record = record?;
                if header.is_control() || self.stays(header, &record) {
                    let known = record.offset <= self.map.latest();
                    may_go |= !header.is_control() && record.value.is_none() && known;
                    kept.push(record);
                }
            }
        }
        if kept.is_empty() {
            return Ok(Filtered {
                outcome: self.without_records(batch, must_stay)?,
                records_kept: 0,
                horizon_ms: None,
            });
        }
        let new_horizon = self.now_ms.saturating_add(self.delete_retention_ms);
        let horizon_ms = old_horizon.or_else(|| may_go.then_some(new_horizon));
        let records_kept = kept.len();
        let unchanged = usize::try_from(header.record_count) == Ok(records_kept) && horizon_ms == old_horizon;
        let outcome = if unchanged {
            Outcome::Keep
        } else {
            Outcome::Replace(rebuild(batch, kept, horizon_ms)?)
        };
        Ok(Filtered {
            outcome,
            records_kept,
            horizon_ms: horizon_ms.filter(|_| may_go),
        })
    }

    fn without_records(&self, batch: &Batch, must_stay: bool) -> Result<Outcome, RecordError> {
        Ok(match (must_stay, batch.header.record_count) {
            (false, _) => Outcome::Drop,
            (true, 0) => Outcome::Keep,
            (true, _) => {
                batch.check_crc()?;
                Outcome::Replace(Bytes::copy_from_slice(&batch.header.emptied().to_bytes()))
            }
        })
    }
}

fn rebuild(batch: &Batch, kept: Vec<Record>, horizon_ms: Option<i64>) -> Result<Bytes, RecordError> {
    // A new CRC must not hide that the old one was wrong.
    batch.check_crc()?;
    let mut builder = BatchBuilder::in_place_of(&batch.header, horizon_ms)?;
    for record in kept {
        let delta = i32::try_from(record.offset - batch.header.base_offset)
            .map_err(|_| RecordError::Invalid("a record is too far from its batch's base offset".into()))?;
        builder.push_at(delta, &NewRecord::from(record));
    }
    builder
        .build()
        .map_err(|error| RecordError::Invalid(error.to_string()))
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
