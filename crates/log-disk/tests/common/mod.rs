//! What the tests of the disk engine share. A crash is a store that is dropped without `close`: what
//! was written is in the page cache, as after the end of a process.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and a test may panic"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use milena_log::conformance::{self, NOW_MS, Seen, wait};
use milena_log::{Append, LogConfig, LogStore, PartitionLog, Read, ReadBound};
use milena_log_disk::{CommitMode, DiskLogStore, DiskOptions};
use milena_protocol::records::{BatchBuilder, batches};

pub(crate) type Log = Arc<dyn PartitionLog>;

/// A folder where syncs cost no disk, if there is such a place: what these tests sync is not lost either
/// way, as only the process ends in them.
pub(crate) fn tempdir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A store without a journal, which would mend what tests do to segments.
pub(crate) fn store(dir: &Path) -> DiskLogStore {
    let options = DiskOptions {
        journal_bytes: 0,
        ..DiskOptions::at(NOW_MS)
    };
    DiskLogStore::open(vec![dir.to_owned()], options).unwrap()
}

/// A store that commits when it is told to.
pub(crate) fn manual(dir: &Path) -> DiskLogStore {
    let options = DiskOptions {
        commit: CommitMode::Manual,
        ..DiskOptions::at(NOW_MS)
    };
    DiskLogStore::open(vec![dir.to_owned()], options).unwrap()
}

pub(crate) fn open_partition(store: &DiskLogStore, partition: i32) -> Log {
    let id = conformance::partition("conformance", partition);
    wait(store.open(id, LogConfig::default(), Arc::new(Seen::default()))).unwrap()
}

/// Appends without a commit.
pub(crate) fn begin(log: &Log, append: Append) {
    wait(log.append(append)).unwrap();
}

/// The file of the first segment of a partition.
pub(crate) fn segment(dir: &Path, partition: i32) -> PathBuf {
    dir.join(format!("conformance-{partition}/00000000000000000000.log"))
}

/// Leaves of a file what a power cut may leave that was synced when it was as long.
pub(crate) fn cut(path: &Path, length: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

pub(crate) fn open(dir: &Path, config: &LogConfig) -> (DiskLogStore, Log, Arc<Seen>) {
    let store = store(dir);
    let (log, seen) = conformance::open(&store, config.clone());
    (store, log, seen)
}

pub(crate) fn close(store: DiskLogStore, log: Log) {
    wait(store.close()).unwrap();
    drop((store, log));
}

/// A small log whose segments hold a few batches each.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 150,
        file_delete_delay_ms: 1000,
        ..LogConfig::default()
    }
}

pub(crate) fn plain(timestamps: &[i64]) -> Append {
    conformance::append(BatchBuilder::new(), timestamps, 40)
}

pub(crate) fn append(log: &Log, append: Append) -> i64 {
    conformance::appended(&**log, append).base_offset
}

/// First and last offsets of all batches that can be read, each found by its own read.
pub(crate) fn contents(log: &Log) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut offset = log.watermarks().log_start;
    while offset < log.watermarks().high_watermark {
        let records = read(log, offset);
        let batch = batches(&records).next().unwrap().unwrap();
        batch.check_crc().unwrap();
        found.push((batch.header.base_offset, batch.header.last_offset()));
        offset = batch.header.next_offset();
    }
    found
}

pub(crate) fn read(log: &Log, offset: i64) -> Bytes {
    let result = wait(log.read(Read {
        offset,
        max_bytes: 1,
        at_least_one_batch: true,
        bound: ReadBound::HighWatermark,
    }));
    result.unwrap().records.into_bytes().unwrap()
}

pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("conformance-0")
}

/// Names of the partition's files that end so.
pub(crate) fn files(dir: &Path, suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder(dir))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(suffix))
        .collect();
    names.sort();
    names
}
