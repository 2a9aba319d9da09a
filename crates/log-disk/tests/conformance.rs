//! The disk engine does what every engine must do.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use milena_log::conformance;
use milena_log_disk::{DiskLogStore, DiskOptions};

#[test]
fn the_disk_engine_conforms() {
    let root = tempfile::tempdir().unwrap();
    let count = Mutex::new(0);
    conformance::run(&|| {
        let mut count = count.lock().unwrap();
        *count += 1;
        let dir: PathBuf = root.path().join(count.to_string());
        Arc::new(DiskLogStore::open(vec![dir], DiskOptions::at(conformance::NOW_MS)).unwrap())
    });
}
