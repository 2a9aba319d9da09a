//! Group commit: one thread per log directory that makes appends durable.
//!
//! An append queues its log here once; the thread takes all logs that wait, syncs each, and moves
//! their high watermarks. What is appended meanwhile waits for the next round, so one sync covers
//! all that came during the last, and no request ever waits for a disk on its own thread.
//!
//! Where little waits, it goes to the journal of the directory, which takes one sync for all logs
//! ([`crate::journal`]); the rest is synced in its own place.
//!
//! A round costs the processor the same however much it covers. So where appends come together, or
//! faster than rounds end, a round lets more of them gather first; whoever writes one record at a
//! time has the thread for himself and waits for nothing but the disk.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::directory::{Directory, lock};
use crate::journal::Journal;
use crate::log::{DiskLog, Pending, Synced};

/// The longest pause before a round, as a multiple of the last one.
const PAUSE_PER_ROUND: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Fewer logs are always synced file by file.
const FEWEST_SYNCED_TOGETHER: u32 = 3;
/// After so many rounds of the one kind the other is tried again.
const ROUNDS_PER_TRIAL: u32 = 512;
/// A pause ends when nothing was appended for this long.
const PAUSE_STEP: Duration = Duration::from_micros(1000);
/// Where rounds covered more appends than this lately, more are to be expected.
const FEW_APPENDS: u64 = 2;

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

/// What rounds took lately. A file's sync waits for its data, its metadata and its inode one after the
/// other; a sync of the whole file system does that for all files at once, but also for those of
/// others. Which is cheaper is measured.
#[derive(Debug, Default)]
struct Costs {
    /// Of one file.
    each: Duration,
    /// Of the file system.
    all: Duration,
    rounds: u32,
}

impl Costs {
    fn prefer_all(&mut self, logs: u32) -> bool {
        if logs < FEWEST_SYNCED_TOGETHER {
            return false;
        }
        self.rounds = self.rounds.wrapping_add(1);
        self.rounds.is_multiple_of(ROUNDS_PER_TRIAL) || self.all < self.each * logs
    }

    fn note(&mut self, logs: u32, together: bool, took: Duration) {
        if together {
            self.all = (self.all * 3 + took) / 4;
        } else if logs > 0 {
            self.each = (self.each * 3 + took / logs) / 4;
        }
    }
}

type Round = Vec<(Arc<DiskLog>, Pending)>;

/// The logs of one directory that have something to be synced. Each is in it once at most.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    told: Condvar,
    /// How many appends waited for a commit so far.
    appends: AtomicU64,
    costs: Mutex<Costs>,
    journal: Mutex<Journal>,
}

impl Committer {
    pub(crate) fn new(directory: &Directory, journal_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            told: Condvar::new(),
            appends: AtomicU64::new(0),
            costs: Mutex::default(),
            journal: Mutex::new(Journal::new(&directory.path, &directory.disk, journal_bytes)),
        }
    }

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
        let round: Round = waiting
            .into_iter()
            .filter_map(|log| log.begin_commit().map(|pending| (log, pending)))
            .collect();
        let rest = self.commit_to_journal(round);
        let logs = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let together = lock(&self.costs).prefer_all(logs);
        let started = Instant::now();
        match rest.first() {
            Some((first, _)) if together => {
                let synced = first.directory.sync_all().map(|()| Synced::InPlace);
                for (log, pending) in rest {
                    log.end_commit(&pending, &synced);
                }
            }
            _ => {
                for (log, pending) in rest {
                    let synced = pending.sync().map(|()| Synced::InPlace);
                    log.end_commit(&pending, &synced);
                }
            }
        }
        lock(&self.costs).note(logs, together, started.elapsed());
    }

    /// Commits what the journal is the cheaper way for, and gives what is left.
    fn commit_to_journal(&self, round: Round) -> Round {
        let mut parts = Vec::new();
        let fits: Vec<bool> = round
            .iter()
            .map(|(log, pending)| pending.add_parts(log, &mut parts))
            .collect();
        let synced = match lock(&self.journal).commit(&parts) {
            Ok(false) => return round,
            Ok(true) => Ok(Synced::InJournal),
            Err(error) => Err(error),
        };
        drop(parts);
        let mut rest = Round::new();
        for ((log, pending), fits) in round.into_iter().zip(fits) {
            if fits {
                log.end_commit(&pending, &synced);
            } else {
                rest.push((log, pending));
            }
        }
        rest
    }

    pub(crate) fn forget_waiting(&self) {
        lock(&self.queue).waiting.clear();
    }

    /// Says that something was appended that waits for a commit.
    pub(crate) fn note_append(&self) {
        self.appends.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets more gather, as long as more comes: when nothing does, everybody waits for the round.
    fn pause(&self, longest: Duration) {
        let started = Instant::now();
        loop {
            let before = self.appends.load(Ordering::Relaxed);
            thread::sleep(PAUSE_STEP);
            let after = self.appends.load(Ordering::Relaxed);
            if after == before || started.elapsed() >= longest {
                return;
            }
        }
    }

    /// Waits for a log; whether one waited already. `None`: the thread is to end.
    fn wait(&self) -> Option<bool> {
        let mut queue = lock(&self.queue);
        let waited = !queue.waiting.is_empty();
        while queue.waiting.is_empty() {
            if queue.stopping {
                return None;
            }
            queue.sleeping = true;
            queue = self.told.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(waited)
    }

    fn run(&self) {
        let mut last_round = Duration::ZERO;
        let mut covered = self.appends.load(Ordering::Relaxed);
        // Of the last rounds, the later ones counting more; in sixteenths.
        let mut appends_per_round = 0;
        while let Some(waited) = self.wait() {
            if waited || appends_per_round > FEW_APPENDS * 16 {
                self.pause((last_round * PAUSE_PER_ROUND).min(LONGEST_PAUSE));
            }
            let started = Instant::now();
            let appends = self.appends.load(Ordering::Relaxed);
            appends_per_round = (appends_per_round * 3 + (appends - covered) * 16) / 4;
            covered = appends;
            self.commit_waiting();
            last_round = started.elapsed();
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
