//! One seeded run: lives of a store, each ended by a power cut, a kill or a clean close, and what must
//! hold after each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use milena_log::conformance::{NOW_MS, Seen, wait};
use milena_log::{
    Append, Durability, LogConfig, LogDir, LogError, LogStore, PartitionId, PartitionLog, Read, ReadBound,
};
use milena_log_disk::{CleanMode, CommitMode, DiskLogStore, DiskOptions, MoveMode};
use milena_protocol::records::{BatchBuilder, Compression, NewRecord, batches, validate};
use milena_protocol::{Str, Uuid};

use super::disk::{Disk, Event, Ignored};
use super::random::Random;

const LIVES: usize = 4;
const STEPS_PER_LIFE: usize = 25;
const PARTITIONS: usize = 3;
const CHECKPOINT_MS: i64 = 10_000;

/// One batch as it was appended.
#[derive(Debug, Clone)]
struct Batch {
    base: i64,
    last: i64,
    /// Stands in every record.
    id: u64,
    timestamp: i64,
    /// `None`: not idempotent.
    sent: Option<Bytes>,
}

/// What a partition must hold.
#[derive(Debug, Clone)]
struct Model {
    topic: u8,
    batches: Vec<Batch>,
    /// The highest that a reader was told.
    high_watermark: i64,
    log_start: i64,
    next_sequence: i32,
    /// Where the log ends while it has no batch.
    empty_end: i64,
    producer_id: i64,
}

impl Model {
    fn new(topic: u8) -> Self {
        Self {
            topic,
            batches: Vec::new(),
            high_watermark: 0,
            log_start: 0,
            next_sequence: 0,
            empty_end: 0,
            producer_id: 7,
        }
    }

    fn end(&self) -> i64 {
        self.batches.last().map_or(self.empty_end, |batch| batch.last + 1)
    }
}

pub(crate) struct Run {
    random: Random,
    /// What happens in the first life, if that is not left to the seed.
    first: Option<Option<(u64, Event)>>,
    models: Vec<Model>,
    now_ms: i64,
    next_id: u64,
    ignored: Ignored,
    durability: Durability,
    /// Replicas move between so many log directories.
    directories: usize,
    /// How often a replica was found to be in another directory than before.
    pub(crate) moved: u64,
}

type Log = Arc<dyn PartitionLog>;

fn partition(at: usize, topic: u8) -> PartitionId {
    PartitionId {
        topic: Str::from_static("crash"),
        topic_id: Uuid::from_bytes([topic; 16]),
        partition: i32::try_from(at).unwrap(),
    }
}

impl Run {
    pub(crate) fn new(seed: u64, ignored: Ignored) -> Self {
        let mut random = Random::new(seed);
        let durability = if random.below(5) == 0 {
            Durability::Os
        } else {
            Durability::Disk
        };
        Self {
            random,
            first: None,
            models: (0..PARTITIONS)
                .map(|at| Model::new(u8::try_from(at + 1).unwrap()))
                .collect(),
            now_ms: NOW_MS,
            next_id: 0,
            ignored,
            durability,
            directories: 1,
            moved: 0,
        }
    }

    /// With several log directories, between which replicas move.
    pub(crate) fn moving(seed: u64, ignored: Ignored) -> Self {
        Self {
            directories: 2 + usize::try_from(seed % 2).unwrap(),
            ..Self::new(seed, ignored)
        }
    }

    /// With a power cut at this change of the first life.
    pub(crate) fn cut_at(seed: u64, change: u64) -> Self {
        Self {
            first: Some(Some((change, Event::PowerCut))),
            ..Self::new(seed, Ignored::Nothing)
        }
    }

    /// How many changes the first life makes that nothing ends.
    pub(crate) fn count_changes(seed: u64) -> u64 {
        let mut run = Self::new(seed, Ignored::Nothing);
        run.first = Some(None);
        run.run()
    }

    /// As [`Self::cut_at`], of a run in which replicas move.
    pub(crate) fn moving_cut_at(seed: u64, change: Option<u64>) -> Self {
        Self {
            first: Some(change.map(|change| (change, Event::PowerCut))),
            ..Self::moving(seed, Ignored::Nothing)
        }
    }

    fn log_dirs(&self, path: &Path) -> Vec<PathBuf> {
        if self.directories == 1 {
            return vec![path.to_owned()];
        }
        let dirs = (0..self.directories).map(|at| path.join(format!("disk{at}")));
        dirs.collect()
    }

    /// Begins a move, or does a part of those that were begun.
    fn move_replicas(&mut self, store: &DiskLogStore, path: &Path, disk: &Disk) {
        let at = self.random.below(PARTITIONS);
        let id = partition(at, self.models[at].topic);
        if self.random.below(3) == 0 {
            let to = self.log_dirs(path)[self.random.below(self.directories)].clone();
            let begun = wait(store.move_to(&id, to.to_str().unwrap()));
            assert!(begun.is_ok() || disk.happened(), "{begun:?}");
        } else {
            let before = Self::places(store);
            store.step_moves([100, 1_000, 100_000][self.random.below(3)]);
            self.moved += u64::from(before != Self::places(store));
        }
    }

    fn places(store: &DiskLogStore) -> Vec<Vec<PartitionId>> {
        let current = |dir: LogDir| {
            let replicas = dir.replicas.into_iter().filter(|replica| !replica.is_future);
            replicas.map(|replica| replica.partition).collect()
        };
        store.log_dirs().into_iter().map(current).collect()
    }

    fn config(&mut self) -> LogConfig {
        LogConfig {
            segment_bytes: [400, 1000, 100_000][self.random.below(3)],
            retention_bytes: [-1, -1, 2_500][self.random.below(3)],
            index_interval_bytes: 100,
            file_delete_delay_ms: 5_000,
            durability: self.durability,
            ..LogConfig::default()
        }
    }

    /// Lives after lives, each on what the one before left. Gives the changes of the first.
    pub(crate) fn run(&mut self) -> u64 {
        let mut changes = 0;
        let home = tempfile::tempdir_in(memory_folder()).unwrap();
        let log_dirs = self.log_dirs(Path::new(""));
        let folder = |life: usize| -> PathBuf {
            let path = home.path().join(life.to_string());
            std::fs::create_dir_all(&path).unwrap();
            if life == 0 {
                for dir in &log_dirs {
                    std::fs::create_dir_all(path.join(dir)).unwrap();
                }
            }
            path
        };
        for life in 0..LIVES {
            let path = folder(life);
            let at = u64::try_from(1 + self.random.below(150)).unwrap();
            let event = match self.random.below(8) {
                0 => Some((at, Event::Fails(std::io::ErrorKind::Other))),
                1 => Some((at, Event::Fails(std::io::ErrorKind::StorageFull))),
                2 => None,
                _ => Some((at, Event::PowerCut)),
            };
            let event = match self.first {
                Some(first) if life == 0 => first,
                _ => event,
            };
            let disk = Disk::load(&path, event, self.ignored);
            self.live(&path, &disk, event);
            if life == 0 {
                changes = disk.changes();
            }
            disk.survive(&folder(life + 1), &mut self.random);
        }
        let path = folder(LIVES);
        let disk = Disk::load(&path, None, self.ignored);
        let store = self.open_store(&path, &disk).unwrap();
        for at in 0..PARTITIONS {
            self.open_log(&store, at, &disk).unwrap();
        }
        changes
    }

    fn open_store(&self, path: &Path, disk: &Disk) -> Result<DiskLogStore, LogError> {
        DiskLogStore::open(
            self.log_dirs(path),
            DiskOptions {
                moving: MoveMode::Manual,
                checkpoint_interval_ms: CHECKPOINT_MS,
                commit: CommitMode::Manual,
                // Some rounds fit, and it is full soon.
                journal_bytes: 3_000,
                clean: CleanMode::Manual,
                watch: Some(Arc::new(disk.clone())),
                ..DiskOptions::at(self.now_ms)
            },
        )
    }

    /// Opens a log and checks what is in it. `None`: the event came before.
    fn open_log(&mut self, store: &DiskLogStore, at: usize, disk: &Disk) -> Option<Log> {
        let config = self.config();
        let id = partition(at, self.models[at].topic);
        let opened = wait(store.open(id, config, Arc::new(Seen::default())));
        if disk.happened() {
            return None;
        }
        let log = opened.unwrap_or_else(|error| panic!("partition {at}: {error}"));
        self.check(&*log, at);
        Some(log)
    }

    fn live(&mut self, path: &Path, disk: &Disk, event: Option<(u64, Event)>) {
        let mut store = match self.open_store(path, disk) {
            Ok(store) => store,
            Err(error) => {
                assert!(disk.happened(), "{error}");
                return;
            }
        };
        let mut logs = Vec::new();
        for at in 0..PARTITIONS {
            let Some(log) = self.open_log(&store, at, disk) else {
                return;
            };
            logs.push(log);
        }
        for _ in 0..STEPS_PER_LIFE {
            let at = self.random.below(PARTITIONS);
            if self.directories > 1 && self.random.below(2) == 0 {
                self.move_replicas(&store, path, disk);
            }
            match self.random.below(20) {
                0..10 => self.append(&*logs[at], at, disk),
                10..14 => store.commit(),
                14..16 => {
                    self.now_ms += i64::try_from(self.random.below(8_000)).unwrap();
                    wait(store.maintain(self.now_ms));
                }
                16 => self.delete_records(&*logs[at], at, disk),
                17 => {
                    // The topic's id is a fact before its folder is touched.
                    let old = partition(at, self.models[at].topic);
                    let topic = self.models[at].topic + u8::try_from(PARTITIONS).unwrap();
                    self.models[at] = Model::new(topic);
                    let _ = wait(store.delete(&old));
                    if !disk.happened() {
                        logs[at] = match self.open_log(&store, at, disk) {
                            Some(log) => log,
                            None => return,
                        };
                    }
                }
                18 => {
                    // The end of the process, or a clean one; the disk keeps everything.
                    if self.random.below(2) == 0 {
                        let _ = wait(store.close());
                    }
                    logs.clear();
                    drop(store);
                    if disk.happened() {
                        return;
                    }
                    store = match self.open_store(path, disk) {
                        Ok(again) => again,
                        Err(error) => {
                            assert!(disk.happened(), "{error}");
                            return;
                        }
                    };
                    for at in 0..PARTITIONS {
                        let Some(log) = self.open_log(&store, at, disk) else {
                            return;
                        };
                        logs.push(log);
                    }
                }
                _ => {
                    let config = self.config();
                    logs[at].update_config(config);
                }
            }
            if disk.happened() {
                if let Some((_, Event::Fails(kind))) = event {
                    self.after_a_failure(&logs, &store, disk, kind);
                }
                return;
            }
            for (model, log) in self.models.iter_mut().zip(&logs) {
                let watermarks = log.watermarks();
                assert!(
                    watermarks.high_watermark >= model.high_watermark,
                    "it never goes back"
                );
                assert!(watermarks.log_start <= watermarks.high_watermark);
                model.high_watermark = watermarks.high_watermark;
                model.log_start = watermarks.log_start;
            }
        }
    }

    /// Nothing pretends: what cannot be made durable is not said to be.
    fn after_a_failure(&mut self, logs: &[Log], store: &DiskLogStore, disk: &Disk, kind: std::io::ErrorKind) {
        let before: Vec<i64> = logs.iter().map(|log| log.watermarks().high_watermark).collect();
        for (at, log) in logs.iter().enumerate() {
            if log.check().is_err() {
                let (append, _) = self.batch(at);
                let appended = wait(log.append(append));
                assert!(appended.is_err(), "{kind}: {appended:?}");
            } else {
                self.append(&**log, at, disk);
            }
        }
        store.commit();
        for (log, before) in logs.iter().zip(before) {
            if log.check().is_err() {
                assert_eq!(log.watermarks().high_watermark, before, "{kind}");
            }
        }
    }

    fn batch(&mut self, at: usize) -> (Append, Batch) {
        self.next_id += 1;
        let id = self.next_id;
        let timestamp = NOW_MS + i64::try_from(self.random.below(1_000)).unwrap();
        let mut builder = BatchBuilder::new();
        if self.random.below(3) == 0 {
            // LZ4 and zstd clear large buffers for each batch, which takes most of a run in debug.
            builder = builder.compression(Compression::Snappy, None);
        }
        let count = 1 + self.random.below(3);
        let idempotent = self.random.below(2) == 0;
        if idempotent {
            let model = &self.models[at];
            builder = builder.producer(model.producer_id, 0, model.next_sequence);
        }
        let size = [8, 60, 700][self.random.below(3)];
        for _ in 0..count {
            let mut value = id.to_be_bytes().to_vec();
            value.resize(size, b'v');
            builder.push(&NewRecord {
                timestamp,
                key: None,
                value: Some(value.into()),
                headers: Vec::new(),
            });
        }
        let bytes = builder.build().unwrap();
        let append = Append {
            batch: validate(&bytes).unwrap(),
            leader_epoch: 0,
            now_ms: self.now_ms,
            verification: None,
        };
        let batch = Batch {
            base: -1,
            last: i64::try_from(count).unwrap() - 1,
            id,
            timestamp,
            sent: idempotent.then_some(bytes),
        };
        (append, batch)
    }

    fn append(&mut self, log: &dyn PartitionLog, at: usize, disk: &Disk) {
        let (append, mut batch) = self.batch(at);
        let too_large = append.batch.batch.bytes.len() > 400;
        match wait(log.append(append)) {
            Ok(appended) => {
                let model = &mut self.models[at];
                assert!(!appended.duplicate);
                assert_eq!(appended.base_offset, model.end(), "offsets follow each other");
                batch.base = appended.base_offset;
                batch.last += appended.base_offset;
                if batch.sent.is_some() {
                    model.next_sequence += i32::try_from(batch.last - batch.base + 1).unwrap();
                }
                model.batches.push(batch);
            }
            Err(LogError::RecordListTooLarge { .. }) => assert!(too_large),
            Err(error) => assert!(disk.happened(), "{error}"),
        }
    }

    fn delete_records(&mut self, log: &dyn PartitionLog, at: usize, disk: &Disk) {
        let model = &mut self.models[at];
        let room = usize::try_from(model.high_watermark - model.log_start).unwrap();
        let to = model.log_start + i64::try_from(self.random.below(room + 1)).unwrap();
        match wait(log.delete_records(to)) {
            Ok(start) => assert_eq!(start, to.max(model.log_start)),
            Err(error) => assert!(disk.happened(), "{error}"),
        }
    }

    /// What was opened is a beginning of what was appended, as long at least as anybody was told.
    fn check(&mut self, log: &dyn PartitionLog, at: usize) {
        let durability = self.durability;
        let model = &mut self.models[at];
        let watermarks = log.watermarks();
        if durability == Durability::Disk {
            assert!(
                watermarks.log_end >= model.high_watermark,
                "partition {at}: ends at {}, readers were told {}",
                watermarks.log_end,
                model.high_watermark
            );
            assert!(
                watermarks.log_start >= model.log_start,
                "deleted records are back"
            );
        }
        assert_eq!(watermarks.high_watermark, watermarks.log_end);
        // A DeleteRecords that nobody heard the end of may have come through.
        model.log_start = watermarks.log_start;
        model.batches.retain(|batch| batch.base < watermarks.log_end);
        // What an earlier recovery cut off without a sync may be there again: nobody promised otherwise.
        let is_back = durability == Durability::Os && watermarks.log_end > model.end();
        if is_back || watermarks.log_start == watermarks.log_end {
            // Else: its records are lost, but not that they were deleted, and the log goes on there.
            model.batches.clear();
            model.empty_end = watermarks.log_end;
            // What is known of the producer may be more than the records tell.
            model.producer_id += 1;
        }
        assert_eq!(
            model.end().max(watermarks.log_start),
            watermarks.log_end,
            "partition {at} of topic {}: whole batches, {:?}",
            model.topic,
            durability
        );
        model.high_watermark = watermarks.log_end;
        model.next_sequence = 0;
        for batch in &model.batches {
            if batch.sent.is_some() {
                model.next_sequence += i32::try_from(batch.last - batch.base + 1).unwrap();
            }
        }
        let there = model
            .batches
            .iter()
            .filter(|batch| batch.last >= watermarks.log_start);
        for batch in there.clone() {
            let found = read(log, batch.base.max(watermarks.log_start));
            assert_eq!(
                found,
                (batch.base, batch.last, batch.id),
                "partition {at}: offset {}",
                batch.base
            );
            let expected = there
                .clone()
                .find(|other| other.timestamp >= batch.timestamp)
                .map(|other| other.base.max(watermarks.log_start));
            let found = wait(log.offset_for_timestamp(batch.timestamp, ReadBound::HighWatermark));
            assert_eq!(found.unwrap().map(|found| found.offset), expected, "by time");
        }
        let last = model.batches.iter().rev().find(|batch| batch.sent.is_some());
        if last.is_some_and(|batch| batch.base < watermarks.log_start) {
            // Where retention took it, what is known may be from a snapshot before it.
            model.producer_id += 1;
            model.next_sequence = 0;
            model.batches.iter_mut().for_each(|batch| batch.sent = None);
            return;
        }
        // The last batch of the producer, sent again, is known.
        if let Some(batch) = last {
            let again = Append {
                batch: validate(batch.sent.as_ref().unwrap()).unwrap(),
                leader_epoch: 0,
                now_ms: self.now_ms,
                verification: None,
            };
            let appended = match wait(log.append(again)) {
                // It is larger than the segments are now.
                Err(LogError::RecordListTooLarge { .. }) => return,
                appended => appended.unwrap(),
            };
            assert_eq!(
                (appended.base_offset, appended.duplicate),
                (batch.base, true),
                "partition {at}"
            );
        }
    }
}

/// First and last offset of the batch at `offset`, and the id in its records.
fn read(log: &dyn PartitionLog, offset: i64) -> (i64, i64, u64) {
    let result = wait(log.read(Read {
        offset,
        max_bytes: 1,
        at_least_one_batch: true,
        bound: ReadBound::HighWatermark,
    }));
    let records = result.unwrap().records.into_bytes().unwrap();
    let batch = batches(&records).next().unwrap().unwrap();
    batch.check_crc().unwrap();
    let record = batch.records(1 << 20).unwrap().next().unwrap().unwrap();
    let id = u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
    (batch.header.base_offset, batch.header.last_offset(), id)
}

/// Where files cost no disk, if there is such a place.
pub(crate) fn memory_folder() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    }
}
