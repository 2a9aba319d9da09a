//! One partition on disk.
//!
//! Appends hold the log's lock for the write into the page cache; reads take from it only which
//! segment to look into, and read without it. With `durability=disk` the high watermark follows the
//! sync (see [`crate::commit`]), so nobody reads what a power cut could take back; with
//! `durability=os` it follows the log end, as far as `flush.messages` allows.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use milena_log::{
    ActiveProducer, Durability, EpochEndOffset, LeaderEpochs, LogConfig, LogError, PartitionId, Producers,
    ReadBound, StartVerification, VerificationGuard, WatermarkObserver, Watermarks,
};

use crate::cleaner::Progress;
use crate::commit::Committer;
use crate::directory::{Directory, lock};
use crate::disk::Folder;
use crate::journal::Part;
use crate::recovery::{self, Loaded, Trust};
use crate::segment::Segment;
use crate::{files, snapshot};

mod append;
mod read;
mod relocate;

use read::{Position, Recent};
pub(crate) use relocate::{Destination, Frozen, View};

/// A log of which more than this waits is synced in its own place.
const MOST_JOURNALED_BYTES: u32 = 32 * 1024;

pub(crate) struct DiskLog {
    pub(crate) id: PartitionId,
    pub(crate) directory: Arc<Directory>,
    /// Name of the folder below the directory.
    pub(crate) folder: String,
    pub(crate) path: Arc<Folder>,
    pub(crate) state: Mutex<State>,
    pub(crate) cleaning: Progress,
    committer: Arc<Committer>,
    /// For the committer's queue.
    this: Weak<Self>,
    pub(crate) observer: Arc<dyn WatermarkObserver>,
}

impl std::fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskLog")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Arc<LogConfig>,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) log_start: i64,
    pub(crate) log_end: i64,
    pub(crate) producers: Producers,
    pub(crate) epochs: LeaderEpochs,
    /// Readers see what is below it.
    high_watermark: i64,
    /// Every record below it has reached the disk.
    pub(crate) durable_end: i64,
    /// The next start trusts everything below it, indexes too.
    pub(crate) recovery_point: i64,
    /// The log waits for its commit.
    queued: bool,
    /// The log is about to move: nothing is committed until it has.
    frozen: bool,
    /// Whether the folder's own name and topic have reached the disk.
    named: bool,
    pub(crate) last_flush_ms: i64,
    /// The latest time that somebody told, for work that brings none.
    pub(crate) now_ms: i64,
    /// Where the bytes that readers see end.
    high_position: Position,
    /// The newest batches, in which readers that keep up find theirs without a search.
    recent: VecDeque<Recent>,
    /// Offsets of the newest producer snapshots that no segment starts at.
    pub(crate) snapshots: VecDeque<i64>,
    pub(crate) last_checkpoint_ms: i64,
    /// Bytes appended since the last checkpoint.
    pub(crate) unchecked_bytes: u64,
    /// See [`DiskLog::is_changed`].
    changed: bool,
    pub(crate) closed: Option<LogError>,
}

/// What waits for a commit.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The partition's folder, until its own name is on the disk.
    folder: Option<Arc<Folder>>,
    segments: Vec<(u32, Arc<Segment>)>,
    end: i64,
    position: Position,
}

impl Pending {
    /// Adds what has to be made durable, if so little of it is left to do that the journal is the way.
    pub(crate) fn add_parts<'a>(&'a self, log: &'a DiskLog, parts: &mut Vec<Part<'a>>) -> bool {
        let is_named = self.folder.is_none() && self.segments.iter().all(|(_, segment)| segment.is_named());
        let bytes: u32 = self
            .segments
            .iter()
            .map(|(size, segment)| size.saturating_sub(segment.durable()))
            .sum();
        if !is_named || bytes > MOST_JOURNALED_BYTES {
            return false;
        }
        let ends = self.segments.iter().skip(1).map(|(_, next)| next.base_offset);
        for ((to, segment), end) in self.segments.iter().zip(ends.chain([self.end])) {
            let from = segment.durable();
            if from < *to {
                parts.push(Part {
                    folder: &log.folder,
                    topic_id: log.id.topic_id,
                    segment,
                    end,
                    from,
                    to: *to,
                });
            }
        }
        true
    }

    /// Syncs each file. Waits for the disk, and holds no lock.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.segments.iter().try_for_each(|(_, segment)| segment.sync())?;
        self.folder.as_deref().map_or(Ok(()), files::sync_partition)
    }
}

/// Where what was committed has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    InPlace,
    InJournal,
}

pub(crate) fn storage(error: &io::Error) -> LogError {
    LogError::Storage(error.to_string())
}

impl State {
    pub(crate) fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            last_stable: self
                .producers
                .first_unstable()
                .map_or(self.high_watermark, |first| {
                    first.max(self.log_start).min(self.high_watermark)
                }),
            high_watermark: self.high_watermark,
            log_end: self.log_end,
        }
    }

    pub(crate) fn open(&self) -> Result<(), LogError> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    fn unflushed(&self) -> i64 {
        self.log_end - self.durable_end.max(self.log_start)
    }

    /// Whether everything that was appended may be seen before it is on the disk.
    fn may_run_ahead(&self) -> bool {
        self.config.durability == Durability::Os && self.unflushed() < self.config.flush_messages
    }

    /// Whether every record of a segment may be read, so that retention may take it.
    pub(crate) fn may_be_dropped(&self, at: usize) -> bool {
        let end = self
            .segments
            .get(at + 1)
            .map_or(self.log_end, |next| next.base_offset);
        // Compaction can leave a segment empty; the active one is empty until it is written.
        let is_active = at + 1 >= self.segments.len();
        let has_records = self.segments.get(at).is_some_and(|segment| segment.size() > 0);
        (has_records || !is_active) && end <= self.high_watermark
    }

    fn move_high_watermark(&mut self, offset: i64, position: Position) {
        if offset > self.high_watermark {
            self.high_watermark = offset;
            self.high_position = position;
            self.producers.reached(offset);
        }
    }

    /// Notes that the log waits for its commit; whether it did not before.
    pub(crate) fn note_queued(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    /// Lets readers see the log's end, if that need not be on the disk.
    fn run_ahead(&mut self) {
        if self.may_run_ahead() {
            self.move_high_watermark(self.log_end, self.end_position());
        }
    }

    /// Forgets places in the files of segments below `segment`, which are others now.
    pub(crate) fn forget_places_below(&mut self, segment: i64) {
        self.recent.retain(|batch| batch.at.segment >= segment);
        if self.high_position.segment < segment {
            self.high_position = Position { segment, position: 0 };
        }
    }

    /// The segments that hold something that may not be on the disk.
    pub(crate) fn unsynced(&self) -> Vec<Arc<Segment>> {
        let synced = self
            .segments
            .iter()
            .rposition(|segment| segment.is_synced() && segment.size() > 0);
        self.segments[synced.map_or(0, |at| at + 1)..].to_vec()
    }

    fn active(&self) -> Result<&Arc<Segment>, LogError> {
        self.segments
            .last()
            .ok_or_else(|| LogError::Storage("the log has no segment".into()))
    }

    fn segment_after(&self, base_offset: i64) -> Option<Arc<Segment>> {
        let after = self
            .segments
            .partition_point(|segment| segment.base_offset <= base_offset);
        self.segments.get(after).cloned()
    }

    /// The segment that `offset` is in, or would be.
    pub(crate) fn segment_at(&self, offset: i64) -> usize {
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
        committer: Arc<Committer>,
    ) -> io::Result<Arc<Self>> {
        let folder = id.to_string();
        let path = directory.folder(&folder);
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
        let recovered = !trust.clean && log_end > trust.recovery_point;
        if config.durability == Durability::Disk && recovered {
            // Whoever reads it from now on is told that it is there.
            for segment in segments.iter().filter(|segment| segment.size() > 0) {
                segment.sync()?;
            }
            files::sync_partition(&path)?;
        }
        // A start looks into every log, most of which are quiet then.
        segments.iter().for_each(|segment| segment.close());
        let durable_end = match config.durability {
            Durability::Os if recovered => recovery_point.min(log_end),
            _ => log_end,
        };
        // Its indexes were made anew, and are not on the disk.
        let changed = recovered || segments.iter().any(|segment| !segment.is_synced());
        let high_position = segments.last().map_or(
            Position {
                segment: 0,
                position: 0,
            },
            |active| Position {
                segment: active.base_offset,
                position: active.size(),
            },
        );
        let state = State {
            changed,
            config: Arc::new(config),
            segments,
            log_start,
            log_end,
            producers,
            epochs,
            high_watermark: log_end,
            durable_end,
            recovery_point: recovery_point.min(log_end),
            queued: false,
            frozen: false,
            named: false,
            last_flush_ms: now_ms,
            now_ms,
            high_position,
            recent: VecDeque::new(),
            snapshots: VecDeque::new(),
            last_checkpoint_ms: now_ms,
            unchecked_bytes: 0,
            closed: None,
        };
        Ok(Arc::new_cyclic(|this| Self {
            id,
            directory,
            folder,
            path,
            state: Mutex::new(state),
            cleaning: Progress::default(),
            committer,
            this: this.clone(),
            observer,
        }))
    }

    /// Has the log committed soon, after [`State::note_queued`] said that it is not in the queue yet.
    pub(crate) fn queue(&self) {
        if let Some(log) = self.this.upgrade() {
            self.committer.push(log);
        }
    }

    pub(crate) fn is_in(&self, directory: &Directory) -> bool {
        std::ptr::eq(&raw const *self.directory, directory)
    }

    pub(crate) fn online(&self) -> Result<(), LogError> {
        match self.directory.failure() {
            None => Ok(()),
            Some(why) => Err(LogError::Storage(why.to_owned())),
        }
    }

    /// What has to be synced for the high watermark to reach the log's end.
    pub(crate) fn begin_commit(&self) -> Option<Pending> {
        let mut state = lock(&self.state);
        state.queued = false;
        if state.closed.is_some() || state.frozen {
            return None;
        }
        let unsynced = state.unsynced();
        Some(Pending {
            folder: (!state.named).then(|| Arc::clone(&self.path)),
            segments: unsynced
                .into_iter()
                .map(|segment| (segment.size(), segment))
                .collect(),
            end: state.log_end,
            position: state.end_position(),
        })
    }

    /// Moves the high watermark after the sync, or takes the directory offline.
    pub(crate) fn end_commit(&self, pending: &Pending, synced: &io::Result<Synced>) {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            // The files of a deleted log may be gone.
            return;
        }
        if let Err(error) = synced {
            self.directory.fail(error);
        }
        if self.directory.failure().is_some() {
            drop(state);
            self.observer.failed();
            return;
        }
        if matches!(synced, Ok(Synced::InPlace)) {
            for (size, segment) in &pending.segments {
                segment.mark_synced_to(*size);
            }
            state.named = true;
        }
        state.durable_end = state.durable_end.max(pending.end);
        state.last_flush_ms = state.now_ms;
        state.move_high_watermark(pending.end, pending.position);
        state.run_ahead();
        let watermarks = state.watermarks();
        drop(state);
        self.observer.advanced(watermarks);
    }

    /// Starts a new segment at the log's end.
    pub(crate) fn roll(&self, state: &mut State, now_ms: i64) -> io::Result<()> {
        if let Some(active) = state.segments.last() {
            active.finish_times()?;
            // Also where preallocate was true only when the segment was started.
            active.release_preallocated()?;
            if state.recovery_point >= state.log_end {
                // The next start trusts all of it then, and a recovery may have made its indexes anew.
                active.sync_indexes()?;
            }
        }
        let preallocate = recovery::preallocation(&state.config);
        let segment = Segment::create(&self.path, state.log_end, now_ms, preallocate)
            .inspect_err(|_| self.discard_segment(state.log_end))?;
        if let Err(error) = snapshot::write(&self.path, state.log_end, &state.producers) {
            // Only costs time: recovery then starts from an earlier snapshot.
            tracing::warn!(log = %self.path.display(), %error, "cannot write a producer snapshot");
        }
        state.segments.push(Arc::new(segment));
        Ok(())
    }

    /// Removes what there is of a segment that could not be started. The log goes on in the one before,
    /// and the next start must not take it that that one ends here.
    fn discard_segment(&self, base_offset: i64) {
        let removed = files::SEGMENT.iter().try_for_each(|extension| {
            let file = files::segment_file(&self.path, base_offset, extension);
            self.path.disk.remove(&file)
        });
        if let Err(error) = removed.and_then(|()| self.path.disk.sync_folder(&self.path)) {
            self.directory.fail(&error);
        }
    }

    /// Why a read failed: a log that was deleted meanwhile has no files any more.
    pub(crate) fn failed(&self, error: &io::Error) -> LogError {
        lock(&self.state).closed.clone().unwrap_or_else(|| storage(error))
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

    /// The latest time that somebody told, and `file.delete.delay.ms`.
    pub(crate) fn deletion_delay(&self) -> (i64, i64) {
        let state = lock(&self.state);
        (state.now_ms, state.config.file_delete_delay_ms)
    }

    /// Whether anything was appended, or had to be recovered, in this run.
    pub(crate) fn is_changed(&self) -> bool {
        lock(&self.state).changed
    }

    /// Writes down all that the next start trusts, and refuses everything from now on; gives the
    /// recovery point. With `sync` it is on the disk then; without, the caller sees to that.
    pub(crate) fn close(&self, sync: bool) -> io::Result<i64> {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            return Ok(state.recovery_point);
        }
        if let Some(why) = self.directory.failure() {
            return Err(io::Error::other(why.to_owned()));
        }
        if state.changed {
            for segment in &state.segments {
                segment.finish_times()?;
                if sync {
                    segment.sync()?;
                    segment.sync_indexes()?;
                } else {
                    segment.flush_indexes()?;
                }
            }
            if sync && !state.named {
                files::sync_partition(&self.path)?;
            }
            snapshot::write(&self.path, state.log_end, &state.producers)?;
        }
        state.recovery_point = state.log_end;
        state.closed = Some(LogError::Storage("the broker is shutting down".into()));
        state.segments.iter().for_each(|segment| segment.close());
        Ok(state.log_end)
    }
}

/// Whether an error is one that passes when there is room again.
pub(crate) fn is_out_of_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Takes it that what found no room need not be done.
pub(crate) fn unless_full(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if is_out_of_room(&error) => Ok(()),
        other => other,
    }
}

pub(crate) fn bound_of(watermarks: &Watermarks, bound: ReadBound) -> i64 {
    match bound {
        ReadBound::HighWatermark => watermarks.high_watermark,
        ReadBound::LastStable => watermarks.last_stable,
    }
}

impl DiskLog {
    pub(crate) fn start_verification(
        &self,
        start: &StartVerification,
    ) -> Result<Option<VerificationGuard>, LogError> {
        self.online()?;
        let mut state = lock(&self.state);
        state.open()?;
        state.producers.start_verification(start)
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        lock(&self.state).watermarks()
    }

    pub(crate) fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset> {
        let state = lock(&self.state);
        state.epochs.end_offset(leader_epoch, state.log_end)
    }

    pub(crate) fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        lock(&self.state).epochs.epoch_for(offset)
    }

    pub(crate) fn producers(&self) -> Vec<ActiveProducer> {
        lock(&self.state).producers.active()
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        lock(&self.state)
            .segments
            .iter()
            .map(|segment| u64::from(segment.size()))
            .sum()
    }

    /// Gives the watermarks, of which readers may see more now.
    pub(crate) fn update_config(&self, config: Arc<LogConfig>) -> Watermarks {
        let mut state = lock(&self.state);
        state.config = config;
        state.run_ahead();
        state.watermarks()
    }

    /// Whether it was neither deleted nor closed, and did not move away.
    pub(crate) fn is_open(&self) -> bool {
        lock(&self.state).closed.is_none()
    }

    pub(crate) fn check(&self) -> Result<(), LogError> {
        self.online()?;
        lock(&self.state).open()
    }
}
