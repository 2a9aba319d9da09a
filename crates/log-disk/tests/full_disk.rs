//! A disk that takes no more: appends fail, nothing is torn, reads go on, and when there is room
//! again appends do too. The limit on file sizes stands in for the disk, in a
//! process of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::process::Command;

use common::{append, contents, open, plain};
use milena_log::conformance::wait;
use milena_log::{LogConfig, LogError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CHILD: &str = "MILENA_TEST_FULL_DISK";

#[test]
fn a_full_disk_refuses_appends_and_nothing_else() {
    if let Some(done) = std::env::var_os(CHILD) {
        on_a_full_disk();
        std::fs::write(done, "").unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    // Without the trap the signal would end the process at the limit.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_refuses_appends_and_nothing_else"])
        .env(CHILD, &done)
        .status()
        .unwrap();
    assert!(status.success() && done.exists());
}

fn limit_file_size(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes,
            maximum,
        },
    )
    .unwrap();
}

fn on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log, _) = open(dir.path(), &LogConfig::default());
    for _ in 0..3 {
        append(&log, plain(&[0]));
    }
    let size = log.size_bytes();
    let path = common::folder(dir.path()).join("00000000000000000000.log");
    // At every byte of the batch: in the header, between header and records, in the records.
    for room in 0..size / 3 {
        limit_file_size(Some(size + room));
        let refused = wait(log.append(plain(&[0])));
        limit_file_size(None);
        assert!(matches!(refused, Err(LogError::Storage(_))), "room for {room}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
        assert_eq!(contents(&log).len(), 3, "reads go on");
    }
    assert_eq!(append(&log, plain(&[0])), 3, "no offset was lost");
    drop((store, log));
    let (_store, log, _) = open(dir.path(), &LogConfig::default());
    assert_eq!(contents(&log), [(0, 0), (1, 1), (2, 2), (3, 3)]);
}
