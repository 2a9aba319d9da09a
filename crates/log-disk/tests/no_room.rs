//! A directory without room for a single byte more, not even of a checkpoint: nothing of that is a
//! failure, what frees room works, and other directories do not notice.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Log, close, contents, plain, small};
use milena_log::conformance::{self, NOW_MS, Seen, wait};
use milena_log::{LogConfig, LogError, LogStore};
use milena_log_disk::{Change, CleanMode, CommitMode, DiskLogStore, DiskOptions, Watch};

/// Refuses what needs room below a folder.
#[derive(Debug, Default)]
struct Full(Mutex<Option<PathBuf>>);

impl Full {
    fn begin(&self, below: &Path) {
        *self.0.lock().unwrap() = Some(below.to_owned());
    }

    fn end(&self) {
        *self.0.lock().unwrap() = None;
    }
}

impl Watch for Full {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        match (change, &*self.0.lock().unwrap()) {
            (
                Change::CreateFolder(path) | Change::CreateFile(path) | Change::Write { path, .. },
                Some(below),
            ) if path.starts_with(below) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

/// A store that writes its checkpoints at every maintenance.
fn store(dirs: &[&Path], full: &Arc<Full>) -> DiskLogStore {
    let options = DiskOptions {
        checkpoint_interval_ms: 0,
        commit: CommitMode::Manual,
        clean: CleanMode::Manual,
        watch: Some(full.clone()),
        ..DiskOptions::at(NOW_MS)
    };
    let dirs = dirs.iter().map(|dir| (*dir).to_owned()).collect();
    DiskLogStore::open(dirs, options).unwrap()
}

fn open(store: &DiskLogStore, partition: i32, config: &LogConfig) -> Log {
    let id = conformance::partition("conformance", partition);
    wait(store.open(id, config.clone(), Arc::new(Seen::default()))).unwrap()
}

/// Appends enough for several segments with indexes, and makes it durable.
fn fill(store: &DiskLogStore, log: &Log) {
    for _ in 0..20 {
        wait(log.append(plain(&[0; 3]))).unwrap();
    }
    store.commit();
}

fn refused(log: &Log) -> bool {
    matches!(wait(log.append(plain(&[0]))), Err(LogError::Storage(_)))
}

#[test]
fn checkpoints_that_find_no_room_are_written_later() {
    let dir = common::tempdir();
    let full = Arc::new(Full::default());
    let store_of_it = store(&[dir.path()], &full);
    let log = open(&store_of_it, 0, &small());
    fill(&store_of_it, &log);
    full.begin(dir.path());
    for round in 1..4 {
        assert!(refused(&log));
        wait(store_of_it.maintain(NOW_MS + round * 1000));
        log.check().unwrap_or_else(|why| panic!("round {round}: {why}"));
        assert_eq!(contents(&log).len(), 20, "reads go on");
    }
    full.end();
    fill(&store_of_it, &log);
    wait(store_of_it.maintain(NOW_MS + 5000));
    let checkpoint = std::fs::read_to_string(dir.path().join("recovery-point-offset-checkpoint")).unwrap();
    assert!(checkpoint.contains("conformance 0 120"), "{checkpoint}");
    close(store_of_it, log);
    let store = store(&[dir.path()], &full);
    let log = open(&store, 0, &small());
    assert_eq!(contents(&log).len(), 40);
}

#[test]
fn retention_frees_a_directory_without_room() {
    let dir = common::tempdir();
    let full = Arc::new(Full::default());
    let config = LogConfig {
        retention_ms: 10_000,
        ..small()
    };
    let store_of_it = store(&[dir.path()], &full);
    let log = open(&store_of_it, 0, &config);
    fill(&store_of_it, &log);
    let before = log.size_bytes();
    full.begin(dir.path());
    wait(store_of_it.maintain(NOW_MS + 20_000));
    assert!(log.size_bytes() < before, "what is too old goes");
    assert!(log.check().is_ok());
    full.end();
    let start = log.watermarks().log_start;
    assert!(start > 0);
    assert_eq!(wait(log.append(plain(&[0]))).unwrap().base_offset, 60);
    drop((store_of_it, log));
    let store = store(&[dir.path()], &full);
    assert_eq!(open(&store, 0, &config).watermarks().log_start, start);
}

#[test]
fn a_partition_is_deleted_from_a_directory_without_room() {
    let dir = common::tempdir();
    let full = Arc::new(Full::default());
    let crashed = store(&[dir.path()], &full);
    let log = open(&crashed, 0, &small());
    fill(&crashed, &log);
    wait(log.delete_records(30)).unwrap();
    wait(crashed.maintain(NOW_MS + 1000));
    full.begin(dir.path());
    let id = conformance::partition("conformance", 0);
    wait(crashed.delete(&id)).unwrap();
    assert!(!common::folder(dir.path()).exists());
    full.end();
    // What was written down of the one that is gone says nothing of a later one of its name, neither
    // after a crash nor where the forgetting itself finds no room.
    drop((crashed, log));
    let store = store(&[dir.path()], &full);
    full.begin(dir.path());
    let observer = Arc::new(Seen::default());
    assert!(wait(store.open(id, small(), observer)).is_err());
    full.end();
    let log = open(&store, 0, &small());
    assert_eq!((log.watermarks().log_start, log.watermarks().log_end), (0, 0));
    for checkpoint in ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"] {
        let written = std::fs::read_to_string(dir.path().join(checkpoint)).unwrap();
        assert!(!written.contains("conformance"), "{checkpoint}: {written}");
    }
}

#[test]
fn a_directory_without_room_keeps_no_other_from_its_maintenance() {
    let (first, second) = (common::tempdir(), common::tempdir());
    let full = Arc::new(Full::default());
    let store = store(&[first.path(), second.path()], &full);
    let logs = [open(&store, 0, &small()), open(&store, 1, &small())];
    for log in &logs {
        fill(&store, log);
    }
    let checkpoint = "recovery-point-offset-checkpoint";
    full.begin(&first.path().join(checkpoint).with_extension("tmp"));
    wait(store.maintain(NOW_MS + 1000));
    let written = |dir: &Path| std::fs::read_to_string(dir.join(checkpoint)).unwrap_or_default();
    assert!(written(second.path()).contains("conformance 1 60"));
    assert_eq!(written(first.path()), "");
    // What found no room is written when there is some, though nothing has moved since.
    full.end();
    wait(store.maintain(NOW_MS + 2000));
    assert!(written(first.path()).contains("conformance 0 60"));
}

#[test]
fn a_directory_without_room_keeps_no_other_from_being_closed() {
    let (first, second) = (common::tempdir(), common::tempdir());
    let full = Arc::new(Full::default());
    let dirs = [first.path(), second.path()];
    let closed = store(&dirs, &full);
    let logs = [open(&closed, 0, &small()), open(&closed, 1, &small())];
    for log in &logs {
        fill(&closed, log);
    }
    full.begin(&first.path().join("recovery-point-offset-checkpoint.tmp"));
    assert!(wait(closed.close()).is_err());
    let is_clean = |dir: &Path| dir.join(".kafka_cleanshutdown").exists();
    assert_eq!(dirs.map(is_clean), [false, true]);
    full.end();
    drop((closed, logs));
    let store = store(&dirs, &full);
    for partition in 0..2 {
        assert_eq!(contents(&open(&store, partition, &small())).len(), 20);
    }
}
