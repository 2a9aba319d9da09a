//! Who moves replicas, and how fast: `num.replica.alter.log.dirs.threads` threads with
//! `replica.alter.log.dirs.io.max.bytes.per.second` between them, or a test's own.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use milena_log::MoveConfig;

use super::{Move, Step};
use crate::directory::lock;

/// So much is copied at a time, or what the rate allows in [`LONGEST_TURN`].
const MOST_STEP_BYTES: usize = 1 << 20;
const LEAST_STEP_BYTES: usize = 4096;
const LONGEST_TURN: f64 = 0.25;

/// Who moves the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MoveMode {
    /// Threads of the store.
    #[default]
    Threads,
    /// [`crate::DiskLogStore::step_moves`]: for tests that choose the moment.
    Manual,
}

#[derive(Debug)]
struct Told {
    config: MoveConfig,
    /// Moves that no thread has; each partition has one at most.
    waiting: VecDeque<Move>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that have not decided to end.
    running: usize,
    stopping: bool,
    /// When all that was copied so far has had its time.
    paid_until: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    wake: Condvar,
}

/// The threads, which end when this is dropped. There are none while nothing moves.
#[derive(Debug)]
pub(crate) struct Mover {
    shared: Arc<Shared>,
    mode: MoveMode,
    directories: usize,
}

/// How much to copy at a time.
fn step_bytes(rate: f64) -> usize {
    // A cast of a float stops at the largest number.
    ((rate * LONGEST_TURN) as usize).clamp(LEAST_STEP_BYTES, MOST_STEP_BYTES)
}

impl Shared {
    /// Waits until it may go on; false: stop.
    fn wait_until(&self, until: impl Fn(&Told) -> Option<Instant>) -> bool {
        let mut told = lock(&self.told);
        while !told.stopping {
            let left = until(&told).and_then(|until| until.checked_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                return true;
            };
            let woken = self.wake.wait_timeout(told, left);
            told = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn spent(&self, bytes: usize) -> bool {
        {
            let mut told = lock(&self.told);
            let rate = told.config.io_max_bytes_per_second;
            let cost = Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::ZERO);
            let now = Instant::now();
            told.paid_until = Some(told.paid_until.map_or(now, |until| until.max(now)) + cost);
        }
        self.wait_until(|told| told.paid_until)
    }

    /// Carries a move out; false when the thread is to end.
    fn carry_out(&self, this: &Move) -> bool {
        loop {
            let rate = lock(&self.told).config.io_max_bytes_per_second;
            let goes_on = match this.step(step_bytes(rate)) {
                Step::Over => return true,
                Step::Copied(bytes) => self.spent(bytes),
                Step::Later(pause) => {
                    let until = Instant::now() + pause;
                    self.wait_until(|_| Some(until))
                }
            };
            if !goes_on {
                return false;
            }
        }
    }

    fn run(&self) {
        loop {
            let next = {
                let mut told = lock(&self.told);
                let next = told.waiting.pop_front().filter(|_| !told.stopping);
                if next.is_none() {
                    told.running -= 1;
                }
                next
            };
            match next {
                Some(next) => {
                    self.carry_out(&next);
                }
                None => return,
            }
        }
    }
}

impl Mover {
    pub(crate) fn new(mode: MoveMode, config: MoveConfig, directories: usize) -> Self {
        let told = Told {
            config,
            waiting: VecDeque::new(),
            threads: Vec::new(),
            running: 0,
            stopping: false,
            paid_until: None,
        };
        Self {
            shared: Arc::new(Shared {
                told: Mutex::new(told),
                wake: Condvar::new(),
            }),
            mode,
            directories,
        }
    }

    /// Has the replica moved soon.
    ///
    /// # Errors
    /// When no thread can be started; the move waits for one that another move starts.
    pub(crate) fn push(&self, this: Move) -> io::Result<()> {
        let mut told = lock(&self.shared.told);
        told.waiting.push_back(this);
        let most = told.config.threads.map_or(Ok(self.directories), usize::try_from);
        if self.mode == MoveMode::Manual || told.stopping || told.running >= most.unwrap_or(1).max(1) {
            return Ok(());
        }
        told.threads.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("milena-move".into())
            .spawn(move || shared.run())?;
        told.running += 1;
        told.threads.push(thread);
        Ok(())
    }

    /// Takes other settings over. What is due for what was copied at another rate is forgotten.
    pub(crate) fn update(&self, config: MoveConfig) {
        let mut told = lock(&self.shared.told);
        if told.config != config {
            told.config = config;
            told.paid_until = None;
            drop(told);
            self.shared.wake.notify_all();
        }
    }

    /// One piece of work for each move, on this thread; gives how many moves are left.
    pub(crate) fn step(&self, most: usize) -> usize {
        let moves = std::mem::take(&mut lock(&self.shared.told).waiting);
        let left: VecDeque<Move> = moves
            .into_iter()
            .filter(|this| this.step(most) != Step::Over)
            .collect();
        let count = left.len();
        lock(&self.shared.told).waiting.extend(left);
        count
    }

    /// Ends the work, so that the logs can be closed.
    pub(crate) fn stop(&self) {
        let threads = {
            let mut told = lock(&self.shared.told);
            told.stopping = true;
            told.waiting.clear();
            std::mem::take(&mut told.threads)
        };
        self.shared.wake.notify_all();
        for thread in threads {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_move_takes_small_steps() {
        assert_eq!(step_bytes(f64::MAX), MOST_STEP_BYTES);
        assert_eq!(step_bytes(1.0), LEAST_STEP_BYTES);
        assert_eq!(step_bytes(400_000.0), 100_000);
    }
}
