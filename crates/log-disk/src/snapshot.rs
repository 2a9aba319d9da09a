//! Producer snapshots: what a log knows of its producers at an offset, in Kafka's format, so that a
//! start need not read the whole log (`<offset>.snapshot`).

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use milena_log::{Producer, Producers, SequencedBatch};
use milena_protocol::stored::ProducerSnapshot;
use milena_protocol::stored::producer_snapshot::ProducerEntry;
use milena_protocol::{Message, Reader, Writer};

use crate::disk::Folder;
use crate::files;

const VERSION: i16 = 1;
/// Version and CRC stand in front of what the CRC covers.
const CRC_AT: usize = 2;
const CRC_COVERS_FROM: usize = 6;

/// Offsets of the snapshots in a folder, ascending.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<i64>> {
    let mut offsets = Vec::new();
    for entry in fs::read_dir(folder)? {
        offsets.extend(files::offset_of(&entry?.path(), "snapshot"));
    }
    offsets.sort_unstable();
    Ok(offsets)
}

pub(crate) fn path(folder: &Path, offset: i64) -> PathBuf {
    files::segment_file(folder, offset, "snapshot")
}

fn invalid(text: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_string())
}

pub(crate) fn write(folder: &Folder, offset: i64, producers: &Producers) -> io::Result<()> {
    let mut entries: Vec<ProducerEntry> = producers
        .iter()
        .map(|(id, producer)| to_entry(id, producer))
        .collect();
    entries.sort_by_key(|entry| entry.producer_id);
    let snapshot = ProducerSnapshot {
        crc: 0,
        producer_entries: entries,
        ..ProducerSnapshot::default()
    };
    let mut writer = Writer::new();
    writer.i16(VERSION);
    snapshot.encode(&mut writer, VERSION).map_err(invalid)?;
    let mut bytes = writer.finish_contiguous().to_vec();
    let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    folder.disk.replace(&path(folder, offset), &bytes, false)
}

/// # Errors
/// When the file is missing, cut or changed: the caller then reads the log instead.
pub(crate) fn read(folder: &Path, offset: i64) -> io::Result<Producers> {
    let bytes = Bytes::from(fs::read(path(folder, offset))?);
    let mut reader = Reader::new(bytes.clone());
    let version = reader.i16().map_err(invalid)?;
    let snapshot = ProducerSnapshot::decode(&mut reader, version).map_err(invalid)?;
    if snapshot.crc != crc32c::crc32c(&bytes[CRC_COVERS_FROM..]) {
        return Err(invalid("the producer snapshot's CRC is wrong"));
    }
    let mut producers = Producers::default();
    for entry in snapshot.producer_entries {
        producers.restore(entry.producer_id, from_entry(&entry));
    }
    Ok(producers)
}

/// The format keeps a producer's last batch only.
fn to_entry(producer_id: i64, producer: &Producer) -> ProducerEntry {
    let last = producer.batches.back();
    ProducerEntry {
        producer_id,
        epoch: producer.epoch,
        last_sequence: last.map_or(-1, |batch| batch.last_sequence),
        last_offset: last.map_or(-1, |batch| batch.last_offset),
        offset_delta: last.map_or(0, |batch| batch.offset_delta),
        timestamp: producer.last_timestamp_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_first_offset: producer.transaction_start,
        ..ProducerEntry::default()
    }
}

fn from_entry(entry: &ProducerEntry) -> Producer {
    let batch = (entry.last_offset >= 0).then_some(SequencedBatch {
        last_sequence: entry.last_sequence,
        last_offset: entry.last_offset,
        offset_delta: entry.offset_delta,
        timestamp_ms: entry.timestamp,
    });
    Producer {
        epoch: entry.epoch,
        batches: VecDeque::from_iter(batch),
        coordinator_epoch: entry.coordinator_epoch,
        last_timestamp_ms: entry.timestamp,
        transaction_start: entry.current_txn_first_offset,
    }
}
