//! A fetch that waits is woken when the sync of an append moves the high watermark, whenever the two
//! happen: before the fetch looks, between any two of its looks, while it registers, or when it waits.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use milena_log::Append;
use milena_log_disk::{CommitMode, DiskLogStore, DiskOptions};
use milena_protocol::messages::fetch_request::FetchRequest;
use milena_protocol::records::validate;
use tempfile::TempDir;

use crate::batches::{Batch, now_ms, produce};
use crate::engine::{
    FETCH, LONG_WAIT_MS, PATIENCE, SEGMENT_BYTES, batch, fetch, open, options, patiently, records, started,
    tempdir, until, whole_batches,
};
use crate::harness::{Client, TestBroker};
use crate::hooked::{Hook, HookedStore};

/// A broker with the partition `t-0`, whose appends are synced when the test says so.
struct Bench {
    broker: TestBroker,
    logs: Arc<DiskLogStore>,
    hook: Hook,
    leader_epoch: i32,
}

impl Bench {
    async fn on(dir: &TempDir) -> Self {
        let options = DiskOptions {
            commit: CommitMode::Manual,
            ..options()
        };
        let logs = open(&[dir], options);
        let hooked = Arc::new(HookedStore::new(logs.clone()));
        let broker = TestBroker::on(hooked.clone()).await;
        let config = [("segment.bytes", SEGMENT_BYTES.to_string())];
        let config = config.each_ref().map(|(name, value)| (*name, &**value));
        broker.topic_with("t", 1, &config).await;
        let hook = hooked.hook("t-0");
        let leader_epoch = broker.leader_epoch("t").await;
        Self {
            broker,
            logs,
            hook,
            leader_epoch,
        }
    }

    /// What appends a batch to the log, and does not sync it.
    fn append(&self, batch: &Bytes) -> impl FnOnce() + Send + 'static {
        let log = Arc::clone(&self.hook.log);
        let append = Append {
            batch: validate(batch).unwrap(),
            leader_epoch: self.leader_epoch,
            now_ms: now_ms(),
            verification: None,
        };
        move || {
            let before = log.watermarks().log_end;
            // The disk engine has appended when it gives the future.
            drop(log.append(append));
            assert!(log.watermarks().log_end > before);
        }
    }

    /// What syncs all that was appended. The high watermark has moved when it returns; who waits for it
    /// may hear of it later, as the caller may hold what the telling needs.
    fn sync(&self) -> impl FnOnce() + Send + 'static {
        let (log, logs) = (Arc::clone(&self.hook.log), Arc::clone(&self.logs));
        move || {
            let end = log.watermarks().log_end;
            std::thread::spawn(move || logs.commit());
            let started = Instant::now();
            while log.watermarks().high_watermark < end {
                assert!(started.elapsed() < PATIENCE, "the sync did not come");
                std::thread::yield_now();
            }
        }
    }

    fn next_offset(&self) -> i64 {
        self.hook.log.watermarks().log_end
    }

    /// Looks that a fetch takes at a log without news before it waits.
    async fn looks_before_waiting(&self, client: &mut Client) -> usize {
        self.hook.looks.reset();
        let mut request = fetch("t", &[(0, self.next_offset())]);
        request.max_wait_ms = 1;
        patiently(client.call(&request, FETCH)).await;
        self.hook.looks.count()
    }
}

/// A fetch that nothing but news ends.
fn waiting(offset: i64, isolation_level: i8) -> FetchRequest {
    FetchRequest {
        max_wait_ms: LONG_WAIT_MS,
        isolation_level,
        ..fetch("t", &[(0, offset)])
    }
}

#[tokio::test]
async fn whenever_an_append_and_its_sync_come_the_fetch_that_waits_is_woken() {
    let dir = tempdir();
    let bench = Bench::on(&dir).await;
    let looks = Arc::clone(&bench.hook.looks);
    let mut client = bench.broker.connect().await;
    let waits_after = bench.looks_before_waiting(&mut client).await;
    assert!(
        waits_after >= 4,
        "a fetch looks, and registers: {waits_after} looks"
    );
    for isolation_level in [0, 1] {
        // The last number stands for the time when the fetch waits.
        for append_at in 0..=waits_after {
            for sync_at in append_at..=waits_after {
                let offset = bench.next_offset();
                let batch = batch(offset.unsigned_abs(), 1, 100);
                looks.reset();
                looks.before(append_at, bench.append(&batch));
                looks.before(sync_at, bench.sync());
                let sent = client.send(&waiting(offset, isolation_level), FETCH).await;
                until(|| looks.count() >= waits_after || bench.hook.log.watermarks().high_watermark > offset)
                    .await;
                if append_at == waits_after {
                    bench.append(&batch)();
                }
                if sync_at == waits_after {
                    bench.sync()();
                }
                let answer =
                    tokio::time::timeout(PATIENCE, client.receive::<FetchRequest>(FETCH, sent)).await;
                let answer = answer.unwrap_or_else(|_| {
                    panic!("appended before look {append_at} and synced before look {sync_at}: not woken")
                });
                let records = records(&answer.responses[0].partitions[0]);
                assert_eq!(whole_batches(&records)[0].header.base_offset, offset);
            }
        }
    }
}

#[tokio::test]
async fn a_fetch_that_waits_hears_of_an_append_also_when_its_log_became_smaller_meanwhile() {
    let dir = tempdir();
    let bench = Bench::on(&dir).await;
    for seed in 0..6 {
        bench.append(&batch(seed, 1, SEGMENT_BYTES / 2))();
    }
    bench.sync()();
    let mut client = bench.broker.connect().await;
    let waits_after = bench.looks_before_waiting(&mut client).await;
    bench.hook.looks.reset();
    let sent = client.send(&waiting(6, 0), FETCH).await;
    until(|| bench.hook.looks.count() == waits_after).await;
    let before = bench.hook.log.size_bytes();
    bench.hook.log.delete_records(5).await.unwrap();
    assert!(bench.hook.log.size_bytes() < before / 2, "segments are gone");
    bench.append(&batch(7, 1, 100))();
    bench.sync()();
    let answer = patiently(client.receive::<FetchRequest>(FETCH, sent)).await;
    let records = records(&answer.responses[0].partitions[0]);
    assert_eq!(whole_batches(&records)[0].header.base_offset, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_while_syncs_race_with_fetches() {
    const RECORDS: i64 = 300;
    let dir = tempdir();
    let (broker, _logs) = started(&dir).await;
    broker.topic("t", 2).await;
    let mut producer = broker.connect().await;
    let appending = tokio::spawn(async move {
        for number in 0..RECORDS {
            let partition = i32::try_from(number % 2).unwrap();
            produce(&mut producer, "t", partition, &Batch::of(&["x"])).await;
        }
    });
    let mut consumer = broker.connect().await;
    let mut next = [0, 0];
    while next.iter().sum::<i64>() < RECORDS {
        let request = FetchRequest {
            max_wait_ms: LONG_WAIT_MS,
            ..fetch("t", &[(0, next[0]), (1, next[1])])
        };
        let response = patiently(consumer.call(&request, FETCH)).await;
        for (data, next) in response.responses[0].partitions.iter().zip(&mut next) {
            for batch in whole_batches(&records(data)) {
                assert_eq!(batch.header.base_offset, *next, "records come once and in order");
                *next = batch.header.next_offset();
            }
        }
    }
    appending.await.unwrap();
}
