//! A log does what a list does, whatever is done to it, in any order, with any number of stops.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use common::{Log, files, folder};
use milena_log::conformance::{self, NOW_MS, wait};
use milena_log::{LogConfig, LogStore, Read, ReadBound};
use milena_log_disk::DiskLogStore;
use milena_protocol::records::{BatchBuilder, Compression, batches};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        records: usize,
        size: usize,
        codec: usize,
        time: i64,
    },
    DeleteRecords(u8),
    Maintain,
    /// `close`, then a start.
    Restart,
    /// The end of the process, with this many bytes of a batch that was being written.
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1usize..5, 0usize..120, 0usize..5, -500i64..500)
            .prop_map(|(records, size, codec, time)| Step::Append { records, size, codec, time }),
        1 => any::<u8>().prop_map(Step::DeleteRecords),
        1 => Just(Step::Maintain),
        1 => Just(Step::Restart),
        1 => (0usize..80).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

/// Offset and timestamp of every record that was appended and not deleted.
#[derive(Debug, Default)]
struct Model {
    records: Vec<(i64, i64)>,
    start: i64,
    end: i64,
}

struct Real {
    store: DiskLogStore,
    log: Log,
}

fn start(dir: &Path) -> Real {
    let (store, log, _) = common::open(dir, &config());
    Real { store, log }
}

fn check(real: &Real, model: &Model) {
    let watermarks = real.log.watermarks();
    assert_eq!(
        (watermarks.log_start, watermarks.high_watermark),
        (model.start, model.end)
    );
    let mut seen = Vec::new();
    let mut offset = model.start;
    while offset < model.end {
        let result = wait(real.log.read(Read {
            offset,
            max_bytes: 300,
            at_least_one_batch: true,
            bound: ReadBound::HighWatermark,
        }));
        let records = result.unwrap().records.into_bytes().unwrap();
        // The last one may be cut.
        for batch in batches(&records).map_while(Result::ok) {
            batch.check_crc().unwrap();
            for record in batch.records(1 << 20).unwrap() {
                let record = record.unwrap();
                if record.offset >= offset {
                    seen.push((record.offset, record.timestamp));
                    offset = record.offset + 1;
                }
            }
        }
    }
    assert_eq!(seen, model.records);
    for time in [-400, -100, 0, 250] {
        let found = wait(
            real.log
                .offset_for_timestamp(NOW_MS + time, ReadBound::HighWatermark),
        );
        let wanted = model
            .records
            .iter()
            .find(|(_, timestamp)| *timestamp >= NOW_MS + time);
        assert_eq!(
            found.unwrap().map(|found| (found.offset, found.timestamp_ms)),
            wanted.copied()
        );
    }
}

fn take(dir: &Path, real: Real, model: &mut Model, step: &Step) -> Real {
    match *step {
        Step::Append {
            records,
            size,
            codec,
            time,
        } => {
            let times: Vec<i64> = (0..records as i64).map(|at| time + (at * 37) % 50).collect();
            let builder = BatchBuilder::new().compression(Compression::ALL[codec], None);
            let appended = conformance::appended(&*real.log, conformance::append(builder, &times, size));
            assert_eq!(appended.base_offset, model.end, "an offset is given once");
            for time in times {
                model.records.push((model.end, NOW_MS + time));
                model.end += 1;
            }
        }
        Step::DeleteRecords(part) => {
            let to = model.start + (model.end - model.start) * i64::from(part) / 255;
            assert_eq!(wait(real.log.delete_records(to)).unwrap(), to);
            model.start = to;
            model.records.retain(|(offset, _)| *offset >= to);
        }
        Step::Maintain => wait(real.store.maintain(NOW_MS)),
        Step::Restart => {
            common::close(real.store, real.log);
            return start(dir);
        }
        Step::Crash(torn) => {
            drop(real);
            let batch = conformance::append(BatchBuilder::new(), &[0], 20).batch.batch;
            let last = files(dir, ".log").pop().unwrap();
            let mut file = OpenOptions::new()
                .append(true)
                .open(folder(dir).join(last))
                .unwrap();
            file.write_all(&batch.bytes[..torn.min(batch.bytes.len() - 1)])
                .unwrap();
            return start(dir);
        }
    }
    real
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_log_does_what_a_list_does(steps in steps()) {
        let dir = common::tempdir();
        let mut real = start(dir.path());
        let mut model = Model::default();
        for step in &steps {
            real = take(dir.path(), real, &mut model, step);
            check(&real, &model);
        }
    }
}
