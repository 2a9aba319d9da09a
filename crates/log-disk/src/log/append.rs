//! Appending: the checks that need the log, the place of a batch, and the write. A marker that ends a
//! transaction is appended in the same way as what producers send.

use std::io;
use std::sync::{Arc, MutexGuard};

use milena_log::{
    Append, Appended, EndTransaction, LogConfig, LogError, Prepared, SequenceCheck, Watermarks, marker_of,
    prepare, prepare_marker,
};
use milena_protocol::records::EndTransactionMarker;

use super::{DiskLog, State, is_out_of_room, storage};
use crate::checkpoint;
use crate::directory::lock;

/// What goes with a batch that is written.
struct Place {
    leader_epoch: i32,
    now_ms: i64,
    marker: Option<EndTransactionMarker>,
}

impl DiskLog {
    /// Also gives the watermarks, if readers see more now.
    pub(crate) fn append_now(&self, append: &Append) -> Result<(Appended, Option<Watermarks>), LogError> {
        self.online()?;
        let config = Arc::clone(&lock(&self.state).config);
        let prepared = prepare(&config, append)?;
        let mut state = lock(&self.state);
        state.open()?;
        state.now_ms = state.now_ms.max(append.now_ms);
        if let SequenceCheck::Duplicate(twin) =
            state.producers.check(&prepared.header, append.verification)?
        {
            let appended = Appended {
                base_offset: twin.base_offset(),
                last_offset: twin.last_offset,
                log_append_time_ms: twin.timestamp_ms,
                log_start_offset: state.log_start,
                duplicate: true,
            };
            return Ok((appended, None));
        }
        let place = Place {
            leader_epoch: append.leader_epoch,
            now_ms: append.now_ms,
            marker: None,
        };
        self.write(state, prepared, &place)
    }

    /// As [`Self::append_now`], for the end of a transaction.
    pub(crate) fn end_transaction_now(
        &self,
        end: &EndTransaction,
    ) -> Result<(Appended, Option<Watermarks>), LogError> {
        self.online()?;
        let mut state = lock(&self.state);
        state.open()?;
        state.now_ms = state.now_ms.max(end.now_ms);
        state.producers.check_end(end)?;
        let prepared = prepare_marker(&state.config, end);
        let place = Place {
            leader_epoch: end.leader_epoch,
            now_ms: end.now_ms,
            marker: Some(marker_of(end)),
        };
        self.write(state, prepared, &place)
    }

    fn write(
        &self,
        mut state: MutexGuard<'_, State>,
        mut prepared: Prepared,
        place: &Place,
    ) -> Result<(Appended, Option<Watermarks>), LogError> {
        prepared.place(state.log_end, place.leader_epoch);
        if self
            .must_roll(&state, &prepared, place.now_ms)
            .map_err(|error| storage(&error))?
        {
            self.roll(&mut state, place.now_ms)
                .map_err(|error| self.write_failed(&error))?;
        }
        state.changed = true;
        let at = state.end_position();
        state
            .active()?
            .append(&prepared, state.config.index_interval_bytes)
            .map_err(|error| self.write_failed(&error))?;
        let header = prepared.header;
        state.note_recent(&header, at);
        let aborted = state.producers.appended(&header, place.marker);
        if let Some(aborted) = aborted
            && let Err(error) = state.active()?.aborted.push(&aborted)
        {
            // It is held back and written with a later one; recovery makes it anew from the log.
            tracing::warn!(log = %self.path.display(), %error, "cannot write to the index of aborted transactions");
        }
        state.log_end = header.next_offset();
        if state.epochs.assign(place.leader_epoch, header.base_offset)
            && let Err(error) = checkpoint::write_epochs(&self.path, &state.epochs)
        {
            // Each batch carries its epoch too, from which recovery makes the checkpoint anew.
            tracing::warn!(log = %self.path.display(), %error, "cannot write the leader epochs");
        }
        let before = state.high_watermark;
        state.run_ahead();
        let advanced = (state.high_watermark > before).then(|| state.watermarks());
        state.unchecked_bytes += prepared.size_bytes() as u64;
        let waits = !state.may_run_ahead();
        let is_new = waits && state.note_queued();
        let log_start_offset = state.log_start;
        // The committer is told when it can have the log at once.
        drop(state);
        if is_new {
            self.queue();
        }
        if waits {
            self.committer.note_append();
        }
        let appended = Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: prepared.log_append_time_ms,
            log_start_offset,
            duplicate: false,
        };
        Ok((appended, advanced))
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
            // A record without a time does not roll a segment that goes by its records' times.
            Some(_) => -1,
            None => now_ms.saturating_sub(active.created_ms),
        };
        Ok(age
            > config
                .max_segment_ms()
                .saturating_sub(self.jitter_ms(config, active.base_offset)))
    }

    /// A time below `segment.jitter.ms` that differs between partitions and segments, so that not
    /// all of them roll at once.
    fn jitter_ms(&self, config: &LogConfig, base_offset: i64) -> i64 {
        let most = config.segment_jitter_ms.min(config.max_segment_ms());
        if most <= 0 {
            return 0;
        }
        let seed = crc32c::crc32c_append(crc32c::crc32c(self.folder.as_bytes()), &base_offset.to_be_bytes());
        i64::from(seed) % most
    }

    /// Why a write failed. Without room it is tried again with the next one; after any other error
    /// the directory is offline.
    fn write_failed(&self, error: &io::Error) -> LogError {
        if !is_out_of_room(error) {
            self.directory.fail(error);
        }
        storage(error)
    }
}
