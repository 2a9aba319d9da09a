//! The fact store in one SQLite file: what a broker on one machine keeps beside its logs.
//!
//! One thread owns the only connection and takes calls from a queue in the order in
//! which they were made. Everything that waits when it looks becomes one transaction with one
//! `fsync`, so the cost of durability is shared; a fenced commit fails alone among its neighbours. No
//! call is answered before its transaction is durable (`synchronous=FULL`, WAL), so what was answered
//! survives a kill of the process and a loss of power.
//!
//! An error of the disk fails the calls that it hit with [`StateError::Unavailable`]; later calls are
//! tried again, and succeed once the cause is gone. When the disk is full, a reserve
//! beside the file is given up so that the broker can start and topics can be deleted.
//!
//! Left to others: what keys and values mean, and one broker per directory (a second process finds
//! the file locked and says so).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use milena_state::{BoxFuture, Change, Lease, Row, Shard, StateError, StateStore};

mod database;
mod queue;
mod reply;
mod reserve;
mod writer;

use database::Database;
use queue::{Job, Queue};
use reply::{Reply, reply};

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{} was written by a newer version of Milena (format {found}, this version knows {known}): start that \
         version, or use another data directory",
        path.display()
    )]
    TooNew { path: PathBuf, found: i64, known: i64 },
    #[error("{} is not a fact store of Milena: it is another program's SQLite file", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is in use by another process: is a broker running on this data directory already?", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open {}: {error}", path.display())]
    Failed { path: PathBuf, error: String },
}

/// Facts in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the file, creating it where there is none.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let database = Database::open(path)?;
        let queue = Arc::new(Queue::new());
        let for_writer = Arc::clone(&queue);
        let writer = thread::Builder::new()
            .name("milena-facts".to_owned())
            .spawn(move || writer::run(database, &for_writer))
            .map_err(|error| OpenError::Failed {
                path: path.to_owned(),
                error: error.to_string(),
            })?;
        Ok(Self {
            queue,
            writer: Some(writer),
        })
    }

    fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> BoxFuture<'static, Result<T, StateError>> {
        let (reply, answer) = reply();
        // A refused job drops its reply, which answers that the store is closed.
        self.queue.push(job(reply));
        Box::pin(answer)
    }
}

impl StateStore for SqliteStore {
    fn acquire(&self, shard: Shard) -> BoxFuture<'static, Result<Lease, StateError>> {
        self.call(|reply| Job::Acquire { shard, reply })
    }

    fn scan(&self, shard: Shard, prefix: Bytes) -> BoxFuture<'static, Result<Vec<Row>, StateError>> {
        self.call(|reply| Job::Scan { shard, prefix, reply })
    }

    fn commit(&self, lease: &Lease, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StateError>> {
        let lease = lease.clone();
        self.call(|reply| Job::Commit {
            lease,
            changes,
            reply,
        })
    }

    fn close(&self) -> BoxFuture<'static, Result<(), StateError>> {
        self.call(|reply| Job::Close { reply: Some(reply) })
    }
}

impl Drop for SqliteStore {
    /// Finishes what was accepted; the file can be opened again afterwards.
    fn drop(&mut self) {
        self.queue.push(Job::Close { reply: None });
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the fact store's writer panicked");
        }
    }
}
