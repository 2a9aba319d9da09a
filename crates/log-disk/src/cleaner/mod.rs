//! Log compaction (KIP-58, KIP-354, KIP-534): of each key's records the last one stays.
//!
//! A round reads the dirty part of a log into a map from key to newest offset (`map`), then reads the
//! log from its start and writes what stays (`rewrite`) into new segments, each of which takes the
//! place of a group of old ones (`swap`). `select` says which log is due; `threads` drives it.
//!
//! Promises: offsets never change; the active segment and what is above the last stable offset or
//! younger than `min.compaction.lag.ms` is not touched; appends and reads go on meanwhile; a round
//! that is broken off, by an error, a deletion or a crash, leaves a log that reads the same.
//!
//! The records of aborted transactions go, whatever their keys; a transaction's marker, and its entry in
//! the `.txnindex`, stay as long as something of it does.
//!
//! Left to others: refusing records without keys (`milena_log::prepare`).

mod map;
mod rewrite;
mod select;
mod swap;
mod threads;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::Bytes;
use milena_log::CleanerConfig;
use milena_protocol::records::{Batch, BatchHeader, HEADER_BYTES, RecordError};

use crate::directory::lock;
use crate::files;
use crate::log::{DiskLog, is_out_of_room};
use crate::segment::Segment;
use crate::txn_index;
use map::OffsetMap;
use rewrite::{LastRecords, Outcome, Rules, Transactions};
pub(crate) use select::Candidate;
pub(crate) use swap::tidy;
pub use threads::CleanMode;
pub(crate) use threads::Cleaner;

/// Segments are read and written in pieces of at least this.
const LEAST_IO_BYTES: usize = 4096;

/// What a log knows of its compaction.
#[derive(Debug)]
pub(crate) struct Progress {
    is_running: AtomicBool,
    /// The log is about to move: no round begins, and the one that runs ends.
    is_paused: AtomicBool,
    /// After an error that would come again; said once, not tried again in this run.
    is_uncleanable: AtomicBool,
    /// After what may pass: not before this time.
    retry_ms: AtomicI64,
    /// When the first of the tombstones may go that the last round had to leave.
    horizon_ms: AtomicI64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            is_running: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            is_uncleanable: AtomicBool::new(false),
            retry_ms: AtomicI64::new(i64::MIN),
            horizon_ms: AtomicI64::new(i64::MAX),
        }
    }
}

impl Progress {
    fn may_start(&self, now_ms: i64) -> bool {
        !self.is_running.load(Ordering::Acquire)
            && !self.is_paused.load(Ordering::Acquire)
            && !self.is_uncleanable.load(Ordering::Acquire)
            && self.retry_ms.load(Ordering::Acquire) <= now_ms
    }

    /// Keeps compaction away. False as long as a round still runs: ask again soon.
    pub(crate) fn pause(&self) -> bool {
        self.is_paused.store(true, Ordering::Release);
        !self.is_running.swap(true, Ordering::AcqRel)
    }

    /// Ends what [`Self::pause`] began; `held` is what it gave.
    pub(crate) fn resume(&self, held: bool) {
        if held {
            self.is_running.store(false, Ordering::Release);
        }
        self.is_paused.store(false, Ordering::Release);
    }

    fn horizon_ms(&self) -> i64 {
        self.horizon_ms.load(Ordering::Acquire)
    }
}

/// Why a round broke off. The log is as it was, or a part of it is compacted already.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("the log was closed, deleted, shortened or is not to be compacted any more")]
    Aborted,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("batch at offset {offset}: {error}")]
    Corrupt { offset: i64, error: RecordError },
}

/// How fast files are read and written.
pub(crate) trait Pace: Send + Sync {
    /// Called with each number of bytes that was read or written; may wait. False: stop.
    fn spent(&self, bytes: usize) -> bool;
}

/// What a round may use.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) config: &'a CleanerConfig,
    pub(crate) pace: &'a dyn Pace,
}

impl Means<'_> {
    fn threads(&self) -> u64 {
        u64::try_from(self.config.threads).unwrap_or(1).max(1)
    }

    fn map_bytes(&self) -> u64 {
        u64::try_from(self.config.dedupe_buffer_size).unwrap_or(0) / self.threads()
    }

    fn io_bytes(&self) -> usize {
        let half = u64::try_from(self.config.io_buffer_size).unwrap_or(0) / 2;
        usize::try_from(half / self.threads())
            .unwrap_or(0)
            .max(LEAST_IO_BYTES)
    }
}

/// Numbers of one round, for the log line about it.
#[derive(Debug, Default)]
struct Numbers {
    bytes_read: u64,
    bytes_written: u64,
    records_read: u64,
    records_kept: u64,
    horizon_ms: Option<i64>,
}

/// Reads a segment's batches one behind the other.
struct Batches<'a> {
    log: &'a DiskLog,
    means: Means<'a>,
    segment: &'a Segment,
    position: u32,
    buffer: Bytes,
}

impl<'a> Batches<'a> {
    fn new(log: &'a DiskLog, means: Means<'a>, segment: &'a Segment, position: u32) -> Self {
        Self {
            log,
            means,
            segment,
            position,
            buffer: Bytes::new(),
        }
    }

    fn corrupt(&self, error: RecordError) -> Stopped {
        let path = self.segment.path();
        tracing::error!(segment = %path.display(), position = self.position, %error, "a batch cannot be read");
        Stopped::Corrupt {
            offset: self.segment.base_offset,
            error,
        }
    }

    fn fill(&mut self, bytes: usize) -> Result<(), Stopped> {
        if !self.log.is_cleanable() {
            return Err(Stopped::Aborted);
        }
        self.buffer = self.segment.read(self.position, bytes)?.into();
        if self.means.pace.spent(self.buffer.len()) {
            Ok(())
        } else {
            Err(Stopped::Aborted)
        }
    }

    fn next(&mut self) -> Result<Option<Batch>, Stopped> {
        if self.position >= self.segment.size() {
            return Ok(None);
        }
        if self.buffer.len() < HEADER_BYTES {
            self.fill(self.means.io_bytes())?;
        }
        let header = BatchHeader::parse(&self.buffer).map_err(|error| self.corrupt(error))?;
        if self.buffer.len() < header.size_bytes() {
            self.fill(self.means.io_bytes().max(header.size_bytes()))?;
        }
        let batch = Batch::parse(&self.buffer).map_err(|error| self.corrupt(error))?;
        let size = batch.bytes.len();
        drop(self.buffer.split_to(size));
        self.position = self
            .position
            .saturating_add(u32::try_from(size).unwrap_or(u32::MAX));
        Ok(Some(batch))
    }
}

/// Collects what stays, and writes it in large pieces.
struct Output<'a> {
    means: Means<'a>,
    segment: &'a Segment,
    index_interval_bytes: i32,
    bytes: Vec<u8>,
    headers: Vec<BatchHeader>,
}

impl Output<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let header = BatchHeader::parse(bytes).map_err(|error| Stopped::Corrupt { offset: -1, error })?;
        self.bytes.extend_from_slice(bytes);
        self.headers.push(header);
        if self.bytes.len() >= self.means.io_bytes() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.segment
            .append_run(&self.bytes, &self.headers, self.index_interval_bytes)?;
        let written = self.bytes.len();
        self.bytes.clear();
        self.headers.clear();
        if self.means.pace.spent(written) {
            Ok(())
        } else {
            Err(Stopped::Aborted)
        }
    }
}

impl DiskLog {
    /// Whether compaction may go on.
    fn is_cleanable(&self) -> bool {
        if self.cleaning.is_paused.load(Ordering::Acquire) {
            return false;
        }
        let state = lock(&self.state);
        state.closed.is_none() && state.config.cleanup_policy.compact && self.directory.failure().is_none()
    }

    /// Takes the log for one round, unless another thread has it.
    pub(crate) fn begin_cleaning(&self) -> bool {
        !self.cleaning.is_running.swap(true, Ordering::AcqRel)
    }

    /// One round of compaction. Whoever calls it has begun it with [`Self::begin_cleaning`].
    pub(crate) fn clean(&self, candidate: &Candidate, now_ms: i64, means: Means<'_>) -> bool {
        let cleaned = self.clean_round(candidate, now_ms, means);
        let retry_ms = now_ms.saturating_add(means.config.backoff_ms.max(1));
        match &cleaned {
            Ok(()) => {}
            Err(Stopped::Aborted) => self.cleaning.retry_ms.store(retry_ms, Ordering::Release),
            Err(Stopped::Io(error)) if is_out_of_room(error) => {
                tracing::warn!(log = %self.id, %error, "there is no room to compact the log; it is tried again");
                self.cleaning.retry_ms.store(retry_ms, Ordering::Release);
            }
            Err(error) => {
                tracing::error!(log = %self.id, %error, "the log cannot be compacted and is left as it is until the next start");
                self.cleaning.is_uncleanable.store(true, Ordering::Release);
            }
        }
        self.cleaning.is_running.store(false, Ordering::Release);
        cleaned.is_ok()
    }

    fn clean_round(&self, candidate: &Candidate, now_ms: i64, means: Means<'_>) -> Result<(), Stopped> {
        // A start takes a hole behind the recovery point for records that a power cut took: where
        // compaction makes holes, everything is on the disk and said to be.
        let recovery_point = self.checkpoint(now_ms)?;
        if recovery_point < candidate.first_uncleanable {
            return Err(Stopped::Aborted);
        }
        self.directory
            .set_recovery_points([(self.folder.as_str(), recovery_point)])?;
        let last_records = self.last_records()?;
        let mut numbers = Numbers::default();
        let map = self.map(candidate, means, &mut numbers)?;
        let end = map.latest().saturating_add(1);
        let rules = Rules {
            map: &map,
            now_ms,
            delete_retention_ms: candidate.config.delete_retention_ms,
            round_end: candidate.first_uncleanable,
            last_records: &last_records,
        };
        let below = candidate
            .segments
            .partition_point(|segment| segment.base_offset < end);
        let mut transactions = self.transactions(&candidate.segments[..below], i64::MIN, end)?;
        for group in select::group(
            &candidate.segments[..below],
            &candidate.config,
            candidate.first_uncleanable,
        ) {
            self.clean_group(&group, candidate, means, &rules, &mut transactions, &mut numbers)?;
        }
        self.directory.set_first_dirty(&self.folder, end)?;
        let horizon_ms = numbers.horizon_ms.unwrap_or(i64::MAX);
        self.cleaning.horizon_ms.store(horizon_ms, Ordering::Release);
        tracing::info!(
            log = %self.id, from = candidate.first_dirty, to = end, keys = map.keys(),
            records = numbers.records_read, kept = numbers.records_kept,
            bytes = numbers.bytes_read, written = numbers.bytes_written, "compacted"
        );
        Ok(())
    }

    /// With everything on the disk that it goes by: if a power cut took the last batch of a producer, the one before
    /// would have to be there.
    fn last_records(&self) -> Result<LastRecords, Stopped> {
        let (last_records, unsynced) = {
            let state = lock(&self.state);
            (LastRecords::of(&state.producers), state.unsynced())
        };
        match unsynced.iter().try_for_each(|segment| segment.sync()) {
            Ok(()) => Ok(last_records),
            // The files of what was deleted meanwhile may be gone.
            Err(_) if !self.is_cleanable() => Err(Stopped::Aborted),
            Err(error) => {
                self.directory.fail(&error);
                Err(error.into())
            }
        }
    }

    /// What is to be known of the transactions in the log from `from` to `to`, which begins in the first
    /// of the segments. Some of them end behind the last one.
    fn transactions(&self, segments: &[Arc<Segment>], from: i64, to: i64) -> Result<Transactions, Stopped> {
        let Some(first) = segments.first() else {
            return Ok(Transactions::default());
        };
        let all = {
            let state = lock(&self.state);
            state.segments[state.segment_at(first.base_offset)..].to_vec()
        };
        Ok(Transactions::new(txn_index::aborted_in(&all, from, to)?))
    }

    /// The newest offsets of the keys of the dirty part, as far as the map can take them.
    fn map(
        &self,
        candidate: &Candidate,
        means: Means<'_>,
        numbers: &mut Numbers,
    ) -> Result<OffsetMap, Stopped> {
        let (first, end) = (candidate.first_dirty, candidate.first_uncleanable);
        let mut map = OffsetMap::new(first, end, means.map_bytes(), means.config.io_buffer_load_factor);
        let mut transactions = self.transactions(&candidate.segments, first, end)?;
        for (at, segment) in candidate.segments.iter().enumerate() {
            let next = candidate
                .segments
                .get(at + 1)
                .map_or(end, |next| next.base_offset);
            if next <= first {
                continue;
            }
            let position = segment.offsets.position(first)?;
            let mut batches = Batches::new(self, means, segment, position);
            while let Some(batch) = batches.next()? {
                numbers.bytes_read += batch.bytes.len() as u64;
                if batch.header.last_offset() < first {
                    continue;
                }
                let is_full = !map_batch(&mut map, &batch, first, &mut transactions).map_err(|error| {
                    Stopped::Corrupt {
                        offset: batch.header.base_offset,
                        error,
                    }
                })?;
                transactions.take_met();
                if is_full {
                    return Ok(map);
                }
            }
            // Offsets at the end of a segment may have been compacted away.
            map.reached(next - 1);
        }
        Ok(map)
    }

    fn clean_group(
        &self,
        group: &[Arc<Segment>],
        candidate: &Candidate,
        means: Means<'_>,
        rules: &Rules<'_>,
        transactions: &mut Transactions,
        numbers: &mut Numbers,
    ) -> Result<(), Stopped> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(());
        };
        let new = Segment::create_cleaned(&self.path, first.base_offset, last.created_ms)?;
        if first.aborted.is_there() {
            // Else a start that finishes the swap would leave the old one in its place.
            new.aborted.open()?;
        }
        let changed = self.write_group(group, &new, candidate, means, rules, transactions, numbers);
        let result = match changed {
            // What would become the same again can stay.
            Ok(false) if group.len() == 1 => Err(None),
            Ok(_) => self.replace_segments(new, group).map_err(Some),
            Err(error) => Err(Some(error)),
        };
        match result {
            Ok(()) => Ok(()),
            Err(why) => {
                swap::remove_files(&self.path, first.base_offset, files::CLEANED);
                why.map_or(Ok(()), Err)
            }
        }
    }

    /// Writes what stays of the group into `new`; tells whether anything is different there.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the round")]
    fn write_group(
        &self,
        group: &[Arc<Segment>],
        new: &Segment,
        candidate: &Candidate,
        means: Means<'_>,
        rules: &Rules<'_>,
        transactions: &mut Transactions,
        numbers: &mut Numbers,
    ) -> Result<bool, Stopped> {
        let mut output = Output {
            means,
            segment: new,
            index_interval_bytes: candidate.config.index_interval_bytes,
            bytes: Vec::new(),
            headers: Vec::new(),
        };
        let mut changed = false;
        for segment in group {
            let mut batches = Batches::new(self, means, segment, 0);
            while let Some(batch) = batches.next()? {
                let filtered = rules
                    .filter(&batch, transactions)
                    .map_err(|error| Stopped::Corrupt {
                        offset: batch.header.base_offset,
                        error,
                    })?;
                numbers.bytes_read += batch.bytes.len() as u64;
                numbers.records_read += u64::try_from(batch.header.record_count).unwrap_or(0);
                numbers.records_kept += filtered.records_kept as u64;
                if let Some(horizon_ms) = filtered.horizon_ms {
                    let known = numbers.horizon_ms.unwrap_or(i64::MAX);
                    numbers.horizon_ms = Some(known.min(horizon_ms));
                }
                match filtered.outcome {
                    Outcome::Keep => output.push(&batch.bytes)?,
                    Outcome::Drop => changed = true,
                    Outcome::Replace(bytes) => {
                        changed = true;
                        output.push(&bytes)?;
                    }
                }
            }
        }
        output.flush()?;
        for aborted in transactions.take_met() {
            new.aborted.push(&aborted)?;
        }
        numbers.bytes_written += u64::from(new.size());
        Ok(changed)
    }
}

/// Notes a batch's keys. False when the map is full.
fn map_batch(
    map: &mut OffsetMap,
    batch: &Batch,
    first: i64,
    transactions: &mut Transactions,
) -> Result<bool, RecordError> {
    let skipped = if batch.header.is_control() {
        transactions.marker(batch)?;
        true
    } else {
        transactions.data(&batch.header)
    };
    if !skipped {
        for record in batch.records(rewrite::MOST_DECOMPRESSED_BYTES)? {
            let record = record?;
            if let Some(key) = &record.key
                && record.offset >= first
                && !map.put(key, record.offset)
            {
                return Ok(false);
            }
        }
    }
    map.reached(batch.header.last_offset());
    Ok(true)
}
