//! The engine that keeps facts in memory: for tests, and for a broker that is to forget.
//!
//! It promises everything that [`StateStore`] does except that facts outlive the process; facts
//! outlive [`StateStore::close`] within the process when the store is [reopened](MemoryStore::reopen).

use std::collections::{BTreeMap, HashMap};
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{BoxFuture, Change, Lease, Row, Shard, StateError, StateStore};

#[derive(Debug, Default)]
struct Facts {
    epochs: HashMap<Shard, u64>,
    rows: HashMap<Shard, BTreeMap<Bytes, Bytes>>,
}

/// Facts in memory. Every call does its work before it returns its future.
#[derive(Debug, Default)]
pub struct MemoryStore {
    facts: Arc<Mutex<Facts>>,
    closed: Mutex<bool>,
}

impl MemoryStore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new store over the same facts, as a process that starts again would open it.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self {
            facts: Arc::clone(&self.facts),
            closed: Mutex::new(false),
        }
    }

    /// A panic while the lock was held cannot leave half a batch: batches are checked before they
    /// are applied, and applying cannot panic. So a poisoned lock is still good.
    fn open_facts(&self) -> Result<MutexGuard<'_, Facts>, StateError> {
        if *self.closed.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(StateError::Unavailable("the store is closed".to_owned()));
        }
        Ok(self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn acquire_now(&self, shard: Shard) -> Result<Lease, StateError> {
        let mut facts = self.open_facts()?;
        let epoch = facts.epochs.entry(shard.clone()).or_default();
        *epoch += 1;
        Ok(Lease { epoch: *epoch, shard })
    }

    fn scan_now(&self, shard: &Shard, prefix: &Bytes) -> Result<Vec<Row>, StateError> {
        let facts = self.open_facts()?;
        let Some(rows) = facts.rows.get(shard) else {
            return Ok(Vec::new());
        };
        let found = rows
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit_now(&self, lease: &Lease, changes: Vec<Change>) -> Result<(), StateError> {
        let mut facts = self.open_facts()?;
        let current = facts.epochs.get(&lease.shard).copied().unwrap_or_default();
        // Epoch 0 is no lease: the first one given has epoch 1.
        if current != lease.epoch || current == 0 {
            return Err(StateError::Fenced {
                shard: lease.shard.clone(),
                held: lease.epoch,
                current,
            });
        }
        let rows = facts.rows.entry(lease.shard.clone()).or_default();
        for Change { key, value } in changes {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}

impl StateStore for MemoryStore {
    fn acquire(&self, shard: Shard) -> BoxFuture<'static, Result<Lease, StateError>> {
        Box::pin(future::ready(self.acquire_now(shard)))
    }

    fn scan(&self, shard: Shard, prefix: Bytes) -> BoxFuture<'static, Result<Vec<Row>, StateError>> {
        Box::pin(future::ready(self.scan_now(&shard, &prefix)))
    }

    fn commit(&self, lease: &Lease, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StateError>> {
        Box::pin(future::ready(self.commit_now(lease, changes)))
    }

    fn close(&self) -> BoxFuture<'static, Result<(), StateError>> {
        let was_closed = std::mem::replace(
            &mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner),
            true,
        );
        Box::pin(future::ready(if was_closed {
            Err(StateError::Unavailable("the store is closed".to_owned()))
        } else {
            Ok(())
        }))
    }
}
