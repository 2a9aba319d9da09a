//! A directory without room for a single byte more, not even of a checkpoint: nothing of that is a
//! failure.
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
