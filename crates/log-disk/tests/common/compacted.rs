//! A small compacted log that is cleaned when the test says so.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part of it")]

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use milena_log::conformance::{self, NOW_MS};
use milena_log::{Append, CleanerConfig, CleanupPolicy, Durability, LogConfig};
use milena_log_disk::{Change, CleanMode, CommitMode, DiskLogStore, DiskOptions, Watch};
use milena_protocol::records::{Batch, BatchBuilder, NewRecord, batches, validate};

use super::common::{self, Log};

pub(crate) type Pair<'a> = (&'a str, Option<&'a str>);

pub(crate) fn compacted() -> LogConfig {
    LogConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        durability: Durability::Os,
        segment_bytes: 400,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 1000,
        ..LogConfig::default()
    }
}

pub(crate) fn options() -> DiskOptions {
    DiskOptions {
        commit: CommitMode::Manual,
        clean: CleanMode::Manual,
        ..DiskOptions::at(NOW_MS)
    }
}

pub(crate) fn with_map(bytes: i64) -> DiskOptions {
    DiskOptions {
        cleaner: CleanerConfig {
            dedupe_buffer_size: bytes,
            ..CleanerConfig::default()
        },
        ..options()
    }
}

pub(crate) fn start(dir: &Path, config: &LogConfig, options: DiskOptions) -> (DiskLogStore, Log) {
    let store = DiskLogStore::open(vec![dir.to_owned()], options).unwrap();
    let (log, _) = conformance::open(&store, config.clone());
    (store, log)
}

pub(crate) fn batch(builder: BatchBuilder, time: i64, pairs: &[Pair<'_>]) -> Append {
    let mut builder = builder;
    for (key, value) in pairs {
        builder.push(&NewRecord {
            timestamp: NOW_MS + time,
            key: (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        });
    }
    Append {
        batch: validate(&builder.build().unwrap()).unwrap(),
        leader_epoch: 0,
        now_ms: NOW_MS,
        verification: None,
    }
}

pub(crate) fn put(log: &Log, time: i64, pairs: &[Pair<'_>]) -> i64 {
    common::append(log, batch(BatchBuilder::new(), time, pairs))
}

/// Batches of one record each, which need no key in common, until the log rolls.
pub(crate) fn roll(log: &Log, dir: &Path, time: i64) {
    let before = common::files(dir, ".log").len();
    while common::files(dir, ".log").len() == before {
        put(log, time, &[("filler", Some("filler filler filler"))]);
    }
}

pub(crate) fn all_batches(log: &Log) -> Vec<Batch> {
    let mut found = Vec::new();
    let watermarks = log.watermarks();
    let mut offset = watermarks.log_start;
    while offset < watermarks.high_watermark {
        let records = common::read(log, offset);
        let Some(batch) = batches(&records).next() else {
            break;
        };
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        assert!(batch.header.last_offset() >= offset, "offsets ascend");
        offset = batch.header.next_offset();
        found.push(batch);
    }
    found
}

/// Offset, key and value of all records that can be read.
pub(crate) fn records(log: &Log) -> Vec<(i64, String, Option<String>)> {
    let start = log.watermarks().log_start;
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    all_batches(log)
        .iter()
        .flat_map(|batch| batch.records(1 << 20).unwrap())
        .map(|record| record.unwrap())
        .filter(|record| record.offset >= start)
        .map(|record| {
            let key = record.key.map(text).unwrap_or_default();
            (record.offset, key, record.value.map(text))
        })
        .collect()
}

pub(crate) fn offsets_of(log: &Log, key: &str) -> Vec<i64> {
    let of_key = |(offset, other, _): (i64, String, _)| (other == key).then_some(offset);
    records(log).into_iter().filter_map(of_key).collect()
}

type Hook = Box<dyn FnMut(usize, Change<'_>) -> io::Result<()> + Send>;

/// Calls a hook before every change, with the number of changes before it.
#[derive(Default)]
pub(crate) struct Hooked(Mutex<(usize, Option<Hook>)>);

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    pub(crate) fn set(&self, hook: impl FnMut(usize, Change<'_>) -> io::Result<()> + Send + 'static) {
        *self.0.lock().unwrap() = (0, Some(Box::new(hook)));
    }

    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap() = (0, None);
    }
}

impl Watch for Hooked {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        // The hook may change files itself, which asks no one then.
        let Ok(mut guard) = self.0.try_lock() else {
            return Ok(());
        };
        let (count, hook) = &mut *guard;
        let at = *count;
        *count += 1;
        hook.as_mut().map_or(Ok(()), |hook| hook(at, change))
    }
}

pub(crate) fn hooked() -> (Arc<Hooked>, DiskOptions) {
    let hooked = Arc::new(Hooked::default());
    let watch: Arc<dyn Watch> = Arc::clone(&hooked) as _;
    let options = DiskOptions {
        watch: Some(watch),
        ..options()
    };
    (hooked, options)
}
