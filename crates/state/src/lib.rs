//! The fact store: everything small that must never be lost or be half-changed (topics, configs,
//! group offsets, producer ids) is a keyed row here, and a change is one atomic batch.
//!
//! Rows live in *shards*. Whoever acquires a shard becomes its only writer: acquiring gives a
//! [`Lease`] with a new epoch, and every write carries its lease, so a former holder can change
//! nothing ([`StateError::Fenced`]). Readers that decide by what they read acquire first and then
//! scan, so what they hold in memory is what is stored.
//!
//! What this crate leaves to others: the meaning of keys and values (the crate that writes a fact
//! owns its format), and any I/O (engines: [`memory`] here, SQLite in `milena-state-sqlite`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod memory;

/// The future type of the store's calls; boxed so that the store can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names a shard, such as `metadata` or `groups-3`. A small set that is fixed in the program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub String);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The right to write one shard, until somebody else acquires it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub shard: Shard,
    /// Grows by one with every acquisition of the shard, for ever (also across restarts).
    pub epoch: u64,
}

/// One row's new value, or its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Bytes,
    /// `None` removes the row. Removing a row that does not exist is no error.
    pub value: Option<Bytes>,
}

/// A row as scanned: key and value.
pub type Row = (Bytes, Bytes);

#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// Another holder acquired the shard; nothing of the batch was written.
    #[error("shard {shard} was taken over: lease epoch {held}, current epoch {current}")]
    Fenced { shard: Shard, held: u64, current: u64 },
    /// The engine failed; it is unknown whether the batch was written. The holder must acquire
    /// and scan the shard again before it believes anything.
    #[error("the fact store failed: {0}")]
    Unavailable(String),
}

/// An engine that keeps facts.
///
/// Calls are accepted in the order in which they are made (not first polled): two commits of one
/// lease are written in call order, and a scan sees every commit called before it.
pub trait StateStore: Send + Sync + fmt::Debug {
    /// Becomes the shard's only writer, fencing every earlier lease.
    fn acquire(&self, shard: Shard) -> BoxFuture<'static, Result<Lease, StateError>>;

    /// All rows of the shard whose key starts with `prefix`, in key order.
    fn scan(&self, shard: Shard, prefix: Bytes) -> BoxFuture<'static, Result<Vec<Row>, StateError>>;

    /// Writes all changes or none. Resolves when they are durable. Later changes of the same key
    /// within one batch win.
    fn commit(&self, lease: &Lease, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StateError>>;

    /// Finishes what was accepted and releases the engine's files. Calls after it fail.
    fn close(&self) -> BoxFuture<'static, Result<(), StateError>>;
}
