//! Who compacts, when, and how fast: `log.cleaner.threads` threads, or a test's own.
//!
//! Time is what the store was last told. A round of the threads begins when that is
//! `log.cleaner.backoff.ms` after the last one, and ends when no log is due.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use milena_log::CleanerConfig;

use super::{Means, Pace};
use crate::directory::lock;
use crate::log::DiskLog;

/// Who compacts the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CleanMode {
    /// Threads of the store, as `log.cleaner.*` says.
    #[default]
    Threads,
    /// [`crate::DiskLogStore::clean`]: for tests that choose the moment.
    Manual,
}

/// Gives the logs that are open now.
pub(crate) type Logs = Arc<dyn Fn() -> Vec<Arc<DiskLog>> + Send + Sync>;

#[derive(Debug)]
struct Told {
    config: Arc<CleanerConfig>,
    now_ms: i64,
    last_round_ms: i64,
    rounds: u64,
    stopping: bool,
    /// When all that was read and written so far has had its time.
    paid_until: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    wake: Condvar,
}

/// The threads, which end when this is dropped.
pub(crate) struct Cleaner {
    shared: Arc<Shared>,
    logs: Logs,
    mode: CleanMode,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Cleaner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cleaner")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// For how long `bytes` keep a disk that is to see `rate` bytes per second.
fn time_of(bytes: usize, rate: f64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::ZERO)
}

impl Pace for Shared {
    fn spent(&self, bytes: usize) -> bool {
        let mut told = lock(&self.told);
        let now = Instant::now();
        let cost = time_of(bytes, told.config.io_max_bytes_per_second);
        let paid_until = told.paid_until.map_or(now, |until| until.max(now)) + cost;
        told.paid_until = Some(paid_until);
        while !told.stopping {
            let Some(left) = paid_until
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                return true;
            };
            told = self
                .wake
                .wait_timeout(told, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        false
    }
}

/// Never waits.
struct AtOnce;

impl Pace for AtOnce {
    fn spent(&self, _bytes: usize) -> bool {
        true
    }
}

/// Compacts the log that is the dirtiest of those that are due. False when none is.
fn clean_one(logs: &Logs, now_ms: i64, means: Means<'_>) -> bool {
    let mut due = Vec::new();
    for log in logs() {
        if !log.cleaning.may_start(now_ms) {
            continue;
        }
        match log.candidate(now_ms) {
            Ok(Some(candidate)) => due.push((log, candidate)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(log = %log.id, %error, "cannot tell whether the log is to be compacted")
            }
        }
    }
    due.sort_by(|(_, one), (_, other)| other.dirty_ratio.total_cmp(&one.dirty_ratio));
    for (log, candidate) in &due {
        if log.begin_cleaning() {
            log.clean(candidate, now_ms, means);
            return true;
        }
    }
    false
}

impl Shared {
    /// Waits for a round that this thread has not seen; `None` when the thread is to end.
    fn next_round(&self, index: i32, seen: u64) -> Option<MutexGuard<'_, Told>> {
        let mut told = lock(&self.told);
        loop {
            if told.stopping || !told.config.enable || index >= told.config.threads {
                return None;
            }
            if told.rounds > seen {
                return Some(told);
            }
            told = self.wake.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, index: i32, logs: &Logs) {
        let mut seen = 0;
        while let Some(told) = self.next_round(index, seen) {
            seen = told.rounds;
            drop(told);
            loop {
                let told = lock(&self.told);
                let (config, now_ms) = (Arc::clone(&told.config), told.now_ms);
                let ends = told.stopping || index >= config.threads;
                drop(told);
                let means = Means {
                    config: &config,
                    pace: self,
                };
                if ends || !clean_one(logs, now_ms, means) {
                    break;
                }
            }
        }
    }
}

impl Cleaner {
    /// The threads start with the first round.
    pub(crate) fn new(mode: CleanMode, config: CleanerConfig, now_ms: i64, logs: Logs) -> Self {
        let told = Told {
            config: Arc::new(config),
            now_ms,
            last_round_ms: now_ms,
            rounds: 0,
            stopping: false,
            paid_until: None,
        };
        Self {
            shared: Arc::new(Shared {
                told: Mutex::new(told),
                wake: Condvar::new(),
            }),
            logs,
            mode,
            threads: Mutex::new(Vec::new()),
        }
    }

    /// Starts the threads that there should be. Those that should not be end by themselves.
    fn start_threads(&self) -> io::Result<()> {
        let config = Arc::clone(&lock(&self.shared.told).config);
        if self.mode == CleanMode::Manual || !config.enable {
            return Ok(());
        }
        let mut threads = lock(&self.threads);
        for index in 0..config.threads {
            let at = usize::try_from(index).map_err(io::Error::other)?;
            if threads.get(at).is_some_and(|thread| !thread.is_finished()) {
                continue;
            }
            let (shared, logs) = (Arc::clone(&self.shared), Arc::clone(&self.logs));
            let thread = thread::Builder::new()
                .name(format!("milena-clean-{index}"))
                .spawn(move || shared.run(index, &logs))?;
            match threads.get_mut(at) {
                Some(ended) => *ended = thread,
                None => threads.push(thread),
            }
        }
        Ok(())
    }

    /// Takes other settings over.
    pub(crate) fn update(&self, config: CleanerConfig) {
        lock(&self.shared.told).config = Arc::new(config);
        self.shared.wake.notify_all();
    }

    /// Says what time it is.
    pub(crate) fn tick(&self, now_ms: i64) {
        let mut told = lock(&self.shared.told);
        told.now_ms = told.now_ms.max(now_ms);
        if now_ms.saturating_sub(told.last_round_ms) >= told.config.backoff_ms {
            told.last_round_ms = now_ms;
            told.rounds += 1;
            drop(told);
            self.shared.wake.notify_all();
            if let Err(error) = self.start_threads() {
                tracing::error!(%error, "cannot start a thread to compact logs; it is tried again");
            }
        }
    }

    /// Compacts all that is due, on this thread; gives the number of rounds.
    pub(crate) fn clean_now(&self, now_ms: i64) -> usize {
        let config = Arc::clone(&lock(&self.shared.told).config);
        let means = Means {
            config: &config,
            pace: &AtOnce,
        };
        let mut rounds = 0;
        while config.enable && clean_one(&self.logs, now_ms, means) {
            rounds += 1;
        }
        rounds
    }

    /// Ends the work, so that the logs can be closed.
    pub(crate) fn stop(&self) {
        lock(&self.shared.told).stopping = true;
        self.shared.wake.notify_all();
        for thread in lock(&self.threads).drain(..) {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        assert_eq!(time_of(500, 1000.0), Duration::from_millis(500));
        assert_eq!(time_of(usize::MAX, f64::MAX), Duration::ZERO);
        assert_eq!(time_of(1, 0.0), Duration::ZERO, "no rate is no limit");
    }
}
