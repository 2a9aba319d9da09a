//! Drives share partitions: feeds their shards with requests and the time, stores what they decide, and sends their
//! replies.
//!
//! A share partition belongs to one of [`SHARE_SHARDS`] shards, by a hash of its group's id that never changes, because its
//! facts lie in that shard of the fact store. See `shards` for what one promises.
//!
//! A member's records are released when its share session ends, with a request or with its connection.
//!
//! Left to others: every decision (`milena_coordinator`), reading records (the handlers).

pub(crate) mod sessions;
pub(crate) mod settings;
mod waiting;

use std::sync::Arc;

use milena_coordinator::{
    AcknowledgementBatch, Acquire, AcquiredRecords, Effects, FetchStart, LoadError, LogView, Refusal, Reply,
    SharePartitionConfig, SharePartitionKey, SharePartitions as SharePartitionsShard,
};
use milena_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse, WriteShareGroupStateRequest,
    WriteShareGroupStateResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};
use milena_state::{Row, StateStore};

use crate::broker::StartError;
use crate::clock::Clock;
use crate::context::ConnectionInfo;
use crate::handlers::group_reply;
use crate::outcome::BoxFuture;
use crate::shards::{Machine, Shard, hash};
use crate::stop::Stop;
use crate::topics::Topics;

use sessions::{Ended, ShareSessions};
pub(crate) use waiting::ShareWait;
use waiting::Waiting;

/// How many shards share partitions are spread over. Part of the stored format: never to be changed.
const SHARE_SHARDS: usize = 8;

#[derive(Debug)]
pub(crate) struct SharePartitions {
    shards: Vec<Arc<Shard<ShareMachine>>>,
    waiting: Arc<Waiting>,
    pub(crate) sessions: ShareSessions,
}

/// A shard that wakes who waits, whatever made records available.
struct ShareMachine {
    partitions: SharePartitionsShard,
    waiting: Arc<Waiting>,
}

impl ShareMachine {
    fn step(&mut self, step: impl FnOnce(&mut SharePartitionsShard) -> Effects) -> Effects {
        let effects = step(&mut self.partitions);
        self.waiting.wake(&self.partitions.take_woken());
        effects
    }
}

impl Machine for ShareMachine {
    fn load(&mut self, _now_ms: i64, _epoch: i32, rows: Vec<Row>) -> Result<Effects, LoadError> {
        self.partitions.load(rows).map(|()| Effects::default())
    }

    fn unload(&mut self) -> Effects {
        self.step(SharePartitionsShard::unload)
    }

    fn tick(&mut self, now_ms: i64) -> Effects {
        self.step(|partitions| partitions.tick(now_ms))
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.partitions.next_deadline_ms()
    }
}

/// A request of one of the state APIs, decided for all its partitions at once.
macro_rules! state_api {
    ($(#[$doc:meta])* $name:ident: $request:ty => $response:ty, $reply:ident,
     |$machine:ident, $now_ms:ident, $ticket:ident, $image:ident, $asked:ident| $decide:expr) => {
        $(#[$doc])*
        pub(crate) fn $name(
            &self,
            topics: &Topics,
            request: $request,
        ) -> BoxFuture<Result<$response, ErrorCode>> {
            let ($image, $asked) = (topics.image(), &request);
            let reply = self
                .shard(&request.group_id)
                .ask(|machine, $now_ms, $ticket| machine.step(|$machine| $decide));
            Box::pin(async move {
                group_reply(reply.await, |reply| match reply {
                    Reply::$reply(response) => Some(response),
                    _ => None,
                })
            })
        }
    };
}

impl SharePartitions {
    /// Takes all shards and loads them.
    pub(crate) async fn start(
        facts: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        stop: &Stop,
    ) -> Result<Self, StartError> {
        let waiting = Arc::new(Waiting::default());
        let shards: Vec<Arc<Shard<ShareMachine>>> = (0..SHARE_SHARDS)
            .map(|index| {
                let machine = ShareMachine {
                    partitions: SharePartitionsShard::new(),
                    waiting: waiting.clone(),
                };
                Shard::new(
                    format!("share-{index}"),
                    machine,
                    facts.clone(),
                    clock.clone(),
                    None,
                )
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
            waiting,
            sessions: ShareSessions::default(),
        })
    }

    fn shard(&self, group_id: &str) -> &Arc<Shard<ShareMachine>> {
        &self.shards[hash(group_id, SHARE_SHARDS)]
    }

    state_api! {
        /// Says where a group starts in partitions; start offset -1 leaves it to `share.auto.offset.reset`.
        initialize: InitializeShareGroupStateRequest => InitializeShareGroupStateResponse, InitializeShareGroupState,
        |machine, now_ms, ticket, image, request| machine.initialize(now_ms, ticket, &image, request)
    }

    state_api! {
        read: ReadShareGroupStateRequest => ReadShareGroupStateResponse, ReadShareGroupState,
        |machine, now_ms, ticket, image, request| machine.read(now_ms, ticket, &image, request)
    }

    state_api! {
        write: WriteShareGroupStateRequest => WriteShareGroupStateResponse, WriteShareGroupState,
        |machine, now_ms, ticket, image, request| machine.write(now_ms, ticket, &image, request)
    }

    state_api! {
        delete: DeleteShareGroupStateRequest => DeleteShareGroupStateResponse, DeleteShareGroupState,
        |machine, _now_ms, ticket, image, request| machine.delete(ticket, &image, request)
    }

    state_api! {
        /// Where a group stands in partitions. What was never initialized is answered with start offset -1.
        read_summary: ReadShareGroupStateSummaryRequest => ReadShareGroupStateSummaryResponse,
        ReadShareGroupStateSummary,
        |machine, _now_ms, ticket, image, request| machine.read_summary(ticket, &image, request)
    }

    /// Where a member's fetch begins.
    pub(crate) fn fetch_start(
        &self,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        log: LogView,
        reset: Option<i64>,
    ) -> BoxFuture<Result<Result<FetchStart, Refusal>, ErrorCode>> {
        let reply = self.shard(&key.group).ask(|machine, now_ms, ticket| {
            machine.step(|one| one.fetch_start(now_ms, ticket, key, config, log, reset))
        });
        Box::pin(async move {
            group_reply(reply.await, |reply| match reply {
                Reply::ShareFetchStart(start) => Some(start),
                _ => None,
            })
        })
    }

    /// Gives a member what it can of what was read.
    pub(crate) fn acquire(
        &self,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        ask: &Acquire,
    ) -> BoxFuture<Result<Vec<AcquiredRecords>, ErrorCode>> {
        let reply = self
            .shard(&key.group)
            .ask(|machine, now_ms, ticket| machine.step(|one| one.acquire(now_ms, ticket, key, config, ask)));
        Box::pin(async move {
            group_reply(reply.await, |reply| match reply {
                Reply::ShareAcquire(acquired) => Some(acquired),
                _ => None,
            })
        })
    }

    /// Does what a member says of records that it has acquired.
    pub(crate) fn acknowledge(
        &self,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        member: &str,
        batches: &[AcknowledgementBatch],
    ) -> BoxFuture<Result<Result<(), Refusal>, ErrorCode>> {
        let reply = self.shard(&key.group).ask(|machine, now_ms, ticket| {
            machine.step(|one| one.acknowledge(now_ms, ticket, key, config, member, batches))
        });
        Box::pin(async move {
            group_reply(reply.await, |reply| match reply {
                Reply::ShareAcknowledge(done) => Some(done),
                _ => None,
            })
        })
    }

    /// Waits for records of share partitions to become available, from now on.
    pub(crate) fn wait(&self, keys: Vec<SharePartitionKey>) -> ShareWait {
        ShareWait::new(self.waiting.clone(), keys)
    }

    /// Ends a member's session, and gives back what it has acquired.
    pub(crate) fn end_session(&self, group: &Str, member: &Str) {
        if let Some(ended) = self.sessions.end(group, member) {
            self.release(ended, false);
        }
    }

    /// A connection is gone: so are its sessions, and what their members had acquired.
    pub(crate) fn disconnected(&self, connection: &Arc<ConnectionInfo>) {
        for ended in self.sessions.disconnected(connection) {
            self.release(ended, true);
        }
    }

    /// The order of decisions is that of these calls; nobody waits for them to be stored.
    fn release(&self, ended: Ended, lets_group_go: bool) {
        let Ended {
            group,
            member,
            partitions,
            is_last,
        } = ended;
        let keys: Vec<SharePartitionKey> = partitions
            .into_iter()
            .map(|(topic_id, partition)| SharePartitionKey {
                group: group.clone(),
                topic_id,
                partition,
            })
            .collect();
        drop(
            self.shard(&group)
                .change(|machine, now_ms| machine.step(|one| one.release_member(now_ms, &keys, &member))),
        );
        if is_last && lets_group_go {
            drop(
                self.shard(&group)
                    .change(|machine, now_ms| machine.step(|one| one.release_group(now_ms, &group))),
            );
        }
    }

    /// Topics were deleted: forgets what share groups have of them.
    pub(crate) async fn topics_deleted(&self, ids: &[Uuid]) {
        let changes: Vec<_> = self
            .shards
            .iter()
            .map(|shard| shard.change(|machine, _| machine.step(|one| one.topics_deleted(ids))))
            .collect();
        for change in changes {
            if let Err(error) = change.await {
                // It does no harm: a topic of the same name has another id.
                tracing::warn!(
                    error = error.name(),
                    "what share groups have of deleted topics could not be removed"
                );
            }
        }
    }

    /// Answers everybody who waits, and ends when everything decided is stored.
    pub(crate) async fn close(&self) {
        for shard in &self.shards {
            shard.close().await;
        }
    }
}
