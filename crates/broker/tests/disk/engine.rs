//! The disk engine under a broker, batches that no other batch equals, and what the log must be then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milena_broker::{Clock, SystemClock};
use milena_log_disk::{CleanMode, DiskLogStore, DiskOptions};
use milena_protocol::ErrorCode;
use milena_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use milena_protocol::messages::fetch_response::PartitionData;
use milena_protocol::records::{BatchBuilder, NewRecord, batches};
use tempfile::TempDir;

use crate::batches::{now_ms, produce_bytes};
use crate::harness::{Client, TestBroker, error, text};

/// Nothing here takes long; what hangs fails the test instead of the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Of requests that wait: longer than the patience, so that one that is not woken is seen.
pub(crate) const LONG_WAIT_MS: i32 = 600_000;
/// The latest version of Fetch that names topics by name.
pub(crate) const FETCH: i16 = 12;
/// How large Kafka lets the smallest segments be.
pub(crate) const SEGMENT_BYTES: usize = 1 << 20;

pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it ends soon")
}

/// Lets others run until `done`.
pub(crate) async fn until(done: impl Fn() -> bool) {
    patiently(async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A folder where syncs cost no disk, if there is such a place: nothing here cuts the power.
pub(crate) fn tempdir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

pub(crate) fn options() -> DiskOptions {
    DiskOptions {
        clean: CleanMode::Manual,
        ..DiskOptions::at(SystemClock.now_ms())
    }
}

pub(crate) fn open(dirs: &[&TempDir], options: DiskOptions) -> Arc<DiskLogStore> {
    let dirs = dirs.iter().map(|dir| dir.path().to_owned()).collect();
    Arc::new(DiskLogStore::open(dirs, options).unwrap())
}

/// A broker on one directory, and the engine under it.
pub(crate) async fn started(dir: &TempDir) -> (TestBroker, Arc<DiskLogStore>) {
    let logs = open(&[dir], options());
    (TestBroker::on(logs.clone()).await, logs)
}

/// The files of a partition's segments, in the order of their offsets.
pub(crate) fn segments(dir: &TempDir, folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.path().join(folder)) else {
        return Vec::new();
    };
    let mut segments: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments
}

/// Bytes that follow from the seed and look like chance, so that those of another place or time differ.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A batch of so many records with values of so many bytes each.
pub(crate) fn batch(seed: u64, records: u64, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in 0..records {
        builder.push(&NewRecord {
            timestamp: now_ms(),
            value: Some(noise(seed * 1000 + record, value_bytes)),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap()
}

/// A batch of one record that is so many bytes long with its header.
pub(crate) fn batch_of_size(seed: u64, size: usize) -> Bytes {
    let smallest = batch(seed, 1, 0).len();
    // Lengths are written shorter the smaller they are.
    let found = (0..=size - smallest)
        .rev()
        .map(|value_bytes| batch(seed, 1, value_bytes))
        .find(|batch| batch.len() <= size)
        .unwrap();
    assert_eq!(found.len(), size, "no value makes a batch of this size");
    found
}

/// What a partition's log has to be, byte for byte.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) bytes: Vec<u8>,
    /// `(position, base offset)` of each batch.
    pub(crate) batches: Vec<(usize, i64)>,
    pub(crate) next_offset: i64,
}

impl Expected {
    /// Takes a batch in as the broker stores it: with its offset and leader epoch, else as it came.
    pub(crate) fn push(&mut self, batch: &Bytes, leader_epoch: i32) {
        self.batches.push((self.bytes.len(), self.next_offset));
        let mut stored = batch.to_vec();
        stored[..8].copy_from_slice(&self.next_offset.to_be_bytes());
        stored[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        self.bytes.extend(stored);
        let last_offset_delta = i32::from_be_bytes(batch[23..27].try_into().unwrap());
        self.next_offset += i64::from(last_offset_delta) + 1;
    }
}

/// Writes the batches to a partition, one by one, and gives what its log is then.
pub(crate) async fn fill(
    broker: &TestBroker,
    topic: &str,
    partition: i32,
    batches: impl IntoIterator<Item = Bytes>,
) -> Expected {
    let mut client = broker.connect().await;
    let leader_epoch = broker.leader_epoch(topic).await;
    let mut expected = Expected::default();
    for batch in batches {
        let answer = produce_bytes(&mut client, topic, partition, batch.clone()).await;
        assert_eq!(error(answer.error_code), ErrorCode::None);
        assert_eq!(answer.base_offset, expected.next_offset);
        expected.push(&batch, leader_epoch);
    }
    expected
}

/// A fetch of `(partition, offset)` that does not wait and may bring much.
pub(crate) fn fetch(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: i32::MAX,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: text(topic),
        partitions: partitions.iter().map(partition).collect(),
        ..FetchTopic::default()
    };
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: i32::MAX,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

/// The records of a partition's answer, which must be no error.
pub(crate) fn records(data: &PartitionData) -> Bytes {
    assert_eq!(error(data.error_code), ErrorCode::None);
    data.records.clone().unwrap().into_bytes().unwrap()
}

/// Fetches one partition at once.
pub(crate) async fn fetched(client: &mut Client, request: &FetchRequest) -> Bytes {
    let response = patiently(client.call(request, FETCH)).await;
    records(&response.responses[0].partitions[0])
}

/// The whole batches that records start with, whose CRCs must hold.
pub(crate) fn whole_batches(records: &Bytes) -> Vec<milena_protocol::records::Batch> {
    let whole: Vec<_> = batches(records).map_while(Result::ok).collect();
    for batch in &whole {
        batch.check_crc().unwrap();
    }
    whole
}
