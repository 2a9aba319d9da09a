//! Acquiring: which of the records that were read a member is given, in Kafka's order and within Kafka's limits.

use milena_protocol::Str;

use super::batches::RecordState;
use super::in_flight::{Batch, InFlight, Record};
use super::live::SharePartitionConfig;

/// From how many deliveries on records are given out in smaller and smaller portions, at least.
const MINIMUM_THROTTLED_DELIVERY_COUNT: i16 = 2;

/// A batch of the log, by its offsets, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBatch {
    pub base: i64,
    pub last: i64,
}

/// What was read for a member, and how much of it the member wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    pub member: Str,
    /// Whole batches up to about `max_records` (batch_optimized), or never more than that (record_limit).
    pub strictly_limited: bool,
    pub batch_size: i32,
    pub max_records: i32,
    /// Where reading began.
    pub fetch_offset: i64,
    /// What was read, in the order of the log.
    pub batches: Vec<LogBatch>,
    /// Those of them that belong to aborted transactions, which the member must not see.
    pub aborted: Vec<LogBatch>,
}

/// Records that a member was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcquiredRecords {
    pub first: i64,
    pub last: i64,
    pub delivery_count: i16,
}

/// One acquisition on its way.
struct Acquiring<'a> {
    in_flight: &'a mut InFlight,
    ask: &'a Acquire,
    config: &'a SharePartitionConfig,
    until_ms: i64,
    /// How many records may be acquired still, or fewer than none.
    left: i64,
    acquired: Vec<AcquiredRecords>,
}

/// Acquires what it can; gives what the member gets.
pub(super) fn acquire(
    in_flight: &mut InFlight,
    now_ms: i64,
    config: &SharePartitionConfig,
    ask: &Acquire,
) -> Vec<AcquiredRecords> {
    let (Some(first_read), Some(last_read)) = (ask.batches.first(), ask.batches.last()) else {
        return Vec::new();
    };
    if ask.max_records <= 0 || last_read.last < in_flight.start {
        return Vec::new();
    }
    // Read before the shard was loaded anew, and further than what is known now: what lies between would be lost.
    let furthest = match in_flight.gap_start() {
        Some(_) => in_flight.next_fetch_offset(),
        None => in_flight.end + i64::from(!in_flight.batches.is_empty()),
    };
    if ask.fetch_offset > furthest {
        return Vec::new();
    }
    let Some((max_records, last)) = limits(in_flight, config, ask, last_read.last) else {
        return Vec::new();
    };
    let mut base = first_read.base;
    // What the log does not hold any more between where reading began and what it found is never delivered.
    if ask.fetch_offset < base && in_flight.archive(ask.fetch_offset, base - 1, RecordState::Available) {
        in_flight.found_available();
        in_flight.move_start();
    }
    match in_flight.floor(base) {
        None => base = base.max(in_flight.start),
        Some((first, batch)) if batch.last >= base => base = first,
        Some(_) => {}
    }
    let known = in_flight.batches_between(first_read.base.min(base), last);
    let mut acquiring = Acquiring {
        in_flight,
        ask,
        config,
        until_ms: now_ms.saturating_add(i64::from(config.record_lock_duration_ms)),
        left: max_records,
        acquired: Vec::new(),
    };
    if known.is_empty() {
        acquiring.new_records(base, last);
    } else {
        acquiring.among(&known, base, first_read.base, last);
    }
    let acquired = acquiring.acquired;
    skip_aborted(in_flight, ask, acquired)
}

/// How many records may be acquired, and up to which offset: a partition that has its limit in flight gives only what
/// lies between.
fn limits(
    in_flight: &InFlight,
    config: &SharePartitionConfig,
    ask: &Acquire,
    last_read: i64,
) -> Option<(i64, i64)> {
    let wanted = i64::from(ask.max_records);
    let room = i64::from(config.partition_max_record_locks) - in_flight.count();
    if room > 0 {
        return Some((wanted.min(room), last_read));
    }
    let between = in_flight.end - ask.fetch_offset + 1;
    (between > 0).then(|| (wanted.min(between), last_read.min(in_flight.end)))
}

impl Acquiring<'_> {
    /// Goes through the batches in flight among what was read.
    fn among(&mut self, known: &[i64], base: i64, first: i64, last: i64) {
        let mut gap_start = base;
        for at in known {
            if self.left <= 0 {
                break;
            }
            let Some(batch) = self.in_flight.batches.get(at) else {
                continue;
            };
            let batch_last = batch.last;
            if self.in_flight.gap_start().is_some() {
                if gap_start < *at {
                    self.new_records(gap_start, at - 1);
                }
                gap_start = batch_last + 1;
                if self.left <= 0 {
                    break;
                }
            }
            if !self.one(*at, first, last) {
                self.left = 0;
                break;
            }
        }
        let last_known = known.last().and_then(|at| self.in_flight.batches.get(at));
        if let Some(last_known) = last_known.map(|batch| batch.last)
            && self.left > 0
            && last_known < last
        {
            self.new_records(last_known + 1, last);
        }
        if let Some(latest) = self.acquired.last() {
            let behind = latest.last + 1;
            self.in_flight.narrow_gap(behind);
        }
    }

    /// Acquires what is available of one batch; `false` if that must be all of this acquisition.
    fn one(&mut self, at: i64, first: i64, last: i64) -> bool {
        let Some(batch) = self.in_flight.batches.get_mut(&at) else {
            return true;
        };
        let is_throttled = throttles(batch, first, last, self.config.throttled_delivery_count());
        if is_throttled && !self.acquired.is_empty() {
            return false;
        }
        let is_covered = at >= first && batch.last <= last;
        let is_too_much = self.ask.strictly_limited && batch.last - at + 1 > self.left;
        if let Some(record) = batch.record().cloned() {
            if record.state != RecordState::Available {
                return true;
            }
            if is_covered && !is_too_much && !is_throttled {
                let delivery_count = record.delivery_count.saturating_add(1);
                let batch_last = batch.last;
                batch.set(
                    at,
                    batch_last,
                    Record::acquired(delivery_count, &self.ask.member, self.until_ms),
                );
                self.in_flight.rearm(at);
                self.left -= batch_last - at + 1;
                self.acquired.push(AcquiredRecords {
                    first: at,
                    last: batch_last,
                    delivery_count,
                });
                return true;
            }
            batch.is_split = true;
        }
        let count = self.part_of(at, first, last);
        self.left -= count;
        !(is_throttled && count > 0)
    }

    /// Acquires available records of a split batch one by one; gives their number. A record whose next delivery is
    /// its last is given alone, so that what makes its consumer fail takes no other record with it; those that were
    /// delivered often come in portions that halve with each delivery.
    fn part_of(&mut self, at: i64, first: i64, last: i64) -> i64 {
        let max = self.config.delivery_count_limit;
        let throttled = self.config.throttled_delivery_count();
        let Some(batch) = self.in_flight.batches.get_mut(&at) else {
            return 0;
        };
        let size = batch.last - at + 1;
        let mut most = match self.ask.strictly_limited {
            true => self.left,
            false => i64::MAX,
        };
        let mut is_portioned = false;
        let mut count = 0;
        let mut taken: Vec<AcquiredRecords> = Vec::new();
        for (from, to, record) in batch.parts(first, last) {
            if record.state != RecordState::Available {
                continue;
            }
            let is_last_delivery = max > 2 && record.delivery_count == max - 1;
            if is_last_delivery && count > 0 {
                break;
            }
            if record.delivery_count >= throttled && !is_portioned {
                is_portioned = true;
                let halvings = u32::try_from(record.delivery_count - throttled + 1).unwrap_or(0);
                most = most.min((size >> halvings.min(62)).max(1));
            }
            let portion = if is_last_delivery {
                1
            } else {
                (most - count).min(to - from + 1)
            };
            if portion <= 0 {
                break;
            }
            let to = from + portion - 1;
            let delivery_count = record.delivery_count.saturating_add(1);
            batch.set(
                from,
                to,
                Record::acquired(delivery_count, &self.ask.member, self.until_ms),
            );
            count += portion;
            join(
                &mut taken,
                AcquiredRecords {
                    first: from,
                    last: to,
                    delivery_count,
                },
            );
            if is_last_delivery || count >= most {
                break;
            }
        }
        self.in_flight.rearm(at);
        self.acquired.append(&mut taken);
        count
    }

    /// Acquires what was not in flight before, between two offsets: whole batches of the log, unless strictly limited.
    fn new_records(&mut self, first: i64, last: i64) {
        let (mut first, mut last) = (first.max(self.in_flight.start), last);
        if self.in_flight.batches.is_empty() {
            first = first.max(self.in_flight.end);
        }
        if self.left < last - first + 1 {
            let most = last;
            last = end_of_batch(&self.ask.batches, first + self.left - 1);
            if self.in_flight.gap_start().is_some() {
                last = last.min(most);
            }
        }
        // What is in flight stays as it is, whatever was read around it.
        if let Some((next, _)) = self.in_flight.batches.range(first..).next() {
            last = last.min(next - 1);
        }
        if self
            .in_flight
            .floor(first)
            .is_some_and(|(_, batch)| batch.last >= first)
            || first > last
        {
            return;
        }
        let was_empty_before = self.in_flight.batches.range(..first).next().is_none();
        let acquired_last = self.insert_new(first, last);
        if was_empty_before && self.in_flight.gap_start().is_none_or(|gap| gap >= first) {
            self.in_flight.start = self.in_flight.start.max(first);
        }
        self.in_flight.end = self.in_flight.end.max(last);
        self.in_flight.narrow_gap(acquired_last + 1);
        self.left -= acquired_last - first + 1;
    }

    /// Puts new batches in flight; gives the last offset that was acquired.
    fn insert_new(&mut self, first: i64, last: i64) -> i64 {
        let acquired = || Record::acquired(1, &self.ask.member, self.until_ms);
        if self.ask.strictly_limited && last - first + 1 > self.left {
            // What is left of the batch of the log is available to others.
            let acquired_last = first + self.left - 1;
            let mut batch = Batch::whole(first, last, acquired());
            batch.is_split = true;
            batch.set(acquired_last + 1, last, Record::free(RecordState::Available, 0));
            self.in_flight.insert(first, batch);
            self.in_flight.found_available();
            self.acquired.push(AcquiredRecords {
                first,
                last: acquired_last,
                delivery_count: 1,
            });
            return acquired_last;
        }
        let batch_size = i64::from(self.ask.batch_size.max(1));
        let mut at = first;
        let mut parts = Vec::new();
        if !self.ask.strictly_limited && last - first + 1 > batch_size {
            for batch in &self.ask.batches {
                if batch.base > last {
                    break;
                }
                if batch.base - at >= batch_size {
                    parts.push((at, batch.base - 1));
                    at = batch.base;
                }
            }
        }
        parts.push((at, last));
        for (first, last) in parts {
            let record = Record::acquired(1, &self.ask.member, self.until_ms);
            self.in_flight.insert(first, Batch::whole(first, last, record));
            self.acquired.push(AcquiredRecords {
                first,
                last,
                delivery_count: 1,
            });
        }
        last
    }
}

/// Whether available records of a batch were delivered so often that they come in portions.
fn throttles(batch: &Batch, first: i64, last: i64, throttled: i16) -> bool {
    let (first, last) = match batch.is_split {
        true => (first, last),
        false => (i64::MIN, i64::MAX),
    };
    batch
        .runs
        .iter()
        .filter(|(at, run)| **at <= last && run.last >= first)
        .any(|(_, run)| run.record.state == RecordState::Available && run.record.delivery_count >= throttled)
}

/// The end of the batch of the log that the offset lies in; the offset itself, if it lies in none.
fn end_of_batch(batches: &[LogBatch], offset: i64) -> i64 {
    let before = batches.iter().take_while(|batch| batch.base <= offset).last();
    before.map_or(offset, |batch| batch.last.max(offset))
}

fn join(acquired: &mut Vec<AcquiredRecords>, next: AcquiredRecords) {
    if let Some(latest) = acquired.last_mut()
        && latest.last + 1 == next.first
        && latest.delivery_count == next.delivery_count
    {
        latest.last = next.last;
        return;
    }
    acquired.push(next);
}

/// Archives what belongs to aborted transactions, and takes it out of what the member gets.
fn skip_aborted(
    in_flight: &mut InFlight,
    ask: &Acquire,
    acquired: Vec<AcquiredRecords>,
) -> Vec<AcquiredRecords> {
    let mut left = acquired;
    if left.is_empty() || ask.aborted.is_empty() {
        return left;
    }
    for aborted in &ask.aborted {
        in_flight.archive(aborted.base, aborted.last, RecordState::Acquired);
        left = left
            .into_iter()
            .flat_map(|records| {
                let before = AcquiredRecords {
                    last: records.last.min(aborted.base - 1),
                    ..records
                };
                let behind = AcquiredRecords {
                    first: records.first.max(aborted.last + 1),
                    ..records
                };
                [before, behind]
            })
            .filter(|records| records.first <= records.last)
            .collect();
    }
    in_flight.move_start();
    left
}

impl SharePartitionConfig {
    fn throttled_delivery_count(&self) -> i16 {
        (self.delivery_count_limit / 2 + self.delivery_count_limit % 2).max(MINIMUM_THROTTLED_DELIVERY_COUNT)
    }
}
