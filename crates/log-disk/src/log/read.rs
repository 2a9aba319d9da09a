//! Reading: where an offset's batch is, where what may be seen ends, and what goes to the reader. The
//! bytes are not read here, unless they are few.

use std::io;
use std::sync::Arc;

use milena_log::{EndedTransaction, LogError, Read, ReadBound, ReadResult};
use milena_protocol::records::BatchHeader;
use milena_protocol::{Chunk, FileRange};

use super::{DiskLog, State, bound_of};
use crate::directory::lock;
use crate::segment::Segment;
use crate::txn_index;

/// How many batches at the end of a log are known by heart.
const MOST_RECENT: usize = 16;
/// Up to so much is read and sent with the rest of the answer; more goes from the file to the socket.
const MOST_READ_BYTES: usize = 16 * 1024;

/// A place in the files of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(super) segment: i64,
    pub(super) position: u32,
}

/// A batch that was appended in this run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recent {
    base_offset: i64,
    last_offset: i64,
    pub(super) at: Position,
    size: u32,
}

impl State {
    /// Where the log ends now.
    pub(super) fn end_position(&self) -> Position {
        let active = self.segments.last();
        active.map_or(self.high_position, |active| Position {
            segment: active.base_offset,
            position: active.size(),
        })
    }

    /// What readers may see of a segment ends here; and the base offset of the next one.
    fn visible_end(&self, segment: &Segment) -> (u32, Option<i64>) {
        let next = self.segment_after(segment.base_offset);
        let end = match segment.base_offset.cmp(&self.high_position.segment) {
            std::cmp::Ordering::Less => segment.size(),
            std::cmp::Ordering::Equal => self.high_position.position,
            std::cmp::Ordering::Greater => 0,
        };
        (end, next.map(|next| next.base_offset))
    }

    /// The segments from the one that has `offset` on that know of aborted transactions.
    fn with_aborted(&self, offset: i64) -> Vec<Arc<Segment>> {
        let segments = self.segments[self.segment_at(offset)..].iter();
        segments
            .filter(|segment| !segment.aborted.is_empty())
            .cloned()
            .collect()
    }

    /// Knows the batch that was just written at `at` by heart.
    pub(super) fn note_recent(&mut self, header: &BatchHeader, at: Position) {
        if self.recent.len() == MOST_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            at,
            size: u32::try_from(header.size_bytes()).unwrap_or(u32::MAX),
        });
    }

    /// Where the batch with `offset` starts, and its size, if it is one of the newest.
    fn find_recent(&self, offset: i64) -> Option<(Position, u32)> {
        let at = self.recent.partition_point(|batch| batch.last_offset < offset);
        // Before the first there are others that are not known.
        let found = self.recent.get(at).filter(|batch| batch.base_offset <= offset)?;
        Some((found.at, found.size))
    }
}

impl DiskLog {
    pub(crate) fn read_now(&self, read: Read) -> Result<ReadResult, LogError> {
        self.online()?;
        let state = lock(&self.state);
        state.open()?;
        let watermarks = state.watermarks();
        if read.offset < watermarks.log_start || read.offset > watermarks.log_end {
            return Err(LogError::OffsetOutOfRange {
                offset: read.offset,
                log_start: watermarks.log_start,
                upper: watermarks.log_end,
            });
        }
        let mut result = ReadResult {
            records: Chunk::default(),
            watermarks,
            aborted: Vec::new(),
        };
        if read.offset >= bound_of(&watermarks, read.bound) {
            return Ok(result);
        }
        let stable = match read.bound {
            ReadBound::HighWatermark => None,
            // Together with the bound: what compaction changes later may lack what is read now.
            ReadBound::LastStable => Some((watermarks.last_stable, state.with_aborted(read.offset))),
        };
        let recent = state.find_recent(read.offset);
        let at = recent.map_or(read.offset, |(at, _)| at.segment);
        let mut next = state.segments.get(state.segment_at(at)).cloned();
        let mut recent = recent.map(|(at, size)| (at.position, size));
        drop(state);
        // Where records are gone from the end of a segment, the next one has the next of them.
        while let Some(segment) = next {
            let (mut end, next_base) = lock(&self.state).visible_end(&segment);
            if let Some((last_stable, _)) = &stable {
                end = end.min(
                    stable_end(&segment, *last_stable, next_base, watermarks.high_watermark)
                        .map_err(|error| self.failed(&error))?,
                );
            }
            let found = match recent.take() {
                Some(found) => Some(found),
                None => segment
                    .find(read.offset)
                    .map_err(|error| self.failed(&error))?
                    .map(|(position, header)| {
                        (position, u32::try_from(header.size_bytes()).unwrap_or(u32::MAX))
                    }),
            };
            if let Some((position, first)) = found.filter(|(position, _)| *position < end) {
                let length = length_of(&read, first, end - position);
                if let Some((last_stable, indexed)) = &stable {
                    let to = position.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
                    let behind = segment.offsets.offset_behind(to);
                    let behind = behind.map_err(|error| self.failed(&error))?.or(next_base);
                    let to = behind.map_or(*last_stable, |behind| behind.min(*last_stable));
                    let met = txn_index::aborted_in(indexed, read.offset, to);
                    let met = met.map_err(|error| self.failed(&error))?;
                    result.aborted = met.iter().map(EndedTransaction::aborted).collect();
                }
                result.records =
                    read_range(&segment, position, length).map_err(|error| self.failed(&error))?;
                return Ok(result);
            }
            next = lock(&self.state).segment_after(segment.base_offset);
        }
        Ok(result)
    }
}

/// Where the last stable offset is in a segment.
fn stable_end(
    segment: &Segment,
    last_stable: i64,
    next_base: Option<i64>,
    high_watermark: i64,
) -> io::Result<u32> {
    if last_stable >= high_watermark || next_base.is_some_and(|next| next <= last_stable) {
        return Ok(u32::MAX);
    }
    if segment.base_offset >= last_stable {
        return Ok(0);
    }
    let found = segment.find(last_stable)?;
    Ok(found.map_or(u32::MAX, |(position, _)| position))
}

/// How much to give of what is `there`. The first batch is given whole or not at all, what follows may
/// be cut within a batch: to find where that one ends would cost more than it saves.
fn length_of(read: &Read, first: u32, there: u32) -> usize {
    let (first, there) = (first as usize, there as usize);
    if read.max_bytes >= first {
        read.max_bytes.min(there)
    } else if read.at_least_one_batch {
        first.min(there)
    } else {
        0
    }
}

fn read_range(segment: &Segment, position: u32, length: usize) -> io::Result<Chunk> {
    if length <= MOST_READ_BYTES {
        return Ok(Chunk::Bytes(segment.read(position, length)?.into()));
    }
    Ok(Chunk::File(FileRange {
        file: segment.file()?,
        position: u64::from(position),
        length,
    }))
}
