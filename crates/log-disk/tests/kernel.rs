//! Commits that are left to the kernel. Where a store commits by hand, no thread does: what becomes durable
//! without a call of `commit` was made so by the kernel.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Log, begin, contents, cut, open_partition, plain, segment};
use milena_log::conformance::{self, NOW_MS};
use milena_log_disk::{CommitMode, DiskLogStore, DiskOptions, KernelCommits};
use milena_protocol::records::BatchBuilder;

/// How long the kernel may take for a write.
const PATIENCE: Duration = Duration::from_secs(60);

fn store(dir: &Path, journal_bytes: usize) -> DiskLogStore {
    let options = DiskOptions {
        commit: CommitMode::Manual,
        journal_bytes,
        ..DiskOptions::at(NOW_MS)
    };
    DiskLogStore::open(vec![dir.to_owned()], options).unwrap()
}

fn is_durable(log: &Log) -> bool {
    let watermarks = log.watermarks();
    watermarks.high_watermark == watermarks.log_end
}

/// Two logs with a record each, a journal, and the kernel's part; `None` where this machine forbids that.
fn two(store: &DiskLogStore) -> Option<(Vec<Log>, KernelCommits)> {
    let Some(commits) = store.kernel_commits().pop() else {
        eprintln!("no io_uring here");
        return None;
    };
    let logs: Vec<Log> = (0..2).map(|partition| open_partition(store, partition)).collect();
    // The first round is in place, and gives the files their names; the second makes the journal.
    for _ in 0..2 {
        logs.iter().for_each(|log| begin(log, plain(&[1])));
        store.commit();
        assert!(logs.iter().all(is_durable));
    }
    Some((logs, commits))
}

/// Does it while the kernel's commits are ended by an event loop.
fn on_a_loop(commits: KernelCommits, work: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::spawn(commits.run());
        work().await;
    });
}

async fn durable(log: &Log) {
    let reached = async {
        while !is_durable(log) {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

#[test]
fn what_the_kernel_committed_outlasts_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path(), 100_000);
    let Some((logs, commits)) = two(&first) else {
        return;
    };
    let synced: Vec<u64> = (0..2)
        .map(|at| segment(dir.path(), at).metadata().unwrap().len() / 2)
        .collect();
    on_a_loop(commits, async || {
        for round in 0..40 {
            let log = &logs[round % 2];
            begin(log, plain(&[2]));
            durable(log).await;
        }
    });
    let expected: Vec<Vec<(i64, i64)>> = logs.iter().map(contents).collect();
    assert_eq!(expected[0].len(), 22);
    drop((first, logs));
    // What a power cut may leave of files that were synced once.
    for (at, length) in (0..).zip(&synced) {
        cut(&segment(dir.path(), at), *length);
    }
    let again = store(dir.path(), 100_000);
    for (partition, expected) in (0..).zip(&expected) {
        assert_eq!(contents(&open_partition(&again, partition)), *expected);
    }
}

#[test]
fn more_than_goes_to_the_journal_is_not_left_to_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 100_000);
    let Some((logs, _commits)) = two(&store) else {
        return;
    };
    begin(
        &logs[0],
        conformance::append(BatchBuilder::new(), &[3; 20], 5_000),
    );
    assert!(!is_durable(&logs[0]));
    store.commit();
    assert!(is_durable(&logs[0]));
}

#[test]
fn a_full_journal_is_begun_again_by_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        // Room for some sixty records.
        journal_bytes: 3 * 4096,
        ..DiskOptions::at(NOW_MS)
    };
    let store = DiskLogStore::open(vec![dir.path().to_owned()], options).unwrap();
    let log = open_partition(&store, 0);
    let Some(commits) = store.kernel_commits().pop() else {
        return;
    };
    on_a_loop(commits, async || {
        for _ in 0..300 {
            begin(&log, plain(&[4]));
            durable(&log).await;
        }
    });
}

#[test]
fn whoever_ends_the_loop_or_the_store_waits_for_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path(), 100_000);
    let Some((logs, commits)) = two(&first) else {
        return;
    };
    begin(&logs[0], plain(&[2]));
    begin(&logs[1], plain(&[2]));
    assert!(!is_durable(&logs[0]), "nobody has ended it");
    drop(commits);
    assert!(is_durable(&logs[0]));
    assert!(!is_durable(&logs[1]), "it came after the round had begun");
    first.commit();
    assert!(is_durable(&logs[1]));

    let commits = first.kernel_commits().pop().unwrap();
    drop((first, logs));
    drop(commits);

    let again = store(dir.path(), 100_000);
    let Some((logs, commits)) = two(&again) else {
        return;
    };
    begin(&logs[0], plain(&[2]));
    drop(again);
    assert!(is_durable(&logs[0]));
    drop(commits);
}

#[test]
fn appends_from_many_threads_are_all_committed() {
    const THREADS: usize = 4;
    const APPENDS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let store = DiskLogStore::open(vec![dir.path().to_owned()], DiskOptions::at(NOW_MS)).unwrap();
    let logs: Vec<Log> = (0..2)
        .map(|partition| open_partition(&store, partition))
        .collect();
    let Some(commits) = store.kernel_commits().pop() else {
        return;
    };
    on_a_loop(commits, async || {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let log = Arc::clone(&logs[number % 2]);
                std::thread::spawn(move || {
                    for _ in 0..APPENDS {
                        begin(&log, plain(&[2]));
                        // As a producer that waits for each answer.
                        let end = log.watermarks().log_end;
                        while log.watermarks().high_watermark < end {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let done = async {
            while threads.iter().any(|thread| !thread.is_finished()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let ends: Vec<i64> = logs.iter().map(|log| log.watermarks().high_watermark).collect();
    assert_eq!(ends, [(THREADS * APPENDS / 2) as i64; 2]);
}
