//! Replicas that move between log directories (KIP-113): `<topic>-<partition>.<id>-future` in the
//! destination is filled from the current log and then takes its place.
//!
//! Promises: everything goes on meanwhile; the log keeps its offsets, watermarks, producers, epochs,
//! aborted transactions and start; what a reader or an `acks=all` was told outlasts a power cut at any
//! moment, and each start finds one log of the partition. An error in the destination takes that directory
//! offline, and the log stays where it is.
//!
//! `future` copies; `swap` puts the copy in the log's place, and tells how; `start` sorts out what the last
//! run left; `threads` drives it. A start begins an unfinished move anew: what the source lost by a power
//! cut, the copy may have.

mod future;
mod start;
mod swap;
mod threads;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::directory::lock;
use crate::files;
use crate::log::{DiskLog, is_out_of_room};
use crate::replica::Replica;

pub(crate) use future::Future;
pub(crate) use start::{Resumable, settle};
pub use threads::MoveMode;
pub(crate) use threads::Mover;

use crate::commit::Committer;
use crate::directory::Directory;

/// How long a move waits for room in the destination.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(10);

/// Why a part of a move was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the current replica cannot be read: {0}")]
    Source(io::Error),
    #[error("the future replica cannot be written: {0}")]
    Destination(io::Error),
    #[error("the current replica is gone, or its directory is offline")]
    Gone,
}

/// How a move stands after a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes were copied; there is more.
    Copied(usize),
    /// Nothing can be done now: ask again after this time.
    Later(Duration),
    /// It is done, or given up.
    Over,
}

/// A move that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) replica: Arc<Replica>,
    pub(crate) future: Arc<Future>,
    /// Held while folders are opened, renamed or removed.
    pub(crate) placing: Arc<Mutex<()>>,
}

/// Begins a move; the caller holds the lock of the folders. `None`: there is nothing to do.
pub(crate) fn begin(
    replica: &Arc<Replica>,
    directory: &Arc<Directory>,
    committer: &Arc<Committer>,
    placing: &Arc<Mutex<()>>,
) -> io::Result<Option<Move>> {
    let log = replica.current();
    if let Some(future) = replica.future() {
        if future.directory.path == directory.path {
            return Ok(None);
        }
        cancel(replica, &log)?;
    }
    if log.directory.path == directory.path {
        return Ok(None);
    }
    let future = Future::create(&log, directory, committer).inspect_err(|error| {
        if !is_out_of_room(error) {
            directory.fail(error);
        }
    })?;
    let future = Arc::new(future);
    replica.set_future(Some(Arc::clone(&future)));
    tracing::info!(log = %log.id, from = %log.directory.path.display(), to = %directory.path.display(), "the replica begins to move");
    Ok(Some(Move {
        replica: Arc::clone(replica),
        future,
        placing: Arc::clone(placing),
    }))
}

/// Ends the partition's move, if there is one, and has the future replica removed. The caller holds the
/// lock of the folders.
pub(crate) fn cancel(replica: &Replica, log: &DiskLog) -> io::Result<()> {
    let Some(future) = replica.future() else {
        return Ok(());
    };
    future.cancel();
    log.cleaning.resume(false);
    replica.set_future(None);
    if future.directory.failure().is_some() {
        // The next start removes it.
        return Ok(());
    }
    tracing::info!(log = %future.id, to = %future.directory.path.display(), "the move of the replica is cancelled");
    discard(&future)
}

/// Renames the future replica's folder, so that no start resumes it, and has it removed.
fn discard(future: &Future) -> io::Result<()> {
    future.directory.disk.remove(&swap::marker(future))?;
    let name = files::renamed_folder(
        &future.id.topic,
        future.id.partition,
        &files::unique()?,
        files::DELETED_FOLDER_SUFFIX,
    );
    let doomed = future.directory.path.join(name);
    match future.directory.disk.rename(&future.folder, &doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            future.directory.doom(i64::MIN, [doomed]);
            Ok(())
        }
    }
}

impl Move {
    /// Copies about `most` bytes, or finishes the move when everything is there.
    pub(crate) fn step(&self, most: usize) -> Step {
        if self.future.is_cancelled() {
            return Step::Over;
        }
        let log = self.replica.current();
        if let Some(why) = self.future.directory.failure() {
            tracing::error!(log = %log.id, why, "the replica stays where it is: the directory it moves to is offline");
            return self.give_up(&log, false);
        }
        let done = match self.future.copy(&log, most) {
            Ok(copied) if !copied.is_all => return Step::Copied(copied.bytes),
            Ok(_) => swap::finish(self, &log, most),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(step) => step,
            Err(failure) => self.failed(&log, failure),
        }
    }

    fn failed(&self, log: &DiskLog, failure: Failure) -> Step {
        if self.future.is_cancelled() {
            return Step::Over;
        }
        match failure {
            // What was deleted is cancelled too; a directory that is offline stays so.
            Failure::Gone => Step::Over,
            Failure::Destination(error) if is_out_of_room(&error) => {
                tracing::warn!(log = %log.id, %error, "there is no room to move the replica; it is tried again");
                match lock(&self.future.filled).discard_last() {
                    Ok(()) => Step::Later(NO_ROOM_PAUSE),
                    Err(error) => self.failed(log, Failure::Destination(io::Error::other(error))),
                }
            }
            Failure::Destination(error) => {
                self.future.directory.fail(&error);
                self.give_up(log, false)
            }
            Failure::Source(_) if log.check().is_err() => Step::Over,
            Failure::Source(error) => {
                tracing::error!(log = %log.id, %error, "the replica cannot be read and stays where it is");
                self.give_up(log, true)
            }
        }
    }

    fn give_up(&self, log: &DiskLog, discards: bool) -> Step {
        let _placing = lock(&self.placing);
        self.future.cancel();
        log.cleaning.resume(false);
        if self.replica.forget_future(&self.future)
            && discards
            && let Err(error) = discard(&self.future)
        {
            tracing::warn!(log = %log.id, %error, "cannot remove a future replica; the next start does it");
        }
        Step::Over
    }
}
