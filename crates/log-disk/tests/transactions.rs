//! Transactions over stops of all kinds: what was open is open again, and readers are told of what was
//! aborted, whatever is left of the index.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/compacted.rs"]
mod compacted;

use std::fs;

use common::{Log, append, close, files, folder, open, plain, small};
use milena_log::conformance::{NOW_MS, committed, end, ended, transactional, verified, wait};
use milena_log::{LogConfig, LogStore};

fn send(log: &Log, producer_id: i64, sequence: i32) -> i64 {
    append(log, verified(&**log, transactional(producer_id, 0, sequence, 1)))
}

/// Producers 0 and 1 take turns to abort and to commit; producer 2 has one open from the middle on.
/// Gives the offsets of what a committed reader may see.
fn history(log: &Log) -> Vec<i64> {
    let mut visible = Vec::new();
    for round in 0..12 {
        let (aborted, kept) = (round % 2, (round + 1) % 2);
        let sequence = i32::try_from(round).unwrap();
        send(log, aborted, sequence);
        visible.push(send(log, kept, sequence));
        ended(&**log, end(aborted, 0, false));
        ended(&**log, end(kept, 0, true));
    }
    send(log, 2, 0);
    send(log, 0, 12);
    ended(&**log, end(0, 0, false));
    append(log, plain(&[0]));
    visible
}

fn check(log: &Log, visible: &[i64], stable: i64) {
    assert_eq!(log.watermarks().last_stable, stable);
    for max_bytes in [1, 300, 1 << 20] {
        assert_eq!(committed(&**log, 0, max_bytes), visible, "{max_bytes} bytes");
    }
}

#[test]
fn transactions_are_known_again_after_clean_and_unclean_stops() {
    for config in [small(), LogConfig::default()] {
        for clean in [true, false] {
            let dir = common::tempdir();
            let (store, log, _) = open(dir.path(), &config);
            let mut visible = history(&log);
            let (before, stable) = (log.producers(), log.watermarks().last_stable);
            check(&log, &visible, stable);
            if clean {
                close(store, log);
            } else {
                drop((store, log));
            }
            let (_store, log, _) = open(dir.path(), &config);
            assert_eq!(log.producers(), before, "clean: {clean}");
            check(&log, &visible, stable);
            visible.push(send(&log, 2, 1));
            ended(&*log, end(2, 0, true));
            let end = log.watermarks().high_watermark;
            // What was open when the index was read again counts now, and the plain one behind it.
            visible.extend([stable, stable + 3]);
            visible.sort_unstable();
            check(&log, &visible, end);
        }
    }
}

#[test]
fn an_index_that_is_cut_or_wrong_is_made_anew_and_none_is_made_where_nothing_was_aborted() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    let visible = history(&log);
    let stable = log.watermarks().last_stable;
    close(store, log);
    let names = files(dir.path(), ".txnindex");
    assert!(names.len() > 3 && names.len() < files(dir.path(), ".log").len() + 1);
    let whole: Vec<Vec<u8>> = names
        .iter()
        .map(|name| fs::read(folder(dir.path()).join(name)).unwrap())
        .collect();
    for damage in [0, 1, 2] {
        for (name, bytes) in names.iter().zip(&whole) {
            assert!(!bytes.is_empty());
            let mut bytes = bytes.clone();
            match damage {
                0 => bytes.truncate(bytes.len() - 7),
                1 => bytes[18..26].copy_from_slice(&i64::MAX.to_be_bytes()),
                _ => bytes[1] = 9,
            }
            fs::write(folder(dir.path()).join(name), bytes).unwrap();
        }
        let (store, log, _) = open(dir.path(), &small());
        check(&log, &visible, stable);
        close(store, log);
        for (name, bytes) in names.iter().zip(&whole) {
            let again = fs::read(folder(dir.path()).join(name)).unwrap();
            assert_eq!(&again, bytes, "damage {damage} {name}");
        }
    }
}

#[test]
fn indexes_that_are_gone_behind_the_recovery_point_are_made_anew() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    let visible = history(&log);
    let stable = log.watermarks().last_stable;
    drop((store, log));
    for name in files(dir.path(), ".txnindex") {
        fs::remove_file(folder(dir.path()).join(name)).unwrap();
    }
    let (_store, log, _) = open(dir.path(), &small());
    check(&log, &visible, stable);
}

#[test]
fn a_crash_between_the_records_and_the_marker_leaves_the_transaction_open() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    send(&log, 1, 0);
    let whole = usize::try_from(log.size_bytes()).unwrap();
    ended(&*log, end(1, 0, false));
    drop((store, log));
    let path = folder(dir.path()).join("00000000000000000000.log");
    let bytes = fs::read(&path).unwrap();
    for cut in [whole, whole + 1, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let (store, log, _) = open(dir.path(), &LogConfig::default());
        assert_eq!(log.watermarks().last_stable, 0, "cut at {cut}");
        assert_eq!(log.producers()[0].current_transaction_start_offset, 0);
        assert!(files(dir.path(), ".txnindex").is_empty());
        drop((store, log));
    }
    let (_store, log, _) = open(dir.path(), &LogConfig::default());
    ended(&*log, end(1, 0, true));
    check(&log, &[0], 2);
}

#[test]
fn the_index_of_a_segment_leaves_with_it() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    history(&log);
    ended(&*log, end(2, 0, true));
    let end_offset = log.watermarks().high_watermark;
    assert_eq!(wait(log.delete_records(-1)).unwrap(), end_offset);
    assert!(files(dir.path(), ".txnindex").is_empty());
    wait(store.maintain(NOW_MS + 2_000));
    assert!(files(dir.path(), ".deleted").is_empty());
    assert_eq!(committed(&*log, end_offset, 1 << 20), [0i64; 0]);
}

#[test]
fn compaction_takes_the_records_of_aborted_transactions_and_then_their_entries() {
    let dir = common::tempdir();
    let config = compacted::compacted();
    let (store, log) = compacted::start(dir.path(), &config, compacted::options());
    let visible = history(&log);
    let stable = log.watermarks().last_stable;
    let size = log.size_bytes();
    store.clean(NOW_MS);
    assert!(log.size_bytes() < size);
    // Of the equal keys the newest committed one below what may be cleaned stays.
    let seen = committed(&*log, 0, 1 << 20);
    assert!(seen.len() < visible.len() && seen.iter().all(|offset| visible.contains(offset)));
    assert_eq!(log.watermarks().last_stable, stable);
    let entries = |dir: &std::path::Path| -> usize {
        let names = files(dir, ".txnindex").into_iter();
        names
            .map(|name| fs::metadata(folder(dir).join(name)).unwrap().len() as usize / 34)
            .sum()
    };
    let first = entries(dir.path());
    assert!(first > 0);
    ended(&*log, end(2, 0, true));
    // Rounds go on: markers without records lose their entries, then go themselves.
    for round in 1..4 {
        for time in 0..4 {
            append(&log, plain(&[time]));
        }
        store.clean(NOW_MS + round * 2_000);
        assert_eq!(log.watermarks().last_stable, log.watermarks().high_watermark);
    }
    assert!(entries(dir.path()) < first, "{first} entries at first");
    let newest = log.watermarks().high_watermark - 1;
    let seen = committed(&*log, 0, 1 << 20);
    assert_eq!(seen.last(), Some(&newest));
    close(store, log);
    let (_store, log) = compacted::start(dir.path(), &config, compacted::options());
    assert_eq!(committed(&*log, 0, 1), seen);
}
