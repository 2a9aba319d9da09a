//! The in-memory engine: for tests, and the shortest statement of what a log does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use milena_protocol::records::{Batch, BatchHeader};

use crate::{
    AbortedTransaction, ActiveProducer, Append, Appended, BoxFuture, EndTransaction, EndedTransaction,
    EpochEndOffset, LeaderEpochs, LogConfig, LogDir, LogError, LogStore, PartitionId, PartitionLog, Prepared,
    Producers, Read, ReadBound, ReadResult, SequenceCheck, StartVerification, StoredReplica,
    TimestampedOffset, VerificationGuard, WatermarkObserver, Watermarks, marker_of, prepare, prepare_marker,
};

/// A batch is decompressed for a search by time; it may take this much.
const MOST_SEARCHED_BYTES: usize = 128 * 1024 * 1024;

/// Keeps every partition in memory and forgets it with the process.
#[derive(Debug, Default)]
pub struct MemoryLogStore {
    partitions: Mutex<BTreeMap<PartitionId, Arc<MemoryLog>>>,
}

struct MemoryLog {
    state: Mutex<State>,
    observer: Arc<dyn WatermarkObserver>,
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLog").finish_non_exhaustive()
    }
}

struct State {
    config: LogConfig,
    batches: Vec<Batch>,
    log_start: i64,
    log_end: i64,
    producers: Producers,
    /// Aborted transactions, by their markers.
    aborted: Vec<EndedTransaction>,
    epochs: LeaderEpochs,
    deleted: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere does not make the data wrong: every change below is made whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            last_stable: self
                .producers
                .first_unstable()
                .map_or(self.log_end, |first| first.max(self.log_start)),
            high_watermark: self.log_end,
            log_end: self.log_end,
        }
    }

    fn append(&mut self, append: &Append) -> Result<Appended, LogError> {
        if self.deleted {
            return Err(LogError::Deleted);
        }
        let mut prepared: Prepared = prepare(&self.config, append)?;
        if let SequenceCheck::Duplicate(twin) = self.producers.check(&prepared.header, append.verification)? {
            return Ok(Appended {
                base_offset: twin.base_offset(),
                last_offset: twin.last_offset,
                log_append_time_ms: twin.timestamp_ms,
                log_start_offset: self.log_start,
                duplicate: true,
            });
        }
        let header = self.store(&mut prepared, append.leader_epoch);
        self.producers.appended(&header, None);
        Ok(self.appended(&prepared))
    }

    fn end_transaction(&mut self, end: &EndTransaction) -> Result<Appended, LogError> {
        if self.deleted {
            return Err(LogError::Deleted);
        }
        self.producers.check_end(end)?;
        let mut prepared = prepare_marker(&self.config, end);
        let header = self.store(&mut prepared, end.leader_epoch);
        self.aborted
            .extend(self.producers.appended(&header, Some(marker_of(end))));
        // Everything is as durable as it becomes.
        self.producers.reached(self.log_end);
        Ok(self.appended(&prepared))
    }

    fn store(&mut self, prepared: &mut Prepared, leader_epoch: i32) -> BatchHeader {
        prepared.place(self.log_end, leader_epoch);
        let header = prepared.header;
        self.epochs.assign(leader_epoch, header.base_offset);
        let mut bytes = BytesMut::with_capacity(header.size_bytes());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&prepared.payload);
        self.batches.push(Batch {
            header,
            bytes: bytes.freeze(),
        });
        self.log_end = header.next_offset();
        header
    }

    fn appended(&self, prepared: &Prepared) -> Appended {
        Appended {
            base_offset: prepared.header.base_offset,
            last_offset: prepared.header.last_offset(),
            log_append_time_ms: prepared.log_append_time_ms,
            log_start_offset: self.log_start,
            duplicate: false,
        }
    }

    fn bound(&self, bound: ReadBound) -> i64 {
        match bound {
            ReadBound::HighWatermark => self.log_end,
            ReadBound::LastStable => self.watermarks().last_stable,
        }
    }

    /// The aborted transactions that a read of these offsets meets.
    fn aborted_in(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let first = self.aborted.partition_point(|aborted| aborted.last_offset < from);
        let met = self.aborted[first..].iter().filter(|it| it.overlaps(from, to));
        met.map(EndedTransaction::aborted).collect()
    }

    fn read(&self, read: Read) -> Result<ReadResult, LogError> {
        if self.deleted {
            return Err(LogError::Deleted);
        }
        if read.offset < self.log_start || read.offset > self.log_end {
            return Err(LogError::OffsetOutOfRange {
                offset: read.offset,
                log_start: self.log_start,
                upper: self.log_end,
            });
        }
        let from = self
            .batches
            .partition_point(|batch| batch.header.last_offset() < read.offset);
        let mut records = BytesMut::new();
        let bound = self.bound(read.bound);
        let mut end = read.offset;
        let visible = self.batches[from..].iter();
        for batch in visible.take_while(|batch| batch.header.base_offset < bound) {
            let first = records.is_empty() && read.at_least_one_batch;
            if !first && records.len() + batch.bytes.len() > read.max_bytes {
                break;
            }
            records.extend_from_slice(&batch.bytes);
            end = batch.header.next_offset();
        }
        Ok(ReadResult {
            records: records.freeze().into(),
            watermarks: self.watermarks(),
            aborted: match read.bound {
                ReadBound::HighWatermark => Vec::new(),
                ReadBound::LastStable => self.aborted_in(read.offset, end),
            },
        })
    }

    /// The first record below the bound that `wanted` accepts by its timestamp.
    fn find(
        &self,
        bound: ReadBound,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<TimestampedOffset>, LogError> {
        let bound = self.bound(bound);
        for batch in &self.batches {
            if batch.header.base_offset >= bound {
                break;
            }
            if !wanted(batch.header.max_timestamp) {
                continue;
            }
            let corrupt =
                |error: milena_protocol::records::RecordError| LogError::CorruptMessage(error.to_string());
            for record in batch.records(MOST_SEARCHED_BYTES).map_err(corrupt)? {
                let record = record.map_err(corrupt)?;
                if record.offset >= self.log_start && wanted(record.timestamp) {
                    return Ok(Some(TimestampedOffset {
                        offset: record.offset,
                        timestamp_ms: record.timestamp,
                        leader_epoch: batch.header.partition_leader_epoch,
                    }));
                }
            }
        }
        Ok(None)
    }

    fn delete_records(&mut self, before_offset: i64) -> Result<i64, LogError> {
        let before = if before_offset == -1 {
            self.log_end
        } else {
            before_offset
        };
        if before < 0 || before > self.log_end {
            return Err(LogError::OffsetOutOfRange {
                offset: before,
                log_start: self.log_start,
                upper: self.log_end,
            });
        }
        self.log_start = self.log_start.max(before);
        let gone = self
            .batches
            .partition_point(|batch| batch.header.last_offset() < self.log_start);
        self.batches.drain(..gone);
        let gone = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < self.log_start);
        self.aborted.drain(..gone);
        self.epochs.truncate_front(self.log_start);
        Ok(self.log_start)
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl PartitionLog for MemoryLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, LogError>> {
        let mut state = lock(&self.state);
        let appended = state.append(&append);
        let watermarks = state.watermarks();
        drop(state);
        if appended.as_ref().is_ok_and(|appended| !appended.duplicate) {
            self.observer.advanced(watermarks);
        }
        ready(appended)
    }

    fn start_verification(&self, start: StartVerification) -> Result<Option<VerificationGuard>, LogError> {
        self.check()?;
        lock(&self.state).producers.start_verification(&start)
    }

    fn end_transaction(&self, end: EndTransaction) -> BoxFuture<'static, Result<Appended, LogError>> {
        let mut state = lock(&self.state);
        let ended = state.end_transaction(&end);
        let watermarks = state.watermarks();
        drop(state);
        if ended.is_ok() {
            self.observer.advanced(watermarks);
        }
        ready(ended)
    }

    fn read(&self, read: Read) -> BoxFuture<'static, Result<ReadResult, LogError>> {
        ready(lock(&self.state).read(read))
    }

    fn watermarks(&self) -> Watermarks {
        lock(&self.state).watermarks()
    }

    fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        ready(lock(&self.state).find(bound, |timestamp| timestamp >= timestamp_ms))
    }

    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        let state = lock(&self.state);
        let max = state.batches.iter().map(|batch| batch.header.max_timestamp).max();
        ready(max.map_or(Ok(None), |max| {
            state.find(ReadBound::HighWatermark, |timestamp| timestamp == max)
        }))
    }

    fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset> {
        let state = lock(&self.state);
        state.epochs.end_offset(leader_epoch, state.log_end)
    }

    fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        lock(&self.state).epochs.epoch_for(offset)
    }

    fn delete_records(&self, before_offset: i64) -> BoxFuture<'static, Result<i64, LogError>> {
        let mut state = lock(&self.state);
        let deleted = state.delete_records(before_offset);
        let watermarks = state.watermarks();
        drop(state);
        if deleted.is_ok() {
            self.observer.advanced(watermarks);
        }
        ready(deleted)
    }

    fn producers(&self) -> Vec<ActiveProducer> {
        lock(&self.state).producers.active()
    }

    fn size_bytes(&self) -> u64 {
        lock(&self.state)
            .batches
            .iter()
            .map(|batch| batch.bytes.len() as u64)
            .sum()
    }

    fn update_config(&self, config: LogConfig) {
        lock(&self.state).config = config;
    }

    fn check(&self) -> Result<(), LogError> {
        if lock(&self.state).deleted {
            Err(LogError::Deleted)
        } else {
            Ok(())
        }
    }
}

impl LogStore for MemoryLogStore {
    fn open(
        &self,
        partition: PartitionId,
        config: LogConfig,
        observer: Arc<dyn WatermarkObserver>,
    ) -> BoxFuture<'static, Result<Arc<dyn PartitionLog>, LogError>> {
        let mut partitions = lock(&self.partitions);
        // A store that is opened again by a second broker keeps its bytes, as a disk would.
        let state = match partitions.get(&partition) {
            Some(open) => {
                let old = lock(&open.state);
                State {
                    config,
                    batches: old.batches.clone(),
                    producers: old.producers.clone(),
                    aborted: old.aborted.clone(),
                    epochs: old.epochs.clone(),
                    ..*old
                }
            }
            None => State {
                config,
                batches: Vec::new(),
                log_start: 0,
                log_end: 0,
                producers: Producers::default(),
                aborted: Vec::new(),
                epochs: LeaderEpochs::default(),
                deleted: false,
            },
        };
        let log = Arc::new(MemoryLog {
            state: Mutex::new(state),
            observer,
        });
        partitions.insert(partition, Arc::clone(&log));
        ready(Ok(log as Arc<dyn PartitionLog>))
    }

    fn delete(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>> {
        if let Some(log) = lock(&self.partitions).remove(partition) {
            let mut state = lock(&log.state);
            state.deleted = true;
            state.batches = Vec::new();
        }
        ready(Ok(()))
    }

    /// What is in memory alone nobody could look at later.
    fn set_aside(&self, partition: &PartitionId) -> BoxFuture<'static, Result<(), LogError>> {
        self.delete(partition)
    }

    fn stored(&self) -> Result<Vec<PartitionId>, LogError> {
        Ok(lock(&self.partitions).keys().cloned().collect())
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let partitions = lock(&self.partitions);
        let replicas = partitions
            .iter()
            .map(|(id, log)| StoredReplica {
                partition: id.clone(),
                size_bytes: log.size_bytes(),
                is_future: false,
                offset_lag: 0,
            })
            .collect();
        vec![LogDir {
            path: "/memory".into(),
            error: None,
            total_bytes: -1,
            usable_bytes: -1,
            is_cordoned: false,
            replicas,
        }]
    }

    fn maintain(&self, now_ms: i64) -> BoxFuture<'static, ()> {
        for log in lock(&self.partitions).values() {
            let mut state = lock(&log.state);
            let expiration_ms = state.config.producer_id_expiration_ms;
            state.producers.expire(now_ms, expiration_ms);
        }
        ready(())
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_memory_engine_conforms() {
        crate::conformance::run(&|| std::sync::Arc::new(super::MemoryLogStore::default()));
    }
}
