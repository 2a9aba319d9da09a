//! Finding records by their time (ListOffsets).

use std::sync::Arc;

use bytes::Bytes;
use milena_log::{LogError, ReadBound, TimestampedOffset};
use milena_protocol::records::{Batch, RecordError};

use crate::directory::lock;
use crate::index::TimeEntry;
use crate::log::{DiskLog, bound_of};
use crate::segment::Segment;

/// A batch is decompressed for a search by time; it may take this much.
const MOST_SEARCHED_BYTES: usize = 128 * 1024 * 1024;

/// The segments to look into, and the offsets from and below which records count.
type Searched = (Vec<Arc<Segment>>, (i64, i64));

fn corrupt(error: RecordError) -> LogError {
    LogError::CorruptMessage(error.to_string())
}

impl DiskLog {
    /// The first record at or behind `from`, in a batch for whose largest time `wanted` holds, for
    /// whose own time it holds too.
    fn find_time(
        &self,
        segment: &Segment,
        from: i64,
        below: (i64, i64),
        wanted: &dyn Fn(i64) -> bool,
    ) -> Result<Option<TimestampedOffset>, LogError> {
        let Some((mut position, _)) = segment.find(from).map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        let (log_start, upper) = below;
        while let Some(header) = segment.header_at(position).map_err(|error| self.failed(&error))? {
            if header.base_offset >= upper {
                break;
            }
            if wanted(header.max_timestamp) {
                let bytes = segment
                    .read(position, header.size_bytes())
                    .map_err(|error| self.failed(&error))?;
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

    fn search(&self, bound: ReadBound) -> Result<Searched, LogError> {
        let state = lock(&self.state);
        state.open()?;
        let watermarks = state.watermarks();
        let first = state.segment_at(watermarks.log_start);
        Ok((
            state.segments[first..].to_vec(),
            (watermarks.log_start, bound_of(&watermarks, bound)),
        ))
    }

    pub(crate) fn offset_for_timestamp_now(
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
                .map_err(|error| self.failed(&error))?;
            let found = self.find_time(&segment, from, below, &|timestamp| timestamp >= timestamp_ms)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    pub(crate) fn max_timestamp_now(&self) -> Result<Option<TimestampedOffset>, LogError> {
        let (segments, below) = self.search(ReadBound::HighWatermark)?;
        let mut best: Option<(Arc<Segment>, TimeEntry)> = None;
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
}
