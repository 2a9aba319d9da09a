//! Seeded runs with transactional producers: after each power cut what is decided, what is open and what
//! readers are told of aborted transactions is what the surviving batches say, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use milena_log::conformance::{self, NOW_MS, committed, end, transactional, verified, wait};
use milena_log::{CleanupPolicy, EndTransaction, LogConfig, LogError, LogStore, PartitionLog};
use milena_log_disk::{CleanMode, CommitMode, DiskLogStore, DiskOptions};
use milena_protocol::records::BatchBuilder;

use super::disk::{Disk, Event, Ignored};
use super::random::Random;
use super::run::memory_folder;

const LIVES: usize = 4;
const STEPS_PER_LIFE: usize = 40;
const PRODUCERS: usize = 3;
const CHECKPOINT_MS: i64 = 10_000;
const COORDINATOR_EPOCH: i32 = 3;

type Log = Arc<dyn PartitionLog>;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Data { producer: i64, epoch: i16 },
    Marker { producer: i64, epoch: i16, commit: bool },
}

/// One batch as it was appended.
#[derive(Debug, Clone, Copy)]
struct Batch {
    base: i64,
    last: i64,
    kind: Kind,
}

/// A producer as the batches tell of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Producer {
    epoch: i16,
    next_sequence: i32,
    /// First offset of its open transaction.
    open: Option<i64>,
    has_marker: bool,
}

/// What a log with these batches means.
#[derive(Debug, Default, PartialEq)]
struct Meaning {
    producers: BTreeMap<i64, Producer>,
    committed: BTreeSet<i64>,
    /// The keys of all records.
    keys: BTreeMap<i64, i64>,
    end: i64,
}

impl Meaning {
    fn of(batches: &[Batch]) -> Self {
        let mut meaning = Self::default();
        let mut undecided: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for batch in batches {
            let records = batch.base..=batch.last;
            meaning.end = batch.last + 1;
            // As the suite's batches have them.
            let keys = records.clone().map(|offset| (offset, offset - batch.base));
            meaning.keys.extend(keys);
            match batch.kind {
                Kind::Plain => meaning.committed.extend(records),
                Kind::Data { producer, epoch } => {
                    let state = meaning.in_epoch(producer, epoch);
                    state.next_sequence += i32::try_from(records.clone().count()).unwrap();
                    state.open = state.open.or(Some(batch.base));
                    undecided.entry(producer).or_default().extend(records);
                }
                Kind::Marker {
                    producer,
                    epoch,
                    commit,
                } => {
                    let state = meaning.in_epoch(producer, epoch);
                    (state.open, state.has_marker) = (None, true);
                    let records = undecided.remove(&producer).unwrap_or_default();
                    if commit {
                        meaning.committed.extend(records);
                    }
                }
            }
        }
        meaning
    }

    fn in_epoch(&mut self, producer: i64, epoch: i16) -> &mut Producer {
        let state = self.producers.entry(producer).or_default();
        if state.epoch != epoch {
            (state.epoch, state.next_sequence) = (epoch, 0);
        }
        state
    }

    fn first_open(&self) -> Option<i64> {
        self.producers.values().filter_map(|producer| producer.open).min()
    }

    /// Where committed readers must stop while the high watermark is there.
    fn last_stable(&self, high_watermark: i64) -> i64 {
        self.first_open()
            .map_or(high_watermark, |first| first.min(high_watermark))
    }
}

pub(crate) struct Run {
    random: Random,
    ignored: Ignored,
    batches: Vec<Batch>,
    ids: [i64; PRODUCERS],
    compact: bool,
    /// The highest that readers were told.
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    now_ms: i64,
}

impl Run {
    pub(crate) fn new(seed: u64, ignored: Ignored) -> Self {
        Self {
            random: Random::new(seed),
            ignored,
            batches: Vec::new(),
            compact: false,
            ids: std::array::from_fn(|at| i64::try_from(at).unwrap()),
            high_watermark: 0,
            last_stable: 0,
            log_start: 0,
            now_ms: NOW_MS,
        }
    }

    /// A run whose log is compacted, and from which nothing else is deleted.
    pub(crate) fn compacted(seed: u64, ignored: Ignored) -> Self {
        Self {
            compact: true,
            ..Self::new(seed, ignored)
        }
    }

    pub(crate) fn run(&mut self) {
        let home = tempfile::tempdir_in(memory_folder()).unwrap();
        for life in 0..=LIVES {
            let path = home.path().join(life.to_string());
            std::fs::create_dir_all(&path).unwrap();
            let at = u64::try_from(1 + self.random.below(180)).unwrap();
            let event = (life < LIVES).then_some((at, Event::PowerCut));
            let disk = Disk::load(&path, event, self.ignored);
            self.live(&path, &disk);
            let next = home.path().join((life + 1).to_string());
            std::fs::create_dir_all(&next).unwrap();
            disk.survive(&next, &mut self.random);
        }
    }

    fn open(&mut self, path: &Path, disk: &Disk) -> Option<(DiskLogStore, Log)> {
        let store = DiskLogStore::open(
            vec![path.to_owned()],
            DiskOptions {
                checkpoint_interval_ms: CHECKPOINT_MS,
                commit: CommitMode::Manual,
                clean: CleanMode::Manual,
                watch: Some(Arc::new(disk.clone())),
                ..DiskOptions::at(self.now_ms)
            },
        );
        if disk.happened() {
            return None;
        }
        let store = store.unwrap();
        let config = LogConfig {
            segment_bytes: [400, 1_000, 100_000][self.random.below(3)],
            index_interval_bytes: 100,
            file_delete_delay_ms: 5_000,
            cleanup_policy: CleanupPolicy {
                delete: !self.compact,
                compact: self.compact,
            },
            min_cleanable_dirty_ratio: 0.0,
            delete_retention_ms: 3_000,
            ..LogConfig::default()
        };
        let seen = Arc::new(conformance::Seen::default());
        let log = wait(store.open(conformance::partition("crash", 0), config, seen));
        if disk.happened() {
            return None;
        }
        let log = log.unwrap();
        self.check_opened(&*log);
        Some((store, log))
    }

    fn live(&mut self, path: &Path, disk: &Disk) {
        let Some((mut store, mut log)) = self.open(path, disk) else {
            return;
        };
        for _ in 0..STEPS_PER_LIFE {
            match self.random.below(24) {
                0..8 => self.send(&*log, disk),
                8..10 => self.send_plain(&*log, disk),
                10..15 => self.end(&*log, disk),
                15..19 => store.commit(),
                19..21 => {
                    self.now_ms += i64::try_from(self.random.below(12_000)).unwrap();
                    wait(store.maintain(self.now_ms));
                }
                21 if self.compact => {
                    store.clean(self.now_ms);
                }
                21 => self.delete_records(&*log),
                _ => {
                    // The end of the process, or a clean one; the disk keeps everything.
                    if self.random.below(2) == 0 {
                        let _ = wait(store.close());
                    }
                    drop((store, log));
                    if disk.happened() {
                        return;
                    }
                    match self.open(path, disk) {
                        Some(again) => (store, log) = again,
                        None => return,
                    }
                }
            }
            if disk.happened() {
                return;
            }
            self.check(&*log);
        }
    }

    fn note(&mut self, appended: Result<milena_log::Appended, LogError>, kind: Kind, disk: &Disk) {
        match appended {
            Ok(appended) => {
                assert!(!appended.duplicate);
                self.batches.push(Batch {
                    base: appended.base_offset,
                    last: appended.last_offset,
                    kind,
                });
            }
            Err(error) => assert!(disk.happened(), "{kind:?}: {error}"),
        }
    }

    fn any_producer(&mut self) -> (i64, Producer) {
        let producer = self.ids[self.random.below(PRODUCERS)];
        let meaning = Meaning::of(&self.batches);
        let state = meaning.producers.get(&producer).copied().unwrap_or_default();
        (producer, state)
    }

    fn send(&mut self, log: &dyn PartitionLog, disk: &Disk) {
        let (producer, state) = self.any_producer();
        let count = 1 + self.random.below(2);
        let batch = transactional(producer, state.epoch, state.next_sequence, count);
        let epoch = state.epoch;
        self.note(
            wait(log.append(verified(log, batch))),
            Kind::Data { producer, epoch },
            disk,
        );
    }

    fn send_plain(&mut self, log: &dyn PartitionLog, disk: &Disk) {
        let batch = conformance::append(BatchBuilder::new(), &[0], 10);
        self.note(wait(log.append(batch)), Kind::Plain, disk);
    }

    fn end(&mut self, log: &dyn PartitionLog, disk: &Disk) {
        let (producer, state) = self.any_producer();
        let commit = self.random.below(2) == 0;
        let bumps = i16::try_from(self.random.below(2)).unwrap();
        let epoch = state.epoch + bumps;
        let end = EndTransaction {
            coordinator_epoch: COORDINATOR_EPOCH,
            transaction_version: bumps * 2,
            ..end(producer, epoch, commit)
        };
        let kind = Kind::Marker {
            producer,
            epoch,
            commit,
        };
        self.note(wait(log.end_transaction(end)), kind, disk);
    }

    /// Of what is decided.
    fn delete_records(&mut self, log: &dyn PartitionLog) {
        let room = usize::try_from(self.last_stable - self.log_start).unwrap();
        let to = self.log_start + i64::try_from(self.random.below(room + 1)).unwrap();
        // An error, and what became of it, is seen at the next start.
        let _ = wait(log.delete_records(to));
    }

    /// What holds at any moment of a life.
    fn check(&mut self, log: &dyn PartitionLog) {
        let watermarks = log.watermarks();
        assert!(watermarks.high_watermark >= self.high_watermark);
        assert!(watermarks.last_stable >= self.last_stable, "it never goes back");
        assert!(watermarks.last_stable <= watermarks.high_watermark);
        let visible: Vec<Batch> = self.below(watermarks.high_watermark);
        // A transaction that ends above the high watermark is open for readers.
        let expected = Meaning::of(&visible).last_stable(watermarks.high_watermark);
        assert_eq!(watermarks.last_stable, expected.max(watermarks.log_start));
        self.high_watermark = watermarks.high_watermark;
        self.last_stable = watermarks.last_stable;
        self.log_start = watermarks.log_start;
    }

    fn below(&self, offset: i64) -> Vec<Batch> {
        let batches = self.batches.iter().copied();
        batches.filter(|batch| batch.base < offset).collect()
    }

    /// What a start finds is what the batches say that are left.
    fn check_opened(&mut self, log: &dyn PartitionLog) {
        let watermarks = log.watermarks();
        assert!(
            watermarks.log_end >= self.high_watermark,
            "ends at {}, readers were told {}",
            watermarks.log_end,
            self.high_watermark
        );
        self.batches = self.below(watermarks.log_end);
        let meaning = Meaning::of(&self.batches);
        assert_eq!(meaning.end, watermarks.log_end, "whole batches");
        self.check(log);
        let from = watermarks.log_start;
        let max_bytes = [1, 250, 1 << 20][self.random.below(3)];
        let expected: Vec<i64> = meaning
            .committed
            .range(from..watermarks.last_stable.max(from))
            .copied()
            .collect();
        let seen = committed(log, from, max_bytes);
        if self.compact {
            assert!(
                seen.iter().all(|offset| expected.contains(offset)),
                "{seen:?} of {expected:?}"
            );
            let newest: BTreeMap<i64, i64> = expected
                .iter()
                .map(|offset| (meaning.keys[offset], *offset))
                .collect();
            assert!(
                newest.values().all(|offset| seen.contains(offset)),
                "{newest:?} in {seen:?}"
            );
        } else {
            assert_eq!(seen, expected, "committed records from {from}, {max_bytes} bytes");
        }
        for id in &mut self.ids {
            let is_its =
                |batch: &&Batch| matches!(batch.kind, Kind::Data { producer, .. } if producer == *id);
            let last = self.batches.iter().rev().find(is_its);
            if last.is_some_and(|batch| batch.base < from) {
                // What is known of it may be from a snapshot, or from its markers alone.
                *id += i64::try_from(PRODUCERS).unwrap();
            }
        }
        let known: BTreeMap<i64, _> = log
            .producers()
            .into_iter()
            .map(|producer| (producer.producer_id, producer))
            .collect();
        for (id, producer) in &meaning.producers {
            let start = known.get(id).map_or(-1, |it| it.current_transaction_start_offset);
            // Where records were deleted the start may be known from what is left alone.
            assert_eq!(start >= 0, producer.open.is_some(), "producer {id}");
            if from == 0 {
                let it = &known[id];
                assert_eq!(start, producer.open.unwrap_or(-1), "producer {id}");
                assert_eq!(it.producer_epoch, producer.epoch, "producer {id}");
                assert_eq!(it.last_sequence, producer.next_sequence - 1, "producer {id}");
                let coordinator = if producer.has_marker {
                    COORDINATOR_EPOCH
                } else {
                    -1
                };
                assert_eq!(it.coordinator_epoch, coordinator, "producer {id}");
            }
        }
    }
}
