//! Who waits for records of share partitions to become available: a fetch is woken when one may have been given back,
//! or when there is room for more in flight. Nothing polls.
//!
//! What is held is bounded by the requests in flight, which the connections bound.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use milena_coordinator::SharePartitionKey;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    waiters: Mutex<HashMap<SharePartitionKey, Vec<Arc<Notify>>>>,
}

impl Waiting {
    pub(super) fn wake(&self, keys: &BTreeSet<SharePartitionKey>) {
        if keys.is_empty() {
            return;
        }
        let waiters = self.lock();
        for waiter in keys.iter().filter_map(|key| waiters.get(key)).flatten() {
            // Kept for a waiter that looks away just now.
            waiter.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SharePartitionKey, Vec<Arc<Notify>>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One fetch's wait on any number of share partitions. Dropping it ends the wait everywhere.
#[derive(Debug)]
pub(crate) struct ShareWait {
    waiting: Arc<Waiting>,
    keys: Vec<SharePartitionKey>,
    notify: Arc<Notify>,
}

impl ShareWait {
    pub(super) fn new(waiting: Arc<Waiting>, keys: Vec<SharePartitionKey>) -> Self {
        let notify = Arc::new(Notify::new());
        let mut waiters = waiting.lock();
        for key in &keys {
            waiters.entry(key.clone()).or_default().push(notify.clone());
        }
        drop(waiters);
        Self {
            waiting,
            keys,
            notify,
        }
    }

    /// Resolves when there may be more; no wake-up since the last call is lost.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for ShareWait {
    fn drop(&mut self) {
        let mut waiters = self.waiting.lock();
        for key in &self.keys {
            if let Some(waiting) = waiters.get_mut(key) {
                waiting.retain(|one| !Arc::ptr_eq(one, &self.notify));
                if waiting.is_empty() {
                    waiters.remove(key);
                }
            }
        }
    }
}
