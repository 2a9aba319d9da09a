//! Whatever is written, rolled, cleaned, and wherever it stops: the newest value of every key can be
//! read, and no record is anywhere or anything else than it was.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/compacted.rs"]
mod compacted;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use common::{Log, files};
use compacted::{batch, compacted, hooked, records, start};
use milena_log::conformance::{NOW_MS, wait};
use milena_log::{CleanerConfig, LogConfig, LogStore};
use milena_log_disk::DiskOptions;
use milena_protocol::records::{BatchBuilder, Compression};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Keys, each with a value or a tombstone.
    Put(Vec<(u8, bool)>, usize),
    /// Time goes on by so many ms.
    Wait(i64),
    Clean,
    /// A clean that breaks off before its n-th change of a file, and the end of the process.
    Crash(usize),
    Restart,
    DeleteRecords(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pairs = prop::collection::vec((0u8..12, prop::bool::weighted(0.75)), 1..5);
    let step = prop_oneof![
        12 => (pairs, 0usize..5).prop_map(|(pairs, codec)| Step::Put(pairs, codec)),
        1 => (0i64..1500).prop_map(Step::Wait),
        2 => Just(Step::Clean),
        2 => (0usize..80).prop_map(Step::Crash),
        1 => Just(Step::Restart),
        1 => any::<u8>().prop_map(Step::DeleteRecords),
    ];
    prop::collection::vec(step, 1..80)
}

type Records = BTreeMap<i64, (String, Option<String>)>;

fn read(log: &Log) -> Records {
    records(log)
        .into_iter()
        .map(|(offset, key, value)| (offset, (key, value)))
        .collect()
}

fn newest(records: &Records) -> BTreeMap<&String, (i64, &Option<String>)> {
    let pairs = records.iter();
    pairs
        .map(|(offset, (key, value))| (key, (*offset, value)))
        .collect()
}

fn check(log: &Log, written: &Records, dir: &std::path::Path) {
    let there = read(log);
    for (offset, record) in &there {
        assert_eq!(written.get(offset), Some(record), "offset {offset}");
    }
    let found = newest(&there);
    for (key, (offset, value)) in newest(written) {
        match found.get(key) {
            Some(found) => assert_eq!(*found, (offset, value), "{key}"),
            None => assert_eq!(*value, None, "only a tombstone may go: {key}"),
        }
    }
    let active = files(dir, ".log").pop().unwrap();
    let active: i64 = active[..20].parse().unwrap();
    for (offset, record) in written.range(active..) {
        assert_eq!(there.get(offset), Some(record), "above what is clean");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_newest_value_of_every_key_can_always_be_read(
        steps in steps(),
        map_entries in 2i64..40,
        ratio in prop_oneof![Just(0.0), Just(0.5)],
    ) {
        let dir = common::tempdir();
        let config = LogConfig { min_cleanable_dirty_ratio: ratio, ..compacted() };
        let fresh = || {
            let (hook, options) = hooked();
            let cleaner = CleanerConfig {
                dedupe_buffer_size: 24 * map_entries,
                backoff_ms: 0,
                ..CleanerConfig::default()
            };
            let (store, log) = start(dir.path(), &config, DiskOptions { cleaner, ..options });
            (hook, store, log)
        };
        let (mut hook, mut store, mut log) = fresh();
        let (mut written, mut now_ms) = (Records::new(), NOW_MS);
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(pairs, codec) => {
                    let texts: Vec<(String, Option<String>)> = pairs
                        .iter()
                        .map(|(key, has_value)| (format!("key-{key}"), has_value.then(|| format!("value {at}"))))
                        .collect();
                    let pairs: Vec<_> = texts.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                    let builder = BatchBuilder::new().compression(Compression::ALL[codec], None);
                    let base = common::append(&log, batch(builder, now_ms - NOW_MS, &pairs));
                    written.extend((base..).zip(texts));
                }
                Step::Wait(ms) => now_ms += ms,
                Step::Clean => {
                    store.clean(now_ms);
                    prop_assert_eq!(store.clean(now_ms), 0, "it comes to an end");
                }
                Step::Crash(change) => {
                    hook.set(move |at, _| if at < change { Ok(()) } else { Err(io::Error::other("gone")) });
                    store.clean(now_ms);
                    drop((store, log));
                    (hook, store, log) = fresh();
                }
                Step::Restart => {
                    common::close(store, log);
                    (hook, store, log) = fresh();
                }
                Step::DeleteRecords(part) => {
                    let watermarks = log.watermarks();
                    let span = watermarks.high_watermark - watermarks.log_start;
                    let to = watermarks.log_start + span * i64::from(part) / 1000;
                    wait(log.delete_records(to)).unwrap();
                    written.retain(|offset, _| *offset >= to);
                }
            }
            wait(store.maintain(now_ms));
            check(&log, &written, dir.path());
        }
        drop(Arc::clone(&hook));
    }
}
