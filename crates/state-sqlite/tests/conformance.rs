//! The SQLite engine against the suite that every fact store must pass.

use std::path::PathBuf;
use std::sync::Arc;

use milena_state::StateStore;
use milena_state::conformance::{self, Bench};
use milena_state_sqlite::SqliteStore;

struct Files {
    directory: tempfile::TempDir,
    count: usize,
}

impl Files {
    fn path(&self) -> PathBuf {
        self.directory.path().join(format!("facts-{}.sqlite", self.count))
    }
}

impl Bench for Files {
    fn create(&mut self) -> Arc<dyn StateStore> {
        self.count += 1;
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn StateStore> {
        match SqliteStore::open(&self.path()) {
            Ok(store) => Arc::new(store),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_sqlite_engine_conforms() {
    conformance::run(&mut Files {
        directory: tempfile::tempdir().unwrap(),
        count: 0,
    });
}
