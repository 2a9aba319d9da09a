//! Group commit: one thread per log directory that makes appends durable.
//!
//! An append queues its log here once; the thread takes all logs that wait, syncs each, and moves
//! their high watermarks. What is appended meanwhile waits for the next round, so one sync covers
//! all that came during the last, and no request ever waits for a disk on its own thread.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::directory::lock;
use crate::log::{DiskLog, Pending};

/// More logs than this are synced together with their file system: each sync of a file waits for
/// its data, its metadata and its inode one after the other, and all of them do that at once then.
const MOST_SYNCED_ONE_BY_ONE: usize = 2;

/// When appends are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitMode {
    /// At once, by a thread of each log directory.
    #[default]
    Thread,
    /// When [`crate::DiskLogStore::commit`] is called: for tests that choose the moment.
    Manual,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Arc<DiskLog>>,
    /// The thread sleeps until it is told.
    sleeping: bool,
    stopping: bool,
}

/// The logs of one directory that have something to be synced. Each is in it once at most.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    told: Condvar,
}

impl Committer {
    pub(crate) fn push(&self, log: Arc<DiskLog>) {
        let mut queue = lock(&self.queue);
        queue.waiting.push(log);
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.told.notify_one();
        }
    }

    /// Commits every log that waits.
    pub(crate) fn commit_waiting(&self) {
        let waiting = std::mem::take(&mut lock(&self.queue).waiting);
        let pending: Vec<(Arc<DiskLog>, Pending)> = waiting
            .into_iter()
            .filter_map(|log| log.begin_commit().map(|pending| (log, pending)))
            .collect();
        match pending.first() {
            Some((first, _)) if pending.len() > MOST_SYNCED_ONE_BY_ONE => {
                let synced = first.directory.sync_all();
                for (log, pending) in pending {
                    log.end_commit(&pending, &synced);
                }
            }
            _ => {
                for (log, pending) in pending {
                    let synced = pending.sync();
                    log.end_commit(&pending, &synced);
                }
            }
        }
    }

    fn run(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.waiting.is_empty() {
                if queue.stopping {
                    return;
                }
                queue.sleeping = true;
                queue = self.told.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            drop(queue);
            self.commit_waiting();
        }
    }

    fn stop(&self) {
        let mut queue = lock(&self.queue);
        queue.stopping = true;
        queue.sleeping = false;
        drop(queue);
        self.told.notify_one();
    }
}

/// The thread of a committer, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct CommitThread {
    committer: Arc<Committer>,
    thread: Option<JoinHandle<()>>,
}

impl CommitThread {
    pub(crate) fn start(committer: Arc<Committer>) -> io::Result<Self> {
        let own = Arc::clone(&committer);
        let thread = thread::Builder::new()
            .name("milena-commit".into())
            .spawn(move || own.run())?;
        Ok(Self {
            committer,
            thread: Some(thread),
        })
    }
}

impl Drop for CommitThread {
    fn drop(&mut self) {
        self.committer.stop();
        if let Some(thread) = self.thread.take() {
            // It ends with the round that it is in; a panic there was told already.
            let _ = thread.join();
        }
    }
}
