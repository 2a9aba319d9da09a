//! What a move between directories does to a log: it stops its commits, copies what is there, and goes on
//! as another log in another folder with all that is known of it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use milena_log::{LogError, Producers};

use super::{DiskLog, Position, State};
use crate::cleaner::Progress;
use crate::commit::Committer;
use crate::directory::{Directory, lock};
use crate::disk::Folder;
use crate::segment::Segment;

/// What of a log can be copied from an offset on.
#[derive(Debug)]
pub(crate) struct View {
    /// Where the segment that has the log's start begins: nothing before it is wanted.
    pub(crate) first: i64,
    /// The segment that has the offset, or would have it.
    pub(crate) segment: Arc<Segment>,
    /// How many bytes it has.
    pub(crate) size: u32,
    /// Where the next segment begins.
    pub(crate) after: Option<i64>,
    pub(crate) log_end: i64,
    pub(crate) index_interval_bytes: i32,
}

/// What a log was when its commits were stopped: nothing from `end` on was shown to be durable.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) end: i64,
    pub(crate) log_start: i64,
    pub(crate) producers: Producers,
}

/// Where a log goes on.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) directory: Arc<Directory>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) folder: Arc<Folder>,
    /// At least one; they hold the same records.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// What is below is durable there, with indexes and names.
    pub(crate) durable_end: i64,
}

impl State {
    pub(crate) fn view(&self, next: i64) -> Result<View, LogError> {
        self.open()?;
        let first = self.segments.get(self.segment_at(self.log_start));
        let first = first.map_or(self.log_start, |segment| segment.base_offset);
        let at = self.segment_at(next.max(first));
        let segment = self.segments.get(at).or(self.segments.last());
        let segment = segment.ok_or_else(|| LogError::Storage("the log has no segment".into()))?;
        Ok(View {
            first,
            size: segment.size(),
            segment: Arc::clone(segment),
            after: self.segments.get(at + 1).map(|next| next.base_offset),
            log_end: self.log_end,
            index_interval_bytes: self.config.index_interval_bytes,
        })
    }

    /// Where an empty active segment begins, which no record would tell.
    pub(crate) fn empty_active(&self) -> Option<&Arc<Segment>> {
        self.segments.last().filter(|active| active.size() == 0)
    }
}

/// Where the batch of `offset` begins; the end of the last segment before it when there is none.
fn position_of(segments: &[Arc<Segment>], offset: i64) -> io::Result<Position> {
    let after = segments.partition_point(|segment| segment.base_offset <= offset);
    let segment = segments
        .get(after.saturating_sub(1))
        .ok_or_else(|| io::Error::other("the log has no segment"))?;
    let found = segment.find(offset)?;
    Ok(Position {
        segment: segment.base_offset,
        position: found.map_or(segment.size(), |(position, _)| position),
    })
}

impl DiskLog {
    pub(crate) fn view(&self, next: i64) -> Result<View, LogError> {
        self.online()?;
        lock(&self.state).view(next)
    }

    pub(crate) fn log_end(&self) -> i64 {
        lock(&self.state).log_end
    }

    /// Shows no more of the log to be durable until [`Self::thaw`]; a commit that has begun may still show
    /// what was there until now. Appends and reads go on.
    pub(crate) fn freeze(&self) -> Result<Frozen, LogError> {
        self.online()?;
        let mut state = lock(&self.state);
        state.open()?;
        state.frozen = true;
        Ok(Frozen {
            end: state.log_end,
            log_start: state.log_start,
            producers: state.producers.clone(),
        })
    }

    /// Undoes [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        let mut state = lock(&self.state);
        state.frozen = false;
        let waits = state.closed.is_none() && state.high_watermark < state.log_end && state.note_queued();
        drop(state);
        if waits {
            self.queue();
        }
    }

    /// The log that goes on at the destination as this one, whose state is locked.
    ///
    /// # Errors
    /// When the segments there cannot be read.
    pub(crate) fn relocated(&self, state: &State, to: Destination) -> io::Result<Arc<Self>> {
        let high_position = position_of(&to.segments, state.high_watermark)?;
        let state = State {
            config: Arc::clone(&state.config),
            segments: to.segments,
            log_start: state.log_start,
            log_end: state.log_end,
            producers: state.producers.clone(),
            epochs: state.epochs.clone(),
            high_watermark: state.high_watermark,
            durable_end: to.durable_end,
            recovery_point: to.durable_end,
            queued: false,
            frozen: false,
            // The commits see to the folder's own name.
            named: false,
            last_flush_ms: state.last_flush_ms,
            now_ms: state.now_ms,
            high_position,
            recent: VecDeque::new(),
            snapshots: VecDeque::from([to.durable_end]),
            last_checkpoint_ms: state.now_ms,
            unchecked_bytes: 0,
            changed: true,
            closed: None,
        };
        Ok(Arc::new_cyclic(|this| Self {
            id: self.id.clone(),
            directory: to.directory,
            folder: self.folder.clone(),
            path: to.folder,
            state: Mutex::new(state),
            cleaning: Progress::default(),
            committer: to.committer,
            this: this.clone(),
            observer: Arc::clone(&self.observer),
        }))
    }

    /// Says that another log goes on as this one. Its files stay open for whoever reads them.
    pub(crate) fn retire(&self, mut state: MutexGuard<'_, State>, to: PathBuf) -> io::Result<()> {
        state.closed = Some(LogError::Storage(
            "the replica moved to another log directory".into(),
        ));
        self.path.rename(to)
    }

    /// Has what is not shown yet committed, and the folder's own name with it.
    pub(crate) fn start_commits(&self) {
        let mut state = lock(&self.state);
        state.run_ahead();
        let is_new = state.closed.is_none() && state.note_queued();
        let watermarks = state.watermarks();
        drop(state);
        if is_new {
            self.queue();
        }
        self.observer.advanced(watermarks);
    }
}
