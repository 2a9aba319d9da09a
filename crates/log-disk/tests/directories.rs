//! Whose the log directories are, and what becomes of folders that belong to nobody.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{append, close, contents, open, plain, store};
use milena_log::conformance::{self, NOW_MS, Seen, wait};
use milena_log::{LogConfig, LogStore, PartitionId};
use milena_log_disk::{DiskLogStore, DiskOptions};
use milena_protocol::Uuid;

fn names(dir: &Path, suffix: &str) -> Vec<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(suffix))
        .collect()
}

#[test]
fn a_partition_that_is_set_aside_keeps_its_bytes_over_the_next_starts() {
    let dir = common::tempdir();
    let (store_of_it, log, _) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0; 3]));
    let written = fs::read(common::folder(dir.path()).join("00000000000000000000.log")).unwrap();
    let id = conformance::partition("conformance", 0);
    wait(store_of_it.set_aside(&id)).unwrap();
    assert!(store_of_it.stored().unwrap().is_empty());
    assert!(
        wait(log.append(plain(&[0]))).is_err(),
        "nobody writes to it any more"
    );
    let again = conformance::open(&store_of_it, LogConfig::default()).0;
    assert_eq!(
        append(&again, plain(&[0])),
        0,
        "a new one of the name starts empty"
    );
    wait(store_of_it.maintain(NOW_MS + (1 << 40)));
    close(store_of_it, again);
    drop(log);
    let _store = store(dir.path());
    let strays = names(dir.path(), "-stray");
    assert_eq!(strays.len(), 1, "{strays:?}");
    assert!(strays[0].starts_with("conformance-0."), "{strays:?}");
    let kept = fs::read(dir.path().join(&strays[0]).join("00000000000000000000.log")).unwrap();
    assert_eq!(kept, written);
}

#[test]
fn the_folder_of_another_topic_of_the_name_is_set_aside() {
    let dir = common::tempdir();
    let (old, log, _) = open(dir.path(), &LogConfig::default());
    append(&log, plain(&[0]));
    close(old, log);
    let store = store(dir.path());
    let id = PartitionId {
        topic_id: Uuid::from_bytes([9; 16]),
        ..conformance::partition("conformance", 0)
    };
    let log = wait(store.open(id, LogConfig::default(), Arc::new(Seen::default()))).unwrap();
    assert!(contents(&log).is_empty());
    assert_eq!(names(dir.path(), "-stray").len(), 1);
}

#[test]
fn directories_are_claimed_together_or_not_at_all() {
    let (one, two) = (common::tempdir(), common::tempdir());
    let open = |dirs: &[&Path]| {
        let dirs = dirs.iter().map(|dir| (*dir).to_owned()).collect();
        DiskLogStore::open(dirs, DiskOptions::at(NOW_MS)).unwrap()
    };
    let first = open(&[one.path()]);
    assert_eq!(first.cluster_id(), None);
    first.claim("cluster", 1).unwrap();
    assert_eq!(first.cluster_id().as_deref(), Some("cluster"));
    drop(first);
    let both = open(&[two.path(), one.path()]);
    assert_eq!(both.cluster_id().as_deref(), Some("cluster"));
    let refused = both.claim("another", 1).unwrap_err().to_string();
    assert!(refused.contains("belongs to cluster cluster"), "{refused}");
    assert!(both.claim("cluster", 2).is_err());
    assert!(
        !two.path().join("meta.properties").exists(),
        "a refusal takes no directory"
    );
    both.claim("cluster", 1).unwrap();
    let ids: Vec<String> = [&one, &two]
        .map(|dir| fs::read_to_string(dir.path().join("meta.properties")).unwrap())
        .map(|text| {
            text.lines()
                .find(|line| line.starts_with("directory.id="))
                .unwrap()
                .to_owned()
        })
        .into();
    assert_ne!(ids[0], ids[1], "each directory has an id of its own");
}
