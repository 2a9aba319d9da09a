//! One log directory: its lock, its identity, its checkpoints of offsets, and what waits in it to be
//! freed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use milena_protocol::Uuid;

use crate::checkpoint::{self, LOG_STARTS, Offsets, RECOVERY_POINTS};
use crate::files;

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const META_PROPERTIES: &str = "meta.properties";

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Whether the last run closed every log in it.
    pub(crate) was_clean: bool,
    log_starts: Mutex<Offsets>,
    recovery_points: Mutex<Offsets>,
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
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let held = files::lock_directory(&path)?;
        ensure_meta_properties(&path)?;
        let marker = path.join(CLEAN_SHUTDOWN);
        let was_clean = marker.exists();
        files::remove_if_there(&marker)?;
        remove_leftovers(&path)?;
        Ok(Self {
            was_clean,
            log_starts: Mutex::new(checkpoint::read_offsets(&path, LOG_STARTS)?),
            recovery_points: Mutex::new(checkpoint::read_offsets(&path, RECOVERY_POINTS)?),
            doomed: Mutex::new(Vec::new()),
            _lock: held,
            path,
        })
    }

    pub(crate) fn log_start(&self, folder: &str) -> i64 {
        lock(&self.log_starts).get(folder).copied().unwrap_or(0)
    }

    /// Returns when the new log start outlasts a power cut.
    pub(crate) fn set_log_start(&self, folder: &str, offset: i64) -> io::Result<()> {
        let mut starts = lock(&self.log_starts);
        if starts.insert(folder.to_owned(), offset) == Some(offset) {
            return Ok(());
        }
        checkpoint::write_offsets(&self.path, LOG_STARTS, &starts, true)
    }

    pub(crate) fn recovery_point(&self, folder: &str) -> i64 {
        lock(&self.recovery_points).get(folder).copied().unwrap_or(0)
    }

    /// Takes the logs' recovery points over and writes them, if any of them moved.
    pub(crate) fn set_recovery_points(
        &self,
        points: impl IntoIterator<Item = (String, i64)>,
    ) -> io::Result<()> {
        let mut known = lock(&self.recovery_points);
        let mut moved = false;
        for (folder, offset) in points {
            moved |= known.insert(folder, offset) != Some(offset);
        }
        if moved {
            checkpoint::write_offsets(&self.path, RECOVERY_POINTS, &known, true)
        } else {
            Ok(())
        }
    }

    pub(crate) fn forget(&self, folder: &str) -> io::Result<()> {
        // A later partition of this name must not be trusted by what this one had synced.
        let mut points = lock(&self.recovery_points);
        if points.remove(folder).is_some() {
            checkpoint::write_offsets(&self.path, RECOVERY_POINTS, &points, true)?;
        }
        drop(points);
        let mut starts = lock(&self.log_starts);
        match starts.remove(folder) {
            Some(_) => checkpoint::write_offsets(&self.path, LOG_STARTS, &starts, true),
            None => Ok(()),
        }
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
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what was deleted; the next start tries again");
            }
        }
    }

    /// Makes all that was written below it durable.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.path)?)?)
    }

    /// Says that every log in it was closed.
    pub(crate) fn mark_clean(&self) -> io::Result<()> {
        files::replace(
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

fn remove(path: &Path) -> io::Result<()> {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Finishes deletions of folders that the last run began.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .ends_with(files::DELETED_FOLDER_SUFFIX)
        {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Gives the directory an id of its own, once.
fn ensure_meta_properties(path: &Path) -> io::Result<()> {
    let file = path.join(META_PROPERTIES);
    if file.exists() {
        return Ok(());
    }
    let mut id: Uuid = files::random_uuid()?;
    while id.to_string().starts_with('-') {
        // Kafka's tools take a leading dash for a flag.
        id = files::random_uuid()?;
    }
    files::replace(
        &file,
        format!("#\nversion=1\ndirectory.id={id}\n").as_bytes(),
        false,
    )
}
