//! One log directory: its lock, its identity, its checkpoints of offsets, and what waits in it to be
//! freed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::checkpoint::{self, CLEANED_OFFSETS, LOG_STARTS, Offsets, RECOVERY_POINTS};
use crate::disk::{Disk, Folder};
use crate::files;
use crate::journal;
use crate::meta_properties::MetaProperties;

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) disk: Disk,
    /// Why nothing below it can be read or written any more; see [`Directory::fail`].
    failure: OnceLock<String>,
    is_offline: AtomicBool,
    /// Whether those who wait in it were told that it is offline.
    told: AtomicBool,
    /// Whether the last run closed every log in it.
    pub(crate) was_clean: bool,
    log_starts: Mutex<Offsets>,
    recovery_points: Mutex<Offsets>,
    /// Up to where each log is compacted.
    cleaned: Mutex<Offsets>,
    meta_properties: Mutex<MetaProperties>,
    /// Files and folders to be removed, each with the time from which on.
    doomed: Mutex<Vec<(i64, PathBuf)>>,
    /// Keeps other brokers out as long as it is open.
    _lock: File,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes of this crate guard is whole at every point where a panic could occur.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    pub(crate) fn open(path: PathBuf, disk: Disk) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let held = files::lock_directory(&path)?;
        let meta_properties = MetaProperties::read(&path)?;
        let marker = path.join(CLEAN_SHUTDOWN);
        let was_clean = marker.exists();
        if was_clean {
            disk.remove(&marker)?;
            // Else a power cut could bring it back after this run has written.
            disk.sync_folder(&path)?;
        }
        remove_leftovers(&disk, &path)?;
        let recovery_points = checkpoint::read_offsets(&path, RECOVERY_POINTS)?;
        if !was_clean {
            journal::replay(&path, &disk, |folder| {
                recovery_points.get(folder).copied().unwrap_or(0)
            })?;
        }
        Ok(Self {
            meta_properties: Mutex::new(meta_properties),
            was_clean,
            log_starts: Mutex::new(checkpoint::read_offsets(&path, LOG_STARTS)?),
            recovery_points: Mutex::new(recovery_points),
            cleaned: Mutex::new(checkpoint::read_offsets(&path, CLEANED_OFFSETS)?),
            doomed: Mutex::new(Vec::new()),
            _lock: held,
            path,
            disk,
            failure: OnceLock::new(),
            is_offline: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    /// The cluster that the directory belongs to, if it says so.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        lock(&self.meta_properties).cluster_id().map(str::to_owned)
    }

    /// Why the directory is not this node's, if so.
    pub(crate) fn refusal(&self, cluster_id: &str, node_id: i32) -> Option<String> {
        lock(&self.meta_properties).refusal(&self.path, cluster_id, node_id)
    }

    /// Makes the directory this node's.
    pub(crate) fn claim(&self, cluster_id: &str, node_id: i32) -> io::Result<()> {
        lock(&self.meta_properties).claim(&self.disk, &self.path, cluster_id, node_id)
    }

    /// The partition's folder.
    pub(crate) fn folder(&self, name: &str) -> Arc<Folder> {
        Folder::new(self.path.join(name), self.disk.clone())
    }

    /// Takes the directory offline: after a failed write or sync nobody knows what is on the disk,
    /// and trying again could seem to work although the system has dropped the bytes.
    pub(crate) fn fail(&self, error: &io::Error) {
        if self.failure.set(error.to_string()).is_ok() {
            tracing::error!(directory = %self.path.display(), %error, "the log directory failed and is offline until the next start");
            self.is_offline.store(true, Ordering::Release);
        }
    }

    /// Why the directory is offline, if it is.
    pub(crate) fn failure(&self) -> Option<&str> {
        if self.is_offline.load(Ordering::Acquire) {
            self.failure.get().map(String::as_str)
        } else {
            None
        }
    }

    /// Whether it went offline since the last call.
    pub(crate) fn has_failed_lately(&self) -> bool {
        self.failure().is_some() && !self.told.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn log_start(&self, folder: &str) -> i64 {
        lock(&self.log_starts).get(folder).copied().unwrap_or(0)
    }

    /// Returns when the new log start outlasts a power cut.
    pub(crate) fn set_log_start(&self, folder: &str, offset: i64) -> io::Result<()> {
        let mut starts = lock(&self.log_starts);
        let before = starts.insert(folder.to_owned(), offset);
        if before == Some(offset) {
            return Ok(());
        }
        checkpoint::write_offsets(&self.disk, &self.path, LOG_STARTS, &starts).inspect_err(|_| {
            match before {
                Some(before) => starts.insert(folder.to_owned(), before),
                None => starts.remove(folder),
            };
        })
    }

    pub(crate) fn recovery_point(&self, folder: &str) -> i64 {
        lock(&self.recovery_points).get(folder).copied().unwrap_or(0)
    }

    /// Takes the logs' recovery points over and writes them, if any of them moved.
    pub(crate) fn set_recovery_points<'a>(
        &self,
        points: impl IntoIterator<Item = (&'a str, i64)>,
    ) -> io::Result<()> {
        let mut known = lock(&self.recovery_points);
        let mut before = Vec::new();
        for (folder, offset) in points {
            let old = known.get(folder).copied();
            if old != Some(offset) {
                known.insert(folder.to_owned(), offset);
                before.push((folder, old));
            }
        }
        if before.is_empty() {
            return Ok(());
        }
        checkpoint::write_offsets(&self.disk, &self.path, RECOVERY_POINTS, &known).inspect_err(|_| {
            // So that they count as moved the next time.
            for (folder, old) in before {
                match old {
                    Some(old) => known.insert(folder.to_owned(), old),
                    None => known.remove(folder),
                };
            }
        })
    }

    /// Where the part of the log starts that was not compacted yet, if it ever was.
    pub(crate) fn first_dirty(&self, folder: &str) -> Option<i64> {
        lock(&self.cleaned).get(folder).copied()
    }

    /// Returns when it outlasts a power cut.
    pub(crate) fn set_first_dirty(&self, folder: &str, offset: i64) -> io::Result<()> {
        let mut cleaned = lock(&self.cleaned);
        if cleaned.insert(folder.to_owned(), offset) == Some(offset) {
            return Ok(());
        }
        checkpoint::write_offsets(&self.disk, &self.path, CLEANED_OFFSETS, &cleaned)
    }

    /// Forgets all that was written down of a partition: a later one of its name must not be trusted by
    /// what this one had synced.
    pub(crate) fn forget(&self, folder: &str) -> io::Result<()> {
        for (name, offsets) in [
            (RECOVERY_POINTS, &self.recovery_points),
            (CLEANED_OFFSETS, &self.cleaned),
            (LOG_STARTS, &self.log_starts),
        ] {
            let mut offsets = lock(offsets);
            if let Some(before) = offsets.remove(folder) {
                checkpoint::write_offsets(&self.disk, &self.path, name, &offsets).inspect_err(|_| {
                    offsets.insert(folder.to_owned(), before);
                })?;
            }
        }
        Ok(())
    }

    /// Removes the paths at `due_ms`, or at the next start.
    pub(crate) fn doom(&self, due_ms: i64, paths: impl IntoIterator<Item = PathBuf>) {
        lock(&self.doomed).extend(paths.into_iter().map(|path| (due_ms, path)));
    }

    pub(crate) fn remove_doomed(&self, now_ms: i64) {
        let due: Vec<PathBuf> = {
            let mut doomed = lock(&self.doomed);
            let (due, later) = doomed.drain(..).partition(|(due_ms, _)| *due_ms <= now_ms);
            *doomed = later;
            let due: Vec<(i64, PathBuf)> = due;
            due.into_iter().map(|(_, path)| path).collect()
        };
        for path in due {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what was deleted; the next start tries again");
            }
        }
    }

    /// Makes all that was written below it durable.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all(&self.path)
    }

    /// Says that every log in it was closed.
    pub(crate) fn mark_clean(&self) -> io::Result<()> {
        self.disk.replace(
            &self.path.join(CLEAN_SHUTDOWN),
            b"{\"version\":0,\"brokerEpoch\":-1}",
            true,
        )
    }

    /// Names of the folders of partitions.
    pub(crate) fn folders(&self) -> io::Result<Vec<String>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Some(name) = entry.file_name().to_str()
                && files::topic_partition(name).is_some()
            {
                folders.push(name.to_owned());
            }
        }
        folders.sort();
        Ok(folders)
    }
}

/// Finishes deletions of folders that the last run began.
fn remove_leftovers(disk: &Disk, path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .ends_with(files::DELETED_FOLDER_SUFFIX)
        {
            disk.remove(&entry.path())?;
        }
    }
    Ok(())
}
