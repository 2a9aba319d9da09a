//! Disks that break or fill up: an engine on two directories whose writes or syncs fail when the test
//! says so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use milena_log_disk::{Change, CommitMode, DiskLogStore, DiskOptions, Watch};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::engine::{SEGMENT_BYTES, open, options, tempdir};
use crate::harness::TestBroker;
use crate::hooked::{Hook, HookedStore};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// What needs room: bytes, files and folders.
    Writes,
    Syncs,
}

#[derive(Debug)]
struct Fault {
    below: PathBuf,
    what: What,
    error: Errno,
}

#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

impl Faults {
    /// From now on such changes below the directory fail.
    pub(crate) fn fail(&self, below: &Path, what: What, error: Errno) {
        let below = below.to_owned();
        *self.0.lock().unwrap() = Some(Fault { below, what, error });
    }

    /// Everything works again.
    pub(crate) fn end(&self) {
        *self.0.lock().unwrap() = None;
    }
}

impl Watch for Faults {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let (what, path) = match change {
            Change::CreateFolder(path) | Change::CreateFile(path) | Change::Write { path, .. } => {
                (What::Writes, path)
            }
            Change::Sync(path) | Change::SyncFolder(path) | Change::SyncAll(path) => (What::Syncs, path),
            Change::SetLength { .. }
            | Change::Rename { .. }
            | Change::RemoveFile(_)
            | Change::RemoveFolder(_) => return Ok(()),
        };
        match &*self.0.lock().unwrap() {
            Some(fault) if fault.what == what && path.starts_with(&fault.below) => Err(fault.error.into()),
            _ => Ok(()),
        }
    }
}

/// A broker on two directories, with the topic `t`: its even partitions are in the first directory, its
/// odd ones in the second.
pub(crate) struct TwoDisks {
    pub(crate) broker: TestBroker,
    pub(crate) logs: Arc<DiskLogStore>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) dirs: [TempDir; 2],
    hooked: Arc<HookedStore>,
}

pub(crate) const PARTITIONS: i32 = 4;

impl TwoDisks {
    pub(crate) async fn start(commit: CommitMode) -> Self {
        let dirs = [tempdir(), tempdir()];
        let faults = Arc::new(Faults::default());
        let options = DiskOptions {
            commit,
            watch: Some(faults.clone()),
            ..options()
        };
        let logs = open(&[&dirs[0], &dirs[1]], options);
        let hooked = Arc::new(HookedStore::new(logs.clone()));
        let broker = TestBroker::on(hooked.clone()).await;
        let config = [("segment.bytes", SEGMENT_BYTES.to_string())];
        let config = config.each_ref().map(|(name, value)| (*name, &**value));
        broker.topic_with("t", PARTITIONS, &config).await;
        for (partition, dir) in (0..PARTITIONS).zip(dirs.iter().cycle()) {
            assert!(dir.path().join(format!("t-{partition}")).is_dir());
        }
        Self {
            broker,
            logs,
            faults,
            dirs,
            hooked,
        }
    }

    pub(crate) fn hook(&self, partition: i32) -> Hook {
        self.hooked.hook(&format!("t-{partition}"))
    }

    pub(crate) fn fail_first(&self, what: What, error: Errno) {
        self.faults.fail(self.dirs[0].path(), what, error);
    }
}
