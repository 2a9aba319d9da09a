//! The calls that wait for the writer, in the order in which they were made.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use milena_state::{Change, Lease, Row, Shard};

use crate::reply::Reply;

/// Calls that may wait. A call beyond that blocks its thread until the writer took some: that is the
/// only way to hold callers back and keep the order of calls, and it lasts as long as one group commit.
const QUEUE_LIMIT: usize = 4096;

/// Bytes of changes that may wait, likewise.
const QUEUE_LIMIT_BYTES: usize = 64 << 20;

/// Calls that share one transaction. Bounds how much is written again when one of them fails.
const TRANSACTION_LIMIT: usize = 1024;

#[derive(Debug)]
pub(crate) enum Job {
    Acquire {
        shard: Shard,
        reply: Reply<Lease>,
    },
    Scan {
        shard: Shard,
        prefix: Bytes,
        reply: Reply<Vec<Row>>,
    },
    Commit {
        lease: Lease,
        changes: Vec<Change>,
        reply: Reply<()>,
    },
    /// `None`: nobody waits for it.
    Close {
        reply: Option<Reply<()>>,
    },
}

impl Job {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Commit { changes, .. } => changes
                .iter()
                .map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len))
                .sum(),
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    size_bytes: usize,
    /// No call is accepted any more.
    closed: bool,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.jobs.len() >= QUEUE_LIMIT || self.size_bytes >= QUEUE_LIMIT_BYTES
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    not_empty: Condvar,
    not_full: Condvar,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Nothing in here panics while it holds the lock, so a poisoned one is still good.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts the job, or drops it (and so answers it) when the queue is closed. A job that closes
    /// is the last that is accepted.
    pub(crate) fn push(&self, job: Job) {
        let mut waiting = self.lock();
        while waiting.is_full() && !waiting.closed {
            waiting = self
                .not_full
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed {
            drop(waiting);
            drop(job);
            return;
        }
        waiting.closed = matches!(job, Job::Close { .. });
        waiting.size_bytes += job.size_bytes();
        waiting.jobs.push_back(job);
        self.not_empty.notify_one();
    }

    /// What one transaction is made of: at least one job, as many as wait and fit.
    pub(crate) fn take(&self) -> Vec<Job> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            waiting = self
                .not_empty
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = waiting.jobs.len().min(TRANSACTION_LIMIT);
        let jobs: Vec<Job> = waiting.jobs.drain(..count).collect();
        let taken_bytes: usize = jobs.iter().map(Job::size_bytes).sum();
        waiting.size_bytes = waiting.size_bytes.saturating_sub(taken_bytes);
        self.not_full.notify_all();
        jobs
    }

    /// Refuses every later call and answers those that wait.
    pub(crate) fn shut(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let refused = std::mem::take(&mut waiting.jobs);
        self.not_full.notify_all();
        drop(waiting);
        drop(refused);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::reply::reply;

    fn scan() -> Job {
        let (reply, _) = reply();
        Job::Scan {
            shard: Shard("s".to_owned()),
            prefix: Bytes::new(),
            reply,
        }
    }

    #[test]
    fn a_full_queue_holds_its_callers_back_until_the_writer_took_some() {
        let queue = Arc::new(Queue::new());
        for _ in 0..QUEUE_LIMIT {
            queue.push(scan());
        }
        let one_more = Arc::clone(&queue);
        let caller = thread::spawn(move || one_more.push(scan()));
        let mut taken = 0;
        while taken < QUEUE_LIMIT + 1 {
            let jobs = queue.take();
            assert!(jobs.len() <= TRANSACTION_LIMIT);
            taken += jobs.len();
            assert!(queue.lock().jobs.len() <= QUEUE_LIMIT);
        }
        caller.join().unwrap();
    }

    #[test]
    fn a_caller_that_is_held_back_is_answered_when_the_queue_shuts() {
        let queue = Arc::new(Queue::new());
        for _ in 0..QUEUE_LIMIT {
            queue.push(scan());
        }
        let one_more = Arc::clone(&queue);
        let caller = thread::spawn(move || one_more.push(scan()));
        queue.shut();
        caller.join().unwrap();
        assert!(queue.lock().jobs.is_empty());
    }
}
