//! Writes a log directory with everything in it that this engine writes, for Kafka's own tools to
//! read: `kafka-dump-log --deep-iteration --files …` must find nothing wrong.
//!
//! `write_sample DIR` writes it; `write_sample DIR crash` ends without closing it, and
//! `write_sample DIR recover` opens and closes it again.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use milena_log::conformance::{NOW_MS, Seen, end, partition, transactional, verified, wait};
use milena_log::{Append, EndTransaction, LogConfig, LogError, LogStore, PartitionLog, TimestampType};
use milena_log_disk::{DiskLogStore, DiskOptions};
use milena_protocol::records::{BatchBuilder, Compression, NewRecord, RecordHeader, validate};

type Failure = Box<dyn std::error::Error>;

fn batch(builder: BatchBuilder, round: i64, leader_epoch: i32) -> Result<Append, Failure> {
    let mut builder = builder;
    for at in 0..1 + round % 7 {
        builder.push(&NewRecord {
            timestamp: NOW_MS + round * 10 - at * 3,
            key: (at % 3 != 2).then(|| Bytes::from(format!("key-{round}-{at}"))),
            value: (at % 4 != 3).then(|| Bytes::from("value ".repeat(1 + (round % 20) as usize))),
            headers: (0..at % 3)
                .map(|header| RecordHeader {
                    key: Bytes::from(format!("header-{header}")),
                    value: (header == 0).then(|| Bytes::from_static(b"of a record")),
                })
                .collect(),
        });
    }
    Ok(Append {
        batch: validate(&builder.build()?)?,
        leader_epoch,
        now_ms: NOW_MS + round * 10,
        verification: None,
    })
}

fn open(store: &DiskLogStore, at: i32) -> Result<Arc<dyn PartitionLog>, LogError> {
    let config = LogConfig {
        segment_bytes: 8192,
        index_interval_bytes: 512,
        message_timestamp_type: if at == 2 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        ..LogConfig::default()
    };
    wait(store.open(partition("sample", at), config, Arc::new(Seen::default())))
}

fn write(log: &dyn PartitionLog, of_producers: bool) -> Result<(), Failure> {
    let mut sequences = [0; 3];
    for round in 0..200i64 {
        let codec = Compression::ALL[round as usize % Compression::ALL.len()];
        let mut builder = BatchBuilder::new().compression(codec, None);
        if of_producers {
            let producer = round as usize % sequences.len();
            builder = builder.producer(1000 + producer as i64, 2, sequences[producer]);
            sequences[producer] += 1 + (round % 7) as i32;
        }
        wait(log.append(batch(builder, round, (round / 80) as i32)?))?;
    }
    Ok(())
}

/// Two producers in turn, every third of whose transactions is aborted; the last one stays open.
fn write_transactions(log: &dyn PartitionLog) -> Result<(), Failure> {
    for round in 0..120i64 {
        let producer = 2000 + round % 2;
        let epoch = (round / 2) as i16;
        let batch = verified(log, transactional(producer, epoch, 0, 1 + (round % 3) as usize));
        wait(log.append(batch))?;
        if round >= 118 {
            continue;
        }
        let end = EndTransaction {
            transaction_version: 2,
            ..end(producer, epoch + 1, round % 3 != 0)
        };
        wait(log.end_transaction(end))?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments
        .next()
        .ok_or("usage: write_sample DIR [crash|recover]")?;
    let how = arguments.next().unwrap_or_default();
    let store = DiskLogStore::open(vec![Path::new(&dir).to_owned()], DiskOptions::at(NOW_MS))?;
    for at in 0..4 {
        let log = open(&store, at)?;
        match at {
            _ if how == "recover" => {}
            3 => write_transactions(&*log)?,
            _ => write(&*log, at == 1)?,
        }
        if at == 1 {
            wait(log.delete_records(log.watermarks().high_watermark / 3))?;
        }
    }
    if how != "crash" {
        wait(store.maintain(NOW_MS + 2000));
        wait(store.close())?;
    }
    Ok(())
}
