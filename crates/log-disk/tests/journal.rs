//! The journal of a directory: what it saves, and that what it alone has is written back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Log, begin, contents, cut, open_partition, plain, segment, tempdir};
use milena_log::conformance::{self, NOW_MS, Seen, wait};
use milena_log::{LogConfig, LogStore};
use milena_log_disk::{Change, CommitMode, DiskLogStore, DiskOptions, Watch};

/// Notes what is synced.
#[derive(Debug, Default)]
struct Syncs(Mutex<Vec<PathBuf>>);

impl Syncs {
    fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Watch for Syncs {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        if let Change::Sync(path) | Change::SyncAll(path) | Change::SyncFolder(path) = change {
            self.0.lock().unwrap().push(path.to_owned());
        }
        Ok(())
    }
}

fn store(dir: &Path, syncs: &Arc<Syncs>, journal_bytes: usize) -> DiskLogStore {
    let options = DiskOptions {
        commit: CommitMode::Manual,
        journal_bytes,
        watch: Some(syncs.clone()),
        ..DiskOptions::at(NOW_MS)
    };
    DiskLogStore::open(vec![dir.to_owned()], options).unwrap()
}

/// Three logs whose names and first records are on the disk in their own places.
fn three(store: &DiskLogStore) -> Vec<Log> {
    let logs: Vec<Log> = (0..3).map(|partition| open_partition(store, partition)).collect();
    logs.iter().for_each(|log| begin(log, plain(&[1])));
    store.commit();
    logs
}

#[test]
fn a_round_of_many_logs_costs_one_sync() {
    let (dir, syncs) = (tempdir(), Arc::new(Syncs::default()));
    let store = store(dir.path(), &syncs, 10_000);
    let logs = three(&store);
    for round in 1..3 {
        logs.iter().for_each(|log| begin(log, plain(&[2])));
        syncs.take();
        store.commit();
        // The first round makes the file.
        if round > 1 {
            assert_eq!(syncs.take(), [dir.path().join(".milena-journal")]);
        }
        for log in &logs {
            assert_eq!(log.watermarks().high_watermark, 1 + round);
        }
    }
}

#[test]
fn what_only_the_journal_has_is_written_back() {
    let (dir, syncs) = (tempdir(), Arc::new(Syncs::default()));
    let first = store(dir.path(), &syncs, 10_000);
    let logs = three(&first);
    let synced: Vec<u64> = (0..3)
        .map(|at| segment(dir.path(), at).metadata().unwrap().len())
        .collect();
    for log in &logs {
        begin(log, plain(&[2]));
        begin(log, plain(&[3]));
    }
    first.commit();
    drop((first, logs));
    // What a power cut may leave of files that were not synced since.
    for (at, length) in (0..).zip(&synced) {
        cut(&segment(dir.path(), at), *length);
    }
    let again = store(dir.path(), &syncs, 10_000);
    for partition in 0..3 {
        assert_eq!(
            contents(&open_partition(&again, partition)),
            [(0, 0), (1, 1), (2, 2)]
        );
    }
}

#[test]
fn a_full_journal_starts_again_after_its_segments_are_synced() {
    let (dir, syncs) = (tempdir(), Arc::new(Syncs::default()));
    let store = store(dir.path(), &syncs, 2_000);
    let logs = three(&store);
    let mut in_place = 0;
    for _ in 0..20 {
        logs.iter().for_each(|log| begin(log, plain(&[2])));
        syncs.take();
        store.commit();
        let synced = syncs.take();
        assert_eq!(synced.last(), Some(&dir.path().join(".milena-journal")));
        in_place += synced
            .iter()
            .filter(|path| path.starts_with(dir.path().join("conformance-1")))
            .count();
    }
    assert!((2..10).contains(&in_place), "{in_place}");
}

#[test]
fn what_the_journal_says_of_a_topic_that_was_deleted_is_not_written_to_its_namesake() {
    let (dir, syncs) = (tempdir(), Arc::new(Syncs::default()));
    let first = store(dir.path(), &syncs, 10_000);
    let logs = three(&first);
    logs.iter().for_each(|log| begin(log, plain(&[2, 3])));
    first.commit();
    wait(first.delete(&conformance::partition("conformance", 1))).unwrap();
    let mut namesake = conformance::partition("conformance", 1);
    namesake.topic_id = milena_protocol::Uuid::from_bytes([9; 16]);
    let config = LogConfig::default();
    let log = wait(first.open(namesake.clone(), config.clone(), Arc::new(Seen::default()))).unwrap();
    begin(&log, plain(&[7]));
    first.commit();
    drop((first, logs, log));
    let again = store(dir.path(), &syncs, 10_000);
    let log = wait(again.open(namesake, config, Arc::new(Seen::default()))).unwrap();
    assert_eq!(contents(&log), [(0, 0)]);
}

#[test]
fn a_journal_that_is_cut_or_changed_ends_where_it_is_not_whole() {
    let (dir, syncs) = (tempdir(), Arc::new(Syncs::default()));
    let first = store(dir.path(), &syncs, 10_000);
    let logs = three(&first);
    logs.iter().for_each(|log| begin(log, plain(&[2])));
    first.commit();
    drop((first, logs));
    let journal = dir.path().join(".milena-journal");
    let whole = fs::read(&journal).unwrap();
    for at in (0..whole.len().min(700)).step_by(3) {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        fs::write(&journal, &changed).unwrap();
        let again = store(dir.path(), &syncs, 10_000);
        for partition in 0..3 {
            // The segments have it all: nothing that the journal says may harm them.
            assert_eq!(
                contents(&open_partition(&again, partition)),
                [(0, 0), (1, 1)],
                "{at}"
            );
        }
        drop(again);
        fs::write(&journal, &changed[..at]).unwrap();
        drop(store(dir.path(), &syncs, 10_000));
    }
}
