//! What leaves a log, and the work that time asks for: DeleteRecords, retention by time and size,
//! expiry of producers, `flush.ms`.

use std::io;
use std::sync::Arc;

use milena_log::{LogError, Watermarks};

use crate::directory::lock;
use crate::log::{DiskLog, State, is_out_of_room, storage, unless_full};
use crate::segment::Segment;

/// Behind the recovery point there is not much more than this for a start after a crash to read.
const MOST_UNCHECKED_BYTES: u64 = 64 * 1024 * 1024;
use crate::{checkpoint, snapshot};

impl DiskLog {
    pub(crate) fn delete_records_now(
        &self,
        before_offset: i64,
    ) -> Result<(i64, Option<Watermarks>), LogError> {
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
        let now_ms = state.now_ms;
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
        while count < state.segments.len() && state.may_be_dropped(count) && gone(state, count) {
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        if count == state.segments.len()
            && let Err(error) = self.roll(state, now_ms)
        {
            // Without room for another one the active segment stays.
            count -= 1;
            if count == 0 || !is_out_of_room(&error) {
                return Err(error);
            }
        }
        let start = state.segments[count].base_offset.max(state.log_start);
        // A crash between the two leaves segments below the start, which the next run drops. Without room
        // the log starts with its first segment all the same: what makes room must not need any.
        if start > self.directory.log_start(&self.folder) {
            unless_full(self.directory.set_log_start(&self.folder, start))?;
        }
        state.log_start = start;
        state.epochs.truncate_front(start);
        // Each start cuts them there, too.
        unless_full(checkpoint::write_epochs(&self.path, &state.epochs))?;
        let due_ms = now_ms.saturating_add(state.config.file_delete_delay_ms);
        for segment in state.segments.drain(..count) {
            self.directory.doom(due_ms, segment.retire()?);
            self.path
                .disk
                .remove(&snapshot::path(&self.path, segment.base_offset))?;
        }
        Ok(())
    }

    /// Expiry of producers, `flush.ms`, and retention by time and size if that is to be looked at;
    /// gives the recovery point.
    pub(crate) fn maintain(&self, now_ms: i64, checkpoint_interval_ms: i64, retain: bool) -> io::Result<i64> {
        let mut state = lock(&self.state);
        if state.closed.is_some() || self.directory.failure().is_some() {
            return Ok(state.recovery_point);
        }
        state.now_ms = state.now_ms.max(now_ms);
        for segment in &state.segments {
            segment.close_if_idle();
        }
        let before = state.watermarks();
        if retain {
            let expiration_ms = state.config.producer_id_expiration_ms;
            state.producers.expire(now_ms, expiration_ms);
            self.retain(&mut state, now_ms)?;
        }
        let flush_is_due = now_ms.saturating_sub(state.last_flush_ms) >= state.config.flush_ms;
        let is_new = flush_is_due && state.durable_end < state.log_end && state.note_queued();
        let after = state.watermarks();
        let recovery_point = state.recovery_point;
        let checkpoint_is_due = now_ms.saturating_sub(state.last_checkpoint_ms) >= checkpoint_interval_ms
            || state.unchecked_bytes >= MOST_UNCHECKED_BYTES;
        drop(state);
        if is_new {
            self.queue();
        }
        if after != before {
            self.observer.advanced(after);
        }
        if checkpoint_is_due {
            self.checkpoint(now_ms)
        } else {
            Ok(recovery_point)
        }
    }

    /// Moves the recovery point to the durable end, so that the next start need not look at what is
    /// below it. The syncs are done without the lock.
    pub(crate) fn checkpoint(&self, now_ms: i64) -> io::Result<i64> {
        let (segments, durable_end) = {
            let mut state = lock(&self.state);
            state.last_checkpoint_ms = now_ms;
            state.unchecked_bytes = 0;
            if state.closed.is_some() || state.recovery_point >= state.log_end {
                return Ok(state.recovery_point);
            }
            if let Some(active) = state.segments.last() {
                active.finish_times()?;
            }
            self.write_snapshot(&mut state);
            let from = state.segment_at(state.recovery_point);
            (state.segments[from..].to_vec(), state.durable_end)
        };
        let Some((active, rolled)) = segments.split_last() else {
            return Ok(0);
        };
        let mut synced = rolled.iter().try_for_each(|segment| segment.sync());
        if active.is_journaled() {
            synced = synced.and_then(|()| active.sync());
        }
        // What was journaled since is not in its own place yet.
        let durable_end = durable_end.max(active.base_offset);
        if synced.is_ok() {
            let mut state = lock(&self.state);
            state.durable_end = state.durable_end.max(durable_end);
        }
        let is_synced = synced.is_ok();
        let synced = synced.and_then(|()| segments.iter().try_for_each(|segment| segment.sync_indexes()));
        let mut state = lock(&self.state);
        if let Err(error) = synced {
            // The files of what was deleted meanwhile may be gone.
            let is_there = |segment: &Arc<Segment>| state.segments.iter().any(|it| Arc::ptr_eq(it, segment));
            // Index entries that find no room are kept for a later checkpoint.
            let passes = is_synced && is_out_of_room(&error);
            if !passes && state.closed.is_none() && segments.iter().all(is_there) {
                self.directory.fail(&error);
            }
            return Err(error);
        }
        state.recovery_point = state.recovery_point.max(durable_end);
        Ok(state.recovery_point)
    }

    /// Keeps what is known of the producers, so that the next start reads the log from here only. The
    /// newest but one stays too: the log may turn out shorter than it seems now.
    fn write_snapshot(&self, state: &mut State) {
        let offset = state.log_end;
        if state.snapshots.back() == Some(&offset) {
            return;
        }
        if let Err(error) = snapshot::write(&self.path, offset, &state.producers) {
            tracing::warn!(log = %self.path.display(), %error, "cannot write a producer snapshot");
            return;
        }
        state.snapshots.push_back(offset);
        if state.snapshots.len() > 2
            && let Some(old) = state.snapshots.pop_front()
            && state.segments.iter().all(|segment| segment.base_offset != old)
            && let Err(error) = self.path.disk.remove(&snapshot::path(&self.path, old))
        {
            tracing::warn!(log = %self.path.display(), %error, "cannot remove an old producer snapshot");
        }
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
}
