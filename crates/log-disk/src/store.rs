//! All partitions below the log directories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use milena_log::{
    BoxFuture, CleanerConfig, LogConfig, LogDir, LogError, LogStore, MoveConfig, PartitionId, PartitionLog,
    StoredReplica, WatermarkObserver,
};

use crate::cleaner::{CleanMode, Cleaner};
use crate::commit::{CommitMode, CommitThread, Committer};
use crate::directory::{Directory, lock};
use crate::disk::{Disk, Watch};
use crate::files;
use crate::kernel::KernelCommits;
use crate::log::{DiskLog, storage, unless_full};
use crate::moving::{self, Move, MoveMode, Mover, Resumable};
use crate::replica::Replica;

/// More logs than this are made durable by one sync of the file system when they are closed: a sync
/// of each of their files would take minutes.
const MOST_SYNCED_ONE_BY_ONE: usize = 100;

/// Retention looks at the logs this long after the start, or sooner if its interval is shorter.
const FIRST_RETENTION_CHECK_MS: i64 = 30_000;

/// Partitions that do not exist and are to be created in a certain directory; more are not remembered.
const MOST_PREFERENCES: usize = 10_000;

/// What the engine is told once.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// The time now, in ms since the Unix epoch; later calls bring their own.
    pub now_ms: i64,
    /// `log.flush.offset.checkpoint.interval.ms`: how often recovery points are written down.
    pub checkpoint_interval_ms: i64,
    /// `log.retention.check.interval.ms`; 0 looks at every [`LogStore::maintain`].
    pub retention_check_interval_ms: i64,
    pub commit: CommitMode,
    /// Size of the file that takes small appends to many logs, in each directory.
    pub journal_bytes: usize,
    /// `log.cleaner.*`
    pub cleaner: CleanerConfig,
    pub clean: CleanMode,
    /// How replicas move between directories.
    pub moves: MoveConfig,
    pub moving: MoveMode,
    /// Sees every change of a file before it is made. For tests.
    pub watch: Option<Arc<dyn Watch>>,
}

impl DiskOptions {
    /// Kafka's defaults, but retention at every call of [`LogStore::maintain`].
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self {
            now_ms,
            checkpoint_interval_ms: 60_000,
            retention_check_interval_ms: 0,
            commit: CommitMode::Thread,
            journal_bytes: 8 * 1024 * 1024,
            cleaner: CleanerConfig::default(),
            clean: CleanMode::Threads,
            moves: MoveConfig::default(),
            moving: MoveMode::Threads,
            watch: None,
        }
    }
}

/// The disk engine: segment files in Kafka's own formats.
#[derive(Debug)]
pub struct DiskLogStore {
    shared: Arc<Shared>,
    cleaner: Cleaner,
    mover: Mover,
    _threads: Vec<CommitThread>,
}

#[derive(Debug)]
struct Shared {
    directories: Vec<Arc<Directory>>,
    /// One for each directory.
    committers: Vec<Arc<Committer>>,
    checkpoint_interval_ms: i64,
    retention_check_interval_ms: i64,
    /// When retention looks at the logs next.
    next_retention_ms: AtomicI64,
    /// Ordered, so that the same run makes the same changes.
    logs: Mutex<BTreeMap<PartitionId, Arc<Replica>>>,
    /// Held while folders are opened, renamed or removed: two logs must never write to one.
    placing: Arc<Mutex<()>>,
    /// Moves that the last run did not finish.
    resumable: Mutex<Resumable>,
    /// The directories in which partitions are created that do not exist, as somebody asked for.
    preferred: Mutex<HashMap<String, usize>>,
    /// The directories that take no more replicas.
    cordoned: Mutex<HashSet<PathBuf>>,
    /// The latest time that somebody told, for work that brings none.
    now_ms: AtomicI64,
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl DiskLogStore {
    /// Takes the directories, creating those that do not exist.
    ///
    /// # Errors
    /// When a directory cannot be used, or another process uses it.
    pub fn open(log_dirs: Vec<PathBuf>, options: DiskOptions) -> Result<Self, LogError> {
        let disk = Disk::new(options.watch);
        let directories: io::Result<Vec<Arc<Directory>>> = log_dirs
            .into_iter()
            .map(|path| Directory::open(path, disk.clone()).map(Arc::new))
            .collect();
        let directories = directories.map_err(|error| storage(&error))?;
        if directories.is_empty() {
            return Err(LogError::Storage("log.dirs names no directory".into()));
        }
        let resumable = moving::settle(&directories).map_err(|error| storage(&error))?;
        let mover = Mover::new(options.moving, options.moves, directories.len());
        let committers: Vec<Arc<Committer>> = directories
            .iter()
            .map(|directory| Arc::new(Committer::new(directory, options.journal_bytes)))
            .collect();
        let threads: io::Result<Vec<CommitThread>> = match options.commit {
            CommitMode::Manual => Ok(Vec::new()),
            CommitMode::Thread => committers
                .iter()
                .map(|committer| CommitThread::start(Arc::clone(committer)))
                .collect(),
        };
        let shared = Arc::new(Shared {
            directories,
            committers,
            checkpoint_interval_ms: options.checkpoint_interval_ms,
            retention_check_interval_ms: options.retention_check_interval_ms,
            next_retention_ms: AtomicI64::new(
                options
                    .now_ms
                    .saturating_add(options.retention_check_interval_ms.min(FIRST_RETENTION_CHECK_MS)),
            ),
            logs: Mutex::new(BTreeMap::new()),
            placing: Arc::default(),
            resumable: Mutex::new(resumable),
            preferred: Mutex::default(),
            cordoned: Mutex::default(),
            now_ms: AtomicI64::new(options.now_ms),
        });
        let open = Arc::clone(&shared);
        let logs = Arc::new(move || open.current());
        let cleaner = Cleaner::new(options.clean, options.cleaner, options.now_ms, logs);
        Ok(Self {
            _threads: threads.map_err(|error| storage(&error))?,
            cleaner,
            mover,
            shared,
        })
    }

    /// Compacts every log that is due at `now_ms`, with [`CleanMode::Manual`]; gives the number of
    /// rounds that it took.
    pub fn clean(&self, now_ms: i64) -> usize {
        self.cleaner.clean_now(now_ms)
    }

    /// Does a piece of work for each replica that moves, with [`MoveMode::Manual`]: copies about `most` bytes, or
    /// finishes the move. Gives how many are left.
    pub fn step_moves(&self, most: usize) -> usize {
        self.mover.step(most)
    }

    /// Leaves commits of little to the kernel, in each directory where that is possible: for a caller that
    /// runs them ([`KernelCommits::run`]). Without that they are all made by threads.
    #[must_use]
    pub fn kernel_commits(&self) -> Vec<KernelCommits> {
        let mut all = Vec::new();
        for (directory, committer) in self.shared.directories.iter().zip(&self.shared.committers) {
            match KernelCommits::start(committer) {
                Ok(commits) => all.push(commits),
                Err(error) => {
                    tracing::info!(directory = %directory.path.display(), %error, "a thread makes commits durable, not the kernel by itself");
                }
            }
        }
        all
    }

    /// Makes durable what waits for it, with [`CommitMode::Manual`].
    pub fn commit(&self) {
        for committer in &self.shared.committers {
            committer.commit_by_hand();
        }
    }
}

impl Drop for DiskLogStore {
    fn drop(&mut self) {
        // What waits for a commit would keep its log, and that its committer.
        for committer in &self.shared.committers {
            committer.close();
        }
    }
}

impl Shared {
    /// The directory that has the partition's folder, or the one with the fewest partitions.
    fn directory_for(&self, id: &PartitionId) -> io::Result<(&Arc<Directory>, &Arc<Committer>)> {
        let folder = id.to_string();
        let both = || self.directories.iter().zip(&self.committers);
        let holders: Vec<_> = both()
            .filter(|(directory, _)| directory.path.join(&folder).is_dir())
            .collect();
        // One of that name may be another's, or what a power cut left of one that was hardly made.
        for holder in holders.iter().filter(|_| holders.len() > 1) {
            if files::read_partition_metadata(&holder.0.path.join(&folder))? == Some(id.topic_id) {
                return Ok(*holder);
            }
        }
        if let Some(holder) = holders.first() {
            return Ok(*holder);
        }
        let preferred = lock(&self.preferred).remove(&folder);
        if let Some(preferred) = preferred.and_then(|at| both().nth(at))
            && preferred.0.failure().is_none()
        {
            return Ok(preferred);
        }
        let mut usable = both().filter(|(directory, _)| directory.failure().is_none());
        let none = || io::Error::other("every log directory is offline");
        // Spares counting all logs for each that is made.
        if self.directories.len() == 1 {
            return usable.next().ok_or_else(none);
        }
        let logs = self.current();
        let count = |directory: &Directory| logs.iter().filter(|log| log.is_in(directory)).count();
        usable
            .min_by_key(|(directory, _)| (self.is_cordoned(directory), count(directory)))
            .ok_or_else(none)
    }

    fn open(
        &self,
        id: PartitionId,
        config: LogConfig,
        observer: Arc<dyn WatermarkObserver>,
    ) -> io::Result<(Arc<Replica>, Option<Move>)> {
        let _placing = lock(&self.placing);
        if lock(&self.logs).contains_key(&id) {
            return Err(io::Error::other(format!("{id} is open already")));
        }
        let (directory, committer) = self.directory_for(&id)?;
        let (directory, committer) = (Arc::clone(directory), Arc::clone(committer));
        let path = directory.path.join(id.to_string());
        let owner = files::read_partition_metadata(&path)?;
        match owner {
            Some(topic_id) if topic_id != id.topic_id => {
                let old = PartitionId {
                    topic_id,
                    ..id.clone()
                };
                self.set_folder_aside(&directory, &old)?;
            }
            Some(_) => {}
            // Its name reached the disk before its content did, or somebody changed it.
            None if path.is_dir() => self.set_folder_aside(&directory, &id)?,
            None => {}
        }
        if owner != Some(id.topic_id) {
            directory.forget(&id.to_string())?;
            directory.disk.create_folder(&path)?;
            files::write_partition_metadata(&directory.disk, &path, id.topic_id)?;
        }
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let log = DiskLog::open(id.clone(), directory, config, now_ms, observer, committer)?;
        let replica = Replica::new(log);
        lock(&self.logs).insert(id.clone(), Arc::clone(&replica));
        let resumed = match lock(&self.resumable).remove(&(id.to_string(), id.topic_id)) {
            None => None,
            Some(to) => self.begin_move(&replica, to).unwrap_or_else(|error| {
                tracing::error!(log = %id, %error, "the replica stays where it is: its move cannot begin again");
                None
            }),
        };
        Ok((replica, resumed))
    }

    /// The logs that are open now.
    fn current(&self) -> Vec<Arc<DiskLog>> {
        let logs = lock(&self.logs);
        logs.values().map(|replica| replica.current()).collect()
    }

    /// Begins a move to the directory with this index. The caller holds the lock of the folders.
    fn begin_move(&self, replica: &Arc<Replica>, to: usize) -> io::Result<Option<Move>> {
        // As in Kafka. A replica may be left in it that only a marker tells from the one that counts.
        if let Some(offline) = self
            .directories
            .iter()
            .find(|directory| directory.failure().is_some())
        {
            return Err(io::Error::other(format!(
                "no replica is moved while the log directory {} is offline",
                offline.path.display()
            )));
        }
        let (Some(directory), Some(committer)) = (self.directories.get(to), self.committers.get(to)) else {
            return Ok(None);
        };
        let log = replica.current();
        if log.directory.path != directory.path && directory.path.join(&log.folder).is_dir() {
            // Another topic's, or what a power cut left of one that was hardly made.
            self.set_folder_aside(directory, &log.id)?;
        }
        moving::begin(replica, directory, committer, &self.placing)
    }

    fn is_cordoned(&self, directory: &Directory) -> bool {
        lock(&self.cordoned).contains(&directory.path)
    }

    /// The index of the directory, which must be online and not cordoned.
    fn find_log_dir(&self, log_dir: &str) -> Result<usize, LogError> {
        let mut directories = self.directories.iter();
        let at = directories
            .position(|directory| absolute(directory).as_os_str() == log_dir)
            .ok_or_else(|| LogError::LogDirNotFound(log_dir.to_owned()))?;
        match self.directories[at].failure() {
            Some(why) => Err(LogError::Storage(why.to_owned())),
            None if self.is_cordoned(&self.directories[at]) => {
                Err(LogError::LogDirCordoned(log_dir.to_owned()))
            }
            None => Ok(at),
        }
    }

    fn move_to(&self, id: &PartitionId, log_dir: &str) -> Result<Option<Move>, LogError> {
        let to = self.find_log_dir(log_dir)?;
        let _placing = lock(&self.placing);
        let replica = lock(&self.logs).get(id).cloned().ok_or(LogError::Deleted)?;
        replica.check()?;
        self.begin_move(&replica, to).map_err(|error| storage(&error))
    }

    fn prefer(&self, topic: &str, partition: i32, log_dir: &str) -> Result<(), LogError> {
        let at = self.find_log_dir(log_dir)?;
        let mut preferred = lock(&self.preferred);
        let folder = format!("{topic}-{partition}");
        if preferred.len() < MOST_PREFERENCES || preferred.contains_key(&folder) {
            preferred.insert(folder, at);
        } else {
            tracing::warn!(
                topic,
                partition,
                log_dir,
                "not remembered: {MOST_PREFERENCES} partitions that do not exist are to be created in certain directories"
            );
        }
        Ok(())
    }

    /// Renames the folder, after which it counts as gone; gives its new path, if it was there.
    fn rename_folder(
        &self,
        directory: &Directory,
        id: &PartitionId,
        suffix: &str,
    ) -> io::Result<Option<PathBuf>> {
        let folder = id.to_string();
        let unique = files::unique()?;
        // Before its name is free, if there is room; else before the name is taken again.
        unless_full(directory.forget(&folder))?;
        let renamed = directory
            .path
            .join(files::renamed_folder(&id.topic, id.partition, &unique, suffix));
        match directory.disk.rename(&directory.path.join(&folder), &renamed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        Ok(Some(renamed))
    }

    /// Has the folder removed later.
    fn doom_folder(&self, directory: &Directory, id: &PartitionId, delay_ms: i64) -> io::Result<()> {
        if let Some(doomed) = self.rename_folder(directory, id, files::DELETED_FOLDER_SUFFIX)? {
            let now_ms = self.now_ms.load(Ordering::Relaxed);
            directory.doom(now_ms.saturating_add(delay_ms), [doomed]);
        }
        Ok(())
    }

    /// Leaves the folder to people.
    fn set_folder_aside(&self, directory: &Directory, id: &PartitionId) -> io::Result<()> {
        if let Some(stray) = self.rename_folder(directory, id, files::STRAY_FOLDER_SUFFIX)? {
            tracing::warn!(topic_id = %id.topic_id, folder = %stray.display(), "the log of {id} belongs to no topic: it is kept, and used by nobody. Remove the folder when nothing in it is wanted");
        }
        Ok(())
    }

    /// Ends the partition's log, and its move. The caller holds the lock of the folders.
    fn take_away(&self, id: &PartitionId) -> io::Result<Option<Arc<DiskLog>>> {
        let Some(replica) = lock(&self.logs).remove(id) else {
            return Ok(None);
        };
        let log = replica.current();
        log.mark_deleted();
        moving::cancel(&replica, &log)?;
        Ok(Some(log))
    }

    fn delete(&self, id: &PartitionId) -> io::Result<()> {
        let _placing = lock(&self.placing);
        let delay_ms = self.take_away(id)?.map_or(0, |log| log.file_delete_delay_ms());
        self.each_folder(id, |directory| self.doom_folder(directory, id, delay_ms))
    }

    fn set_aside(&self, id: &PartitionId) -> io::Result<()> {
        let _placing = lock(&self.placing);
        self.take_away(id)?;
        self.each_folder(id, |directory| self.set_folder_aside(directory, id))
    }

    /// Does something with the folders that are this partition's and not those of another of its name.
    fn each_folder(&self, id: &PartitionId, work: impl Fn(&Directory) -> io::Result<()>) -> io::Result<()> {
        for directory in &self.directories {
            let path = directory.path.join(id.to_string());
            if path.is_dir()
                && files::read_partition_metadata(&path)?.is_none_or(|topic_id| topic_id == id.topic_id)
            {
                work(directory)?;
            }
        }
        Ok(())
    }

    /// Takes every directory or none.
    fn claim(&self, cluster_id: &str, node_id: i32) -> io::Result<()> {
        let refusals = self.directories.iter();
        if let Some(why) = refusals
            .filter_map(|directory| directory.refusal(cluster_id, node_id))
            .next()
        {
            return Err(io::Error::other(why));
        }
        self.directories
            .iter()
            .try_for_each(|directory| directory.claim(cluster_id, node_id))
    }

    fn stored(&self) -> io::Result<Vec<PartitionId>> {
        let mut stored = Vec::new();
        for directory in &self.directories {
            for folder in directory.folders()? {
                // A folder that does not say whose it is, is nobody's: opening it sets it aside.
                if let Some(topic_id) = files::read_partition_metadata(&directory.path.join(&folder))?
                    && let Some((topic, partition)) = files::topic_partition(&folder)
                {
                    stored.push(PartitionId {
                        topic,
                        topic_id,
                        partition,
                    });
                }
            }
        }
        Ok(stored)
    }

    /// Does something with every log, and writes the recovery points that come of it.
    fn each_log(&self, what: &str, work: impl Fn(&DiskLog) -> io::Result<i64>) -> io::Result<()> {
        let logs = self.current();
        let mut failed = None;
        for directory in &self.directories {
            let mut points = Vec::new();
            for log in logs.iter().filter(|log| log.is_in(directory)) {
                match work(log) {
                    Ok(point) => points.push((log, point)),
                    Err(error) => {
                        tracing::error!(log = %log.id, %error, "cannot {what} the log");
                        failed = Some(error);
                    }
                }
            }
            // A log that is gone from here meanwhile must leave nothing that its successor is trusted by.
            let _placing = lock(&self.placing);
            points.retain(|(log, _)| log.is_open());
            let points = points
                .into_iter()
                .map(|(log, point)| (log.folder.as_str(), point));
            if let Err(error) = directory.set_recovery_points(points) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn maintain(&self, now_ms: i64) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        let retain = now_ms >= self.next_retention_ms.load(Ordering::Relaxed);
        if retain {
            let next_ms = now_ms.saturating_add(self.retention_check_interval_ms);
            self.next_retention_ms.store(next_ms, Ordering::Relaxed);
        }
        if let Err(error) = self.each_log("maintain", |log| {
            log.maintain(now_ms, self.checkpoint_interval_ms, retain)
        }) {
            tracing::error!(%error, "maintenance of the logs failed; it is tried again");
        }
        for directory in &self.directories {
            directory.remove_doomed(now_ms);
            if directory.has_failed_lately() {
                self.tell_failure(directory);
            }
        }
    }

    /// Tells whoever waits in a directory that it is offline, also at logs that nothing was written to.
    /// Here, because the locks that may be held where a directory fails must not be held for that.
    fn tell_failure(&self, directory: &Directory) {
        let logs = self.current();
        for log in logs.iter().filter(|log| log.is_in(directory)) {
            log.observer.failed();
        }
    }

    fn close(&self) -> io::Result<()> {
        let logs = self.current();
        let mut failed = None;
        for directory in &self.directories {
            let own = logs.iter().filter(|log| log.is_in(directory));
            if let Err(error) = Self::close_directory(directory, &own.collect::<Vec<_>>()) {
                tracing::error!(directory = %directory.path.display(), %error, "cannot close the log directory; the next start recovers it");
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn close_directory(directory: &Directory, own: &[&Arc<DiskLog>]) -> io::Result<()> {
        let one_by_one = own.iter().filter(|log| log.is_changed()).count() <= MOST_SYNCED_ONE_BY_ONE;
        let mut points = Vec::new();
        let mut failed = None;
        for log in own {
            match log.close(one_by_one) {
                Ok(point) => points.push((log.folder.as_str(), point)),
                Err(error) => {
                    tracing::error!(log = %log.id, %error, "cannot close the log; the next start recovers it");
                    failed = Some(error);
                }
            }
        }
        if !one_by_one {
            directory.sync_all()?;
        }
        directory.set_recovery_points(points)?;
        // What this run did not open is as clean as the last run left it.
        let open: HashSet<&str> = own.iter().map(|log| log.folder.as_str()).collect();
        let all_open = || -> io::Result<bool> {
            let folders = directory.folders()?;
            Ok(folders.iter().all(|folder| open.contains(folder.as_str())))
        };
        if failed.is_none() && (directory.was_clean || all_open()?) {
            directory.mark_clean()?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let replicas: Vec<Arc<Replica>> = lock(&self.logs).values().cloned().collect();
        let mut stored: HashMap<PathBuf, Vec<StoredReplica>> = HashMap::new();
        for replica in replicas {
            // First, so that a future replica is never both that and the current one.
            let future = replica.future();
            let log = replica.current();
            stored
                .entry(log.directory.path.clone())
                .or_default()
                .push(StoredReplica {
                    partition: log.id.clone(),
                    size_bytes: log.size_bytes(),
                    is_future: false,
                    offset_lag: 0,
                });
            if let Some(future) = future.filter(|future| future.directory.path != log.directory.path) {
                let lag = log.log_end().saturating_sub(future.log_end()).max(0);
                stored
                    .entry(future.directory.path.clone())
                    .or_default()
                    .push(StoredReplica {
                        partition: log.id.clone(),
                        size_bytes: future.size_bytes(),
                        is_future: true,
                        offset_lag: if log.check().is_ok() { lag } else { -1 },
                    });
            }
        }
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.directories
            .iter()
            .map(|directory| {
                let space = rustix::fs::statvfs(&directory.path);
                LogDir {
                    path: absolute(directory),
                    error: match directory.failure() {
                        Some(why) => Some(why.to_owned()),
                        None => space.as_ref().err().map(ToString::to_string),
                    },
                    total_bytes: space
                        .as_ref()
                        .map_or(-1, |it| number(it.f_blocks.saturating_mul(it.f_frsize))),
                    usable_bytes: space
                        .as_ref()
                        .map_or(-1, |it| number(it.f_bavail.saturating_mul(it.f_frsize))),
                    is_cordoned: self.is_cordoned(directory),
                    replicas: stored.remove(&directory.path).unwrap_or_default(),
                }
            })
            .collect()
    }
}

/// The directory's name as clients are told it, and tell it.
fn absolute(directory: &Directory) -> PathBuf {
    std::path::absolute(&directory.path).unwrap_or_else(|_| directory.path.clone())
}

impl DiskLogStore {
    fn push(&self, this: Option<Move>) {
        if let Some(this) = this
            && let Err(error) = self.mover.push(this)
        {
            tracing::error!(%error, "cannot start a thread to move a replica");
        }
    }
}

impl LogStore for DiskLogStore {
    fn open(
        &self,
        partition: PartitionId,
        config: LogConfig,
        observer: Arc<dyn WatermarkObserver>,
    ) -> BoxFuture<'static, Result<Arc<dyn PartitionLog>, LogError>> {
        let opened = self.shared.open(partition, config, observer);
        ready(
            opened
                .map(|(replica, resumed)| {
                    self.push(resumed);
                    replica as Arc<dyn PartitionLog>
                })
                .map_err(|error| storage(&error)),
        )
    }

    fn delete(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>> {
        ready(self.shared.delete(partition).map_err(|error| storage(&error)))
    }

    fn set_aside(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>> {
        ready(self.shared.set_aside(partition).map_err(|error| storage(&error)))
    }

    fn cluster_id(&self) -> Option<String> {
        let mut directories = self.shared.directories.iter();
        directories.find_map(|directory| directory.cluster_id())
    }

    fn claim(&self, cluster_id: &str, node_id: i32) -> Result<(), LogError> {
        self.shared
            .claim(cluster_id, node_id)
            .map_err(|error| storage(&error))
    }

    fn stored(&self) -> Result<Vec<PartitionId>, LogError> {
        self.shared.stored().map_err(|error| storage(&error))
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        self.shared.log_dirs()
    }

    fn maintain(&self, now_ms: i64) -> BoxFuture<'static, ()> {
        self.shared.maintain(now_ms);
        self.cleaner.tick(now_ms);
        ready(())
    }

    fn update_cleaner(&self, config: CleanerConfig) {
        self.cleaner.update(config);
    }

    fn move_to(&self, partition: &PartitionId, log_dir: &str) -> BoxFuture<'static, Result<(), LogError>> {
        let begun = self.shared.move_to(partition, log_dir);
        ready(begun.map(|this| self.push(this)))
    }

    fn prefer_log_dir(&self, topic: &str, partition: i32, log_dir: &str) -> Result<(), LogError> {
        self.shared.prefer(topic, partition, log_dir)
    }

    fn update_cordoned(&self, log_dirs: &[PathBuf]) {
        *lock(&self.shared.cordoned) = log_dirs.iter().cloned().collect();
    }

    fn update_moves(&self, config: MoveConfig) {
        self.mover.update(config);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.mover.stop();
        self.cleaner.stop();
        ready(self.shared.close().map_err(|error| storage(&error)))
    }
}
