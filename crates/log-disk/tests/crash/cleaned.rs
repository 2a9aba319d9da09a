//! Seeded runs of one compacted partition: wherever a power cut comes, also in the middle of a clean,
//! the newest value of every key is there afterwards, and every record is what it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use milena_log::conformance::{self, NOW_MS, wait};
use milena_log::{Durability, LogConfig, LogStore};
use milena_log_disk::{DiskLogStore, DiskOptions};
use milena_protocol::records::BatchBuilder;

use super::common::{Log, tempdir};
use super::compacted::{batch, compacted, options, records};
use super::disk::{Disk, Event, Ignored};
use super::random::Random;

const LIVES: usize = 3;
const STEPS_PER_LIFE: usize = 30;
const KEYS: usize = 6;
const CHECKPOINT_MS: i64 = 5_000;

pub(crate) struct Run {
    random: Random,
    ignored: Ignored,
    now_ms: i64,
    /// By offset: key and value of all that was appended and may be there.
    written: BTreeMap<i64, (String, Option<String>)>,
    /// The highest that a reader was told.
    high_watermark: i64,
}

impl Run {
    pub(crate) fn new(seed: u64, ignored: Ignored) -> Self {
        Self {
            random: Random::new(seed),
            ignored,
            now_ms: NOW_MS,
            written: BTreeMap::new(),
            high_watermark: 0,
        }
    }

    pub(crate) fn run(&mut self) {
        let home = tempdir();
        for life in 0..=LIVES {
            let path = home.path().join(life.to_string());
            std::fs::create_dir_all(&path).unwrap();
            let at = u64::try_from(1 + self.random.below(300)).unwrap();
            let event = (life < LIVES).then_some((at, Event::PowerCut));
            let disk = Disk::load(&path, event, self.ignored);
            self.live(&path, &disk);
            let next = home.path().join((life + 1).to_string());
            std::fs::create_dir_all(&next).unwrap();
            disk.survive(&next, &mut self.random);
        }
    }

    fn start(&self, path: &Path, disk: &Disk) -> Option<(DiskLogStore, Log)> {
        let config = LogConfig {
            durability: Durability::Disk,
            ..compacted()
        };
        let options = DiskOptions {
            checkpoint_interval_ms: CHECKPOINT_MS,
            watch: Some(Arc::new(disk.clone())),
            ..options()
        };
        let store = DiskLogStore::open(vec![path.to_owned()], options);
        if disk.happened() {
            return None;
        }
        let store = store.unwrap();
        let seen = Arc::new(conformance::Seen::default());
        let log = wait(store.open(conformance::partition("conformance", 0), config, seen));
        (!disk.happened()).then(|| (store, log.unwrap()))
    }

    fn live(&mut self, path: &Path, disk: &Disk) {
        let Some((store, log)) = self.start(path, disk) else {
            return;
        };
        self.check(&log);
        for _ in 0..STEPS_PER_LIFE {
            match self.random.below(10) {
                0..5 => self.append(&log),
                5..7 => store.commit(),
                7 => {
                    self.now_ms += i64::try_from(self.random.below(4_000)).unwrap();
                    wait(store.maintain(self.now_ms));
                }
                _ => {
                    store.clean(self.now_ms);
                }
            }
            if disk.happened() {
                return;
            }
            self.high_watermark = log.watermarks().high_watermark;
        }
    }

    fn append(&mut self, log: &Log) {
        let count = 1 + self.random.below(3);
        let pairs: Vec<(String, Option<String>)> = (0..count)
            .map(|at| {
                let key = format!("key-{}", self.random.below(KEYS));
                let value = format!("value {} {at}", self.written.len());
                (key, (self.random.below(5) > 0).then_some(value))
            })
            .collect();
        let texts: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref()))
            .collect();
        let append = batch(BatchBuilder::new(), self.now_ms - NOW_MS, &texts);
        // Whether it came before the power cut, the next life shows.
        if let Ok(appended) = wait(log.append(append)) {
            self.written.extend((appended.base_offset..).zip(pairs));
        }
    }

    fn check(&mut self, log: &Log) {
        let watermarks = log.watermarks();
        assert!(
            watermarks.log_end >= self.high_watermark,
            "the log ends at {}, readers were told {}",
            watermarks.log_end,
            self.high_watermark
        );
        self.written.retain(|offset, _| *offset < watermarks.log_end);
        let there: BTreeMap<i64, (String, Option<String>)> = records(log)
            .into_iter()
            .map(|(offset, key, value)| (offset, (key, value)))
            .collect();
        for (offset, record) in &there {
            assert_eq!(self.written.get(offset), Some(record), "offset {offset}");
        }
        let found = newest(&there);
        for (key, (offset, value)) in newest(&self.written) {
            match found.get(key) {
                Some(found) => assert_eq!(*found, (offset, value), "{key}"),
                None => assert_eq!(*value, None, "only a tombstone may go: {key} at {offset}"),
            }
        }
        self.high_watermark = watermarks.high_watermark;
    }
}

fn newest(records: &BTreeMap<i64, (String, Option<String>)>) -> BTreeMap<&String, (i64, &Option<String>)> {
    records
        .iter()
        .map(|(offset, (key, value))| (key, (*offset, value)))
        .collect()
}
