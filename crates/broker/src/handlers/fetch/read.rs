//! Reads the partitions of one fetch, and waits until there is enough.
//!
//! What was read is kept while the fetch waits, and only partitions whose watermarks moved are read
//! again, so a wake-up costs what changed and not what is followed. Memory is bounded by the
//! request's `max_bytes`, which is what the answer may take anyway.

use std::sync::Arc;
use std::time::Duration;

use milena_log::{LogError, Read, ReadBound, ReadResult, Watermarks};
use milena_protocol::messages::fetch_response::{AbortedTransaction, EpochEndOffset, PartitionData};
use milena_protocol::{Chunk, ErrorCode};

use super::failed;
use crate::partitions::{Partition, Seen, Wait};
use crate::sessions::{PartitionKey, Wanted};

/// What bounds a whole fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bound: ReadBound,
    pub(super) max_bytes: usize,
    pub(super) min_bytes: usize,
}

/// One partition of a fetch.
pub(super) struct Reading {
    key: PartitionKey,
    partition: Arc<Partition>,
    wanted: Wanted,
    data: PartitionData,
    held_bytes: usize,
    /// Ends the wait: an error or a diverging epoch.
    urgent: bool,
    seen: Seen,
    /// Size of the log when it was read, to tell how much may have come since.
    log_bytes: u64,
    /// The watermarks moved since the last read.
    stale: bool,
}

impl Reading {
    pub(super) fn new(key: PartitionKey, partition: Arc<Partition>, wanted: Wanted) -> Self {
        let seen = Seen {
            bound: ReadBound::HighWatermark,
            reached: 0,
            offset: wanted.fetch_offset,
        };
        Self {
            data: failed(key.partition, ErrorCode::None),
            key,
            partition,
            wanted,
            held_bytes: 0,
            urgent: false,
            seen,
            log_bytes: 0,
            stale: false,
        }
    }

    async fn read(&mut self, bound: ReadBound, max_bytes: usize, at_least_one_batch: bool) {
        self.stale = false;
        self.held_bytes = 0;
        let log_bytes = self.partition.log().size_bytes();
        let watermarks = self.partition.log().watermarks();
        self.see(bound, watermarks);
        // Where some of the log cannot be read yet (it waits for its sync or for the end of a transaction) nobody
        // knows how much that is: then 0, so that what becomes readable counts as grown.
        let is_all_readable = self.seen.reached == watermarks.log_end;
        self.log_bytes = if is_all_readable { log_bytes } else { 0 };
        match self.try_read(watermarks, max_bytes, at_least_one_batch).await {
            Ok(()) => self.held_bytes = self.data.records.as_ref().map_or(0, Chunk::len),
            Err(error) => {
                self.urgent = true;
                self.data = failed(self.key.partition, error);
            }
        }
    }

    async fn try_read(
        &mut self,
        watermarks: Watermarks,
        max_bytes: usize,
        at_least_one_batch: bool,
    ) -> Result<(), ErrorCode> {
        self.partition.check()?;
        self.partition
            .check_leader_epoch(self.wanted.current_leader_epoch)?;
        let bound = self.seen.bound;
        let offset = self.wanted.fetch_offset;
        if self.wanted.last_fetched_epoch >= 0
            && let Some(diverging) = self.diverging_epoch(watermarks)?
        {
            self.urgent = true;
            self.data = told(self.key.partition, watermarks, Chunk::default());
            self.data.diverging_epoch = diverging;
            return Ok(());
        }
        if offset < watermarks.log_start || offset > watermarks.log_end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let partition_max_bytes = usize::try_from(self.wanted.max_bytes).unwrap_or(0);
        let max_bytes = max_bytes.min(partition_max_bytes);
        if offset >= self.seen.reached || (max_bytes == 0 && !at_least_one_batch) {
            self.data = told(self.key.partition, watermarks, Chunk::default());
            self.data.aborted_transactions = aborted(bound, Vec::new());
            return Ok(());
        }
        let read = Read {
            offset,
            max_bytes,
            at_least_one_batch,
            bound,
        };
        let ReadResult {
            records,
            watermarks,
            aborted: transactions,
        } = self
            .partition
            .log()
            .read(read)
            .await
            .map_err(|error: LogError| error.code())?;
        self.see(bound, watermarks);
        self.data = told(self.key.partition, watermarks, records);
        let transactions = transactions
            .into_iter()
            .map(|transaction| AbortedTransaction {
                producer_id: transaction.producer_id,
                first_offset: transaction.first_offset,
                ..AbortedTransaction::default()
            })
            .collect();
        self.data.aborted_transactions = aborted(bound, transactions);
        Ok(())
    }

    fn see(&mut self, bound: ReadBound, watermarks: Watermarks) {
        let reached = match bound {
            ReadBound::HighWatermark => watermarks.high_watermark,
            ReadBound::LastStable => watermarks.last_stable,
        };
        self.seen = Seen {
            bound,
            reached,
            offset: self.wanted.fetch_offset,
        };
    }

    /// Where the consumer's log and this one part, if they do (KIP-595).
    fn diverging_epoch(&self, watermarks: Watermarks) -> Result<Option<EpochEndOffset>, ErrorCode> {
        let fetched = self.wanted.last_fetched_epoch;
        let Some(end) = self.partition.end_offset_for_epoch(fetched) else {
            return Err(ErrorCode::OffsetOutOfRange);
        };
        if self.wanted.fetch_offset < watermarks.log_start {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let diverges = end.leader_epoch < fetched || end.end_offset < self.wanted.fetch_offset;
        Ok(diverges.then(|| EpochEndOffset {
            epoch: end.leader_epoch,
            end_offset: end.end_offset,
            ..EpochEndOffset::default()
        }))
    }

    /// Bytes that a read would give now, by the growth of the log.
    fn expected_bytes(&self) -> usize {
        if !self.stale {
            return self.held_bytes;
        }
        let log = self.partition.log();
        let lost_records = log.watermarks().log_start != self.data.log_start_offset;
        match log.size_bytes().checked_sub(self.log_bytes) {
            // What retention and compaction took hides how much has come; what is stale has moved in any case.
            Some(grown) if !lost_records => self
                .held_bytes
                .saturating_add(usize::try_from(grown.max(1)).unwrap_or(usize::MAX)),
            _ => usize::MAX,
        }
    }

    /// Whether a read would end the wait whatever it gives.
    fn is_gone(&self) -> bool {
        self.partition.check().is_err()
            || self.partition.log().watermarks().log_start > self.wanted.fetch_offset
    }
}

fn told(partition: i32, watermarks: Watermarks, records: Chunk) -> PartitionData {
    PartitionData {
        partition_index: partition,
        high_watermark: watermarks.high_watermark,
        last_stable_offset: watermarks.last_stable,
        log_start_offset: watermarks.log_start,
        aborted_transactions: None,
        records: Some(records),
        ..PartitionData::default()
    }
}

/// Only `read_committed` is told of aborted transactions.
fn aborted(bound: ReadBound, transactions: Vec<AbortedTransaction>) -> Option<Vec<AbortedTransaction>> {
    match bound {
        ReadBound::HighWatermark => None,
        ReadBound::LastStable => Some(transactions),
    }
}

/// A fetch that reads, and waits for more.
pub(super) struct Waiting {
    partitions: Vec<Reading>,
    limits: Limits,
}

impl Waiting {
    pub(super) fn new(partitions: Vec<Reading>, limits: Limits) -> Self {
        Self { partitions, limits }
    }

    /// Reads every partition in order; the first that has data gives at least one whole batch.
    pub(super) async fn read_all(&mut self) {
        let mut remaining = self.limits.max_bytes;
        let mut first = true;
        for reading in &mut self.partitions {
            reading.read(self.limits.bound, remaining, first).await;
            first &= reading.held_bytes == 0;
            remaining = remaining.saturating_sub(reading.held_bytes);
        }
    }

    async fn read_stale(&mut self) {
        let held: usize = self
            .partitions
            .iter()
            .filter(|reading| !reading.stale)
            .map(|reading| reading.held_bytes)
            .sum();
        let mut remaining = self.limits.max_bytes.saturating_sub(held);
        let mut first = held == 0;
        for reading in self.partitions.iter_mut().filter(|reading| reading.stale) {
            reading.read(self.limits.bound, remaining, first).await;
            first &= reading.held_bytes == 0;
            remaining = remaining.saturating_sub(reading.held_bytes);
        }
    }

    /// Enough to answer: nothing to read, enough bytes, or something the consumer must hear.
    pub(super) fn is_complete(&self) -> bool {
        self.partitions.is_empty()
            || self.partitions.iter().any(|reading| reading.urgent)
            || self.held_bytes() >= self.limits.min_bytes
    }

    /// Bytes of records that were read.
    pub(super) fn held_bytes(&self) -> usize {
        self.partitions.iter().map(|reading| reading.held_bytes).sum()
    }

    /// Waits until the fetch is complete, the time is over or the broker stops.
    pub(super) async fn wait(&mut self, max_wait: Duration, stopped: impl Future<Output = ()>) {
        let mut wait = Wait::new();
        for (slot, reading) in self.partitions.iter().enumerate() {
            wait.arm(slot, &reading.partition, reading.seen);
        }
        let deadline = tokio::time::sleep(max_wait);
        tokio::pin!(deadline, stopped);
        loop {
            let changed = tokio::select! {
                changed = wait.changed() => changed,
                () = &mut deadline => break,
                () = &mut stopped => break,
            };
            self.note(&mut wait, &changed);
            if self.is_worth_reading() {
                self.read_stale().await;
                if self.is_complete() {
                    return;
                }
                self.rearm(&mut wait);
            }
        }
        // The time is over: what came since the last look goes along.
        drop(wait);
        self.read_stale().await;
    }

    /// Marks what moved, and waits for it to move on.
    fn note(&mut self, wait: &mut Wait, changed: &[usize]) {
        for slot in changed {
            let Some(reading) = self.partitions.get_mut(*slot) else {
                continue;
            };
            reading.stale = true;
            let watermarks = reading.partition.log().watermarks();
            reading.see(self.limits.bound, watermarks);
            if !reading.is_gone() {
                wait.arm(*slot, &reading.partition, reading.seen);
            }
        }
    }

    /// Waits on for every partition, from what the latest read saw.
    fn rearm(&self, wait: &mut Wait) {
        for (slot, reading) in self.partitions.iter().enumerate() {
            wait.arm(slot, &reading.partition, reading.seen);
        }
    }

    fn is_worth_reading(&self) -> bool {
        self.partitions
            .iter()
            .any(|reading| reading.stale && reading.is_gone())
            || self
                .partitions
                .iter()
                .map(Reading::expected_bytes)
                .fold(0, usize::saturating_add)
                >= self.limits.min_bytes
    }

    pub(super) fn into_answers(self) -> impl Iterator<Item = (PartitionKey, Arc<Partition>, PartitionData)> {
        self.partitions
            .into_iter()
            .map(|reading| (reading.key, reading.partition, reading.data))
    }
}
