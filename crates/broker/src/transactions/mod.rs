//! Drives the transaction coordinator: feeds its shards with requests and the time, stores what they
//! decide, sends their replies, and ends transactions in the partitions and groups that take part.
//!
//! A transactional id belongs to one of [`TRANSACTION_SHARDS`] shards, by a hash that never changes,
//! because its facts lie in that shard of the fact store. See `shards` for what one promises.
//!
//! A transaction is ended in this order: the decision is stored; a marker goes to every partition; when
//! all are durable, the groups' pending offsets take effect; then it is stored that the transaction is
//! complete. A crash in between leaves the decision, from which the next start goes on. Markers that
//! are written twice do no harm.
//!
//! Left to others: every decision (`milena_coordinator`), what a marker does to a partition (the log).

mod finish;
mod verify;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use milena_coordinator::{
    AddPartitions, Effects, EndTransaction, LoadError, Reply, Ticket, TransactionConfig,
    Transactions as TransactionsShard,
};
use milena_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use milena_protocol::{ErrorCode, Str};
use milena_state::{Row, StateStore};
use tokio::sync::{Notify, mpsc};

use crate::broker::{Broker, StartError};
use crate::clock::Clock;
use crate::groups::Groups;
use crate::handlers::group_reply;
use crate::outcome::BoxFuture;
use crate::shards::{Machine, Shard, hash};
use crate::stop::Stop;

pub(crate) use finish::write_marker;
pub(crate) use verify::{Unverified, Verified, verify_produce};

/// How many shards transactional ids are spread over. Part of the stored format: never to be changed.
const TRANSACTION_SHARDS: usize = 8;
/// Transactions of different producers end beside each other; those of one of so many stripes of
/// producer ids one after the other.
const OFFSET_LOCKS: usize = 64;

/// How long a request waits for the end of the transaction before.
const LONGEST_WAIT_FOR_END: Duration = Duration::from_millis(100);

/// The topic that stands for the offsets of groups in transactions, as in Kafka. There is no such topic:
/// offsets are facts.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Kafka's `offsets.topic.num.partitions`: only for what is told of transactions.
const OFFSETS_PARTITIONS: i32 = 50;

/// The partition of [`OFFSETS_TOPIC`] that Kafka keeps a group in.
pub(crate) fn offsets_partition(group_id: &str) -> i32 {
    // Java's String.hashCode, and Kafka's absolute value.
    let hash = group_id.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    (hash & i32::MAX) % OFFSETS_PARTITIONS
}

#[derive(Debug)]
pub(crate) struct Transactions {
    shards: Vec<Arc<Shard<TransactionsShard>>>,
    /// Taken by the task that ends transactions.
    tasks: Mutex<Option<mpsc::UnboundedReceiver<EndTransaction>>>,
    /// Held while a transaction's offsets are given to a group after it was asked whether it is open,
    /// and while they take effect: none may come behind that.
    offset_locks: Vec<Arc<tokio::sync::Mutex<()>>>,
    /// A transaction is complete.
    completed: Notify,
}

impl Machine for TransactionsShard {
    fn load(&mut self, now_ms: i64, epoch: i32, rows: Vec<Row>) -> Result<Effects, LoadError> {
        self.load(now_ms, epoch, rows)
    }

    fn unload(&mut self) -> Effects {
        self.unload()
    }

    fn tick(&mut self, now_ms: i64) -> Effects {
        self.tick(now_ms)
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.next_deadline_ms()
    }
}

impl Transactions {
    /// Takes all shards and loads them. Nothing is ended before [`Self::finish_in_background`].
    pub(crate) async fn start(
        facts: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        config: TransactionConfig,
        stop: &Stop,
    ) -> Result<Self, StartError> {
        let (sender, tasks) = mpsc::unbounded_channel();
        let shards: Vec<Arc<Shard<TransactionsShard>>> = (0..TRANSACTION_SHARDS)
            .map(|index| {
                let machine = TransactionsShard::new(config.clone());
                let name = format!("transactions-{index}");
                Shard::new(name, machine, facts.clone(), clock.clone(), Some(sender.clone()))
            })
            .collect();
        let loads: Vec<_> = shards.iter().map(Shard::start_load).collect();
        for load in loads {
            load.await?;
        }
        for shard in &shards {
            shard.start_tasks(stop);
        }
        Ok(Self {
            shards,
            tasks: Mutex::new(Some(tasks)),
            offset_locks: (0..OFFSET_LOCKS).map(|_| Arc::default()).collect(),
            completed: Notify::new(),
        })
    }

    /// Ends what was decided, from now on.
    pub(crate) fn finish_in_background(&self, broker: &Arc<Broker>) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tasks) = tasks {
            tokio::spawn(finish::run(Arc::downgrade(broker), tasks));
        }
    }

    fn shard(&self, transactional_id: &str) -> &Arc<Shard<TransactionsShard>> {
        &self.shards[hash(transactional_id, TRANSACTION_SHARDS)]
    }

    fn offset_lock(&self, producer_id: i64) -> Arc<tokio::sync::Mutex<()>> {
        let at = usize::try_from(producer_id.unsigned_abs() % OFFSET_LOCKS as u64).unwrap_or(0);
        Arc::clone(&self.offset_locks[at])
    }

    /// Hands a request to its transactional id's shard, in the order of the calls, and gives its reply.
    pub(crate) fn ask(
        &self,
        transactional_id: &str,
        request: impl FnOnce(&mut TransactionsShard, i64, Ticket) -> Effects,
    ) -> BoxFuture<Result<Reply, ErrorCode>> {
        self.shard(transactional_id).ask(request)
    }

    /// Adds partitions to a producer's transaction, or verifies that they are part of it: an error code for
    /// each. While the transaction before is being ended it waits a little, which is shorter than the
    /// pause after which a client would ask again (Kafka's `add.partitions.to.txn.retry.backoff.max.ms`).
    pub(crate) async fn add_partitions(&self, request: AddPartitions) -> Vec<ErrorCode> {
        let deadline = tokio::time::Instant::now() + LONGEST_WAIT_FOR_END;
        loop {
            let completed = self.completed.notified();
            tokio::pin!(completed);
            // From now on no completion is missed.
            completed.as_mut().enable();
            let errors = self.try_add_partitions(&request).await;
            if errors.first() != Some(&ErrorCode::ConcurrentTransactions)
                || tokio::time::timeout_at(deadline, completed).await.is_err()
            {
                return errors;
            }
        }
    }

    async fn try_add_partitions(&self, request: &AddPartitions) -> Vec<ErrorCode> {
        let reply = self.ask(&request.transactional_id, |transactions, now_ms, ticket| {
            transactions.add_partitions(now_ms, ticket, request)
        });
        match reply.await {
            Ok(Reply::AddPartitions(errors)) => errors,
            Ok(_) => vec![ErrorCode::UnknownServerError; request.partitions.len()],
            Err(error) => vec![error; request.partitions.len()],
        }
    }

    /// Gives a transaction's offsets to a group, after its coordinator has said that it is open and that
    /// the group takes part; `adds` makes it take part.
    pub(crate) async fn commit_offsets(
        &self,
        groups: &Groups,
        request: &TxnOffsetCommitRequest,
        adds: bool,
    ) -> Result<TxnOffsetCommitResponse, ErrorCode> {
        let add = AddPartitions {
            transactional_id: request.transactional_id.clone(),
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            partitions: vec![(Str::from(OFFSETS_TOPIC), offsets_partition(&request.group_id))],
            verify_only: !adds,
            bumps_epoch: adds,
        };
        let deadline = tokio::time::Instant::now() + LONGEST_WAIT_FOR_END;
        let reply = loop {
            let completed = self.completed.notified();
            tokio::pin!(completed);
            completed.as_mut().enable();
            let not_while_it_ends = self.offset_lock(request.producer_id).lock_owned().await;
            match self.try_add_partitions(&add).await.first() {
                Some(ErrorCode::None) => {
                    break groups.ask(&request.group_id, |groups, now_ms, ticket| {
                        groups.commit_transactional_offsets(now_ms, ticket, request)
                    });
                }
                Some(ErrorCode::ConcurrentTransactions) => {
                    // The end that is waited for needs the lock.
                    drop(not_while_it_ends);
                    if tokio::time::timeout_at(deadline, completed).await.is_err() {
                        return Err(ErrorCode::ConcurrentTransactions);
                    }
                }
                other => return Err(other.copied().unwrap_or(ErrorCode::UnknownServerError)),
            }
        };
        group_reply(reply.await, |reply| match reply {
            Reply::TxnOffsetCommit(response) => Some(response),
            _ => None,
        })
    }

    /// Looks at a transactional id as it is stored.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        transactional_id: &str,
        look: impl FnOnce(&TransactionsShard) -> T,
    ) -> BoxFuture<Result<T, ErrorCode>> {
        self.shard(transactional_id).read(look)
    }

    /// Looks at every shard, one after the other.
    pub(crate) fn read_all<T: Send + 'static>(
        &self,
        look: impl Fn(&TransactionsShard) -> T,
    ) -> Vec<BoxFuture<Result<T, ErrorCode>>> {
        self.shards.iter().map(|shard| shard.read(&look)).collect()
    }

    /// Answers everybody who waits, and ends when everything decided is stored.
    pub(crate) async fn close(&self) {
        for shard in &self.shards {
            shard.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_part_as_the_partition_that_kafka_keeps_it_in() {
        // As `Utils.abs(groupId.hashCode()) % 50` gives it.
        for (group, partition) in [("", 0), ("a", 47), ("my-group", 36), ("console-consumer-1", 24)] {
            assert_eq!(offsets_partition(group), partition, "{group}");
        }
    }
}
