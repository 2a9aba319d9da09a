//! Replicas that move between log directories, while they are used.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/compacted.rs"]
mod compacted;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Log, append, contents, plain, small};
use milena_log::conformance::{
    self, NOW_MS, Seen, committed, end, ended, partition, transactional, verified, wait,
};
use milena_log::{LogConfig, LogError, LogStore, MoveConfig, PartitionId, StoredReplica};
use milena_log_disk::{Change, CleanMode, DiskLogStore, DiskOptions, MoveMode, Watch};
use tempfile::TempDir;

/// Three log directories.
struct Disks(TempDir);

impl Disks {
    fn new() -> Self {
        Self(common::tempdir())
    }

    fn path(&self, at: usize) -> PathBuf {
        self.0.path().join(format!("disk{at}"))
    }

    fn text(&self, at: usize) -> String {
        self.path(at).to_str().unwrap().to_owned()
    }

    fn store_with(&self, options: DiskOptions) -> DiskLogStore {
        DiskLogStore::open((0..3).map(|at| self.path(at)).collect(), options).unwrap()
    }

    /// A store whose moves are done step by step.
    fn manual(&self) -> DiskLogStore {
        self.store_with(DiskOptions {
            moving: MoveMode::Manual,
            clean: CleanMode::Manual,
            ..DiskOptions::at(NOW_MS)
        })
    }

    /// The directories that have a folder whose name begins and ends so.
    fn with(&self, start: &str, end: &str) -> Vec<usize> {
        let has = |at: &usize| {
            fs::read_dir(self.path(*at)).unwrap().any(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.starts_with(start) && name.ends_with(end)
            })
        };
        (0..3).filter(has).collect()
    }
}

fn id() -> PartitionId {
    partition("conformance", 0)
}

fn start_move(store: &DiskLogStore, disks: &Disks, to: usize) {
    wait(store.move_to(&id(), &disks.text(to))).unwrap();
}

fn finish(store: &DiskLogStore) {
    for _ in 0..10_000 {
        if store.step_moves(1_000) == 0 {
            return;
        }
    }
    panic!("the move does not end");
}

/// Where the partition is, and what is told of it.
fn replicas(store: &DiskLogStore) -> Vec<(usize, StoredReplica)> {
    let dirs = store.log_dirs();
    let of = |(at, dir): (usize, milena_log::LogDir)| dir.replicas.into_iter().map(move |it| (at, it));
    dirs.into_iter()
        .enumerate()
        .flat_map(of)
        .filter(|(_, replica)| replica.partition == id())
        .collect()
}

fn place(store: &DiskLogStore) -> usize {
    let replicas = replicas(store);
    let current = replicas.iter().find(|(_, replica)| !replica.is_future);
    current.unwrap().0
}

fn send(log: &Log, producer_id: i64, sequence: i32) -> i64 {
    append(log, verified(&**log, transactional(producer_id, 0, sequence, 1)))
}

fn durable(log: &Log) {
    for _ in 0..1_000_000 {
        let watermarks = log.watermarks();
        if watermarks.high_watermark == watermarks.log_end {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the high watermark does not follow");
}

#[test]
fn a_replica_that_moved_is_what_it_was() {
    for config in [small(), LogConfig::default()] {
        let disks = Disks::new();
        let store = disks.manual();
        let (log, _) = conformance::open(&store, config.clone());
        let mut visible = Vec::new();
        for round in 0..12 {
            let (aborted, kept) = (round % 2, (round + 1) % 2);
            let sequence = i32::try_from(round).unwrap();
            send(&log, aborted, sequence);
            visible.push(send(&log, kept, sequence));
            ended(&*log, end(aborted, 0, false));
            ended(&*log, end(kept, 0, true));
        }
        send(&log, 2, 0);
        append(&log, plain(&[5; 3]));
        durable(&log);
        wait(log.delete_records(visible[2])).unwrap();
        visible.drain(..2);
        let what = |log: &Log| {
            let from = log.watermarks().log_start;
            (
                log.watermarks(),
                contents(log),
                log.producers(),
                committed(&**log, from, 1 << 20),
                log.end_offset_for_epoch(0),
                wait(log.max_timestamp()).unwrap(),
                log.size_bytes(),
            )
        };
        let before = what(&log);
        let from = place(&store);
        let to = (from + 1) % 3;
        start_move(&store, &disks, to);
        assert_eq!(disks.with("conformance-0.", "-future"), [to]);
        finish(&store);
        durable(&log);
        assert_eq!(what(&log), before);
        assert_eq!(place(&store), to);
        assert_eq!(disks.with("conformance-0", "conformance-0"), [to]);
        assert_eq!(disks.with("conformance-0.", "-delete"), [from]);
        assert!(disks.with("conformance-0.", "-moved").is_empty());
        // The transaction that is open goes on, and ends.
        let last = send(&log, 2, 1);
        ended(&*log, end(2, 0, true));
        durable(&log);
        assert_eq!(log.watermarks().last_stable, last + 2);
        let after = what(&log);
        wait(store.maintain(NOW_MS + config.file_delete_delay_ms + 1));
        assert!(disks.with("conformance-0.", "-delete").is_empty());
        for clean in [true, false] {
            let store = disks.manual_again(clean, &config, &after, what);
            assert_eq!(place(&store), to);
        }
        drop((store, log));
    }
}

impl Disks {
    /// Starts anew on a copy of what is there, after a clean stop or none.
    fn manual_again<T: PartialEq + std::fmt::Debug>(
        &self,
        clean: bool,
        config: &LogConfig,
        expected: &T,
        what: impl Fn(&Log) -> T,
    ) -> DiskLogStore {
        let copy = Self::new();
        copy_folder(self.0.path(), copy.0.path());
        let mut store = copy.manual();
        if clean {
            let (log, _) = conformance::open(&store, config.clone());
            wait(store.close()).unwrap();
            drop((store, log));
            store = copy.manual();
        }
        let (log, _) = conformance::open(&store, config.clone());
        assert_eq!(what(&log), *expected, "clean: {clean}");
        store
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn everything_goes_on_while_a_replica_moves_round_and_round() {
    let disks = Disks::new();
    let store = disks.store_with(DiskOptions::at(NOW_MS));
    let config = LogConfig {
        segment_bytes: 20_000,
        ..small()
    };
    let (log, _) = conformance::open(&store, config.clone());
    let stop = AtomicBool::new(false);
    let appended = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut appended = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let base = append(&log, plain(&[0; 2]));
                appended.push((base, base + 1));
            }
            appended
        });
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                // Also batches that were written before the move.
                let high = log.watermarks().high_watermark;
                if high > 0 {
                    let at = seen % high;
                    assert!(!common::read(&log, at).is_empty());
                    seen += 7;
                }
                assert_eq!(log.check().ok(), Some(()));
            }
        });
        for round in 0..12 {
            let to = round % 3;
            start_move(&store, &disks, to);
            for _ in 0..10_000 {
                if replicas(&store).len() == 1 && place(&store) == to {
                    break;
                }
                wait(store.maintain(NOW_MS + i64::try_from(round).unwrap()));
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert_eq!(place(&store), to, "round {round}");
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        writer.join().unwrap()
    });
    durable(&log);
    assert_eq!(contents(&log), appended);
    drop((store, log));
    let store = disks.manual();
    let (log, _) = conformance::open(&store, config);
    assert_eq!(contents(&log), appended, "after the end of the process");
}

#[test]
fn a_move_is_seen_and_ends_where_the_last_request_says() {
    let disks = Disks::new();
    let store = disks.manual();
    let (log, _) = conformance::open(&store, small());
    for _ in 0..20 {
        append(&log, plain(&[0; 3]));
    }
    durable(&log);
    let from = place(&store);
    let (one, other) = ((from + 1) % 3, (from + 2) % 3);
    start_move(&store, &disks, one);
    store.step_moves(1_000);
    let future = replicas(&store).into_iter().find(|(_, it)| it.is_future).unwrap();
    assert_eq!(future.0, one);
    assert!(future.1.size_bytes > 0 && future.1.size_bytes < log.size_bytes());
    assert!(future.1.offset_lag > 0 && future.1.offset_lag < 60);
    // The same again changes nothing.
    start_move(&store, &disks, one);
    assert_eq!(disks.with("conformance-0.", "-future"), [one]);
    start_move(&store, &disks, other);
    assert_eq!(disks.with("conformance-0.", "-future"), [other]);
    store.step_moves(1_000);
    start_move(&store, &disks, from);
    assert_eq!(store.step_moves(1_000), 0, "it is cancelled");
    assert!(disks.with("conformance-0.", "-future").is_empty());
    assert_eq!(replicas(&store).len(), 1);
    wait(store.maintain(NOW_MS));
    assert!(disks.with("conformance-0.", "-delete").is_empty());
    start_move(&store, &disks, other);
    finish(&store);
    assert_eq!(place(&store), other);
    assert_eq!(contents(&log).len(), 20);
}

#[test]
fn a_partition_is_deleted_while_it_moves() {
    let disks = Disks::new();
    let store = disks.manual();
    let (log, _) = conformance::open(&store, small());
    for _ in 0..20 {
        append(&log, plain(&[0; 3]));
    }
    start_move(&store, &disks, (place(&store) + 1) % 3);
    store.step_moves(1_000);
    wait(store.delete(&id())).unwrap();
    assert_eq!(store.step_moves(1_000), 0);
    wait(store.maintain(NOW_MS + 1_000));
    assert!(disks.with("conformance-0", "").is_empty(), "nothing is left");
    let (again, _) = conformance::open(&store, small());
    assert_eq!(append(&again, plain(&[0])), 0);
}

#[test]
fn what_leaves_the_log_while_it_moves_is_not_in_the_copy() {
    let disks = Disks::new();
    let store = disks.manual();
    let (log, _) = conformance::open(&store, small());
    for _ in 0..30 {
        append(&log, plain(&[0; 3]));
    }
    durable(&log);
    start_move(&store, &disks, (place(&store) + 1) % 3);
    store.step_moves(2_000);
    // Within what was copied, and then behind all of that.
    for before in [10, 50, 71] {
        wait(log.delete_records(before)).unwrap();
        store.step_moves(100);
    }
    finish(&store);
    assert_eq!(log.watermarks().log_start, 71);
    assert_eq!(contents(&log).first(), Some(&(69, 71)));
    wait(store.close()).unwrap();
    drop((store, log));
    let store = disks.manual();
    let (log, _) = conformance::open(&store, small());
    assert_eq!((log.watermarks().log_start, log.watermarks().log_end), (71, 90));
}

#[test]
fn a_log_that_is_compacted_while_it_moves_keeps_the_newest_of_each_key() {
    let disks = Disks::new();
    let store = disks.manual();
    let config = compacted::compacted();
    let (log, _) = conformance::open(&store, config.clone());
    for round in 0..60 {
        compacted::put(
            &log,
            round,
            &[("a", Some("a value of some length")), ("b", Some("b"))],
        );
    }
    durable(&log);
    start_move(&store, &disks, (place(&store) + 1) % 3);
    store.step_moves(500);
    assert!(store.clean(NOW_MS) > 0, "it is compacted now");
    store.step_moves(500);
    for round in 60..70 {
        compacted::put(&log, round, &[("a", Some("a value of some length"))]);
    }
    finish(&store);
    let before = compacted::records(&log);
    store.clean(NOW_MS);
    let after = compacted::records(&log);
    assert!(after.len() < before.len(), "the copy is compacted, too");
    for key in ["a", "b"] {
        let newest = before.iter().rfind(|record| record.1 == key).unwrap();
        assert!(after.contains(newest), "{key}");
    }
}

/// Refuses writes below a path.
#[derive(Debug)]
struct Broken(PathBuf, AtomicBool);

impl Watch for Broken {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        match change {
            Change::Write { path, .. } if path.starts_with(&self.0) && self.1.load(Ordering::Relaxed) => {
                Err(io::Error::other("the disk is broken"))
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn a_destination_that_fails_is_offline_and_the_replica_stays() {
    let disks = Disks::new();
    fs::create_dir_all(disks.path(1)).unwrap();
    let broken = Arc::new(Broken(disks.path(1), AtomicBool::new(false)));
    let store = disks.store_with(DiskOptions {
        moving: MoveMode::Manual,
        watch: Some(broken.clone()),
        ..DiskOptions::at(NOW_MS)
    });
    let (log, _) = conformance::open(&store, small());
    assert_eq!(place(&store), 0);
    for _ in 0..20 {
        append(&log, plain(&[0; 3]));
    }
    start_move(&store, &disks, 1);
    broken.1.store(true, Ordering::Relaxed);
    assert_eq!(store.step_moves(1_000), 0, "it is given up");
    assert!(store.log_dirs()[1].error.is_some());
    append(&log, plain(&[0]));
    durable(&log);
    assert_eq!((place(&store), contents(&log).len()), (0, 21));
    let refused = wait(store.move_to(&id(), &disks.text(1))).unwrap_err();
    assert!(matches!(refused, LogError::Storage(_)), "{refused}");
    // As in Kafka, while any directory is offline.
    assert!(wait(store.move_to(&id(), &disks.text(2))).is_err());
    drop((store, log));
    let store = disks.manual();
    let (log, _) = conformance::open(&store, small());
    assert_eq!(contents(&log).len(), 21);
    finish(&store);
    assert_eq!(
        (place(&store), contents(&log).len()),
        (1, 21),
        "the move began anew"
    );
}

#[test]
fn a_directory_must_be_one_of_the_brokers_and_may_be_wanted_before_the_partition_is_there() {
    let disks = Disks::new();
    let store = disks.manual();
    for wrong in ["/nowhere", "any", "", &format!("{}/", disks.text(1))] {
        let refused = store.prefer_log_dir("conformance", 0, wrong).unwrap_err();
        assert!(
            matches!(refused, LogError::LogDirNotFound(_)),
            "{wrong}: {refused}"
        );
    }
    store.prefer_log_dir("conformance", 0, &disks.text(0)).unwrap();
    store.prefer_log_dir("conformance", 0, &disks.text(2)).unwrap();
    let (_log, _) = conformance::open(&store, small());
    assert_eq!(place(&store), 2);
    let refused = wait(store.move_to(&id(), "/nowhere")).unwrap_err();
    assert!(matches!(refused, LogError::LogDirNotFound(_)), "{refused}");
    let unknown = wait(store.move_to(&partition("conformance", 7), &disks.text(0)));
    assert!(matches!(unknown, Err(LogError::Deleted)), "{unknown:?}");
}

#[test]
fn a_cordoned_directory_takes_no_more_replicas() {
    let disks = Disks::new();
    let store = disks.manual();
    let log = conformance::open(&store, small()).0;
    let cordoned = [disks.path(0), disks.path(1)];
    store.update_cordoned(&cordoned);
    assert_eq!(place(&store), 0, "what is there stays");
    append(&log, plain(&[0]));
    let seen = store.log_dirs().into_iter().map(|dir| dir.is_cordoned);
    assert_eq!(seen.collect::<Vec<_>>(), [true, true, false]);
    for refused in [
        wait(store.move_to(&id(), &disks.text(1))).unwrap_err(),
        wait(store.move_to(&id(), &disks.text(0))).unwrap_err(),
        store.prefer_log_dir("none", 0, &disks.text(1)).unwrap_err(),
    ] {
        assert!(matches!(refused, LogError::LogDirCordoned(_)), "{refused}");
    }
    let open =
        |at| wait(store.open(partition("conformance", at), small(), Arc::new(Seen::default()))).unwrap();
    let _more: Vec<Log> = (1..4).map(open).collect();
    assert_eq!(disks.with("conformance-3", ""), [2]);
    store.update_cordoned(&[disks.path(0), disks.path(1), disks.path(2)]);
    let _one = open(4);
    assert_eq!(disks.with("conformance-4", "").len(), 1, "it has to be somewhere");
    store.update_cordoned(&[]);
    start_move(&store, &disks, 1);
    finish(&store);
    assert_eq!(place(&store), 1);
}

#[test]
fn a_move_is_as_fast_as_it_may_be() {
    let disks = Disks::new();
    let store = disks.store_with(DiskOptions {
        moves: MoveConfig {
            threads: Some(1),
            // A step takes longer than any test.
            io_max_bytes_per_second: 0.001,
        },
        ..DiskOptions::at(NOW_MS)
    });
    let (log, _) = conformance::open(&store, small());
    for _ in 0..200 {
        append(&log, plain(&[0; 3]));
    }
    durable(&log);
    let from = place(&store);
    start_move(&store, &disks, 1 - from.min(1));
    let future = || replicas(&store).into_iter().find(|(_, it)| it.is_future);
    let copied = loop {
        let size = future().unwrap().1.size_bytes;
        if size > 0 {
            break size;
        }
        std::thread::yield_now();
    };
    assert!(copied < log.size_bytes() / 2, "{copied} of {}", log.size_bytes());
    store.update_moves(MoveConfig::default());
    while future().is_some() {
        std::thread::yield_now();
    }
    assert_eq!(place(&store), 1 - from.min(1));
    assert_eq!(contents(&log).len(), 200);
}

#[test]
fn a_future_replica_whose_current_one_is_gone_is_kept_for_people() {
    let disks = Disks::new();
    let store = disks.manual();
    let (log, _) = conformance::open(&store, small());
    for _ in 0..20 {
        append(&log, plain(&[0; 3]));
    }
    let from = place(&store);
    let to = (from + 1) % 3;
    start_move(&store, &disks, to);
    store.step_moves(1_000);
    drop((store, log));
    fs::remove_dir_all(disks.path(from).join("conformance-0")).unwrap();
    let store = disks.manual();
    assert_eq!(disks.with("conformance-0.", "-stray"), [to]);
    let (log, _) = conformance::open(&store, small());
    assert_eq!(log.watermarks().log_end, 0);
}

#[test]
fn two_replicas_of_which_nothing_says_which_counts_stop_the_start() {
    let disks = Disks::new();
    let store = disks.manual();
    let (log, seen) = conformance::open(&store, small());
    append(&log, plain(&[0; 3]));
    let from = place(&store);
    drop((store, log, seen));
    let to = (from + 1) % 3;
    let folder = |at: usize| disks.path(at).join("conformance-0");
    copy_folder(&folder(from), &folder(to));
    let dirs = || (0..3).map(|at| disks.path(at)).collect();
    let error = DiskLogStore::open(dirs(), DiskOptions::at(NOW_MS)).unwrap_err();
    assert!(error.to_string().contains("Duplicate log directories"), "{error}");
    // The same beside what says that it moved.
    fs::write(disks.path(to).join("conformance-0.00ff-moved"), "").unwrap();
    let store = disks.manual();
    assert_eq!(disks.with("conformance-0", "conformance-0"), [to]);
    let log = wait(store.open(id(), small(), Arc::new(Seen::default()))).unwrap();
    assert_eq!(contents(&log).len(), 1);
    assert!(disks.with("conformance-0.", "-moved").is_empty());
}
