//! What every engine must do. An engine's tests call [`run`] with a maker of fresh, empty stores.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use milena_protocol::records::{BatchBuilder, Compression, NewRecord, batches, validate};
use milena_protocol::{Str, Uuid};

mod transactions;

pub use transactions::{committed, end, ended, transactional, verified};

use crate::{
    Append, Appended, CleanupPolicy, CompressionType, LogConfig, LogError, LogStore, PartitionId,
    PartitionLog, Read, ReadBound, TimestampType, WatermarkObserver, Watermarks,
};

/// Makes an empty store.
pub type Maker<'a> = &'a dyn Fn() -> Arc<dyn LogStore>;

type Case = fn(Maker<'_>);

/// A store that takes longer to commit will not do it any more.
const LONGEST_COMMIT: Duration = Duration::from_secs(60);

pub const NOW_MS: i64 = 1_700_000_000_000;

/// Waits for an engine's future on this thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

/// Remembers the highest high watermark that it was told.
#[derive(Debug, Default)]
pub struct Seen(AtomicI64);

impl WatermarkObserver for Seen {
    fn advanced(&self, watermarks: Watermarks) {
        self.0.fetch_max(watermarks.high_watermark, Ordering::SeqCst);
    }

    fn failed(&self) {}
}

#[must_use]
pub fn partition(topic: &str, partition: i32) -> PartitionId {
    PartitionId {
        topic: Str::from(topic.to_owned()),
        topic_id: Uuid::from_bytes([7; 16]),
        partition,
    }
}

/// Opens a log; panics when the engine cannot.
///
/// # Panics
/// When the engine fails.
pub fn open(store: &dyn LogStore, config: LogConfig) -> (Arc<dyn PartitionLog>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let observer: Arc<dyn WatermarkObserver> = Arc::clone(&seen) as _;
    let log = wait(store.open(partition("conformance", 0), config, observer))
        .unwrap_or_else(|e| panic!("open: {e}"));
    (log, seen)
}

/// A batch of records with these timestamps, relative to [`NOW_MS`]; values of `size` bytes.
///
/// # Panics
/// When the batch cannot be built.
#[must_use]
pub fn append(builder: BatchBuilder, timestamps: &[i64], size: usize) -> Append {
    let mut builder = builder;
    for (i, delta) in timestamps.iter().enumerate() {
        builder.push(&NewRecord {
            timestamp: NOW_MS + delta,
            key: Some(Bytes::from(format!("key-{i}"))),
            value: Some(Bytes::from(vec![b'v'; size])),
            headers: Vec::new(),
        });
    }
    let bytes = builder.build().unwrap_or_else(|e| panic!("build: {e}"));
    let batch = validate(&bytes).unwrap_or_else(|e| panic!("validate: {e}"));
    Append {
        batch,
        leader_epoch: 0,
        now_ms: NOW_MS,
        verification: None,
    }
}

fn plain(count: usize) -> Append {
    append(BatchBuilder::new(), &vec![0; count], 10)
}

fn read(
    log: &dyn PartitionLog,
    offset: i64,
    max_bytes: usize,
    at_least_one_batch: bool,
) -> Result<Vec<(i64, i64)>, LogError> {
    let result = wait(log.read(Read {
        offset,
        max_bytes,
        at_least_one_batch,
        bound: ReadBound::HighWatermark,
    }))?;
    let records = result.records.into_bytes().unwrap_or_else(|e| panic!("{e}"));
    // The last one may be cut.
    Ok(batches(&records)
        .map_while(Result::ok)
        .map(|batch| {
            batch.check_crc().unwrap_or_else(|e| panic!("{e}"));
            (batch.header.base_offset, batch.header.last_offset())
        })
        .collect())
}

/// Appends, and waits until the high watermark has passed the records.
///
/// # Panics
/// When the engine refuses.
pub fn appended(log: &dyn PartitionLog, append: Append) -> Appended {
    let appended = wait(log.append(append)).unwrap_or_else(|e| panic!("append: {e}"));
    until("the high watermark moves", || {
        log.check().unwrap_or_else(|e| panic!("commit: {e}"));
        log.watermarks().high_watermark > appended.last_offset
    });
    appended
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LONGEST_COMMIT, "waited for ever: {what}");
        std::thread::yield_now();
    }
}

/// Runs every case on a store of its own.
///
/// # Panics
/// When the engine does not conform.
pub fn run(make: Maker<'_>) {
    let cases: &[(&str, Case)] = &[
        ("offsets are given in order", offsets_are_given_in_order),
        (
            "a read starts with a whole batch",
            a_read_starts_with_a_whole_batch,
        ),
        (
            "an offset outside is out of range",
            an_offset_outside_is_out_of_range,
        ),
        (
            "duplicates get their first offset",
            duplicates_get_their_first_offset,
        ),
        ("time finds offsets", time_finds_offsets),
        ("deleted records stay away", deleted_records_stay_away),
        (
            "epochs end where the next starts",
            epochs_end_where_the_next_starts,
        ),
        ("topic rules are obeyed", topic_rules_are_obeyed),
        ("append time is the broker's", append_time_is_the_brokers),
        ("compression follows the topic", compression_follows_the_topic),
        (
            "a deleted partition is gone and can be made again",
            a_deleted_partition_is_gone,
        ),
    ];
    for (name, case) in cases.iter().chain(transactions::CASES) {
        println!("conformance: {name}");
        case(make);
    }
}

fn offsets_are_given_in_order(make: Maker<'_>) {
    let store = make();
    let (log, seen) = open(&*store, LogConfig::default());
    assert_eq!(log.watermarks(), Watermarks::default());
    for round in 0..10 {
        let result = appended(&*log, plain(3));
        assert_eq!(
            (result.base_offset, result.last_offset, result.duplicate),
            (round * 3, round * 3 + 2, false)
        );
        assert_eq!(log.watermarks().high_watermark, round * 3 + 3);
        until("the observer is told", || {
            seen.0.load(Ordering::SeqCst) == round * 3 + 3
        });
    }
    assert!(log.size_bytes() > 0);
}

fn a_read_starts_with_a_whole_batch(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    for _ in 0..5 {
        appended(&*log, plain(3));
    }
    let all = vec![(0, 2), (3, 5), (6, 8), (9, 11), (12, 14)];
    assert_eq!(read(&*log, 0, 1 << 20, true).ok(), Some(all.clone()));
    assert_eq!(
        read(&*log, 7, 1 << 20, true).ok(),
        Some(all[2..].to_vec()),
        "from the middle of a batch"
    );
    assert_eq!(
        read(&*log, 0, 1, true).ok(),
        Some(vec![(0, 2)]),
        "the first batch comes whole"
    );
    assert_eq!(read(&*log, 0, 1, false).ok(), Some(vec![]));
    assert_eq!(
        read(&*log, 15, 1 << 20, true).ok(),
        Some(vec![]),
        "the end is a good, empty read"
    );
}

fn an_offset_outside_is_out_of_range(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    appended(&*log, plain(1));
    for offset in [-1, 2, i64::MAX] {
        assert!(
            matches!(
                read(&*log, offset, 100, true),
                Err(LogError::OffsetOutOfRange { .. })
            ),
            "{offset}"
        );
    }
}

fn duplicates_get_their_first_offset(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    let of = |sequence| append(BatchBuilder::new().producer(5, 0, sequence), &[0, 0], 10);
    for sequence in [0, 2, 4] {
        appended(&*log, of(sequence));
    }
    let again = appended(&*log, of(2));
    assert_eq!(
        (again.base_offset, again.last_offset, again.duplicate),
        (2, 3, true)
    );
    assert_eq!(log.watermarks().log_end, 6, "a duplicate writes nothing");
    assert!(matches!(
        wait(log.append(of(8))),
        Err(LogError::OutOfOrderSequence {
            expected: 6,
            found: 8,
            ..
        })
    ));
    let producers = log.producers();
    assert_eq!(producers.len(), 1);
    assert_eq!((producers[0].producer_id, producers[0].last_sequence), (5, 5));
}

fn time_finds_offsets(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    assert_eq!(wait(log.max_timestamp()).ok(), Some(None));
    appended(&*log, append(BatchBuilder::new(), &[-500, -400, -450], 10));
    appended(
        &*log,
        append(
            BatchBuilder::new().compression(Compression::Lz4, None),
            &[-300, -100, -100],
            10,
        ),
    );
    appended(&*log, append(BatchBuilder::new(), &[-200], 10));
    let find = |delta| {
        let found = wait(log.offset_for_timestamp(NOW_MS + delta, ReadBound::HighWatermark));
        found
            .unwrap_or_else(|e| panic!("{e}"))
            .map(|found| (found.offset, found.timestamp_ms - NOW_MS))
    };
    assert_eq!(find(-1000), Some((0, -500)));
    assert_eq!(find(-450), Some((1, -400)));
    assert_eq!(find(-399), Some((3, -300)));
    assert_eq!(find(-150), Some((4, -100)));
    assert_eq!(find(-99), None);
    let max = wait(log.max_timestamp()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        max.map(|max| (max.offset, max.timestamp_ms - NOW_MS)),
        Some((4, -100)),
        "the first of the largest"
    );
}

fn deleted_records_stay_away(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    for _ in 0..4 {
        appended(&*log, plain(3));
    }
    assert_eq!(wait(log.delete_records(7)).ok(), Some(7));
    assert_eq!(log.watermarks().log_start, 7);
    assert!(matches!(
        read(&*log, 6, 100, true),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    assert_eq!(
        read(&*log, 7, 1, true).ok(),
        Some(vec![(6, 8)]),
        "the batch that the start is in"
    );
    assert_eq!(
        wait(log.delete_records(2)).ok(),
        Some(7),
        "the start does not go back"
    );
    assert!(matches!(
        wait(log.delete_records(13)),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    assert_eq!(wait(log.delete_records(-1)).ok(), Some(12));
    assert_eq!(appended(&*log, plain(1)).base_offset, 12, "offsets go on");
    assert_eq!(read(&*log, 12, 100, true).ok(), Some(vec![(12, 12)]));
}

fn epochs_end_where_the_next_starts(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    assert_eq!(log.end_offset_for_epoch(0), None);
    for leader_epoch in [0, 0, 3] {
        appended(
            &*log,
            Append {
                leader_epoch,
                ..plain(2)
            },
        );
    }
    let ends = |epoch| {
        log.end_offset_for_epoch(epoch)
            .map(|end| (end.leader_epoch, end.end_offset))
    };
    assert_eq!(
        (ends(0), ends(2), ends(3), ends(4)),
        (Some((0, 4)), Some((0, 4)), Some((3, 6)), None)
    );
    assert_eq!(
        (log.epoch_for_offset(3), log.epoch_for_offset(4)),
        (Some(0), Some(3))
    );
}

fn topic_rules_are_obeyed(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(
        &*store,
        LogConfig {
            max_message_bytes: 200,
            ..LogConfig::default()
        },
    );
    let large = append(BatchBuilder::new(), &[0], 300);
    assert!(matches!(
        wait(log.append(large)),
        Err(LogError::MessageTooLarge { limit: 200, .. })
    ));
    let future = append(BatchBuilder::new(), &[3_600_001], 1);
    assert!(matches!(
        wait(log.append(future)),
        Err(LogError::InvalidTimestamp { .. })
    ));
    log.update_config(LogConfig {
        message_timestamp_before_max_ms: 10,
        ..LogConfig::default()
    });
    let past = append(BatchBuilder::new(), &[-11], 1);
    assert!(matches!(
        wait(log.append(past)),
        Err(LogError::InvalidTimestamp { .. })
    ));
    let compact = CleanupPolicy {
        delete: false,
        compact: true,
    };
    log.update_config(LogConfig {
        cleanup_policy: compact,
        ..LogConfig::default()
    });
    let mut keyless = BatchBuilder::new();
    keyless.push(&NewRecord {
        timestamp: NOW_MS,
        ..NewRecord::default()
    });
    let bytes = keyless.build().unwrap_or_else(|e| panic!("{e}"));
    let batch = validate(&bytes).unwrap_or_else(|e| panic!("{e}"));
    let keyless = Append {
        batch,
        leader_epoch: 0,
        now_ms: NOW_MS,
        verification: None,
    };
    assert!(matches!(
        wait(log.append(keyless)),
        Err(LogError::InvalidRecord(_))
    ));
    assert_eq!(log.watermarks().log_end, 0, "what is refused is not written");
}

fn append_time_is_the_brokers(make: Maker<'_>) {
    let config = LogConfig {
        message_timestamp_type: TimestampType::LogAppendTime,
        ..LogConfig::default()
    };
    let store = make();
    let (log, _) = open(&*store, config);
    let result = appended(&*log, append(BatchBuilder::new(), &[-5, -9], 1));
    assert_eq!(result.log_append_time_ms, NOW_MS);
    let all = Read {
        offset: 0,
        max_bytes: 1 << 20,
        at_least_one_batch: true,
        bound: ReadBound::HighWatermark,
    };
    let result = wait(log.read(all)).unwrap_or_else(|e| panic!("{e}"));
    for batch in batches(&result.records.into_bytes().unwrap_or_else(|e| panic!("{e}"))) {
        let batch = batch.unwrap_or_else(|e| panic!("{e}"));
        batch.check_crc().unwrap_or_else(|e| panic!("{e}"));
        for record in batch.records(1 << 20).unwrap_or_else(|e| panic!("{e}")) {
            assert_eq!(record.map(|record| record.timestamp).ok(), Some(NOW_MS));
        }
    }
}

fn compression_follows_the_topic(make: Maker<'_>) {
    for (kind, codec) in [
        (CompressionType::Uncompressed, Compression::None),
        (CompressionType::Gzip(-1), Compression::Gzip),
        (CompressionType::Snappy, Compression::Snappy),
        (CompressionType::Lz4(9), Compression::Lz4),
        (CompressionType::Zstd(3), Compression::Zstd),
    ] {
        let store = make();
        let (log, _) = open(
            &*store,
            LogConfig {
                compression_type: kind,
                ..LogConfig::default()
            },
        );
        for sent in Compression::ALL {
            appended(
                &*log,
                append(BatchBuilder::new().compression(sent, None), &[-1, -2, -3], 50),
            );
        }
        let all = Read {
            offset: 0,
            max_bytes: 1 << 20,
            at_least_one_batch: true,
            bound: ReadBound::HighWatermark,
        };
        let result = wait(log.read(all)).unwrap_or_else(|e| panic!("{e}"));
        let mut offset = 0;
        for batch in batches(&result.records.into_bytes().unwrap_or_else(|e| panic!("{e}"))) {
            let batch = batch.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(batch.header.compression(), Ok(codec));
            batch.check_crc().unwrap_or_else(|e| panic!("{e}"));
            for record in batch.records(1 << 20).unwrap_or_else(|e| panic!("{e}")) {
                let record = record.unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(
                    (record.offset, record.timestamp),
                    (offset, NOW_MS - 1 - offset % 3)
                );
                offset += 1;
            }
        }
        assert_eq!(offset, 15);
    }
}

fn a_deleted_partition_is_gone(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    appended(&*log, plain(3));
    assert_eq!(store.stored().ok(), Some(vec![partition("conformance", 0)]));
    wait(store.delete(&partition("conformance", 0))).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(store.stored().ok(), Some(vec![]));
    assert!(matches!(wait(log.append(plain(1))), Err(LogError::Deleted)));
    let (log, _) = open(&*store, LogConfig::default());
    assert_eq!(log.watermarks(), Watermarks::default());
    assert_eq!(appended(&*log, plain(1)).base_offset, 0);
}
