//! What compaction takes out of a log, and what it leaves.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/compacted.rs"]
mod compacted;

use std::fs;
use std::io;
use std::sync::Arc;

use common::{files, folder};
use compacted::{
    Hooked, all_batches, batch, compacted, hooked, offsets_of, options, put, records, roll, start, with_map,
};
use milena_log::conformance::{NOW_MS, wait};
use milena_log::{CleanerConfig, CleanupPolicy, Durability, LogConfig, LogStore, ReadBound};
use milena_log_disk::{Change, DiskOptions};
use milena_protocol::records::{BatchBuilder, Compression};

const A: &str = "a value of some length";

#[test]
fn the_last_record_of_each_key_stays_and_offsets_do_not_change() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    for round in 0..20 {
        let pairs = [
            ("a", Some(A)),
            ("b", Some("b")),
            ("c", (round < 3).then_some("c")),
        ];
        put(&log, round, &pairs[..if round < 5 { 3 } else { 2 }]);
    }
    roll(&log, dir.path(), 20);
    let before = records(&log);
    assert_eq!(store.clean(NOW_MS), 1);
    let after = records(&log);
    assert!(after.len() < 20, "{after:?}");
    assert!(
        after.iter().all(|record| before.contains(record)),
        "nothing is new"
    );
    for key in ["a", "b", "c"] {
        let newest = before.iter().rfind(|record| record.1 == key).unwrap();
        assert!(after.contains(newest), "{key}");
        assert_eq!(offsets_of(&log, key), [newest.0]);
    }
    assert_eq!(store.clean(NOW_MS), 0, "it is clean now");
    common::close(store, log);
    let (_store, log) = start(dir.path(), &compacted(), options());
    assert_eq!(records(&log), after, "a restart changes nothing");
}

#[test]
fn the_active_segment_is_never_touched() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    put(&log, 0, &[("a", Some(A))]);
    put(&log, 0, &[("a", Some(A))]);
    assert_eq!(store.clean(NOW_MS), 0);
    roll(&log, dir.path(), 0);
    put(&log, 0, &[("a", Some(A))]);
    store.clean(NOW_MS);
    assert_eq!(
        offsets_of(&log, "a").len(),
        2,
        "the newest below it, and the one in it"
    );
}

#[test]
fn what_is_not_durable_yet_is_not_cleaned() {
    let dir = common::tempdir();
    let config = LogConfig {
        durability: Durability::Disk,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    for _ in 0..10 {
        wait(log.append(batch(BatchBuilder::new(), 0, &[("a", Some(A))]))).unwrap();
    }
    assert_eq!(store.clean(NOW_MS), 0);
    store.commit();
    assert_eq!(store.clean(NOW_MS), 1);
}

#[test]
fn a_log_is_cleaned_when_enough_of_it_is_dirty() {
    let dir = common::tempdir();
    let config = LogConfig {
        min_cleanable_dirty_ratio: 0.5,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    for key in 0..40 {
        put(&log, 0, &[(&format!("key-{key}"), Some(A))]);
    }
    assert_eq!(store.clean(NOW_MS), 1, "all of it was dirty");
    for key in 0..16 {
        put(&log, 0, &[(&format!("key-{key}"), Some(A))]);
    }
    assert_eq!(store.clean(NOW_MS), 0, "less than half is");
    for key in 0..40 {
        put(&log, 0, &[(&format!("key-{key}"), Some(A))]);
    }
    assert_eq!(store.clean(NOW_MS), 1);
}

#[test]
fn records_younger_than_min_compaction_lag_stay() {
    let dir = common::tempdir();
    let config = LogConfig {
        min_compaction_lag_ms: 1000,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    for time in 0..20 {
        put(&log, time * 100, &[("a", Some(A))]);
    }
    roll(&log, dir.path(), 2000);
    store.clean(NOW_MS + 1999);
    let left = offsets_of(&log, "a");
    assert!((10..=13).contains(&left.len()), "{left:?}");
    store.clean(NOW_MS + 2999);
    assert_eq!(offsets_of(&log, "a").len(), 1);
}

#[test]
fn what_is_dirty_for_longer_than_max_compaction_lag_is_cleaned() {
    let dir = common::tempdir();
    let config = LogConfig {
        min_cleanable_dirty_ratio: 1.0,
        max_compaction_lag_ms: 500,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    for _ in 0..20 {
        put(&log, 0, &[("a", Some(A))]);
    }
    assert_eq!(store.clean(NOW_MS + 500), 0);
    assert_eq!(store.clean(NOW_MS + 501), 1);
    assert!(offsets_of(&log, "a").len() <= 5);
    put(&log, 501, &[("b", None)]);
    let after = files(dir.path(), ".log");
    let rolled = after.last().unwrap().as_str();
    assert_eq!(
        rolled, "00000000000000000020.log",
        "the active segment rolled by age"
    );
}

#[test]
fn a_tombstone_goes_when_its_horizon_has_passed_also_from_a_quiet_log() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    put(&log, 0, &[("a", Some(A)), ("b", Some(A))]);
    put(&log, 0, &[("a", None), ("c", Some(A))]);
    roll(&log, dir.path(), 0);
    store.clean(NOW_MS);
    assert_eq!(
        offsets_of(&log, "a"),
        [2],
        "the tombstone stays for those who read"
    );
    let with_horizon = |log| -> Vec<(i64, i64)> {
        let batches = all_batches(log);
        let horizon = |batch: &milena_protocol::records::Batch| {
            let header = batch.header;
            header.delete_horizon_ms().map(|at| (header.base_offset, at))
        };
        batches.iter().filter_map(horizon).collect()
    };
    assert_eq!(with_horizon(&log), [(2, NOW_MS + 1000)]);
    let time = wait(log.offset_for_timestamp(NOW_MS, ReadBound::HighWatermark)).unwrap();
    assert_eq!(time.unwrap().offset, 1, "records keep their times");
    assert_eq!(store.clean(NOW_MS + 999), 0);
    assert_eq!(store.clean(NOW_MS + 1000), 1);
    assert_eq!(offsets_of(&log, "a"), [] as [i64; 0]);
    assert_eq!(offsets_of(&log, "c"), [3]);
    assert_eq!(store.clean(NOW_MS + 5000), 0, "and then it is done");
}

#[test]
fn a_tombstone_that_was_replaced_goes_at_once() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    put(&log, 0, &[("a", None)]);
    put(&log, 0, &[("a", Some(A))]);
    roll(&log, dir.path(), 0);
    store.clean(NOW_MS);
    assert_eq!(offsets_of(&log, "a"), [1]);
}

#[test]
fn the_last_batch_of_a_producer_stays_without_records() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    for sequence in 0..5 {
        let builder = BatchBuilder::new().producer(77, 3, sequence);
        common::append(&log, batch(builder, 0, &[("a", Some(A))]));
    }
    put(&log, 0, &[("a", Some("newer"))]);
    roll(&log, dir.path(), 0);
    store.clean(NOW_MS);
    assert_eq!(offsets_of(&log, "a"), [5]);
    let of_producer: Vec<_> = all_batches(&log)
        .into_iter()
        .map(|batch| batch.header)
        .filter(|header| header.producer_id == 77)
        .map(|header| {
            let (first, last) = (header.base_offset, header.last_sequence());
            (first, last, header.record_count, header.producer_epoch)
        })
        .collect();
    assert_eq!(of_producer, [(4, 4, 0, 3)]);
    common::close(store, log);
    // Without any snapshot, the log alone says where the producer was.
    for name in files(dir.path(), ".snapshot") {
        fs::remove_file(folder(dir.path()).join(name)).unwrap();
    }
    let (store, log) = start(dir.path(), &compacted(), options());
    let known = log.producers();
    assert_eq!((known[0].producer_id, known[0].last_sequence), (77, 4));
    // When the producer goes on, its older batch goes.
    let builder = BatchBuilder::new().producer(77, 3, 5);
    common::append(&log, batch(builder, 0, &[("b", Some(A))]));
    roll(&log, dir.path(), 0);
    store.clean(NOW_MS);
    let left = all_batches(&log);
    assert_eq!(
        left.iter().filter(|batch| batch.header.producer_id == 77).count(),
        1
    );
}

#[test]
fn a_batch_that_loses_nothing_stays_to_the_byte_and_others_keep_their_codec() {
    let dir = common::tempdir();
    let config = LogConfig {
        segment_bytes: 4000,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    for (at, codec) in Compression::ALL.into_iter().enumerate() {
        let whole = format!("whole-{at}");
        let builder = || BatchBuilder::new().compression(codec, None);
        common::append(&log, batch(builder(), 5, &[(&whole, Some(A))]));
        let part = format!("part-{at}");
        common::append(
            &log,
            batch(builder(), 7, &[("a", Some(A)), (&part, Some(A)), ("a", Some(A))]),
        );
    }
    put(&log, 0, &[("a", Some(A))]);
    roll(&log, dir.path(), 0);
    let before = all_batches(&log);
    store.clean(NOW_MS);
    let after = all_batches(&log);
    for (at, codec) in Compression::ALL.into_iter().enumerate() {
        assert_eq!(after[2 * at].bytes, before[2 * at].bytes, "{codec:?}");
        let (old, new) = (before[2 * at + 1].header, after[2 * at + 1].header);
        assert_eq!(new.compression().unwrap(), codec);
        assert_eq!(
            (new.base_offset, new.last_offset()),
            (old.base_offset, old.last_offset())
        );
        assert_eq!((new.record_count, new.max_timestamp), (1, NOW_MS + 7));
    }
}

#[test]
fn a_map_that_is_full_cleans_as_far_as_it_reaches() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), with_map(24 * 8));
    for round in 0..3 {
        for key in 0..20 {
            put(&log, round, &[(&format!("key-{key}"), Some(A)), ("a", Some(A))]);
        }
    }
    roll(&log, dir.path(), 3);
    let before = records(&log);
    let rounds = store.clean(NOW_MS);
    assert!(rounds > 3, "{rounds}");
    let after = records(&log);
    for key in (0..20).map(|key| format!("key-{key}")) {
        let newest = before.iter().rfind(|record| record.1 == key).unwrap();
        assert_eq!(offsets_of(&log, &key), [newest.0]);
    }
    assert!(after.iter().all(|record| before.contains(record)));
    assert_eq!(store.clean(NOW_MS), 0);
}

#[test]
fn small_segments_become_one_within_the_limit() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    for round in 0..100 {
        put(&log, 0, &[(&format!("key-{}", round % 10), Some(A))]);
    }
    let before = files(dir.path(), ".log").len();
    store.clean(NOW_MS);
    // As in Kafka, segments are put together by what they had before the round.
    roll(&log, dir.path(), 0);
    store.clean(NOW_MS);
    wait(store.maintain(NOW_MS));
    let names = files(dir.path(), ".log");
    assert!(names.len() * 4 < before, "{before}: {names:?}");
    for name in &names {
        assert!(fs::metadata(folder(dir.path()).join(name)).unwrap().len() <= 400);
    }
    for suffix in [".cleaned", ".swap", ".deleted"] {
        assert_eq!(files(dir.path(), suffix), [] as [&str; 0]);
    }
    assert_eq!(names[0], "00000000000000000000.log");
}

/// Trap 11: offsets that are further apart than an index can say.
#[test]
fn segments_whose_offsets_are_more_than_an_int_apart_stay_apart() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    put(&log, 0, &[("a", Some(A))]);
    common::close(store, log);
    for base in [3_000_000_000i64, 3_000_000_010] {
        let mut bytes = batch(BatchBuilder::new(), 0, &[("b", Some(A))])
            .batch
            .batch
            .bytes
            .to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        fs::write(folder(dir.path()).join(format!("{base:020}.log")), bytes).unwrap();
    }
    let (store, log) = start(dir.path(), &compacted(), options());
    roll(&log, dir.path(), 0);
    assert_eq!(store.clean(NOW_MS), 1);
    assert_eq!(offsets_of(&log, "a"), [0]);
    assert_eq!(offsets_of(&log, "b"), [3_000_000_010]);
    assert_eq!(
        files(dir.path(), ".log")[..2],
        ["00000000000000000000.log", "00000000003000000000.log"]
    );
}

#[test]
fn the_policy_can_change_while_the_log_is_open() {
    let dir = common::tempdir();
    let only_delete = LogConfig {
        cleanup_policy: CleanupPolicy {
            delete: true,
            compact: false,
        },
        ..compacted()
    };
    let (store, log) = start(dir.path(), &only_delete, options());
    for _ in 0..10 {
        put(&log, 0, &[("a", Some(A)), ("", Some("no key"))]);
    }
    roll(&log, dir.path(), 0);
    assert_eq!(store.clean(NOW_MS), 0);
    log.update_config(compacted());
    assert_eq!(store.clean(NOW_MS), 1);
    assert_eq!(offsets_of(&log, "a").len(), 1);
    assert_eq!(
        offsets_of(&log, ""),
        [] as [i64; 0],
        "nothing could ever replace them"
    );
}

#[test]
fn compact_and_delete_does_both() {
    let dir = common::tempdir();
    let config = LogConfig {
        cleanup_policy: CleanupPolicy {
            delete: true,
            compact: true,
        },
        retention_ms: 1000,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    put(&log, 0, &[("old", Some(A))]);
    for _ in 0..20 {
        put(&log, 100, &[("a", Some(A))]);
    }
    roll(&log, dir.path(), 5000);
    store.clean(NOW_MS);
    assert_eq!(offsets_of(&log, "old"), [0]);
    wait(store.maintain(NOW_MS + 1200));
    assert_eq!(offsets_of(&log, "old"), [] as [i64; 0]);
    assert!(log.watermarks().log_start > 0);
    put(&log, 5000, &[("a", Some(A))]);
    roll(&log, dir.path(), 5000);
    store.clean(NOW_MS + 1200);
    assert_eq!(offsets_of(&log, "a").len(), 1);
}

#[test]
fn an_empty_segment_that_compaction_left_does_not_stop_retention() {
    let dir = common::tempdir();
    let config = LogConfig {
        segment_bytes: 200,
        ..compacted()
    };
    let (store, log) = start(dir.path(), &config, options());
    for _ in 0..3 {
        put(&log, 0, &[("a", Some(A))]);
    }
    for key in 0..10 {
        put(&log, 0, &[(&format!("key-{key}"), Some(&A.repeat(3)))]);
    }
    put(&log, 0, &[("a", Some(A))]);
    roll(&log, dir.path(), 0);
    store.clean(NOW_MS);
    assert_eq!(offsets_of(&log, "a").len(), 1);
    let end = log.watermarks().high_watermark;
    wait(log.delete_records(end - 1)).unwrap();
    wait(store.maintain(NOW_MS));
    assert_eq!(files(dir.path(), ".log").len(), 1);
}

#[test]
fn how_far_a_log_is_clean_is_written_down_as_kafka_does() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    for _ in 0..10 {
        put(&log, 0, &[("a", Some(A))]);
    }
    let active = files(dir.path(), ".log").pop().unwrap();
    let active: i64 = active.strip_suffix(".log").unwrap().parse().unwrap();
    store.clean(NOW_MS);
    let path = dir.path().join("cleaner-offset-checkpoint");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("0\n1\nconformance 0 {active}\n"));
    common::close(store, log);
    let (store, log) = start(dir.path(), &compacted(), options());
    assert_eq!(store.clean(NOW_MS), 0, "the next run knows it");
    drop(log);
    wait(store.delete(&milena_log::conformance::partition("conformance", 0))).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "0\n0\n");
}

#[test]
fn with_log_cleaner_enable_false_nothing_is_cleaned() {
    let dir = common::tempdir();
    let off = DiskOptions {
        cleaner: CleanerConfig {
            enable: false,
            ..CleanerConfig::default()
        },
        ..options()
    };
    let (store, log) = start(dir.path(), &compacted(), off);
    for _ in 0..10 {
        put(&log, 0, &[("a", Some(A))]);
    }
    assert_eq!(store.clean(NOW_MS), 0);
    store.update_cleaner(CleanerConfig::default());
    assert_eq!(store.clean(NOW_MS), 1);
}

#[test]
fn a_damaged_batch_leaves_the_log_as_it_is_and_is_not_tried_again() {
    let dir = common::tempdir();
    let (store, log) = start(dir.path(), &compacted(), options());
    for at in 0..10 {
        put(&log, 0, &[("a", Some(A)), (&format!("key-{at}"), Some(A))]);
    }
    roll(&log, dir.path(), 0);
    let path = folder(dir.path()).join("00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    let header = milena_protocol::records::BatchHeader::parse(&bytes).unwrap();
    bytes[header.size_bytes() - 3] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let before = files(dir.path(), "log");
    assert_eq!(store.clean(NOW_MS), 1, "it is tried once");
    assert_eq!(store.clean(NOW_MS + (1 << 40)), 0);
    assert_eq!(files(dir.path(), "log"), before);
    assert!(files(dir.path(), "cleaned").is_empty());
    put(&log, 0, &[("a", Some(A))]);
}

fn filled(
    hooked_options: (Arc<Hooked>, DiskOptions),
) -> (
    tempfile::TempDir,
    Arc<Hooked>,
    milena_log_disk::DiskLogStore,
    common::Log,
) {
    let dir = common::tempdir();
    let (hook, options) = hooked_options;
    let (store, log) = start(dir.path(), &compacted(), options);
    for round in 0..30 {
        let key = format!("key-{}", round % 7);
        put(
            &log,
            round,
            &[(&key, Some(A)), ("a", (round % 4 != 0).then_some(A))],
        );
    }
    roll(&log, dir.path(), 30);
    (dir, hook, store, log)
}

#[test]
fn without_room_the_log_stays_and_is_cleaned_when_there_is_room() {
    let (dir, hook, store, log) = filled(hooked());
    let before = records(&log);
    hook.set(|_, change| match change {
        Change::CreateFile(path) if path.to_string_lossy().ends_with(".cleaned") => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    assert_eq!(store.clean(NOW_MS), 1, "it is tried once");
    assert_eq!(records(&log), before);
    assert_eq!(files(dir.path(), ".cleaned"), [] as [&str; 0]);
    hook.clear();
    assert_eq!(
        store.clean(NOW_MS + 14_999),
        0,
        "not before log.cleaner.backoff.ms"
    );
    assert_eq!(store.clean(NOW_MS + 15_000), 1);
    assert_eq!(offsets_of(&log, "a").len(), 1);
}

#[test]
fn a_crash_before_any_change_of_a_file_loses_nothing_and_the_next_run_cleans() {
    let last = |log: &common::Log| {
        let mut last = std::collections::BTreeMap::new();
        for (offset, key, value) in records(log) {
            last.insert(key, (offset, value));
        }
        last
    };
    for crash_at in 0.. {
        let (dir, hook, store, log) = filled(hooked());
        let before = last(&log);
        let all = records(&log);
        let reached = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::clone(&reached);
        hook.set(move |at, _| {
            if at < crash_at {
                return Ok(());
            }
            seen.store(true, std::sync::atomic::Ordering::SeqCst);
            Err(io::Error::other("the power is gone"))
        });
        store.clean(NOW_MS);
        drop((store, log));
        let (store, log) = start(dir.path(), &compacted(), options());
        assert_eq!(last(&log), before, "crash at change {crash_at}");
        assert!(records(&log).iter().all(|record| all.contains(record)));
        for suffix in [".cleaned", ".swap", ".deleted"] {
            assert_eq!(
                files(dir.path(), suffix),
                [] as [&str; 0],
                "crash at change {crash_at}"
            );
        }
        store.clean(NOW_MS);
        assert_eq!(last(&log), before, "crash at change {crash_at}, cleaned after");
        assert_eq!(offsets_of(&log, "a").len(), 1, "crash at change {crash_at}");
        if !reached.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(crash_at > 20, "{crash_at}");
            break;
        }
    }
}

#[test]
fn records_that_are_deleted_meanwhile_stay_deleted() {
    let (dir, hook, store, log) = filled(hooked());
    let (other, to) = (Arc::clone(&log), log.watermarks().high_watermark - 3);
    let mut done = false;
    hook.set(move |_, change| {
        if let Change::Sync(path) = change
            && path.to_string_lossy().ends_with(".log.cleaned")
            && !std::mem::replace(&mut done, true)
        {
            wait(other.delete_records(to)).unwrap();
        }
        Ok(())
    });
    store.clean(NOW_MS);
    hook.clear();
    assert_eq!(log.watermarks().log_start, to);
    let left = records(&log);
    assert!(left.iter().all(|(offset, ..)| *offset >= to), "{left:?}");
    assert_eq!(files(dir.path(), ".cleaned"), [] as [&str; 0]);
    assert_eq!(files(dir.path(), ".swap"), [] as [&str; 0]);
    drop((store, log));
    let (_store, log) = start(dir.path(), &compacted(), options());
    assert_eq!(records(&log), left);
}

#[test]
fn a_topic_that_is_deleted_meanwhile_is_gone() {
    let (dir, hook, store, log) = filled(hooked());
    let store = Arc::new(store);
    let other = Arc::downgrade(&store);
    hook.set(move |_, change| {
        if let Change::Sync(path) = change
            && path.to_string_lossy().ends_with(".log.cleaned")
            && let Some(store) = other.upgrade()
        {
            wait(store.delete(&milena_log::conformance::partition("conformance", 0))).unwrap();
        }
        Ok(())
    });
    store.clean(NOW_MS);
    hook.clear();
    assert!(!folder(dir.path()).exists());
    drop(log);
    // A new topic of the name starts from nothing, in a directory that works.
    let (log, _) = milena_log::conformance::open(&*store, compacted());
    assert_eq!(log.watermarks().high_watermark, 0);
    put(&log, 0, &[("a", Some(A))]);
}

#[test]
fn appends_and_reads_go_on_meanwhile() {
    let (dir, hook, store, log) = filled(hooked());
    let before = records(&log);
    let other = Arc::clone(&log);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let mut left = 10;
    hook.set(move |_, change| {
        // The log's lock is held for the swap, and for the producer snapshot of the checkpoint before.
        if let Change::Sync(path) | Change::Write { path, .. } = change
            && left > 0
            && !path.to_string_lossy().contains(".snapshot")
        {
            left -= 1;
            put(&other, 50, &[("new", Some(A))]);
            sink.lock().unwrap().push(records(&other).len());
        }
        Ok(())
    });
    assert!(store.clean(NOW_MS) >= 1);
    hook.clear();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(before.iter().any(|record| record.1 == "a"));
    assert_eq!(offsets_of(&log, "a").len(), 1);
    drop(dir);
}

#[test]
fn a_consumer_reads_on_across_the_swap() {
    let (_dir, _hook, store, log) = filled(hooked());
    let all = records(&log);
    // Where this read ends is remembered as the place of the next one.
    let middle = all[all.len() / 2].0;
    common::read(&log, middle);
    let next = common::contents(&log)
        .into_iter()
        .find(|(first, _)| *first > middle)
        .unwrap()
        .0;
    common::read(&log, middle);
    store.clean(NOW_MS);
    let records = common::read(&log, next);
    let batch = milena_protocol::records::batches(&records)
        .next()
        .unwrap()
        .unwrap();
    batch.check_crc().unwrap();
    assert!(batch.header.last_offset() >= next);
}
