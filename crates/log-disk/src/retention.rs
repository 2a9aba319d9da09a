//! What leaves a log, and the work that time asks for: DeleteRecords, retention by time and size,
//! expiry of producers, `flush.ms`.

use std::io;
use std::sync::Arc;

use milena_log::{LogError, Watermarks};

use crate::directory::lock;
use crate::log::{DiskLog, State, storage};
use crate::segment::Segment;
use crate::{checkpoint, files, snapshot};

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
            files::remove_if_there(&snapshot::path(&self.path, segment.base_offset))?;
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
            state.now_ms = state.now_ms.max(now_ms);
            for segment in &state.segments {
                segment.close_if_idle();
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
            let rolled = &state.segments[..state.segments.len().saturating_sub(1)];
            let unsynced = rolled.iter().filter(|segment| !segment.is_synced());
            unsynced.cloned().collect::<Vec<Arc<Segment>>>()
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
}
