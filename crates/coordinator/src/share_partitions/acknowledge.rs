//! Acknowledging: what a member says has become of records that it had acquired. Either all that it says of a share
//! partition counts, or nothing does.

use std::collections::BTreeMap;

use milena_protocol::ErrorCode;

use super::batches::{RecordState, StateBatch};
use super::in_flight::{Batch, InFlight, Lock, Record, change};
use super::live::SharePartitionConfig;

/// The acknowledge type of a record that is not there: an offset without a record, or a control record.
const GAP: i8 = 0;
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;

/// Offsets `first` to `last`, with one type for all of them or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcknowledgementBatch {
    pub first: i64,
    pub last: i64,
    pub types: Vec<i8>,
}

/// Why nothing of it counts, with Kafka's sentence.
pub type Refusal = (ErrorCode, &'static str);

const NOT_IN_CACHE: &str = "Batch record not found. The request batch offsets are not found in the cache.";
const FIRST_IS_PAST: &str = "Batch record not found. The first offset in request is past acquired records.";
const LAST_IS_PAST: &str = "Batch record not found. The last offset in request is past acquired records.";
const NOT_ACQUIRED: &str = "The batch cannot be acknowledged. The batch is not in the acquired state.";
const PART_NOT_ACQUIRED: &str =
    "The batch cannot be acknowledged. The subset batch is not in the acquired state.";
const OFFSET_NOT_ACQUIRED: &str = "The offset cannot be acknowledged. The offset is not acquired.";
const NOT_THE_OWNER: &str = "Member is not the owner of batch record";
const NOT_THE_OWNER_OF_OFFSET: &str = "Member is not the owner of offset";
const NO_RENEWALS: &str = "Renewing acquisition locks is not enabled for the group.";
const UNKNOWN_TYPE: &str = "Unknown acknowledge type.";

fn invalid(sentence: &'static str) -> Refusal {
    (ErrorCode::InvalidRecordState, sentence)
}

/// One member's acknowledgements on their way.
struct Acknowledging<'a> {
    in_flight: &'a mut InFlight,
    config: &'a SharePartitionConfig,
    member: &'a str,
    until_ms: i64,
    changes: Vec<StateBatch>,
    /// Batches that were touched, as they were.
    before: BTreeMap<i64, Batch>,
}

/// Does what a member says; gives what has to be stored.
pub(super) fn acknowledge(
    in_flight: &mut InFlight,
    now_ms: i64,
    config: &SharePartitionConfig,
    member: &str,
    batches: &[AcknowledgementBatch],
) -> Result<Vec<StateBatch>, Refusal> {
    let mut acknowledging = Acknowledging {
        in_flight,
        config,
        member,
        until_ms: now_ms.saturating_add(i64::from(config.record_lock_duration_ms)),
        changes: Vec::new(),
        before: BTreeMap::new(),
    };
    let done = batches.iter().try_for_each(|batch| acknowledging.batch(batch));
    let Acknowledging { changes, before, .. } = acknowledging;
    match done {
        Ok(()) => Ok(changes),
        Err(refusal) => {
            for (first, batch) in before {
                in_flight.restore(first, batch);
            }
            Err(refusal)
        }
    }
}

impl Acknowledging<'_> {
    fn batch(&mut self, batch: &AcknowledgementBatch) -> Result<(), Refusal> {
        if batch.last < self.in_flight.start {
            return Ok(());
        }
        for at in self.concerned(batch)? {
            let Some(held) = self.in_flight.batches.get(&at) else {
                continue;
            };
            if held.last < self.in_flight.start {
                continue;
            }
            self.before.entry(at).or_insert_with(|| held.clone());
            self.held(at, batch)?;
        }
        Ok(())
    }

    /// The batches in flight that an acknowledgement is about.
    fn concerned(&self, batch: &AcknowledgementBatch) -> Result<Vec<i64>, Refusal> {
        let start = self.in_flight.start;
        let floor = match self.in_flight.floor(batch.first) {
            None if batch.first < start && batch.last >= start => self.in_flight.floor(start),
            other => other,
        };
        let Some((floor, _)) = floor else {
            return Err(invalid(NOT_IN_CACHE));
        };
        let concerned = self.in_flight.batches_between(floor, batch.last);
        let end = concerned
            .last()
            .and_then(|at| self.in_flight.batches.get(at))
            .map(|held| held.last);
        match end {
            Some(end) if end < batch.first => Err((ErrorCode::InvalidRequest, FIRST_IS_PAST)),
            Some(end) if end < batch.last => Err((ErrorCode::InvalidRequest, LAST_IS_PAST)),
            _ => Ok(concerned),
        }
    }

    /// Acknowledges one batch in flight, or the part of it that is spoken of.
    fn held(&mut self, at: i64, batch: &AcknowledgementBatch) -> Result<(), Refusal> {
        let start = self.in_flight.start;
        let Some(held) = self.in_flight.batches.get_mut(&at) else {
            return Ok(());
        };
        let last = held.last;
        let is_covered = at >= batch.first && last <= batch.last;
        let one_by_one = !is_covered || batch.types.len() > 1 || at < start;
        if let Some(record) = held.record().cloned() {
            let Some(lock) = &record.lock else {
                return Err(invalid(NOT_ACQUIRED));
            };
            if *lock.member != *self.member {
                return Err(invalid(NOT_THE_OWNER));
            }
            if record.state != RecordState::Acquired {
                return Err(invalid(PART_NOT_ACQUIRED));
            }
            if !one_by_one {
                let kind = batch.types.first().copied().unwrap_or(GAP);
                let record = self.acknowledged(&record, kind)?;
                return self.set(at, at, last, record, kind);
            }
            held.is_split = true;
        }
        self.parts(at, batch, batch.first.max(start), batch.last)
    }

    fn parts(&mut self, at: i64, batch: &AcknowledgementBatch, first: i64, last: i64) -> Result<(), Refusal> {
        let parts = self
            .in_flight
            .batches
            .get(&at)
            .map(|held| held.parts(first, last))
            .unwrap_or_default();
        for (from, to, record) in parts {
            if record.state != RecordState::Acquired {
                return Err(invalid(OFFSET_NOT_ACQUIRED));
            }
            if !record.is_held_by(self.member) {
                return Err(invalid(NOT_THE_OWNER_OF_OFFSET));
            }
            for (from, to, kind) in by_type(batch, from, to) {
                let record = self.acknowledged(&record, kind)?;
                self.set(at, from, to, record, kind)?;
            }
        }
        Ok(())
    }

    /// An acquired record after its acknowledgement.
    fn acknowledged(&self, record: &Record, kind: i8) -> Result<Record, Refusal> {
        let state = match kind {
            GAP | REJECT => RecordState::Archived,
            ACCEPT => RecordState::Acknowledged,
            RELEASE => RecordState::Available,
            RENEW if self.config.renewals_enabled => {
                return Ok(Record {
                    lock: record.lock.clone().map(|lock| Lock {
                        until_ms: self.until_ms,
                        ..lock
                    }),
                    ..record.clone()
                });
            }
            RENEW => return Err(invalid(NO_RENEWALS)),
            _ => return Err((ErrorCode::InvalidRequest, UNKNOWN_TYPE)),
        };
        Ok(record.given_back(state, self.config.delivery_count_limit))
    }

    fn set(&mut self, at: i64, from: i64, to: i64, record: Record, kind: i8) -> Result<(), Refusal> {
        if kind != RENEW {
            self.changes.push(change(from, to, &record));
        }
        if record.state == RecordState::Available {
            self.in_flight.found_available();
        }
        if let Some(held) = self.in_flight.batches.get_mut(&at) {
            held.set(from, to, record);
        }
        self.in_flight.rearm(at);
        Ok(())
    }
}

/// The part of a batch between two offsets, by the types that its records are acknowledged with.
fn by_type(batch: &AcknowledgementBatch, from: i64, to: i64) -> Vec<(i64, i64, i8)> {
    if batch.types.len() <= 1 {
        return vec![(from, to, batch.types.first().copied().unwrap_or(GAP))];
    }
    let mut parts: Vec<(i64, i64, i8)> = Vec::new();
    for offset in from..=to {
        let index = usize::try_from(offset - batch.first).unwrap_or(usize::MAX);
        let Some(kind) = batch.types.get(index).copied() else {
            break;
        };
        match parts.last_mut() {
            Some(latest) if latest.2 == kind => latest.1 = offset,
            _ => parts.push((offset, offset, kind)),
        }
    }
    parts
}
