//! What the log itself costs, without sockets: a batch checked and appended, a fetch, a look into the indexes.

// What fails here is a mistake in the benchmark, which should stop.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use milena_log::conformance::{NOW_MS, open, wait};
use milena_log::{Append, Durability, LogConfig, LogStore, PartitionLog, Read, ReadBound};
use milena_log_disk::{DiskLogStore, DiskOptions};
use milena_protocol::records::{BatchBuilder, NewRecord, validate};
use tempfile::TempDir;

/// Records of a batch, and batches of the log that is read.
const RECORDS: i64 = 16;
const BATCHES: i64 = 10_000;

fn main() {
    divan::main();
}

/// A log in a directory of its own, and the store that keeps it open.
struct Opened {
    log: Arc<dyn PartitionLog>,
    _store: DiskLogStore,
    _directory: TempDir,
}

/// Without syncs, whose time is the disk's.
fn opened() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let directories = vec![directory.path().to_path_buf()];
    let store = DiskLogStore::open(directories, DiskOptions::at(NOW_MS)).unwrap();
    let config = LogConfig {
        durability: Durability::Os,
        ..LogConfig::default()
    };
    let (log, _) = open(&store as &dyn LogStore, config);
    Opened {
        log,
        _store: store,
        _directory: directory,
    }
}

/// A batch whose records are a millisecond later than those of the one before.
fn batch(size: usize, number: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for _ in 0..RECORDS {
        builder.push(&NewRecord {
            timestamp: NOW_MS + number,
            value: Some(Bytes::from(vec![b'v'; size])),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap()
}

fn append(log: &dyn PartitionLog, bytes: &Bytes) {
    let append = Append {
        batch: validate(bytes).unwrap(),
        leader_epoch: 0,
        now_ms: NOW_MS,
        verification: None,
    };
    wait(log.append(append)).unwrap();
}

fn filled() -> Opened {
    let opened = opened();
    for number in 0..BATCHES {
        append(&*opened.log, &batch(1024, number));
    }
    opened
}

/// CRC, structure and the write, by the size of a record.
#[divan::bench(args = [100, 1024], sample_count = 50, sample_size = 100)]
fn check_and_append(bencher: Bencher<'_, '_>, size: usize) {
    let opened = opened();
    let bytes = batch(size, 0);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| append(&*opened.log, black_box(&bytes)));
}

/// Reads on and on, as a consumer that catches up does; by the bytes that it asks for. They are read from the file, as for
/// a connection that cannot have the system send them.
#[divan::bench(args = [16_384, 1_048_576], sample_count = 50, sample_size = 10)]
fn fetch(bencher: Bencher<'_, '_>, max_bytes: usize) {
    let opened = filled();
    let batches = i64::try_from(max_bytes).unwrap() / (RECORDS * 1024);
    let mut offset = 0;
    bencher.counter(BytesCount::new(max_bytes)).bench_local(|| {
        let read = Read {
            offset,
            max_bytes,
            at_least_one_batch: true,
            bound: ReadBound::HighWatermark,
        };
        offset = (offset + batches * RECORDS) % (BATCHES * RECORDS);
        wait(opened.log.read(read)).unwrap().records.into_bytes().unwrap()
    });
}

/// Jumps about, so that each read looks its batch up in the offset index. Finds the batch in its file, does not read it.
#[divan::bench(sample_count = 50, sample_size = 100)]
fn look_up_an_offset(bencher: Bencher<'_, '_>) {
    let opened = filled();
    let mut offset = 0;
    bencher.bench_local(|| {
        offset = jump(offset);
        let read = Read {
            offset,
            max_bytes: 1,
            at_least_one_batch: true,
            bound: ReadBound::HighWatermark,
        };
        wait(opened.log.read(read)).unwrap()
    });
}

/// ListOffsets: the time index, the offset index, then the batch.
#[divan::bench(sample_count = 50, sample_size = 100)]
fn look_up_a_time(bencher: Bencher<'_, '_>) {
    let opened = filled();
    let mut offset = 0;
    bencher.bench_local(|| {
        offset = jump(offset);
        let time = NOW_MS + offset / RECORDS;
        wait(opened.log.offset_for_timestamp(time, ReadBound::HighWatermark)).unwrap()
    });
}

/// Visits the offsets in an order in which none is near the one before.
fn jump(offset: i64) -> i64 {
    (offset + 61_803) % (BATCHES * RECORDS)
}
