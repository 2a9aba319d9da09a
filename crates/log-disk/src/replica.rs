//! A partition as the broker holds it, wherever its log is. A move ([`crate::moving`]) puts a log in
//! another directory in the place of the current one between two calls; nobody who holds the partition
//! notices.

use std::sync::{Arc, Mutex};

use milena_log::{
    ActiveProducer, Append, Appended, BoxFuture, EndTransaction, EpochEndOffset, LogConfig, LogError,
    PartitionLog, Read, ReadBound, ReadResult, StartVerification, TimestampedOffset, VerificationGuard,
    Watermarks,
};

use crate::directory::lock;
use crate::log::DiskLog;
use crate::moving::Future;

pub(crate) struct Replica {
    current: Mutex<Arc<DiskLog>>,
    /// What is to take the place of the current log.
    future: Mutex<Option<Arc<Future>>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.current().fmt(f)
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Replica {
    pub(crate) fn new(log: Arc<DiskLog>) -> Arc<Self> {
        Arc::new(Self {
            current: Mutex::new(log),
            future: Mutex::new(None),
        })
    }

    pub(crate) fn current(&self) -> Arc<DiskLog> {
        Arc::clone(&lock(&self.current))
    }

    pub(crate) fn is_current(&self, log: &Arc<DiskLog>) -> bool {
        Arc::ptr_eq(&lock(&self.current), log)
    }

    /// Puts a log in the place of the current one, which takes part no more and is still locked.
    pub(crate) fn replace(&self, log: Arc<DiskLog>) {
        *lock(&self.current) = log;
    }

    pub(crate) fn future(&self) -> Option<Arc<Future>> {
        lock(&self.future).clone()
    }

    pub(crate) fn set_future(&self, future: Option<Arc<Future>>) {
        *lock(&self.future) = future;
    }

    /// Ends the move of this future, if it is still the one; gives whether it was.
    pub(crate) fn forget_future(&self, future: &Arc<Future>) -> bool {
        let mut held = lock(&self.future);
        let is_it = held.as_ref().is_some_and(|held| Arc::ptr_eq(held, future));
        if is_it {
            *held = None;
        }
        is_it
    }

    /// Does what changes the log or may fail. A log that has just been replaced refuses it.
    fn attempt<T>(&self, work: impl Fn(&DiskLog) -> Result<T, LogError>) -> Result<T, LogError> {
        loop {
            let log = self.current();
            match work(&log) {
                Err(_) if !self.is_current(&log) => {}
                done => return done,
            }
        }
    }

    /// Looks at the log that is the current one then.
    fn look<T>(&self, look: impl Fn(&DiskLog) -> T) -> T {
        loop {
            let log = self.current();
            let seen = look(&log);
            if self.is_current(&log) {
                return seen;
            }
        }
    }

    fn tell(&self, watermarks: Option<Watermarks>) {
        if let Some(watermarks) = watermarks {
            self.current().observer.advanced(watermarks);
        }
    }
}

impl PartitionLog for Replica {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, LogError>> {
        let appended = self.attempt(|log| log.append_now(&append));
        ready(appended.map(|(appended, advanced)| {
            self.tell(advanced);
            appended
        }))
    }

    fn start_verification(&self, start: StartVerification) -> Result<Option<VerificationGuard>, LogError> {
        self.attempt(|log| log.start_verification(&start))
    }

    fn end_transaction(&self, end: EndTransaction) -> BoxFuture<'static, Result<Appended, LogError>> {
        let ended = self.attempt(|log| log.end_transaction_now(&end));
        ready(ended.map(|(appended, advanced)| {
            self.tell(advanced);
            appended
        }))
    }

    fn read(&self, read: Read) -> BoxFuture<'static, Result<ReadResult, LogError>> {
        ready(self.attempt(|log| log.read_now(read)))
    }

    fn watermarks(&self) -> Watermarks {
        self.look(DiskLog::watermarks)
    }

    fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        bound: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        ready(self.attempt(|log| log.offset_for_timestamp_now(timestamp_ms, bound)))
    }

    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        ready(self.attempt(DiskLog::max_timestamp_now))
    }

    fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<EpochEndOffset> {
        self.look(|log| log.end_offset_for_epoch(leader_epoch))
    }

    fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.look(|log| log.epoch_for_offset(offset))
    }

    fn delete_records(&self, before_offset: i64) -> BoxFuture<'static, Result<i64, LogError>> {
        let deleted = self.attempt(|log| log.delete_records_now(before_offset));
        ready(deleted.map(|(log_start, advanced)| {
            self.tell(advanced);
            log_start
        }))
    }

    fn producers(&self) -> Vec<ActiveProducer> {
        self.look(DiskLog::producers)
    }

    fn size_bytes(&self) -> u64 {
        self.look(DiskLog::size_bytes)
    }

    fn update_config(&self, config: LogConfig) {
        let config = Arc::new(config);
        let watermarks = self.look(|log| log.update_config(Arc::clone(&config)));
        self.tell(Some(watermarks));
    }

    fn check(&self) -> Result<(), LogError> {
        self.attempt(DiskLog::check)
    }
}
