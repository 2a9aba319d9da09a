//! What a start finds after a stop, clean or not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use common::{append, close, contents, files, folder, open, plain, small, store};
use milena_log::conformance::{self, NOW_MS, wait};
use milena_log::{Append, LogConfig, LogError, LogStore, PartitionId, ReadBound};
use milena_protocol::Uuid;
use milena_protocol::records::BatchBuilder;

type Damage = fn(&mut Vec<u8>);

const FIRST: &str = "00000000000000000000";

#[test]
fn a_torn_tail_is_truncated_to_the_last_whole_batch_at_every_byte() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    for _ in 0..2 {
        append(&log, plain(&[0, 0]));
    }
    let good = log.size_bytes() as usize;
    append(&log, plain(&[0, 0]));
    drop((store, log));
    let path = folder(dir.path()).join(format!("{FIRST}.log"));
    let whole = fs::read(&path).unwrap();
    for end in good..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let (store, log, _) = open(dir.path(), &LogConfig::default());
        assert_eq!(contents(&log), [(0, 1), (2, 3)], "cut at {end}");
        assert_eq!(fs::metadata(&path).unwrap().len(), good as u64);
        assert_eq!(append(&log, plain(&[0])), 4);
        drop((store, log));
    }
}

#[test]
fn a_tail_of_zeros_or_with_a_changed_byte_is_truncated() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0]));
    let good = log.size_bytes() as usize;
    append(&log, plain(&[0]));
    drop((store, log));
    let path = folder(dir.path()).join(format!("{FIRST}.log"));
    let whole = fs::read(&path).unwrap();
    let mut zeros = whole[..good].to_vec();
    zeros.resize(good + 4096, 0);
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bytes in [zeros, changed] {
        fs::write(&path, bytes).unwrap();
        let (store, log, _) = open(dir.path(), &LogConfig::default());
        assert_eq!(contents(&log), [(0, 0)]);
        drop((store, log));
    }
}

#[test]
fn after_a_clean_stop_the_records_are_not_read_again() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0]));
    append(&log, plain(&[0]));
    close(store, log);
    // A changed byte in a record would be found by a scan, and cut.
    let path = folder(dir.path()).join(format!("{FIRST}.log"));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    assert_eq!(log.watermarks().log_end, 2);
    drop((store, log));
    let (_store, log, _) = open(dir.path(), &LogConfig::default());
    assert_eq!(log.watermarks().log_end, 1, "the marker is good for one start");
}

#[test]
fn a_partition_that_was_not_opened_keeps_the_directory_unclean() {
    let dir = common::tempdir();
    let (crashed, log, _) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0]));
    drop((crashed, log));
    let unopened = store(dir.path());
    wait(unopened.close()).unwrap();
    drop(unopened);
    assert!(!dir.path().join(".kafka_cleanshutdown").exists());
    let (opened, log, _) = open(dir.path(), &LogConfig::default());
    close(opened, log);
    assert!(dir.path().join(".kafka_cleanshutdown").exists());
}

#[test]
fn indexes_that_are_missing_cut_or_wrong_are_made_anew() {
    let damage: &[(&str, Damage)] = &[
        ("cut", |bytes| {
            bytes.pop();
        }),
        ("behind the end", |bytes| {
            let end = bytes.len() - 4;
            bytes[end..].copy_from_slice(&i32::MAX.to_be_bytes());
        }),
    ];
    for kind in ["index", "timeindex"] {
        for (what, damage) in damage {
            let dir = common::tempdir();
            let (store, log, _) = open(dir.path(), &small());
            for round in 0..20 {
                append(&log, plain(&[round * 10]));
            }
            let before = contents(&log);
            close(store, log);
            let names = files(dir.path(), &format!(".{kind}"));
            assert!(names.len() > 3);
            let original: Vec<Vec<u8>> = names
                .iter()
                .map(|name| fs::read(folder(dir.path()).join(name)).unwrap())
                .collect();
            for (at, name) in names.iter().enumerate() {
                let path = folder(dir.path()).join(name);
                let mut bytes = fs::read(&path).unwrap();
                if at % 2 == 0 {
                    fs::remove_file(&path).unwrap();
                } else if !bytes.is_empty() {
                    damage(&mut bytes);
                    fs::write(&path, bytes).unwrap();
                }
            }
            let (_store, log, _) = open(dir.path(), &small());
            assert_eq!(contents(&log), before, "{kind} {what}");
            for round in 0..20 {
                let found = wait(log.offset_for_timestamp(NOW_MS + round * 10, ReadBound::HighWatermark));
                assert_eq!(found.unwrap().unwrap().offset, round, "{kind} {what}");
            }
            let newest = wait(log.max_timestamp()).unwrap().unwrap();
            assert_eq!(newest.offset, 19, "{kind} {what}");
            for (at, name) in names.iter().enumerate() {
                let again = fs::read(folder(dir.path()).join(name)).unwrap();
                if kind == "index" || at % 2 == 0 {
                    assert_eq!(again, original[at], "{kind} {what} {name}");
                }
            }
        }
    }
}

fn of_producer(epoch: i16, sequence: i32) -> Append {
    conformance::append(BatchBuilder::new().producer(77, epoch, sequence), &[0, 0], 40)
}

#[test]
fn producers_are_known_again_after_clean_and_unclean_stops() {
    for clean in [true, false] {
        let dir = common::tempdir();
        let (store, log, _) = open(dir.path(), &small());
        for sequence in 0..10 {
            append(&log, of_producer(3, sequence * 2));
        }
        let before = log.producers();
        if clean {
            close(store, log);
        } else {
            drop((store, log));
        }
        let (_store, log, _) = open(dir.path(), &small());
        assert_eq!(log.producers(), before, "clean: {clean}");
        let again = wait(log.append(of_producer(3, 18))).unwrap();
        assert_eq!((again.base_offset, again.duplicate), (18, true));
        assert!(matches!(
            wait(log.append(of_producer(2, 0))),
            Err(LogError::InvalidProducerEpoch { current: 3, .. })
        ));
        assert!(matches!(
            wait(log.append(of_producer(3, 22))),
            Err(LogError::OutOfOrderSequence { expected: 20, .. })
        ));
        assert_eq!(append(&log, of_producer(3, 20)), 20);
    }
}

#[test]
fn the_last_five_batches_are_duplicates_also_after_a_crash() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    for sequence in 0..6 {
        append(&log, of_producer(0, sequence * 2));
    }
    drop((store, log));
    let (_store, log, _) = open(dir.path(), &LogConfig::default());
    for sequence in 1..6 {
        let again = wait(log.append(of_producer(0, sequence * 2))).unwrap();
        assert_eq!(
            (again.base_offset, again.duplicate),
            (i64::from(sequence * 2), true)
        );
    }
}

#[test]
fn a_damaged_producer_snapshot_is_made_up_for_by_the_log() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    for sequence in 0..10 {
        append(&log, of_producer(0, sequence * 2));
    }
    let before = log.producers();
    close(store, log);
    let names = files(dir.path(), ".snapshot");
    assert!(!names.is_empty());
    for name in names {
        let path = folder(dir.path()).join(name);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let (_store, log, _) = open(dir.path(), &small());
    assert_eq!(log.producers(), before);
}

#[test]
fn leader_epochs_survive_and_are_read_from_the_batches_when_their_file_is_gone() {
    for lost in [false, true] {
        for clean in [true, false] {
            let dir = common::tempdir();
            let (store, log, _) = open(dir.path(), &small());
            for leader_epoch in [0, 0, 4, 4, 4, 9] {
                let batch = Append {
                    leader_epoch,
                    ..plain(&[0, 0])
                };
                append(&log, batch);
            }
            if clean {
                close(store, log);
            } else {
                drop((store, log));
            }
            if lost {
                fs::remove_file(folder(dir.path()).join("leader-epoch-checkpoint")).unwrap();
            }
            let (_store, log, _) = open(dir.path(), &small());
            let ends: Vec<Option<i64>> = [0, 4, 9, 10]
                .map(|epoch| log.end_offset_for_epoch(epoch).map(|end| end.end_offset))
                .into();
            assert_eq!(
                ends,
                [Some(4), Some(10), Some(12), None],
                "lost {lost}, clean {clean}"
            );
        }
    }
}

#[test]
fn deleted_records_do_not_come_back_after_a_crash() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    for _ in 0..20 {
        append(&log, plain(&[0]));
    }
    assert_eq!(wait(log.delete_records(13)).unwrap(), 13);
    drop((store, log));
    let (store, log, _) = open(dir.path(), &small());
    assert_eq!(log.watermarks().log_start, 13);
    assert_eq!(wait(log.delete_records(-1)).unwrap(), 20);
    drop((store, log));
    let (_store, log, _) = open(dir.path(), &small());
    assert_eq!(
        (log.watermarks().log_start, append(&log, plain(&[0]))),
        (20, 20),
        "an empty log goes on where it ended"
    );
}

#[test]
fn offsets_go_on_when_all_segments_were_lost() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &small());
    for _ in 0..5 {
        append(&log, plain(&[0]));
    }
    wait(log.delete_records(5)).unwrap();
    drop((store, log));
    for name in files(dir.path(), ".log") {
        fs::remove_file(folder(dir.path()).join(name)).unwrap();
    }
    let (_store, log, _) = open(dir.path(), &small());
    assert_eq!(append(&log, plain(&[0])), 5);
}

#[test]
fn a_directory_serves_one_broker_at_a_time() {
    let dir = common::tempdir();
    let first = store(dir.path());
    let error = milena_log_disk::DiskLogStore::open(
        vec![dir.path().to_owned()],
        milena_log_disk::DiskOptions::at(NOW_MS),
    )
    .unwrap_err();
    assert!(error.to_string().contains("another broker"), "{error}");
    drop(first);
    drop(store(dir.path()));
}

#[test]
fn a_log_is_opened_once() {
    let dir = common::tempdir();
    let (store, _log, seen) = open(dir.path(), &small());
    let id = conformance::partition("conformance", 0);
    assert!(wait(store.open(id, small(), seen)).is_err());
}

#[test]
fn an_interrupted_deletion_is_finished_at_the_next_start() {
    let dir = common::tempdir();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0]));
    wait(store.delete(&conformance::partition("conformance", 0))).unwrap();
    let doomed = |dir: &std::path::Path| {
        fs::read_dir(dir)
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().ends_with("-delete")
            })
            .count()
    };
    assert_eq!(doomed(dir.path()), 1, "freed after file.delete.delay.ms");
    drop((store, log));
    let _store = common::store(dir.path());
    assert_eq!(doomed(dir.path()), 0);
}

#[test]
fn a_topic_made_again_does_not_get_the_records_of_the_old_one() {
    let dir = common::tempdir();
    let (store, log, seen) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0]));
    close(store, log);
    let store = common::store(dir.path());
    let id = PartitionId {
        topic_id: Uuid::from_bytes([8; 16]),
        ..conformance::partition("conformance", 0)
    };
    let log = wait(store.open(id.clone(), LogConfig::default(), seen)).unwrap();
    assert_eq!(log.watermarks().log_end, 0);
    assert_eq!(store.stored().unwrap(), [id]);
}

#[test]
fn more_logs_than_are_synced_one_by_one_close_and_open_again() {
    let dir = common::tempdir();
    let open_all = |store: &milena_log_disk::DiskLogStore| {
        let open = |at| {
            let seen = std::sync::Arc::<conformance::Seen>::default();
            let id = conformance::partition("many", at);
            wait(store.open(id, LogConfig::default(), seen)).unwrap()
        };
        (0..101).map(open).collect::<Vec<_>>()
    };
    for round in 0..3 {
        let store = store(dir.path());
        for log in open_all(&store) {
            assert_eq!(log.watermarks().log_end, round);
            assert_eq!(log.producers().len(), usize::from(round > 0));
            let batch = conformance::append(BatchBuilder::new().producer(9, 0, round as i32), &[0], 1);
            assert_eq!(append(&log, batch), round);
        }
        wait(store.close()).unwrap();
    }
    // A run in which nothing is appended leaves everything as it was.
    for _ in 0..2 {
        let store = store(dir.path());
        for log in open_all(&store) {
            assert_eq!((log.watermarks().log_end, log.producers().len()), (3, 1));
            let newest = wait(log.max_timestamp()).unwrap().unwrap();
            assert_eq!(newest.offset, 0);
        }
        wait(store.close()).unwrap();
    }
}

#[test]
fn a_new_partition_goes_to_the_directory_with_the_fewest() {
    let dir = common::tempdir();
    let dirs: Vec<_> = ["a", "b", "c"].map(|name| dir.path().join(name)).into();
    let open_all = |store: &milena_log_disk::DiskLogStore| {
        for at in 0..6 {
            let id = conformance::partition("spread", at);
            wait(store.open(
                id,
                LogConfig::default(),
                std::sync::Arc::<conformance::Seen>::default(),
            ))
            .unwrap();
        }
        let counts: Vec<usize> = store.log_dirs().iter().map(|dir| dir.replicas.len()).collect();
        counts
    };
    let store =
        milena_log_disk::DiskLogStore::open(dirs.clone(), milena_log_disk::DiskOptions::at(NOW_MS)).unwrap();
    assert_eq!(open_all(&store), [2, 2, 2]);
    wait(store.close()).unwrap();
    drop(store);
    let store = milena_log_disk::DiskLogStore::open(dirs, milena_log_disk::DiskOptions::at(NOW_MS)).unwrap();
    assert_eq!(open_all(&store), [2, 2, 2], "and is found where it is");
}
