//! One partition on disk.
//!
//! Appends hold the log's lock for the write into the page cache; reads take from it only which
//! segment to look into, and read without it. The high watermark follows the log end at once: one
//! replica, and durability is the operating system's. (With group commit it will follow the sync.)

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use milena_log::{
    ActiveProducer, Append, Appended, BoxFuture, EpochEndOffset, LeaderEpochs, LogConfig, LogError,
    PartitionId, PartitionLog, Prepared, Producers, Read, ReadBound, ReadResult, SequenceCheck,
    TimestampedOffset, WatermarkObserver, Watermarks, prepare,
};
use milena_protocol::records::{Batch, BatchHeader, RecordError};

use crate::directory::{Directory, lock};
use crate::recovery::{self, Loaded, Trust};
use crate::segment::Segment;
use crate::{checkpoint, snapshot};

/// A batch is decompressed for a search by time; it may take this much.
const MOST_SEARCHED_BYTES: usize = 128 * 1024 * 1024;

pub(crate) struct DiskLog {
    pub(crate) id: PartitionId,
    pub(crate) directory: Arc<Directory>,
    /// Name of the folder below the directory.
    pub(crate) folder: String,
    path: PathBuf,
    state: Mutex<State>,
    observer: Arc<dyn WatermarkObserver>,
}

impl std::fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskLog")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    config: Arc<LogConfig>,
    segments: Vec<Arc<Segment>>,
    log_start: i64,
    log_end: i64,
    producers: Producers,
    epochs: LeaderEpochs,
    /// Everything below it has reached the disk.
    recovery_point: i64,
    last_flush_ms: i64,
    /// Where the last read stopped, so that the next one of the same consumer need not search.
    read_hint: Option<ReadHint>,
    closed: Option<LogError>,
}

#[derive(Debug, Clone, Copy)]
struct ReadHint {
    offset: i64,
    base_offset: i64,
    position: u32,
}

pub(crate) fn storage(error: &io::Error) -> LogError {
    LogError::Storage(error.to_string())
}

fn corrupt(error: RecordError) -> LogError {
    LogError::CorruptMessage(error.to_string())
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl State {
    fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            last_stable: self.log_end,
            high_watermark: self.log_end,
            log_end: self.log_end,
        }
    }

    fn open(&self) -> Result<(), LogError> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    fn active(&self) -> Result<&Arc<Segment>, LogError> {
        self.segments
            .last()
            .ok_or_else(|| LogError::Storage("the log has no segment".into()))
    }

    /// The segment that `offset` is in, or would be.
    fn segment_at(&self, offset: i64) -> usize {
        self.segments
            .partition_point(|segment| segment.base_offset <= offset)
            .saturating_sub(1)
    }
}

impl DiskLog {
    pub(crate) fn open(
        id: PartitionId,
        directory: Arc<Directory>,
        config: LogConfig,
        now_ms: i64,
        observer: Arc<dyn WatermarkObserver>,
    ) -> io::Result<Self> {
        let folder = id.to_string();
        let path = directory.path.join(&folder);
        let recovery_point = directory.recovery_point(&folder);
        let trust = Trust {
            clean: directory.was_clean,
            recovery_point,
            log_start: directory.log_start(&folder),
        };
        let Loaded {
            segments,
            log_start,
            log_end,
            producers,
            epochs,
        } = recovery::load(&path, trust, &config, now_ms)?;
        let state = State {
            config: Arc::new(config),
            segments,
            log_start,
            log_end,
            producers,
            epochs,
            recovery_point: recovery_point.min(log_end),
            last_flush_ms: now_ms,
            read_hint: None,
            closed: None,
        };
        Ok(Self {
            id,
            directory,
            folder,
            path,
            state: Mutex::new(state),
            observer,
        })
    }

    fn append_now(&self, append: &Append) -> Result<Appended, LogError> {
        let config = Arc::clone(&lock(&self.state).config);
        let mut prepared = prepare(&config, append)?;
        let mut state = lock(&self.state);
        state.open()?;
        if let SequenceCheck::Duplicate(twin) = state.producers.check(&prepared.header)? {
            return Ok(Appended {
                base_offset: twin.base_offset(),
                last_offset: twin.last_offset,
                log_append_time_ms: if prepared.log_append_time_ms < 0 {
                    -1
                } else {
                    twin.timestamp_ms
                },
                log_start_offset: state.log_start,
                duplicate: true,
            });
        }
        prepared.place(state.log_end, append.leader_epoch);
        if self
            .must_roll(&state, &prepared, append.now_ms)
            .map_err(|error| storage(&error))?
        {
            self.roll(&mut state, append.now_ms)
                .map_err(|error| storage(&error))?;
        }
        state
            .active()?
            .append(&prepared, config.index_interval_bytes)
            .map_err(|error| storage(&error))?;
        let header = prepared.header;
        state.producers.appended(&header);
        state.log_end = header.next_offset();
        if state.epochs.assign(append.leader_epoch, header.base_offset)
            && let Err(error) = checkpoint::write_epochs(&self.path, &state.epochs)
        {
            // Each batch carries its epoch too, from which recovery makes the checkpoint anew.
            tracing::warn!(log = %self.path.display(), %error, "cannot write the leader epochs");
        }
        let unflushed = state
            .log_end
            .saturating_sub(state.recovery_point.max(state.log_start));
        if unflushed >= config.flush_messages {
            self.flush(&mut state, append.now_ms)
                .map_err(|error| storage(&error))?;
        }
        Ok(Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: prepared.log_append_time_ms,
            log_start_offset: state.log_start,
            duplicate: false,
        })
    }

    fn must_roll(&self, state: &State, batch: &Prepared, now_ms: i64) -> io::Result<bool> {
        let Some(active) = state.segments.last() else {
            return Ok(true);
        };
        let config = &state.config;
        let size = i64::from(active.size());
        if size == 0 {
            return Ok(false);
        }
        let full = size.saturating_add(batch.size_bytes() as i64) > i64::from(config.segment_bytes);
        let far = batch.header.last_offset() - active.base_offset > i64::from(i32::MAX);
        let index_bytes = usize::try_from(config.segment_index_bytes).unwrap_or(0);
        let indexed =
            active.offsets.size_bytes() + 8 > index_bytes || active.times.size_bytes() + 12 > index_bytes;
        if full || far || indexed {
            return Ok(true);
        }
        let age = match active.first_timestamp_ms()? {
            Some(first) if batch.max_timestamp_ms >= 0 => batch.max_timestamp_ms.saturating_sub(first),
            _ => now_ms.saturating_sub(active.created_ms),
        };
        Ok(age
            > config
                .segment_ms
                .saturating_sub(self.jitter_ms(config, active.base_offset)))
    }

    /// A time below `segment.jitter.ms` that differs between partitions and segments, so that not
    /// all of them roll at once.
    fn jitter_ms(&self, config: &LogConfig, base_offset: i64) -> i64 {
        let most = config.segment_jitter_ms.min(config.segment_ms);
        if most <= 0 {
            return 0;
        }
        let seed = crc32c::crc32c_append(crc32c::crc32c(self.folder.as_bytes()), &base_offset.to_be_bytes());
        i64::from(seed) % most
    }

    /// Starts a new segment at the log's end.
    fn roll(&self, state: &mut State, now_ms: i64) -> io::Result<()> {
        if let Some(active) = state.segments.last() {
            active.finish_times()?;
        }
        let preallocate = recovery::preallocation(&state.config);
        let segment = Segment::create(&self.path, state.log_end, now_ms, preallocate)?;
        if let Err(error) = snapshot::write(&self.path, state.log_end, &state.producers) {
            // Only costs time: recovery then starts from an earlier snapshot.
            tracing::warn!(log = %self.path.display(), %error, "cannot write a producer snapshot");
        }
        state.segments.push(Arc::new(segment));
        Ok(())
    }

    fn flush(&self, state: &mut State, now_ms: i64) -> io::Result<()> {
        for segment in &state.segments {
            segment.sync()?;
        }
        state.recovery_point = state.log_end;
        state.last_flush_ms = now_ms;
        Ok(())
    }

    fn read_now(&self, read: Read) -> Result<ReadResult, LogError> {
        let (watermarks, mut segments, hint) = {
            let state = lock(&self.state);
            state.open()?;
            let watermarks = state.watermarks();
            let upper = bound_of(&watermarks, read.bound);
            if read.offset < watermarks.log_start || read.offset > watermarks.log_end {
                return Err(LogError::OffsetOutOfRange {
                    offset: read.offset,
                    log_start: watermarks.log_start,
                    upper: watermarks.log_end,
                });
            }
            if read.offset >= upper {
                return Ok(ReadResult {
                    records: Bytes::new(),
                    watermarks,
                    aborted: Vec::new(),
                });
            }
            let at = state.segment_at(read.offset);
            (
                watermarks,
                state.segments[at..].to_vec().into_iter(),
                state.read_hint,
            )
        };
        let upper = bound_of(&watermarks, read.bound);
        // Where records are gone from the end of a segment, the next one has the next of them.
        for segment in &mut segments {
            let hint =
                hint.filter(|hint| hint.offset == read.offset && hint.base_offset == segment.base_offset);
            let found = match hint {
                Some(hint) => segment
                    .header_at(hint.position)
                    .map(|header| header.map(|it| (hint.position, it))),
                None => segment.find(read.offset),
            };
            let Some((position, first)) = found.map_err(|error| storage(&error))? else {
                continue;
            };
            let records = read_batches(&segment, position, &first, &read, upper)?;
            if let Some(last) = records.1 {
                let position = position.saturating_add(u32::try_from(records.0.len()).unwrap_or(u32::MAX));
                lock(&self.state).read_hint = Some(ReadHint {
                    offset: last,
                    base_offset: segment.base_offset,
                    position,
                });
            }
            return Ok(ReadResult {
                records: records.0,
                watermarks,
                aborted: Vec::new(),
            });
        }
        Ok(ReadResult {
            records: Bytes::new(),
            watermarks,
            aborted: Vec::new(),
        })
    }

    /// The first record at or behind `from`, in a batch for whose largest time `wanted` holds, for
    /// whose own time it holds too.
    fn find_time(
        &self,
        segment: &Segment,
        from: i64,
        below: (i64, i64),
        wanted: &dyn Fn(i64) -> bool,
    ) -> Result<Option<TimestampedOffset>, LogError> {
        let Some((mut position, _)) = segment.find(from).map_err(|error| storage(&error))? else {
            return Ok(None);
        };
        let (log_start, upper) = below;
        while let Some(header) = segment.header_at(position).map_err(|error| storage(&error))? {
            if header.base_offset >= upper {
                break;
            }
            if wanted(header.max_timestamp) {
                let bytes = segment
                    .read(position, header.size_bytes())
                    .map_err(|error| storage(&error))?;
                let batch = Batch::parse(&Bytes::from(bytes)).map_err(corrupt)?;
                for record in batch.records(MOST_SEARCHED_BYTES).map_err(corrupt)? {
                    let record = record.map_err(corrupt)?;
                    if record.offset >= log_start && record.offset < upper && wanted(record.timestamp) {
                        return Ok(Some(TimestampedOffset {
                            offset: record.offset,
                            timestamp_ms: record.timestamp,
                            leader_epoch: header.partition_leader_epoch,
                        }));
                    }
                }
            }
            position = position.saturating_add(u32::try_from(header.size_bytes()).unwrap_or(u32::MAX));
        }
        Ok(None)
    }

    fn search(&self, bound: ReadBound) -> Result<(Vec<Arc<Segment>>, (i64, i64)), LogError> {
        let state = lock(&self.state);
        state.open()?;
        let watermarks = state.watermarks();
        let first = state.segment_at(watermarks.log_start);
        Ok((
            state.segments[first..].to_vec(),
            (watermarks.log_start, bound_of(&watermarks, bound)),
        ))
    }

    fn offset_for_timestamp_now(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> Result<Option<TimestampedOffset>, LogError> {
        let (segments, below) = self.search(bound)?;
        for segment in segments {
            if segment
                .max_timestamp()
                .is_none_or(|max| max.timestamp_ms < timestamp_ms)
            {
                continue;
            }
            let from = segment
                .times
                .offset_before(timestamp_ms)
                .map_err(|error| storage(&error))?;
            let found = self.find_time(&segment, from, below, &|timestamp| timestamp >= timestamp_ms)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn max_timestamp_now(&self) -> Result<Option<TimestampedOffset>, LogError> {
        let (segments, below) = self.search(ReadBound::HighWatermark)?;
        let mut best: Option<(Arc<Segment>, crate::index::TimeEntry)> = None;
        for segment in segments {
            if let Some(entry) = segment.max_timestamp()
                && best
                    .as_ref()
                    .is_none_or(|(_, best)| entry.timestamp_ms > best.timestamp_ms)
            {
                best = Some((segment, entry));
            }
        }
        let Some((segment, entry)) = best else {
            return Ok(None);
        };
        self.find_time(&segment, entry.offset, below, &|timestamp| {
            timestamp == entry.timestamp_ms
        })
    }

    fn delete_records_now(&self, before_offset: i64) -> Result<(i64, Option<Watermarks>), LogError> {
        let mut state = lock(&self.state);
        state.open()?;
        let high_watermark = state.watermarks().high_watermark;
        let before = if before_offset == -1 {
            high_watermark
        } else {
            before_offset
        };
        if before < 0 || before > high_watermark {
            return Err(LogError::OffsetOutOfRange {
                offset: before,
                log_start: state.log_start,
                upper: high_watermark,
            });
        }
        if before <= state.log_start {
            return Ok((state.log_start, None));
        }
        // On disk first: what was said to be deleted must not come back.
        self.directory
            .set_log_start(&self.folder, before)
            .map_err(|error| storage(&error))?;
        state.log_start = before;
        let now_ms = state.last_flush_ms;
        self.drop_segments(&mut state, now_ms, |state, at| {
            state
                .segments
                .get(at + 1)
                .map_or(state.log_end, |next| next.base_offset)
                <= state.log_start
        })
        .map_err(|error| storage(&error))?;
        Ok((state.log_start, Some(state.watermarks())))
    }

    /// Takes segments away from the front, as long as `gone` holds. The active one is rolled first.
    fn drop_segments(
        &self,
        state: &mut State,
        now_ms: i64,
        gone: impl Fn(&State, usize) -> bool,
    ) -> io::Result<()> {
        let mut count = 0;
        while count < state.segments.len() && state.segments[count].size() > 0 && gone(state, count) {
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        if count == state.segments.len() {
            self.roll(state, now_ms)?;
        }
        let start = state.segments[count].base_offset.max(state.log_start);
        // A crash between the two leaves segments below the start, which the next run drops.
        if start > self.directory.log_start(&self.folder) {
            self.directory.set_log_start(&self.folder, start)?;
        }
        state.log_start = start;
        state.epochs.truncate_front(start);
        checkpoint::write_epochs(&self.path, &state.epochs)?;
        let due_ms = now_ms.saturating_add(state.config.file_delete_delay_ms);
        for segment in state.segments.drain(..count) {
            self.directory.doom(due_ms, segment.retire()?);
            crate::files::remove_if_there(&snapshot::path(&self.path, segment.base_offset))?;
        }
        Ok(())
    }

    /// Retention by time and size, expiry of producers, `flush.ms`; gives the recovery point.
    pub(crate) fn maintain(&self, now_ms: i64) -> io::Result<i64> {
        let moved;
        let recovery_point;
        {
            let mut state = lock(&self.state);
            if state.closed.is_some() {
                return Ok(state.recovery_point);
            }
            let before = state.watermarks();
            let expiration_ms = state.config.producer_id_expiration_ms;
            state.producers.expire(now_ms, expiration_ms);
            self.retain(&mut state, now_ms)?;
            if now_ms.saturating_sub(state.last_flush_ms) >= state.config.flush_ms {
                self.flush(&mut state, now_ms)?;
            }
            let after = state.watermarks();
            moved = (after != before).then_some(after);
        }
        // Without the lock: a segment that is not the active one does not change any more.
        let rolled = {
            let state = lock(&self.state);
            state.segments[..state.segments.len().saturating_sub(1)].to_vec()
        };
        for segment in &rolled {
            segment.sync()?;
        }
        {
            let mut state = lock(&self.state);
            if let Some(last) = rolled.last()
                && let Some(next) = state
                    .segments
                    .iter()
                    .find(|segment| segment.base_offset > last.base_offset)
            {
                state.recovery_point = state.recovery_point.max(next.base_offset);
            }
            recovery_point = state.recovery_point;
        }
        if let Some(watermarks) = moved {
            self.observer.advanced(watermarks);
        }
        Ok(recovery_point)
    }

    fn retain(&self, state: &mut State, now_ms: i64) -> io::Result<()> {
        let config = Arc::clone(&state.config);
        if config.cleanup_policy.delete {
            if config.retention_ms >= 0 {
                self.drop_segments(state, now_ms, |state, at| {
                    let segment = &state.segments[at];
                    let newest = segment
                        .max_timestamp()
                        .map_or(segment.created_ms, |max| max.timestamp_ms);
                    now_ms.saturating_sub(newest) > config.retention_ms
                })?;
            }
            if let Ok(limit) = u64::try_from(config.retention_bytes) {
                let total: u64 = state
                    .segments
                    .iter()
                    .map(|segment| u64::from(segment.size()))
                    .sum();
                self.drop_segments(state, now_ms, |state, at| {
                    let dropped: u64 = state.segments[..=at]
                        .iter()
                        .map(|segment| u64::from(segment.size()))
                        .sum();
                    total.saturating_sub(dropped) >= limit
                })?;
            }
        }
        self.drop_segments(state, now_ms, |state, at| {
            state
                .segments
                .get(at + 1)
                .is_some_and(|next| next.base_offset <= state.log_start)
        })
    }

    /// Refuses everything from now on.
    pub(crate) fn mark_deleted(&self) {
        let mut state = lock(&self.state);
        state.closed = Some(LogError::Deleted);
        state.segments.clear();
        let watermarks = state.watermarks();
        drop(state);
        self.observer.advanced(watermarks);
    }

    pub(crate) fn file_delete_delay_ms(&self) -> i64 {
        lock(&self.state).config.file_delete_delay_ms
    }

    /// Makes everything durable so that the next start trusts it; gives the recovery point.
    pub(crate) fn close(&self) -> io::Result<i64> {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            return Ok(state.recovery_point);
        }
        if let Some(active) = state.segments.last() {
            active.finish_times()?;
        }
        let now_ms = state.last_flush_ms;
        self.flush(&mut state, now_ms)?;
        snapshot::write(&self.path, state.log_end, &state.producers)?;
        state.closed = Some(LogError::Storage("the broker is shutting down".into()));
        Ok(state.log_end)
    }
}

fn bound_of(watermarks: &Watermarks, bound: ReadBound) -> i64 {
    match bound {
        ReadBound::HighWatermark => watermarks.high_watermark,
        ReadBound::LastStable => watermarks.last_stable,
    }
}

/// Whole batches from `position` on that are below `upper`, and the offset that follows them.
fn read_batches(
    segment: &Segment,
    position: u32,
    first: &BatchHeader,
    read: &Read,
    upper: i64,
) -> Result<(Bytes, Option<i64>), LogError> {
    let length = if read.at_least_one_batch {
        read.max_bytes.max(first.size_bytes())
    } else {
        read.max_bytes
    };
    if length < first.size_bytes() {
        return Ok((Bytes::new(), None));
    }
    let mut bytes = segment.read(position, length).map_err(|error| storage(&error))?;
    let (mut end, mut next) = (0, None);
    while let Ok(header) = BatchHeader::parse(&bytes[end..]) {
        let after = end + header.size_bytes();
        if after > bytes.len() || header.base_offset >= upper {
            break;
        }
        end = after;
        next = Some(header.next_offset());
    }
    bytes.truncate(end);
    if bytes.capacity() > 2 * end {
        bytes.shrink_to_fit();
    }
    Ok((Bytes::from(bytes), next))
}

impl PartitionLog for DiskLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, LogError>> {
        let appended = self.append_now(&append);
        if appended.as_ref().is_ok_and(|appended| !appended.duplicate) {
            self.observer.advanced(self.watermarks());
        }
        ready(appended)
    }

    fn read(&self, read: Read) -> BoxFuture<'static, Result<ReadResult, LogError>> {
        ready(self.read_now(read))
    }

    fn watermarks(&self) -> Watermarks {
        lock(&self.state).watermarks()
    }

    fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        ready(self.offset_for_timestamp_now(timestamp_ms, bound))
    }

    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        ready(self.max_timestamp_now())
    }

    fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset> {
        let state = lock(&self.state);
        state.epochs.end_offset(leader_epoch, state.log_end)
    }

    fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        lock(&self.state).epochs.epoch_for(offset)
    }

    fn delete_records(&self, before_offset: i64) -> BoxFuture<'static, Result<i64, LogError>> {
        let deleted = self.delete_records_now(before_offset);
        if let Ok((_, Some(watermarks))) = &deleted {
            self.observer.advanced(*watermarks);
        }
        ready(deleted.map(|(log_start, _)| log_start))
    }

    fn producers(&self) -> Vec<ActiveProducer> {
        lock(&self.state).producers.active()
    }

    fn size_bytes(&self) -> u64 {
        lock(&self.state)
            .segments
            .iter()
            .map(|segment| u64::from(segment.size()))
            .sum()
    }

    fn update_config(&self, config: LogConfig) {
        lock(&self.state).config = Arc::new(config);
    }
}
