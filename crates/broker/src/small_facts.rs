//! A shard of facts that is small enough to be kept in memory whole, with one writer.
//!
//! A change holds the writer's lock from its decision to its publication. When the fact store fails in the
//! middle it is unknown what is stored; the lease is given up, and the next change acquires the shard
//! and reads it again before it decides anything.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use milena_protocol::ErrorCode;
use milena_state::{Change, Lease, Row, Shard, StateError, StateStore};
use tokio::sync::{Mutex, MutexGuard};

use crate::api_error::ApiError;
use crate::broker::StartError;

/// What the rows of a shard say.
pub(crate) trait FromRows: Sized {
    /// # Errors
    /// A row that this version does not understand, as a sentence.
    fn from_rows(rows: Vec<Row>) -> Result<Self, String>;
}

#[derive(Debug)]
pub(crate) struct SmallFacts<S> {
    facts: Arc<dyn StateStore>,
    shard: Shard,
    current: RwLock<Arc<S>>,
    /// `None`: it is unknown what is stored, or another holder took the shard.
    lease: Mutex<Option<Lease>>,
}

impl<S: FromRows> SmallFacts<S> {
    pub(crate) async fn load(facts: Arc<dyn StateStore>, shard: &str) -> Result<Self, StartError> {
        let shard = Shard(shard.to_owned());
        let (lease, rows) = acquire(&facts, &shard).await?;
        let stored = S::from_rows(rows).map_err(StartError::Invalid)?;
        Ok(Self {
            facts,
            shard,
            current: RwLock::new(Arc::new(stored)),
            lease: Mutex::new(Some(lease)),
        })
    }

    pub(crate) fn current(&self) -> Arc<S> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Decides on what is stored, stores the changes and publishes what follows from them. Nothing is
    /// stored where there are no changes.
    pub(crate) async fn change(
        &self,
        decide: impl FnOnce(&S) -> Result<(S, Vec<Change>), ApiError>,
    ) -> Result<(), ApiError> {
        let mut held = self.lease.lock().await;
        let lease = self.lease(&mut held).await?;
        let (next, changes) = decide(&self.current())?;
        if !changes.is_empty() {
            if let Err(error) = self.facts.commit(&lease, changes).await {
                *held = None;
                return Err(error.into());
            }
            self.publish(next);
        }
        Ok(())
    }

    async fn lease(&self, held: &mut MutexGuard<'_, Option<Lease>>) -> Result<Lease, ApiError> {
        if let Some(lease) = &**held {
            return Ok(lease.clone());
        }
        let (lease, rows) = acquire(&self.facts, &self.shard).await?;
        let stored =
            S::from_rows(rows).map_err(|sentence| ApiError::new(ErrorCode::KafkaStorageError, sentence))?;
        self.publish(stored);
        **held = Some(lease.clone());
        Ok(lease)
    }

    fn publish(&self, state: S) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }
}

async fn acquire(facts: &Arc<dyn StateStore>, shard: &Shard) -> Result<(Lease, Vec<Row>), StateError> {
    let lease = facts.acquire(shard.clone()).await?;
    let rows = facts.scan(shard.clone(), Bytes::new()).await?;
    Ok((lease, rows))
}

/// Key and value as text.
pub(crate) fn text_of(row: &Row) -> Result<(&str, &str), String> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| format!("the fact {:?} is not UTF-8", row.0));
    Ok((text(&row.0)?, text(&row.1)?))
}

/// The rows `<entity>/<name>` that make what is stored of an entity's values `new`, which were `old`.
pub(crate) fn changed_rows<V: PartialEq + ToString>(
    entity: &str,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
) -> Vec<Change> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let set = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
    gone.map(|name| row(format!("{entity}/{name}"), None))
        .chain(set.map(|(name, value)| row(format!("{entity}/{name}"), Some(value.to_string()))))
        .collect()
}

/// A row to be stored, or removed.
pub(crate) fn row(key: String, value: Option<String>) -> Change {
    Change {
        key: Bytes::from(key),
        value: value.map(Bytes::from),
    }
}
