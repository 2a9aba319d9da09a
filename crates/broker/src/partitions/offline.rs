//! The log of a partition whose own cannot be opened. It holds nothing and answers everything with the
//! reason, so that the other partitions can be served.

use milena_log::{
    ActiveProducer, Append, Appended, BoxFuture, EndTransaction, EpochEndOffset, LogConfig, LogError,
    PartitionLog, Read, ReadBound, ReadResult, StartVerification, TimestampedOffset, VerificationGuard,
    Watermarks,
};

#[derive(Debug)]
pub(super) struct OfflineLog(pub(super) LogError);

impl OfflineLog {
    fn refuse<T: Send + 'static>(&self) -> BoxFuture<'static, Result<T, LogError>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }
}

impl PartitionLog for OfflineLog {
    fn append(&self, _: Append) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.refuse()
    }

    fn start_verification(&self, _: StartVerification) -> Result<Option<VerificationGuard>, LogError> {
        Err(self.0.clone())
    }

    fn end_transaction(&self, _: EndTransaction) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.refuse()
    }

    fn read(&self, _: Read) -> BoxFuture<'static, Result<ReadResult, LogError>> {
        self.refuse()
    }

    /// Of a log that nobody knows anything of. Whoever answers with them asks [`Self::check`] first.
    fn watermarks(&self) -> Watermarks {
        Watermarks::default()
    }

    fn offset_for_timestamp(
        &self,
        _: i64,
        _: ReadBound,
    ) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        self.refuse()
    }

    fn max_timestamp(&self) -> BoxFuture<'static, Result<Option<TimestampedOffset>, LogError>> {
        self.refuse()
    }

    fn end_offset_for_epoch(&self, _: i32) -> Option<EpochEndOffset> {
        None
    }

    fn epoch_for_offset(&self, _: i64) -> Option<i32> {
        None
    }

    fn delete_records(&self, _: i64) -> BoxFuture<'static, Result<i64, LogError>> {
        self.refuse()
    }

    fn producers(&self) -> Vec<ActiveProducer> {
        Vec::new()
    }

    fn size_bytes(&self) -> u64 {
        0
    }

    /// The next start opens the log with the settings of then.
    fn update_config(&self, _: LogConfig) {}

    fn check(&self) -> Result<(), LogError> {
        Err(self.0.clone())
    }
}
