//! Putting a compacted segment in the place of those that it was made from, so that a crash at any
//! moment leaves the old ones or the new one.
//!
//! As Kafka does it: the new files are written as `.cleaned` and synced; renamed to `.swap`, the log
//! last, which is the point from which on a start finishes the work; the old files are renamed to
//! `.deleted`; then `.swap` goes from the names, the log's last again. It takes renames in one folder
//! to reach the disk in their order, as file systems with a journal see to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use milena_protocol::records::{BatchHeader, HEADER_BYTES};

use super::Stopped;
use crate::directory::lock;
use crate::disk::Folder;
use crate::log::DiskLog;
use crate::segment::Segment;
use crate::{files, snapshot};

fn rename_all(folder: &Folder, base: i64, from: [&str; 4], to: [&str; 4]) -> io::Result<()> {
    // The log comes last, whose name says how far the swap is.
    for (from, to) in from.into_iter().zip(to).rev() {
        let path = |extension| files::segment_file(folder, base, extension);
        // Without aborted transactions there is no file of them.
        if !from.starts_with("txnindex") || path(from).exists() {
            folder.disk.rename(&path(from), &path(to))?;
        }
    }
    Ok(())
}

/// Removes the files of a compacted segment that nobody waits for any more.
pub(crate) fn remove_files(folder: &Folder, base: i64, extensions: [&str; 4]) {
    for extension in extensions {
        let path = files::segment_file(folder, base, extension);
        if let Err(error) = folder.disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what compaction wrote; the next start does it");
        }
    }
}

/// Makes a segment durable that [`Segment::create_cleaned`] began.
fn finish(segment: &Segment) -> io::Result<()> {
    segment.finish_times()?;
    segment.sync_indexes()?;
    // Kafka keeps the time of the newest part, by which segments without timestamps age.
    let age = Duration::from_millis(u64::try_from(segment.created_ms).unwrap_or(0));
    segment.file()?.set_modified(UNIX_EPOCH + age)?;
    segment.sync()
}

impl DiskLog {
    /// Puts `new`, whose files are `.cleaned`, in the place of `old`, which are one behind the other.
    ///
    /// # Errors
    /// [`Stopped::Aborted`] when the log is not as it was any more. An error after the swap has begun
    /// takes the directory offline; the next start finishes it.
    pub(crate) fn replace_segments(&self, new: Segment, old: &[Arc<Segment>]) -> Result<(), Stopped> {
        let base = new.base_offset;
        finish(&new)?;
        let (size, created_ms) = (new.size(), new.created_ms);
        drop(new);
        if !self.is_cleanable() {
            return Err(Stopped::Aborted);
        }
        rename_all(&self.path, base, files::CLEANED, files::SWAP)?;
        self.path.disk.sync_folder(&self.path)?;
        let swapped = (|| {
            let mut state = lock(&self.state);
            let at = state.segments.iter().position(|it| Arc::ptr_eq(it, &old[0]));
            let is_there = at.is_some_and(|at| {
                state.segments.len() > at + old.len()
                    && state.segments[at..]
                        .iter()
                        .zip(old)
                        .all(|(one, other)| Arc::ptr_eq(one, other))
            });
            let (Some(at), true, true) = (at, is_there, state.closed.is_none()) else {
                return Ok(None);
            };
            let mut retired = Vec::new();
            for segment in old {
                retired.extend(segment.retire()?);
            }
            rename_all(&self.path, base, files::SWAP, files::SEGMENT)?;
            let segment = Segment::open(&self.path, base, size, created_ms)?;
            segment.mark_synced();
            segment.aborted.remove_if_empty()?;
            state.segments.splice(at..at + old.len(), [Arc::new(segment)]);
            if let Some(next) = state.segments.get(at + 1).map(|next| next.base_offset) {
                state.forget_places_below(next);
            }
            let due_ms = state.now_ms.saturating_add(state.config.file_delete_delay_ms);
            let snapshots: Vec<i64> = old[1..]
                .iter()
                .map(|segment| segment.base_offset)
                .filter(|offset| !state.snapshots.contains(offset))
                .collect();
            Ok::<_, io::Error>(Some((retired, due_ms, snapshots)))
        })();
        let swapped = swapped.and_then(|swapped| {
            if swapped.is_some() {
                // Before anything of the old is freed.
                self.path.disk.sync_folder(&self.path)?;
            }
            Ok(swapped)
        });
        match swapped {
            Ok(Some((retired, due_ms, snapshots))) => {
                self.directory.doom(due_ms, retired);
                for offset in snapshots {
                    self.path.disk.remove(&snapshot::path(&self.path, offset))?;
                }
                Ok(())
            }
            Ok(None) => {
                remove_files(&self.path, base, files::SWAP);
                Err(Stopped::Aborted)
            }
            Err(error) => {
                self.directory.fail(&error);
                Err(error.into())
            }
        }
    }
}

/// Where the batches of a file end.
fn end_offset(path: &Path, base: i64) -> io::Result<i64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut at, mut end) = (0, base);
    let mut bytes = [0; HEADER_BYTES];
    while at < length {
        file.read_exact_at(&mut bytes, at)?;
        let Ok(header) = BatchHeader::parse(&bytes) else {
            // It was synced before it had its name; recovery tells of what happened to it since.
            break;
        };
        end = header.next_offset();
        at += header.size_bytes() as u64;
    }
    Ok(end)
}

/// Undoes compactions that were interrupted before their swap, and finishes swaps. Called before
/// anything else looks at the folder, in which these names are; whether there was something to do.
pub(crate) fn tidy(folder: &Folder, names: &[String]) -> io::Result<bool> {
    let mut swaps = Vec::new();
    let mut bases = Vec::new();
    let mut unfinished = Vec::new();
    for name in names {
        let path = folder.join(name);
        if let Some(base) = files::offset_of(&path, "log") {
            bases.push(base);
        } else if let Some(base) = name
            .strip_suffix(".log.swap")
            .and_then(|base| base.parse::<i64>().ok())
        {
            swaps.push((base, path));
        } else if name.ends_with(".cleaned") || name.ends_with(".swap") {
            unfinished.push(path);
        }
    }
    let of_swap = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| {
            name.ends_with(".swap")
                && swaps
                    .iter()
                    .any(|(base, _)| name.starts_with(&format!("{base:020}.")))
        })
    };
    for path in unfinished.iter().filter(|path| !of_swap(path)) {
        folder.disk.remove(path)?;
    }
    for (base, path) in &swaps {
        let end = end_offset(path, *base)?;
        tracing::warn!(folder = %folder.display(), base, end, "an interrupted swap of a compacted segment is finished");
        for old in bases.iter().filter(|old| (*base + 1..end).contains(*old)) {
            for extension in files::SEGMENT {
                folder
                    .disk
                    .remove(&files::segment_file(folder, *old, extension))?;
            }
        }
        for (from, to) in files::SWAP.into_iter().zip(files::SEGMENT).rev() {
            let from = files::segment_file(folder, *base, from);
            if from.exists() {
                folder
                    .disk
                    .rename(&from, &files::segment_file(folder, *base, to))?;
            }
        }
    }
    let was_interrupted = !swaps.is_empty() || !unfinished.is_empty();
    if was_interrupted {
        folder.disk.sync_folder(folder)?;
    }
    Ok(was_interrupted)
}
