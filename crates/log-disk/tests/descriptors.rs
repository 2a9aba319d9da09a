//! How many files are open follows what is in use, not what is stored. A binary of its own: the
//! count is the process's.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::{plain, small};
use milena_log::LogStore;
use milena_log::conformance::{NOW_MS, Seen, partition, wait};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn quiet_logs_hold_no_descriptors() {
    let dir = common::tempdir();
    for clean in [true, false, true] {
        let none = descriptors();
        let store = common::store(dir.path());
        let open = |at| wait(store.open(partition("many", at), small(), Arc::new(Seen::default()))).unwrap();
        let logs: Vec<_> = (0..20).map(open).collect();
        // The lock of the directory.
        assert!(descriptors() <= none + 1, "after the start");
        for log in &logs {
            for _ in 0..10 {
                common::append(log, plain(&[0]));
            }
        }
        assert!(descriptors() >= none + 20);
        // The first round syncs what was rolled; the next two find nobody using anything.
        for _ in 0..3 {
            wait(store.maintain(NOW_MS));
        }
        assert!(descriptors() <= none + 1, "when nobody used them for a round");
        if clean {
            wait(store.close()).unwrap();
            assert!(descriptors() <= none + 1, "after the end");
        }
    }
}
