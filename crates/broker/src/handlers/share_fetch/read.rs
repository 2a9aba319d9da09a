//! Reads the partitions of one share fetch, waits until there is enough, and acquires it.
//!
//! Several members may have read the same records: the share partition decides who acquires them, and who got nothing
//! looks again. What is read is bounded by the request's `max_bytes`.

use std::collections::HashSet;
use std::sync::Arc;

use milena_coordinator::{Acquire, AcquiredRecords, FetchStart, LogBatch, LogView, SharePartitionKey};
use milena_log::{AbortedTransaction, Read, ReadBound, Watermarks};
use milena_protocol::messages::share_fetch_response::{AcquiredRecords as AcquiredAnswer, PartitionData};
use milena_protocol::records::{BatchHeader, HEADER_BYTES};
use milena_protocol::{Chunk, ErrorCode, Str};

use super::failed;
use crate::broker::Broker;
use crate::partitions::{Partition, Seen, Wait};
use crate::share::sessions::TopicPartition;
use crate::share::settings::{OffsetReset, ShareSettings};

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: usize,
    pub(super) min_bytes: usize,
    pub(super) max_wait: std::time::Duration,
    pub(super) max_records: i32,
    pub(super) batch_size: i32,
    pub(super) strictly_limited: bool,
}

/// Why a partition is not read, with Kafka's sentence if there is one.
type Failure = (ErrorCode, Option<Str>);

/// One partition of a share fetch.
pub(super) struct Reading {
    at: TopicPartition,
    key: SharePartitionKey,
    partition: Arc<Partition>,
    seen: Seen,
    found: Option<Found>,
    failure: Option<Failure>,
    answer: Option<PartitionData>,
}

/// What was read of the log.
struct Found {
    offset: i64,
    records: Chunk,
    /// Whole batches, with the bytes that each takes.
    batches: Vec<(BatchHeader, usize)>,
    aborted: Vec<AbortedTransaction>,
}

impl Reading {
    pub(super) fn new(at: TopicPartition, group: &Str, partition: Arc<Partition>) -> Self {
        Self {
            at,
            key: SharePartitionKey {
                group: group.clone(),
                topic_id: at.0,
                partition: at.1,
            },
            seen: Seen {
                bound: ReadBound::HighWatermark,
                reached: i64::MAX,
                offset: i64::MAX,
            },
            partition,
            found: None,
            failure: None,
            answer: None,
        }
    }

    /// Where to read, if anything may be acquired.
    async fn start(&self, broker: &Broker, settings: &ShareSettings) -> Result<Option<i64>, Failure> {
        self.partition.check().map_err(plain)?;
        let view = LogView {
            start: self.partition.log().watermarks().log_start,
            leader_epoch: self.partition.leader_epoch(),
        };
        let mut reset = None;
        loop {
            let start = broker
                .share
                .fetch_start(&self.key, &settings.group, view, reset)
                .await;
            let start = start.map_err(|_| plain(ErrorCode::CoordinatorNotAvailable))?;
            match start.map_err(|(error, _)| plain(error))? {
                FetchStart::At(offset) => return Ok(Some(offset)),
                FetchStart::Full => return Ok(None),
                FetchStart::Reset if reset.is_some() => return Err(plain(ErrorCode::UnknownServerError)),
                FetchStart::Reset => {
                    reset = Some(self.reset_offset(settings.reset, broker.clock.now_ms()).await?);
                }
            }
        }
    }

    /// Where a group starts that has not fetched from the partition yet.
    async fn reset_offset(&self, reset: OffsetReset, now_ms: i64) -> Result<i64, Failure> {
        let log = self.partition.log();
        let timestamp_ms = match reset {
            OffsetReset::Earliest => return Ok(log.watermarks().log_start),
            OffsetReset::Latest => return Ok(log.watermarks().high_watermark),
            OffsetReset::ByDuration(duration_ms) => now_ms.saturating_sub(duration_ms).max(0),
        };
        let found = log
            .offset_for_timestamp(timestamp_ms, ReadBound::HighWatermark)
            .await
            .map_err(|error| plain(error.code()))?;
        let found = found.ok_or_else(|| plain(ErrorCode::OffsetNotAvailable))?;
        Ok(found.offset)
    }

    fn see(&mut self, bound: ReadBound, watermarks: Watermarks, offset: i64) {
        let reached = match bound {
            ReadBound::HighWatermark => watermarks.high_watermark,
            ReadBound::LastStable => watermarks.last_stable,
        };
        self.seen = Seen {
            bound,
            reached,
            offset,
        };
    }

    async fn read(
        &mut self,
        bound: ReadBound,
        offset: i64,
        max_bytes: usize,
        first: bool,
    ) -> Result<(), Failure> {
        let watermarks = self.partition.log().watermarks();
        self.see(bound, watermarks, offset);
        let mut found = Found {
            offset,
            records: Chunk::default(),
            batches: Vec::new(),
            aborted: Vec::new(),
        };
        if offset >= watermarks.log_start && offset < self.seen.reached && (max_bytes > 0 || first) {
            let read = Read {
                offset,
                max_bytes,
                at_least_one_batch: first,
                bound,
            };
            let result = self.partition.log().read(read).await;
            let result = result.map_err(|error| plain(error.code()))?;
            self.see(bound, result.watermarks, offset);
            found.batches =
                whole_batches(&result.records).map_err(|_| plain(ErrorCode::KafkaStorageError))?;
            found.records = result.records;
            found.aborted = result.aborted;
        }
        self.found = Some(found);
        Ok(())
    }

    fn bytes(&self) -> usize {
        let batches = self.found.iter().flat_map(|found| &found.batches);
        batches.map(|(_, bytes)| bytes).sum()
    }
}

fn plain(error: ErrorCode) -> Failure {
    (error, None)
}

/// The headers of the batches that are whole, and the bytes that each takes.
fn whole_batches(records: &Chunk) -> std::io::Result<Vec<(BatchHeader, usize)>> {
    let mut batches = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= records.len() {
        let header = match records {
            Chunk::Bytes(bytes) => BatchHeader::parse(&bytes[at..]),
            Chunk::File(range) => {
                let mut range = range.clone();
                range.position += at as u64;
                range.length = HEADER_BYTES;
                BatchHeader::parse(&range.read()?)
            }
        };
        let header = header
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))?;
        let bytes = header.size_bytes();
        if at + bytes > records.len() {
            break;
        }
        at += bytes;
        batches.push((header, bytes));
    }
    Ok(batches)
}

/// The part of what was read that holds what was acquired.
fn slice(records: &Chunk, from: usize, to: usize) -> Chunk {
    match records {
        Chunk::Bytes(bytes) => Chunk::Bytes(bytes.slice(from..to)),
        Chunk::File(range) => {
            let mut range = range.clone();
            range.position += from as u64;
            range.length = to - from;
            Chunk::File(range)
        }
    }
}

impl Found {
    fn batches(&self) -> Vec<LogBatch> {
        let batches = self.batches.iter();
        batches.map(|(header, _)| batch_of(header)).collect()
    }

    /// The batches that belong to aborted transactions. A producer's next marker ends what its transaction holds.
    fn aborted(&self) -> Vec<LogBatch> {
        let mut coming = self.aborted.clone();
        coming.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        let mut open: HashSet<i64> = HashSet::new();
        let mut aborted = Vec::new();
        for (header, _) in self.batches.iter().filter(|(header, _)| header.has_producer_id()) {
            while let Some(next) = coming.pop_if(|next| next.first_offset <= header.last_offset()) {
                open.insert(next.producer_id);
            }
            if header.is_control() {
                open.remove(&header.producer_id);
            } else if header.is_transactional() && open.contains(&header.producer_id) {
                aborted.push(batch_of(header));
            }
        }
        aborted
    }

    fn answer(&self, partition: i32, acquired: &[AcquiredRecords]) -> PartitionData {
        let mut data = failed(partition, ErrorCode::None, None);
        let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else {
            return data;
        };
        let (mut from, mut to) = (0, 0);
        for (header, bytes) in &self.batches {
            if header.last_offset() < first.first && from == to {
                from += bytes;
                to = from;
            } else if header.base_offset <= last.last {
                to += bytes;
            }
        }
        data.records = Some(slice(&self.records, from, to));
        data.acquired_records = acquired
            .iter()
            .map(|records| AcquiredAnswer {
                first_offset: records.first,
                last_offset: records.last,
                delivery_count: records.delivery_count,
                ..AcquiredAnswer::default()
            })
            .collect();
        data
    }
}

fn batch_of(header: &BatchHeader) -> LogBatch {
    LogBatch {
        base: header.base_offset,
        last: header.last_offset(),
    }
}

/// A share fetch that reads, and waits for more.
pub(super) struct Waiting {
    broker: Arc<Broker>,
    member: Str,
    settings: ShareSettings,
    partitions: Vec<Reading>,
    limits: Limits,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Done,
    /// Others were faster; there may be more behind.
    Again,
    TooLittle,
}

impl Waiting {
    pub(super) fn new(
        broker: Arc<Broker>,
        member: Str,
        settings: ShareSettings,
        partitions: Vec<Reading>,
        limits: Limits,
    ) -> Self {
        Self {
            broker,
            member,
            settings,
            partitions,
            limits,
        }
    }

    /// Waits until there is enough, the time is over or the broker stops; acquires what there is.
    pub(super) async fn run(&mut self) {
        // Before the first look, so that nothing is missed.
        let keys = self
            .partitions
            .iter()
            .map(|reading| reading.key.clone())
            .collect();
        let share_wait = self.broker.share.wait(keys);
        let mut wait = Wait::new();
        let deadline = tokio::time::sleep(self.limits.max_wait);
        let stopped = self.broker.stop.stopped();
        tokio::pin!(deadline, stopped);
        let mut is_over = self.limits.max_wait.is_zero() || self.broker.stop.is_stopping();
        loop {
            match self.attempt(is_over).await {
                Attempt::Done => return,
                Attempt::Again if !is_over => continue,
                Attempt::Again => return,
                Attempt::TooLittle => {}
            }
            for (slot, reading) in self.partitions.iter().enumerate() {
                if reading.found.is_some() {
                    wait.arm(slot, &reading.partition, reading.seen);
                }
            }
            tokio::select! {
                _ = wait.changed() => {}
                () = share_wait.woken() => {}
                () = &mut deadline => is_over = true,
                () = &mut stopped => is_over = true,
            }
        }
    }

    /// Reads, and acquires if that is enough, or in any case if the time is over.
    async fn attempt(&mut self, is_over: bool) -> Attempt {
        let offsets = self.read_all().await;
        if self.partitions.iter().all(|reading| reading.failure.is_some()) {
            return Attempt::Done;
        }
        let read_bytes: usize = self.partitions.iter().map(Reading::bytes).sum();
        // What cannot be read is told at once, with what the others have.
        let is_over = is_over
            || offsets
                .iter()
                .any(|(at, _)| self.partitions[*at].failure.is_some());
        let any_open = self.partitions.iter().any(|reading| reading.found.is_some());
        if !is_over && (!any_open || read_bytes < self.limits.min_bytes) {
            return Attempt::TooLittle;
        }
        if self.acquire_all().await > 0 || read_bytes == 0 || is_over {
            return Attempt::Done;
        }
        // Nothing of it was to be had: is there something else?
        for (at, offset) in offsets {
            let Some(reading) = self.partitions.get_mut(at) else {
                continue;
            };
            reading.answer = None;
            let next = reading.start(&self.broker, &self.settings).await;
            if next.ok().flatten().is_some_and(|next| next != offset) {
                return Attempt::Again;
            }
        }
        Attempt::TooLittle
    }

    /// Reads every partition of which something may be acquired; gives where each was read.
    async fn read_all(&mut self) -> Vec<(usize, i64)> {
        let mut offsets = Vec::new();
        for (at, reading) in self.partitions.iter_mut().enumerate() {
            reading.found = None;
            reading.failure = None;
            match reading.start(&self.broker, &self.settings).await {
                Ok(Some(offset)) => offsets.push((at, offset)),
                Ok(None) => {}
                Err(failure) => reading.failure = Some(failure),
            }
        }
        let share_bytes = self.limits.max_bytes / offsets.len().max(1);
        let mut any_read = false;
        for (at, offset) in &offsets {
            let Some(reading) = self.partitions.get_mut(*at) else {
                continue;
            };
            let read = reading
                .read(self.settings.bound, *offset, share_bytes, !any_read)
                .await;
            if let Err(failure) = read {
                reading.failure = Some(failure);
            }
            any_read |= reading.bytes() > 0;
        }
        offsets
    }

    /// Acquires from what was read, in order; gives how many records.
    async fn acquire_all(&mut self) -> i64 {
        let mut count = 0;
        for reading in &mut self.partitions {
            let Some(found) = &reading.found else {
                continue;
            };
            let left = i64::from(self.limits.max_records) - count;
            let ask = Acquire {
                member: self.member.clone(),
                strictly_limited: self.limits.strictly_limited,
                batch_size: self.limits.batch_size,
                max_records: i32::try_from(left).unwrap_or(0),
                fetch_offset: found.offset,
                batches: found.batches(),
                aborted: found.aborted(),
            };
            let acquired = match ask.batches.is_empty() {
                true => Ok(Vec::new()),
                false => {
                    let group = &self.settings.group;
                    self.broker.share.acquire(&reading.key, group, &ask).await
                }
            };
            match acquired {
                Ok(acquired) => {
                    count += acquired.iter().map(|one| one.last - one.first + 1).sum::<i64>();
                    reading.answer = Some(found.answer(reading.at.1, &acquired));
                }
                Err(_) => reading.failure = Some(plain(ErrorCode::CoordinatorNotAvailable)),
            }
        }
        count
    }

    pub(super) fn into_answers(self) -> impl Iterator<Item = (TopicPartition, PartitionData)> {
        self.partitions.into_iter().filter_map(|reading| {
            let index = reading.at.1;
            let data = match reading.failure {
                Some((error, message)) => failed(index, error, message),
                None => reading.answer?,
            };
            Some((reading.at, data))
        })
    }
}
