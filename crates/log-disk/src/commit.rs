//! Group commit: one thread per log directory that makes appends durable.
//!
//! An append queues its log here once; the thread takes all logs that wait, syncs each, and moves
//! their high watermarks. What is appended meanwhile waits for the next round, so one sync covers
//! all that came during the last, and no request ever waits for a disk on its own thread.
//!
//! Where little waits, it goes to the journal of the directory, which takes one sync for all logs
//! ([`crate::journal`]); the rest is synced in its own place.
//!
//! A round of little, while little comes, is left to the kernel where somebody runs an event loop for
//! it ([`crate::KernelCommits`]): the append begins it without waiting, and the loop ends it. That spares the
//! thread's sleep and wake, which take longer than the write.
//!
//! A round costs the processor the same however much it covers. So where appends come together, or
//! faster than rounds end, a round lets more of them gather first; whoever writes one record at a
//! time has the thread for himself and waits for nothing but the disk.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::directory::{Directory, lock};
use crate::journal::{Ended, Journal};
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
    /// What the kernel could not be left with, for the thread.
    returned: Round,
    /// The thread sleeps until it is told.
    sleeping: bool,
    /// Rounds may be left to the kernel.
    has_kernel: bool,
    /// The kernel carries out a round; the thread sleeps until that has ended.
    in_kernel: bool,
    stopping: bool,
    load: Load,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.returned.is_empty()
    }
}

/// How many appends rounds covered lately.
#[derive(Debug, Default)]
struct Load {
    /// Appends that were covered so far.
    covered: u64,
    /// Of the last rounds, the later ones counting more; in sixteenths.
    per_round: u64,
}

impl Load {
    fn begin_round(&mut self, appends: u64) {
        self.per_round = (self.per_round * 3 + appends.saturating_sub(self.covered) * 16) / 4;
        self.covered = appends;
    }

    fn is_low(&self) -> bool {
        self.per_round <= FEW_APPENDS * 16
    }
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

fn pending(logs: Vec<Arc<DiskLog>>) -> Round {
    logs.into_iter()
        .filter_map(|log| log.begin_commit().map(|pending| (log, pending)))
        .collect()
}

/// The logs of one directory that have something to be synced. Each is in it once at most.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    told: Condvar,
    /// How many appends waited for a commit so far.
    appends: AtomicU64,
    costs: Mutex<Costs>,
    journal: Mutex<Journal>,
    /// The round that the kernel carries out. Locked before the journal.
    in_kernel: Mutex<Round>,
}

impl Committer {
    pub(crate) fn new(directory: &Directory, journal_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            told: Condvar::new(),
            appends: AtomicU64::new(0),
            costs: Mutex::default(),
            journal: Mutex::new(Journal::new(&directory.path, &directory.disk, journal_bytes)),
            in_kernel: Mutex::default(),
        }
    }

    pub(crate) fn push(&self, log: Arc<DiskLog>) {
        let mut queue = lock(&self.queue);
        queue.waiting.push(log);
        if queue.sleeping && !queue.in_kernel {
            self.begin(queue);
        }
    }

    /// Begins a round of what waits, while the thread sleeps.
    fn begin(&self, mut queue: MutexGuard<'_, Queue>) {
        if !(queue.has_kernel && queue.load.is_low() && queue.returned.is_empty()) {
            return self.wake(queue);
        }
        queue.in_kernel = true;
        queue.load.begin_round(self.appends.load(Ordering::Relaxed));
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        let round = pending(waiting);
        let mut in_kernel = lock(&self.in_kernel);
        let mut parts = Vec::new();
        let begun = round
            .iter()
            .all(|(log, pending)| pending.add_parts(log, &mut parts))
            && lock(&self.journal).start(&parts);
        drop(parts);
        if begun {
            *in_kernel = round;
        } else {
            drop(in_kernel);
            self.give_back(round);
        }
    }

    /// Has the thread commit what the kernel did not.
    fn give_back(&self, round: Round) {
        let mut queue = lock(&self.queue);
        queue.in_kernel = false;
        queue.returned.extend(round);
        self.wake(queue);
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.told.notify_one();
        }
    }

    /// Ends the round that was left to the kernel, if `journal` says how it ended.
    fn end_round(&self, journal: impl FnOnce(&mut Journal) -> Option<io::Result<Ended>>) {
        let mut in_kernel = lock(&self.in_kernel);
        let Some(ended) = journal(&mut lock(&self.journal)) else {
            return;
        };
        let round = std::mem::take(&mut *in_kernel);
        drop(in_kernel);
        let synced = match ended {
            Ok(Ended::Durable) => Ok(Synced::InJournal),
            Ok(Ended::Refused) => return self.give_back(round),
            Err(error) => Err(error),
        };
        for (log, pending) in round {
            log.end_commit(&pending, &synced);
        }
        let mut queue = lock(&self.queue);
        queue.in_kernel = false;
        if !queue.is_empty() {
            self.begin(queue);
        }
    }

    /// Commits every log that waits.
    pub(crate) fn commit_waiting(&self) {
        let (mut round, waiting) = {
            let mut queue = lock(&self.queue);
            (
                std::mem::take(&mut queue.returned),
                std::mem::take(&mut queue.waiting),
            )
        };
        round.extend(pending(waiting));
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

    /// A round by hand, where no thread makes any.
    pub(crate) fn commit_by_hand(&self) {
        self.commit_waiting();
        lock(&self.queue).sleeping = true;
    }

    /// Leaves no more to the kernel, and forgets what waits.
    pub(crate) fn close(&self) {
        self.end_kernel_commits();
        let mut queue = lock(&self.queue);
        queue.waiting.clear();
        queue.returned.clear();
    }

    /// Leaves rounds to the kernel from now on; gives what is readable when it is done with one.
    pub(crate) fn use_kernel(&self) -> io::Result<OwnedFd> {
        let descriptor = lock(&self.journal).use_ring()?;
        lock(&self.queue).has_kernel = true;
        Ok(descriptor)
    }

    /// Ends the round that the kernel is done with, if there is one.
    pub(crate) fn finish(&self) {
        self.end_round(Journal::finish);
    }

    /// Waits for the round that was left to the kernel; the thread does the next ones.
    pub(crate) fn end_kernel_commits(&self) {
        lock(&self.queue).has_kernel = false;
        self.end_round(Journal::finish_last);
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

    /// Waits for a log; whether more are to be expected soon. `None`: the thread is to end.
    fn wait(&self) -> Option<bool> {
        let mut queue = lock(&self.queue);
        let waited = !queue.is_empty();
        while queue.is_empty() || queue.in_kernel {
            if queue.stopping {
                return None;
            }
            queue.sleeping = true;
            queue = self.told.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(waited || !queue.load.is_low())
    }

    fn run(&self) {
        let mut last_round = Duration::ZERO;
        while let Some(expects_more) = self.wait() {
            if expects_more {
                self.pause((last_round * PAUSE_PER_ROUND).min(LONGEST_PAUSE));
            }
            let started = Instant::now();
            let appends = self.appends.load(Ordering::Relaxed);
            lock(&self.queue).load.begin_round(appends);
            self.commit_waiting();
            last_round = started.elapsed();
        }
    }

    fn stop(&self) {
        let mut queue = lock(&self.queue);
        queue.stopping = true;
        self.wake(queue);
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
