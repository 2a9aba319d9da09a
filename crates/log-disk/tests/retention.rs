//! What rolls, what leaves a log, and when its bytes are freed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;

use common::{Log, append, contents, files, folder, open, plain, small};
use milena_log::conformance::{self, NOW_MS, wait};
use milena_log::{Append, CleanupPolicy, Durability, LogConfig, LogStore};
use milena_protocol::records::BatchBuilder;

fn fill(log: &Log, times: impl IntoIterator<Item = i64>) {
    for time in times {
        append(log, plain(&[time]));
    }
}

fn segments(dir: &Path) -> usize {
    files(dir, ".log").len()
}

#[test]
fn a_segment_rolls_when_it_is_full() {
    let dir = common::tempdir();
    let (_store, log, _) = open(dir.path(), &small());
    fill(&log, [0; 20]);
    let names = files(dir.path(), ".log");
    assert!(names.len() > 3, "{names:?}");
    for name in &names {
        assert!(fs::metadata(folder(dir.path()).join(name)).unwrap().len() <= 600);
    }
    assert_eq!(contents(&log).len(), 20);
}

#[test]
fn a_segment_rolls_when_the_records_are_segment_ms_apart() {
    let dir = common::tempdir();
    let config = LogConfig {
        segment_ms: 100,
        ..LogConfig::default()
    };
    let (_store, log, _) = open(dir.path(), &config);
    fill(&log, [-1000, -950, -900, -899, -850]);
    assert_eq!(
        files(dir.path(), ".log"),
        ["00000000000000000000.log", "00000000000000000003.log"]
    );
}

#[test]
fn jitter_rolls_earlier_but_never_later() {
    let dir = common::tempdir();
    let config = LogConfig {
        segment_ms: 100,
        segment_jitter_ms: 100,
        ..LogConfig::default()
    };
    let (_store, log, _) = open(dir.path(), &config);
    fill(&log, -300..0);
    let bases: Vec<i64> = files(dir.path(), ".log")
        .iter()
        .map(|name| name[..20].parse().unwrap())
        .collect();
    let lengths: Vec<i64> = bases.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(lengths.iter().all(|length| *length <= 101), "{lengths:?}");
    assert!(lengths.iter().any(|length| *length <= 100), "{lengths:?}");
}

#[test]
fn a_segment_rolls_when_an_index_is_full() {
    let dir = common::tempdir();
    let config = LogConfig {
        index_interval_bytes: 0,
        segment_index_bytes: 48,
        ..LogConfig::default()
    };
    let (_store, log, _) = open(dir.path(), &config);
    fill(&log, 0..20);
    assert!(segments(dir.path()) >= 4);
    for kind in [".index", ".timeindex"] {
        for name in files(dir.path(), kind) {
            let length = fs::metadata(folder(dir.path()).join(&name)).unwrap().len();
            assert!(length <= 48, "{name}: {length}");
        }
    }
}

#[test]
fn retention_by_time_drops_whole_segments_and_frees_them_later() {
    let dir = common::tempdir();
    let config = LogConfig {
        retention_ms: 1000,
        ..small()
    };
    let (store, log, _) = open(dir.path(), &config);
    fill(&log, (0..20).map(|at| at * 100));
    let before = segments(dir.path());
    wait(store.maintain(NOW_MS + 2000));
    let start = log.watermarks().log_start;
    assert!(
        start > 0 && start <= 11,
        "only what is older than 1000 ms: {start}"
    );
    assert!(segments(dir.path()) < before);
    assert!(!files(dir.path(), ".deleted").is_empty());
    log.update_config(small());
    wait(store.maintain(NOW_MS + 2999));
    assert!(!files(dir.path(), ".deleted").is_empty());
    wait(store.maintain(NOW_MS + 3000));
    assert!(
        files(dir.path(), ".deleted").is_empty(),
        "file.delete.delay.ms is over"
    );
}

#[test]
fn the_active_segment_is_rolled_when_it_expires() {
    let dir = common::tempdir();
    let config = LogConfig {
        retention_ms: 1000,
        ..LogConfig::default()
    };
    let (store, log, seen) = open(dir.path(), &config);
    fill(&log, [0; 5]);
    wait(store.maintain(NOW_MS + 1000));
    assert_eq!(log.watermarks().log_start, 0, "not older than retention.ms yet");
    wait(store.maintain(NOW_MS + 1001));
    assert_eq!(log.watermarks().log_start, 5);
    assert_eq!(files(dir.path(), ".log"), ["00000000000000000005.log"]);
    assert_eq!(append(&log, plain(&[0])), 5);
    drop((store, log, seen));
    let (_store, log, _) = open(dir.path(), &config);
    assert_eq!(contents(&log), [(5, 5)]);
}

#[test]
fn retention_by_size_keeps_at_least_what_is_asked_for() {
    let dir = common::tempdir();
    let config = LogConfig {
        retention_bytes: 1500,
        ..small()
    };
    let (store, log, _) = open(dir.path(), &config);
    fill(&log, [0; 40]);
    assert!(log.size_bytes() > 3000);
    wait(store.maintain(NOW_MS));
    let size = log.size_bytes();
    assert!(
        (1500..1500 + 600).contains(&size),
        "whole segments above the limit only: {size}"
    );
    let left = contents(&log);
    assert_eq!(left.first().unwrap().0, log.watermarks().log_start);
    assert_eq!(left.last().unwrap().1, 39);
}

#[test]
fn neither_unlimited_nor_compacted_topics_lose_records_to_retention() {
    let compacted = CleanupPolicy {
        delete: false,
        compact: true,
    };
    for config in [
        LogConfig {
            retention_ms: -1,
            ..small()
        },
        LogConfig {
            retention_ms: 1,
            retention_bytes: 1,
            cleanup_policy: compacted,
            ..small()
        },
    ] {
        let dir = common::tempdir();
        let (store, log, _) = open(dir.path(), &config);
        fill(&log, [0; 20]);
        wait(store.maintain(NOW_MS + (1 << 40)));
        // Compaction may begin now, and takes nothing from the front but what has a newer value.
        assert_eq!(log.watermarks().log_start, 0);
        assert_eq!(log.watermarks().high_watermark, 20);
    }
}

#[test]
fn a_reader_of_a_segment_that_is_dropped_is_told_where_the_log_starts() {
    let dir = common::tempdir();
    let (_store, log, _) = open(dir.path(), &small());
    fill(&log, [0; 20]);
    wait(log.delete_records(15)).unwrap();
    let error = wait(log.read(milena_log::Read {
        offset: 3,
        max_bytes: 100,
        at_least_one_batch: true,
        bound: milena_log::ReadBound::HighWatermark,
    }));
    assert!(matches!(
        error,
        Err(milena_log::LogError::OffsetOutOfRange { log_start: 15, .. })
    ));
    assert!(
        files(dir.path(), ".deleted").len() >= 3,
        "segments below the start are gone at once"
    );
}

#[test]
fn producers_expire_by_their_last_batch() {
    let dir = common::tempdir();
    let config = LogConfig {
        producer_id_expiration_ms: 500,
        ..LogConfig::default()
    };
    let (store, log, _) = open(dir.path(), &config);
    let batch: Append = conformance::append(BatchBuilder::new().producer(5, 0, 0), &[0], 1);
    append(&log, batch);
    wait(store.maintain(NOW_MS + 499));
    assert_eq!(log.producers().len(), 1);
    wait(store.maintain(NOW_MS + 500));
    assert_eq!(log.producers().len(), 0);
}

/// How often recovery points are written down.
const CHECKPOINT_MS: i64 = 60_000;

fn recovery_point(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("recovery-point-offset-checkpoint")).unwrap();
    text.lines().last().map(str::to_owned)
}

#[test]
fn flush_messages_and_flush_ms_have_the_log_synced() {
    let dir = common::tempdir();
    let os = LogConfig {
        durability: Durability::Os,
        ..LogConfig::default()
    };
    let store = common::manual(dir.path());
    let (log, _) = conformance::open(
        &store,
        LogConfig {
            flush_messages: 3,
            ..os.clone()
        },
    );
    let add = || wait(log.append(plain(&[0]))).unwrap();
    let seen = || log.watermarks().high_watermark;
    add();
    add();
    assert_eq!(seen(), 2, "two may be seen before they are on the disk");
    add();
    assert_eq!(seen(), 2, "the third has them synced first");
    store.commit();
    assert_eq!(seen(), 3);
    log.update_config(LogConfig { flush_ms: 10, ..os });
    add();
    let point = |after_ms| {
        wait(store.maintain(NOW_MS + after_ms));
        store.commit();
        wait(store.maintain(NOW_MS + after_ms + CHECKPOINT_MS));
        recovery_point(dir.path())
    };
    assert_eq!(point(9).as_deref(), Some("conformance 0 3"));
    assert_eq!(point(10 + CHECKPOINT_MS).as_deref(), Some("conformance 0 4"));
}

#[test]
fn nobody_sees_what_is_not_on_the_disk() {
    let dir = common::tempdir();
    let store = common::manual(dir.path());
    let (log, _) = conformance::open(&store, LogConfig::default());
    for _ in 0..3 {
        wait(log.append(plain(&[0]))).unwrap();
    }
    assert_eq!(
        (log.watermarks().high_watermark, log.watermarks().log_end),
        (0, 3)
    );
    assert_eq!(contents(&log).len(), 0);
    store.commit();
    assert_eq!(log.watermarks().high_watermark, 3);
    assert_eq!(contents(&log).len(), 3);
}

#[test]
fn a_topic_that_turns_to_the_durability_of_the_system_is_seen_at_once() {
    let dir = common::tempdir();
    let store = common::manual(dir.path());
    let (log, _) = conformance::open(&store, LogConfig::default());
    wait(log.append(plain(&[0]))).unwrap();
    log.update_config(LogConfig {
        durability: Durability::Os,
        ..LogConfig::default()
    });
    assert_eq!(log.watermarks().high_watermark, 1);
    log.update_config(LogConfig::default());
    wait(log.append(plain(&[0]))).unwrap();
    assert_eq!(log.watermarks().high_watermark, 1, "and back");
    store.commit();
    assert_eq!(log.watermarks().high_watermark, 2);
}

#[test]
fn rolled_segments_are_synced_and_trusted_after_a_crash() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    fill(&log, [0; 20]);
    wait(store.maintain(NOW_MS + CHECKPOINT_MS));
    drop((store, log));
    let names = files(dir.path(), ".log");
    let point = recovery_point(dir.path()).unwrap();
    assert_eq!(point, "conformance 0 20");
    // A changed byte below the recovery point would be found by a scan, and cut.
    let path = folder(dir.path()).join(&names[0]);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_store, log, _) = open(dir.path(), &small());
    assert_eq!(log.watermarks().log_end, 20);
}

#[test]
fn preallocation_leaves_the_end_of_the_file_at_the_end_of_the_log() {
    let dir = common::tempdir();
    let config = LogConfig {
        preallocate: true,
        segment_bytes: 100_000,
        ..LogConfig::default()
    };
    let (store, log, _) = open(dir.path(), &config);
    fill(&log, [0; 5]);
    let path = folder(dir.path()).join("00000000000000000000.log");
    assert_eq!(fs::metadata(&path).unwrap().len(), log.size_bytes());
    drop((store, log));
    let (_store, log, _) = open(dir.path(), &config);
    assert_eq!(contents(&log).len(), 5);
}

#[test]
fn retention_is_looked_at_as_often_as_its_interval_says() {
    let dir = common::tempdir();
    let options = milena_log_disk::DiskOptions {
        retention_check_interval_ms: 5_000,
        ..milena_log_disk::DiskOptions::at(NOW_MS)
    };
    let store = milena_log_disk::DiskLogStore::open(vec![dir.path().to_owned()], options).unwrap();
    let config = LogConfig {
        retention_ms: 1_000,
        ..LogConfig::default()
    };
    let (log, _) = conformance::open(&store, config);
    fill(&log, [0]);
    wait(store.maintain(NOW_MS + 4_999));
    assert_eq!(log.watermarks().log_start, 0, "not looked at yet");
    wait(store.maintain(NOW_MS + 5_000));
    assert_eq!(log.watermarks().log_start, 1);
    fill(&log, [3_500]);
    wait(store.maintain(NOW_MS + 9_999));
    assert_eq!(log.watermarks().log_start, 1);
    wait(store.maintain(NOW_MS + 10_000));
    assert_eq!(log.watermarks().log_start, 2);
}

#[test]
fn retention_keeps_exactly_its_bytes_and_takes_a_segment_that_leaves_them() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    fill(&log, [0; 20]);
    let first = fs::metadata(folder(dir.path()).join(&files(dir.path(), ".log")[0]))
        .unwrap()
        .len();
    let rest = log.size_bytes() - first;
    let keep = |bytes: u64| LogConfig {
        retention_bytes: i64::try_from(bytes).unwrap(),
        ..small()
    };
    log.update_config(keep(rest + 1));
    wait(store.maintain(NOW_MS));
    assert_eq!(log.watermarks().log_start, 0, "one byte would be missing");
    log.update_config(keep(rest));
    wait(store.maintain(NOW_MS));
    assert_eq!(log.size_bytes(), rest);
}

#[test]
fn records_of_the_future_stay_until_their_own_time_has_passed() {
    let dir = common::tempdir();
    let config = LogConfig {
        retention_ms: 1_000,
        ..LogConfig::default()
    };
    let (store, log, _) = open(dir.path(), &config);
    fill(&log, [50_000, 0]);
    wait(store.maintain(NOW_MS + 51_000));
    assert_eq!(log.watermarks().log_start, 0);
    wait(store.maintain(NOW_MS + 51_001));
    assert_eq!(log.watermarks().log_start, 2);
}

#[test]
fn a_smaller_segment_size_rolls_at_the_next_append() {
    let dir = common::tempdir();
    let (_store, log, _) = open(dir.path(), &LogConfig::default());
    fill(&log, [0; 20]);
    assert_eq!(segments(dir.path()), 1);
    log.update_config(small());
    assert_eq!(segments(dir.path()), 1, "what is stored stays as it is");
    fill(&log, [0]);
    assert_eq!(
        files(dir.path(), ".log"),
        ["00000000000000000000.log", "00000000000000000020.log"]
    );
}

#[test]
fn a_record_without_a_time_rolls_by_the_age_of_the_segment_only_where_no_record_has_one() {
    let config = LogConfig {
        segment_ms: 100,
        ..LogConfig::default()
    };
    let at = |timestamp: i64, now_ms: i64| Append {
        now_ms,
        ..plain(&[timestamp - NOW_MS])
    };
    for (first, segments_after) in [(NOW_MS, 1), (-1, 2)] {
        let dir = common::tempdir();
        let (_store, log, _) = open(dir.path(), &config);
        append(&log, at(first, NOW_MS));
        append(&log, at(-1, NOW_MS + 100));
        assert_eq!(segments(dir.path()), 1);
        append(&log, at(-1, NOW_MS + 101));
        assert_eq!(segments(dir.path()), segments_after, "first record at {first}");
    }
}

#[test]
fn room_that_was_reserved_is_given_back_although_preallocate_was_turned_off() {
    use std::os::unix::fs::MetadataExt;
    let dir = common::tempdir();
    let config = LogConfig {
        preallocate: true,
        segment_bytes: 1 << 20,
        ..LogConfig::default()
    };
    let (_store, log, _) = open(dir.path(), &config);
    fill(&log, [0; 5]);
    let path = folder(dir.path()).join("00000000000000000000.log");
    let reserved = || fs::metadata(&path).unwrap().blocks() * 512;
    if reserved() < 1 << 20 {
        return; // This file system reserves nothing.
    }
    log.update_config(small());
    fill(&log, [0; 5]);
    assert!(segments(dir.path()) > 1);
    assert!(reserved() < 1 << 20, "{}", reserved());
}
