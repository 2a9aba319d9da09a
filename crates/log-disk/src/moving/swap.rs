//! The end of a move: the future replica takes the place of the current one.
//!
//! The current log's commits stop, the rest is copied and all of it made durable, with indexes and names.
//! The destination's checkpoints are written, with a recovery point that covers all of it: entries of an
//! earlier stay in the directory's journal are void by that. A file `<topic>-<partition>.<id>-moved` is put
//! beside the future replica. Then, with the log locked, what came meanwhile is copied, the future folder gets
//! the partition's name, and the other `-delete`. From then on the log is the new one; it shows nothing to be
//! durable before its folder's name is. When both names are durable, the marker goes.
//!
//! So after a crash: beside a marker the partition's folder is the log, and others of that name are not; a
//! future folder with a marker is whole, and is the log when there is no other; else it is not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::future::Future;
use super::{Failure, Move, Step};
use crate::directory::lock;
use crate::log::{Destination, DiskLog, Frozen, is_out_of_room};
use crate::{checkpoint, files, snapshot};

/// The commits stop when no more than this has come since the last sync, so that nobody waits long,
const FEW_BYTES: usize = 256 * 1024;
/// or after so many of them.
const MOST_ROUNDS: usize = 8;
/// How long a round of compaction has to end before it is looked at again.
const CLEANING_PAUSE: Duration = Duration::from_millis(10);

/// Undoes what keeps commits and compaction away, unless the log is another by then.
struct Held<'a>(&'a DiskLog);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.thaw();
        self.0.cleaning.resume(true);
    }
}

pub(super) fn finish(this: &Move, log: &Arc<DiskLog>, most: usize) -> Result<Step, Failure> {
    let future = &*this.future;
    for _ in 0..MOST_ROUNDS {
        future.sync()?;
        if copy_to(future, log, log.log_end(), most)? <= FEW_BYTES {
            break;
        }
    }
    if !log.cleaning.pause() {
        return Ok(Step::Later(CLEANING_PAUSE));
    }
    let held = Held(log);
    let _placing = lock(&this.placing);
    if future.is_cancelled() || !this.replica.is_current(log) {
        return Ok(Step::Over);
    }
    let frozen = log.freeze().map_err(|_| Failure::Gone)?;
    copy_to(future, log, frozen.end, most)?;
    prepare(future, log, &frozen)?;
    // What came while that was synced.
    copy_to(future, log, log.log_end(), most)?;
    let Some(new) = swap(this, log, &frozen)? else {
        return Ok(Step::Later(Duration::ZERO));
    };
    drop(held);
    new.start_commits();
    settle(future, log, &new);
    tracing::info!(log = %log.id, to = %new.directory.path.display(), "the replica has moved");
    Ok(Step::Over)
}

/// Copies until `end` is reached; gives how many bytes that took.
fn copy_to(future: &Future, log: &DiskLog, end: i64, most: usize) -> Result<usize, Failure> {
    let mut bytes = 0;
    while lock(&future.filled).next < end {
        let copied = future.copy(log, most)?;
        bytes += copied.bytes;
        if copied.is_all {
            break;
        }
    }
    Ok(bytes)
}

pub(super) fn marker(future: &Future) -> std::path::PathBuf {
    let (id, unique) = (&future.id, &future.unique);
    let name = files::renamed_folder(&id.topic, id.partition, unique, files::MOVED_SUFFIX);
    future.directory.path.join(name)
}

/// Makes durable what the log goes on from.
fn prepare(future: &Future, log: &DiskLog, frozen: &Frozen) -> Result<(), Failure> {
    future.sync()?;
    let done = || -> io::Result<()> {
        let (directory, folder) = (&future.directory, &future.folder);
        snapshot::write(folder, frozen.end, &frozen.producers)?;
        folder
            .disk
            .open(&snapshot::path(folder, frozen.end), false)?
            .sync()?;
        folder.disk.sync_folder(folder)?;
        if frozen.log_start > 0 {
            directory.set_log_start(&log.folder, frozen.log_start)?;
        }
        if let Some(offset) = future.first_dirty {
            directory.set_first_dirty(&log.folder, offset)?;
        }
        directory.set_recovery_points([(log.folder.as_str(), frozen.end)])?;
        directory.disk.open(&marker(future), true)?;
        directory.disk.sync_folder(&directory.path)
    };
    done().map_err(Failure::Destination)
}

/// The swap itself. `None`: the log's start has moved meanwhile, which has to be written down first.
fn swap(this: &Move, log: &DiskLog, frozen: &Frozen) -> Result<Option<Arc<DiskLog>>, Failure> {
    let future = &*this.future;
    let mut filled = lock(&future.filled);
    let state = lock(&log.state);
    if state.open().is_err() || log.directory.failure().is_some() {
        return Err(Failure::Gone);
    }
    if state.log_start != frozen.log_start {
        return Ok(None);
    }
    loop {
        let view = state.view(filled.next).map_err(|_| Failure::Gone)?;
        if future.copy_view(&mut filled, &view, usize::MAX)?.is_all {
            break;
        }
    }
    let deleted = files::renamed_folder(
        &log.id.topic,
        log.id.partition,
        &future.unique,
        files::DELETED_FOLDER_SUFFIX,
    );
    let new = (|| -> io::Result<Arc<DiskLog>> {
        filled.mirror_empty(&future.folder, state.empty_active())?;
        if let Err(error) = snapshot::write(&future.folder, state.log_end, &state.producers) {
            // Only costs time: recovery then starts from the one before.
            tracing::warn!(log = %log.id, %error, "cannot write a producer snapshot");
        }
        checkpoint::write_epochs(&future.folder, &state.epochs)?;
        // Files are opened by the names that they have from now on.
        filled.segments.iter().for_each(|segment| segment.close());
        let to = Destination {
            directory: Arc::clone(&future.directory),
            committer: Arc::clone(&future.committer),
            folder: Arc::clone(&future.folder),
            segments: filled.segments.clone(),
            durable_end: frozen.end,
        };
        let new = log.relocated(&state, to)?;
        filled.segments.iter().for_each(|segment| segment.close());
        future.folder.rename(future.directory.path.join(&log.folder))?;
        Ok(new)
    })()
    .map_err(Failure::Destination)?;
    // Others find the new one as soon as this one refuses them.
    this.replica.replace(Arc::clone(&new));
    this.replica.forget_future(&this.future);
    if let Err(error) = log.retire(state, log.directory.path.join(deleted)) {
        log.directory.fail(&error);
    }
    Ok(Some(new))
}

/// Makes the new names durable, after which nothing has to tell which of them counts.
fn settle(future: &Future, log: &DiskLog, new: &DiskLog) {
    let (to, from) = (&new.directory, &log.directory);
    if let Err(error) = to.disk.sync_folder(&to.path) {
        return to.fail(&error);
    }
    if from.failure().is_none()
        && let Err(error) = from.disk.sync_folder(&from.path)
    {
        from.fail(&error);
    }
    if from.failure().is_some() {
        // Whatever a later start finds there, the marker tells that it does not count.
        return;
    }
    let removed = to.disk.remove(&marker(future));
    if let Err(error) = removed.and_then(|()| to.disk.sync_folder(&to.path)) {
        return to.fail(&error);
    }
    match from.forget(&log.folder) {
        Err(error) if !is_out_of_room(&error) => return from.fail(&error),
        _ => {}
    }
    let (now_ms, delay_ms) = log.deletion_delay();
    from.doom(now_ms.saturating_add(delay_ms), [log.path.to_path_buf()]);
}
