//! Making the index of aborted transactions anew where a start cannot trust it: behind the recovery
//! point, and where the file is not what it should be.
//!
//! The log has it all: a transaction begins with a producer's first transactional batch and ends with
//! the marker. As it may begin long before the part that is to be known, the log is read from the last
//! producer snapshot before that part on. (A file that is gone whole is not missed, as in Kafka: most
//! segments have none.)

use std::io;
use std::sync::Arc;

use milena_log::Producers;

use crate::disk::Folder;
use crate::recovery::for_each_header;
use crate::segment::Segment;
use crate::snapshot;

/// Where the recovery of a segment began, and the last control batch that it met, or -1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanned {
    pub(crate) from: i64,
    pub(crate) last_marker: i64,
}

/// From which offset on the aborted transactions of the segment that ends at `end` are not known.
pub(crate) fn check(segment: &Segment, end: i64, scanned: Option<Scanned>) -> io::Result<Option<i64>> {
    let index = &segment.aborted;
    if let Some(scanned) = scanned {
        index.truncate(scanned.from)?;
        index.mark_unsynced();
    }
    if index.is_plausible(segment.base_offset, end)? {
        // Without markers nothing was aborted.
        let scanned = scanned.filter(|scanned| scanned.last_marker >= scanned.from);
        return Ok(scanned.map(|scanned| scanned.from));
    }
    tracing::warn!(segment = %segment.path().display(), "the index of aborted transactions is made anew");
    index.clear()?;
    Ok(Some(segment.base_offset))
}

/// Finds the aborted transactions of `unknown` segments again, from the offset of each on.
pub(crate) fn rebuild(
    folder: &Folder,
    segments: &[Arc<Segment>],
    unknown: &[(Arc<Segment>, i64)],
) -> io::Result<()> {
    let Some(first_unknown) = unknown.iter().map(|(_, from)| *from).min() else {
        return Ok(());
    };
    let (mut producers, from) = state_before(folder, segments, first_unknown)?;
    let first = segments
        .partition_point(|segment| segment.base_offset <= from)
        .saturating_sub(1);
    for segment in &segments[first..] {
        let wanted = unknown.iter().find(|(it, _)| Arc::ptr_eq(it, segment));
        for_each_header(segment, from.max(segment.base_offset), |header, marker| {
            let ended = producers.appended(header, marker);
            match (wanted, ended) {
                (Some((_, from)), Some(ended)) if ended.last_offset >= *from => segment.aborted.push(&ended),
                _ => Ok(()),
            }
        })?;
    }
    for (segment, _) in unknown {
        // The next start may trust what this one made.
        segment.aborted.sync()?;
        segment.aborted.remove_if_empty()?;
    }
    Ok(())
}

/// The producers as of the last good snapshot that is not behind `offset`, and where that is.
fn state_before(folder: &Folder, segments: &[Arc<Segment>], offset: i64) -> io::Result<(Producers, i64)> {
    let all = snapshot::list(folder)?;
    for at in all.into_iter().rev().filter(|at| *at <= offset) {
        if let Ok(producers) = snapshot::read(folder, at) {
            return Ok((producers, at));
        }
    }
    let start = segments.first().map_or(0, |segment| segment.base_offset);
    Ok((Producers::default(), start))
}
