//! Which log is to be compacted next, and which part of it.
//!
//! A log is due when enough of it is dirty (`min.cleanable.dirty.ratio`), when something in it has
//! been dirty for too long (`max.compaction.lag.ms`), or when tombstones may go that the last
//! cleaning had to leave. (Kafka leaves the last to the next cleaning, which a quiet log never gets.)

use std::io;
use std::sync::Arc;

use milena_log::LogConfig;

use crate::directory::lock;
use crate::log::DiskLog;
use crate::segment::Segment;

/// A log that is due.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) config: Arc<LogConfig>,
    /// All segments below the first uncleanable offset.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) first_dirty: i64,
    /// Base offset of the segment from which on nothing may be touched.
    pub(crate) first_uncleanable: i64,
    pub(crate) dirty_ratio: f64,
}

fn newest_ms(segment: &Segment) -> i64 {
    segment
        .max_timestamp()
        .map_or(segment.created_ms, |max| max.timestamp_ms)
}

/// Whether something dirty has waited for `max.compaction.lag.ms`.
fn waited_too_long(dirty: &[Arc<Segment>], config: &LogConfig, now_ms: i64) -> io::Result<bool> {
    let until_ms = now_ms.saturating_sub(config.max_compaction_lag_ms.max(0));
    if until_ms <= 0 {
        return Ok(false);
    }
    for segment in dirty {
        if segment
            .first_timestamp_ms()?
            .is_some_and(|first| first > 0 && first < until_ms)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

impl DiskLog {
    /// What of the log is to be compacted, if it is due.
    pub(crate) fn candidate(&self, now_ms: i64) -> io::Result<Option<Candidate>> {
        let state = lock(&self.state);
        let config = Arc::clone(&state.config);
        if !config.cleanup_policy.compact || state.closed.is_some() || self.directory.failure().is_some() {
            return Ok(None);
        }
        let Some((active, rolled)) = state.segments.split_last() else {
            return Ok(None);
        };
        let known = self.directory.first_dirty(&self.folder);
        let first_dirty = known
            .filter(|known| (state.log_start..=state.log_end).contains(known))
            .unwrap_or(state.log_start);
        let lag_ms = config.min_compaction_lag_ms.max(0);
        let too_new = rolled.iter().enumerate().find(|(at, segment)| {
            let end = rolled
                .get(at + 1)
                .map_or(active.base_offset, |next| next.base_offset);
            lag_ms > 0 && end > first_dirty && newest_ms(segment) > now_ms.saturating_sub(lag_ms)
        });
        let uncleanable = state.watermarks().last_stable.min(active.base_offset);
        let uncleanable = too_new.map_or(uncleanable, |(_, segment)| uncleanable.min(segment.base_offset));
        let end = state.segment_at(uncleanable.max(first_dirty));
        let first_uncleanable = state.segments[end].base_offset;
        let segments = state.segments[..end].to_vec();
        let dirty_from = state.segment_at(first_dirty).min(end);
        drop(state);
        let bytes = |segments: &[Arc<Segment>]| -> u64 {
            segments.iter().map(|segment| u64::from(segment.size())).sum()
        };
        let dirty = &segments[dirty_from..];
        let clean = segments.partition_point(|segment| segment.base_offset < first_dirty);
        let dirty_bytes = bytes(dirty);
        let total = bytes(&segments[..clean]) + dirty_bytes;
        let dirty_ratio = if total == 0 {
            0.0
        } else {
            dirty_bytes as f64 / total as f64
        };
        let due = dirty_ratio > config.min_cleanable_dirty_ratio
            || (dirty_bytes > 0 && waited_too_long(dirty, &config, now_ms)?)
            || (total > 0 && self.cleaning.horizon_ms() <= now_ms);
        Ok(due.then_some(Candidate {
            config,
            segments,
            first_dirty,
            first_uncleanable,
            dirty_ratio,
        }))
    }
}

/// The segments in groups, each of which becomes one segment within the limits that the log's
/// segments have: bytes, bytes of the indexes, and distance of the last offset from the first.
pub(crate) fn group(segments: &[Arc<Segment>], config: &LogConfig, end: i64) -> Vec<Vec<Arc<Segment>>> {
    let most_bytes = u64::try_from(config.segment_bytes).unwrap_or(0);
    let most_index_bytes = usize::try_from(config.segment_index_bytes).unwrap_or(0);
    let mut groups: Vec<Vec<Arc<Segment>>> = Vec::new();
    let (mut bytes, mut index_bytes, mut time_bytes) = (0, 0, 0);
    for (at, segment) in segments.iter().enumerate() {
        let sizes = (
            u64::from(segment.size()),
            segment.offsets.size_bytes(),
            segment.times.size_bytes(),
        );
        let last = segments.get(at + 1).map_or(end, |next| next.base_offset) - 1;
        if let Some(group) = groups.last_mut()
            && let Some(first) = group.first()
            && bytes + sizes.0 <= most_bytes
            && index_bytes + sizes.1 <= most_index_bytes
            && time_bytes + sizes.2 <= most_index_bytes
            && (sizes.0 == 0 || last - first.base_offset <= i64::from(i32::MAX))
        {
            group.push(Arc::clone(segment));
            bytes += sizes.0;
            index_bytes += sizes.1;
            time_bytes += sizes.2;
        } else {
            groups.push(vec![Arc::clone(segment)]);
            (bytes, index_bytes, time_bytes) = sizes;
        }
    }
    groups
}
