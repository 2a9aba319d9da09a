//! Opening a partition's folder: which segments there are, where the log ends, and what must be
//! made anew after a stop that was not clean.
//!
//! What was synced before the recovery point is trusted. Everything behind it is read batch by
//! batch, and cut at the first that is not whole: a torn tail was never acknowledged as durable.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use milena_log::{LeaderEpochs, LogConfig, Producers};
use milena_protocol::records::{BatchHeader, EndTransactionMarker, HEADER_BYTES};

use crate::aborted::Scanned;
use crate::disk::Folder;
use crate::index::{OffsetIndex, TimeIndex};
use crate::segment::{self, Segment};
use crate::{aborted, checkpoint, cleaner, files, snapshot};

const READ_AHEAD_BYTES: usize = 256 * 1024;

/// Where an earlier part of the batch's CRC starts and what it covers.
const CRC_COVERS_FROM: usize = 21;

#[derive(Debug)]
pub(crate) struct Loaded {
    /// Ascending, at least one; the last is the active one.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) log_start: i64,
    pub(crate) log_end: i64,
    pub(crate) producers: Producers,
    pub(crate) epochs: LeaderEpochs,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Trust {
    /// Whether the last run closed the log.
    pub(crate) clean: bool,
    pub(crate) recovery_point: i64,
    /// The log start that was written down.
    pub(crate) log_start: i64,
}

pub(crate) fn load(
    folder: &Arc<Folder>,
    trust: Trust,
    config: &LogConfig,
    now_ms: i64,
) -> io::Result<Loaded> {
    let Found { bases, snapshots } = tidy(folder)?;
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    let mut scanned = Vec::new();
    let mut log_end = trust.log_start;
    let mut broken = false;
    // Segments whose aborted transactions are made anew, and from which offset on.
    let mut unknown: Vec<(Arc<Segment>, i64)> = Vec::new();
    for (at, &base) in bases.iter().enumerate() {
        if broken {
            // Offsets behind a cut would leave a hole that nobody was told of.
            tracing::error!(folder = %folder.display(), base, "segment behind a damaged one is set aside");
            segment::retire(folder, base)?;
            continue;
        }
        let next = bases.get(at + 1).copied();
        let trusted = trust.clean || next.is_some_and(|next| next <= trust.recovery_point);
        // What should have been trusted and is not is looked at from its start.
        let from = if trusted { base } else { trust.recovery_point };
        let opened = if trusted {
            open_trusted(folder, base, next)?
        } else {
            None
        };
        let (segment, end, aborted_from) = match opened {
            Some((segment, end)) => {
                let from = aborted::check(&segment, end, None)?;
                (segment, end, from)
            }
            None => {
                let recovered = recover(folder, base, from, config)?;
                if trusted {
                    // The recovery point says that its indexes are on the disk.
                    recovered.segment.sync_indexes()?;
                }
                // Behind the recovery point nothing is compacted: a hole is a loss, too.
                let has_hole = !trusted && next.is_some_and(|next| recovered.end < next);
                broken = recovered.cut && next.is_some() || has_hole;
                scanned.extend(recovered.epochs);
                let last_marker = recovered.last_marker;
                let scanned = Some(Scanned { from, last_marker });
                let from = aborted::check(&recovered.segment, recovered.end, scanned)?;
                (recovered.segment, recovered.end, from)
            }
        };
        log_end = end;
        let segment = Arc::new(segment);
        if let Some(from) = aborted_from {
            unknown.push((Arc::clone(&segment), from));
        }
        segments.push(segment);
    }
    let first = segments
        .first()
        .map_or(trust.log_start, |segment| segment.base_offset);
    let log_start = trust.log_start.max(first);
    if broken {
        // Else a power cut could bring it back, with other records at offsets that are given out from now on.
        folder.disk.sync_folder(folder)?;
    }
    if segments.is_empty() || log_end < log_start {
        // An offset that was once given out is not given out again.
        for segment in segments.drain(..) {
            segment.retire()?;
        }
        unknown.clear();
        log_end = log_start;
        segments.push(Arc::new(Segment::create(
            folder,
            log_start,
            now_ms,
            preallocation(config),
        )?));
    }
    let mut epochs = match checkpoint::read_epochs(folder)? {
        Some(epochs) => epochs,
        None => epochs_of(&segments)?,
    };
    for (epoch, offset) in scanned {
        epochs.assign(epoch, offset);
    }
    epochs.truncate_back(log_end);
    epochs.truncate_front(log_start);
    let mut producers = load_producers(folder, &snapshots, &segments, log_end)?;
    // Readers see all of it.
    producers.reached(log_end);
    aborted::rebuild(folder, &segments, &unknown)?;
    Ok(Loaded {
        segments,
        log_start,
        log_end,
        producers,
        epochs,
    })
}

pub(crate) fn preallocation(config: &LogConfig) -> Option<u64> {
    config
        .preallocate
        .then(|| u64::try_from(config.segment_bytes).unwrap_or(0))
        .filter(|bytes| *bytes > 0)
}

/// What a folder has, by offsets, each ascending.
struct Found {
    /// Of segments.
    bases: Vec<i64>,
    /// Of producer snapshots.
    snapshots: Vec<i64>,
}

/// Removes what interrupted work left behind; gives what is there then. The folder is listed once, as a start looks
/// into all of them.
fn tidy(folder: &Folder) -> io::Result<Found> {
    let mut names = files::names(folder)?;
    if cleaner::tidy(folder, &names)? {
        names = files::names(folder)?;
    }
    let mut bases = BTreeSet::new();
    let mut indexes = Vec::new();
    let mut snapshots = Vec::new();
    for name in names {
        let path = folder.join(&name);
        if [files::DELETED_SUFFIX, ".tmp"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
        {
            folder.disk.remove(&path)?;
        } else if let Some(base) = files::offset_of(&path, "log") {
            bases.insert(base);
        } else if let Some(offset) = files::offset_of(&path, "snapshot") {
            snapshots.push(offset);
        } else if let Some(base) = ["index", "timeindex", "txnindex"]
            .iter()
            .find_map(|extension| files::offset_of(&path, extension))
        {
            indexes.push((base, path));
        }
    }
    for (base, path) in indexes {
        if !bases.contains(&base) {
            folder.disk.remove(&path)?;
        }
    }
    snapshots.sort_unstable();
    Ok(Found {
        bases: bases.into_iter().collect(),
        snapshots,
    })
}

fn modified_ms(file: &fs::Metadata) -> i64 {
    let since = file
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

fn length(metadata: &fs::Metadata) -> io::Result<u32> {
    u32::try_from(metadata.len()).map_err(|_| io::Error::other("a segment is larger than 4 GiB"))
}

/// A segment that needs no recovery, and its end; `None` when it turns out that it does.
fn open_trusted(folder: &Arc<Folder>, base: i64, next: Option<i64>) -> io::Result<Option<(Segment, i64)>> {
    let metadata = files::segment_file(folder, base, "log").metadata()?;
    let opened =
        Segment::open(folder, base, length(&metadata)?, modified_ms(&metadata)).and_then(|segment| {
            let end = match next {
                Some(next) => next,
                None => end_of(&segment)?,
            };
            // Without its indexes every search would read the segment, and times would be lost to retention.
            let timed = match segment.max_timestamp() {
                Some(newest) => (base..end).contains(&newest.offset),
                None => has_no_times(&segment)?,
            };
            let indexed = segment.size() == 0 || (timed && segment.offsets.is_there());
            segment.mark_synced();
            Ok(indexed.then_some((segment, end)))
        });
    match opened {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            tracing::warn!(folder = %folder.display(), base, %error, "segment is not as it was left and is recovered");
            Ok(None)
        }
        other => other,
    }
}

fn has_no_times(segment: &Segment) -> io::Result<bool> {
    Ok(segment
        .header_at(0)?
        .is_none_or(|header| header.max_timestamp < 0))
}

fn end_of(segment: &Segment) -> io::Result<i64> {
    let mut position = segment.offsets.position(i64::MAX)?;
    let mut end = segment.base_offset;
    while let Some(header) = segment.header_at(position)? {
        end = header.next_offset();
        position = position.saturating_add(u32::try_from(header.size_bytes()).unwrap_or(u32::MAX));
    }
    if position == segment.size() {
        Ok(end)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

struct Recovered {
    segment: Segment,
    end: i64,
    epochs: Vec<(i32, i64)>,
    cut: bool,
    /// Offset of the last control batch that was read, or -1.
    last_marker: i64,
}

/// Reads a segment from the recovery point on, cuts it behind the last good batch and makes that part
/// of its indexes anew.
fn recover(
    folder: &Arc<Folder>,
    base: i64,
    recovery_point: i64,
    config: &LogConfig,
) -> io::Result<Recovered> {
    let path = files::segment_file(folder, base, "log");
    let file = folder.disk.open(&path, false)?;
    let metadata = file.file().metadata()?;
    let length = length(&metadata)?;
    let (segment, anew) = open_to_recover(folder, base, recovery_point, &metadata)?;
    let mut position = segment.offsets.position(recovery_point)?;
    let mut end = base;
    let mut reader = BufReader::with_capacity(READ_AHEAD_BYTES, &**file.file());
    reader.seek(SeekFrom::Start(u64::from(position)))?;
    let mut epochs: Vec<(i32, i64)> = Vec::new();
    let mut payload = Vec::new();
    let mut last_marker = -1;
    let why = loop {
        let header = match next_batch(&mut reader, length - position, end, &mut payload)? {
            Ok(header) => header,
            Err(why) => break why,
        };
        segment.note(&header, position, config.index_interval_bytes)?;
        if epochs
            .last()
            .is_none_or(|(epoch, _)| *epoch != header.partition_leader_epoch)
        {
            epochs.push((header.partition_leader_epoch, header.base_offset));
        }
        if header.is_control() {
            last_marker = header.last_offset();
        }
        end = header.next_offset();
        position += u32::try_from(header.size_bytes()).map_err(io::Error::other)?;
    };
    let cut = position < length;
    if cut {
        tracing::warn!(
            segment = %path.display(), from = position, bytes = length - position, why,
            "the tail that was not whole is cut off"
        );
        file.set_len(u64::from(position))?;
        file.sync()?;
    }
    segment.finish_times()?;
    segment.flush_indexes()?;
    // Entries that were good already may have been written by a run that did not come to sync them.
    segment.offsets.mark_unsynced();
    segment.times.mark_unsynced();
    if anew {
        // The recovery point says that this part of them is on the disk.
        segment.sync_indexes()?;
    }
    segment.cut_to(position);
    Ok(Recovered {
        segment,
        end,
        epochs,
        cut,
        last_marker,
    })
}

/// The segment with what its indexes say about the part below the recovery point, which was synced; or
/// without, and then whether there should have been such a part.
fn open_to_recover(
    folder: &Arc<Folder>,
    base: i64,
    recovery_point: i64,
    metadata: &fs::Metadata,
) -> io::Result<(Segment, bool)> {
    let (length, created_ms) = (length(metadata)?, modified_ms(metadata));
    if recovery_point > base
        && let Ok(offsets) = OffsetIndex::load(folder, base)
        && let Ok(times) = TimeIndex::load(folder, base)
    {
        let segment = Segment::with_indexes(folder, base, length, created_ms, offsets, times)?;
        // Where an entry points, there must be what it says.
        let batch = |offset| match segment.find(offset) {
            Ok(Some((position, header))) if header.last_offset() == offset => Some((position, header)),
            _ => None,
        };
        segment.offsets.truncate_to(|offset, position| {
            let header = segment.header_at(position).ok().flatten();
            Ok(offset < recovery_point && header.is_some_and(|header| header.last_offset() == offset))
        })?;
        segment.times.truncate_to(|entry| {
            let found = batch(entry.offset);
            Ok(entry.offset < recovery_point
                && found.is_some_and(|(_, header)| header.max_timestamp == entry.timestamp_ms))
        })?;
        if segment.offsets.is_there()
            && let Some(newest) = segment.times.last()?
        {
            // Entries of times behind the recovery point are gone, and with them the largest time of
            // what is between: that part is read again.
            segment
                .offsets
                .truncate_to(|offset, _| Ok(offset <= newest.offset))?;
            segment.forget_times()?;
            return Ok((segment, false));
        }
    }
    for extension in ["index", "timeindex"] {
        folder
            .disk
            .remove(&files::segment_file(folder, base, extension))?;
    }
    let segment = Segment::open(folder, base, length, created_ms)?;
    Ok((segment, recovery_point > base))
}

/// The next batch if it is whole and good, or why not.
fn next_batch(
    reader: &mut impl Read,
    left: u32,
    expected: i64,
    payload: &mut Vec<u8>,
) -> io::Result<Result<BatchHeader, &'static str>> {
    let left = left as usize;
    if left < HEADER_BYTES {
        return Ok(Err("no whole header is left"));
    }
    let mut bytes = [0; HEADER_BYTES];
    reader.read_exact(&mut bytes)?;
    let Ok(header) = BatchHeader::parse(&bytes) else {
        return Ok(Err("no batch starts here"));
    };
    if header.size_bytes() > left {
        return Ok(Err("the batch is cut short"));
    }
    payload.resize(header.size_bytes() - HEADER_BYTES, 0);
    reader.read_exact(payload)?;
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[CRC_COVERS_FROM..]), payload) != header.crc {
        return Ok(Err("the CRC is wrong"));
    }
    if header.base_offset < expected || header.last_offset_delta < 0 {
        return Ok(Err("the offsets go backwards"));
    }
    Ok(Ok(header))
}

/// Also gives what is in control batches ([`Segment::marker_at`]).
pub(crate) fn for_each_header(
    segment: &Segment,
    from: i64,
    mut each: impl FnMut(&BatchHeader, Option<EndTransactionMarker>) -> io::Result<()>,
) -> io::Result<()> {
    let Some((mut position, _)) = segment.find(from)? else {
        return Ok(());
    };
    while let Some(header) = segment.header_at(position)? {
        each(&header, segment.marker_at(position, &header)?)?;
        position = position.saturating_add(u32::try_from(header.size_bytes()).unwrap_or(u32::MAX));
    }
    Ok(())
}

fn epochs_of(segments: &[Arc<Segment>]) -> io::Result<LeaderEpochs> {
    let mut epochs = LeaderEpochs::default();
    for segment in segments {
        for_each_header(segment, segment.base_offset, |header, _| {
            epochs.assign(header.partition_leader_epoch, header.base_offset);
            Ok(())
        })?;
    }
    Ok(epochs)
}

/// The newest good snapshot, and what was appended since.
fn load_producers(
    folder: &Folder,
    snapshots: &[i64],
    segments: &[Arc<Segment>],
    log_end: i64,
) -> io::Result<Producers> {
    let mut from = segments.first().map_or(0, |segment| segment.base_offset);
    let mut producers = Producers::default();
    let (mut found, mut is_shorter) = (false, false);
    for offset in snapshots.iter().copied().rev() {
        let of_segment = segments.iter().any(|segment| segment.base_offset == offset);
        if offset > log_end || (found && !of_segment) {
            folder.disk.remove(&snapshot::path(folder, offset))?;
            is_shorter |= offset > log_end;
        } else if !found {
            match snapshot::read(folder, offset) {
                Ok(read) => (producers, from, found) = (read, offset, true),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), offset, %error, "a producer snapshot is left out");
                    folder.disk.remove(&snapshot::path(folder, offset))?;
                }
            }
        }
    }
    if is_shorter {
        // Else a power cut could bring it back, to a log that has other records below it by then.
        folder.disk.sync_folder(folder)?;
    }
    let first = segments
        .partition_point(|segment| segment.base_offset <= from)
        .saturating_sub(1);
    for segment in &segments[first..] {
        for_each_header(segment, from.max(segment.base_offset), |header, marker| {
            producers.appended(header, marker);
            Ok(())
        })?;
    }
    Ok(producers)
}
