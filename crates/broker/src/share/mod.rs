//! Drives share partitions: feeds their shards with requests and the time, stores what they decide, and sends their
//! replies.
//!
//! A share partition belongs to one of [`SHARE_SHARDS`] shards, by a hash of its group's id that never changes, because its
//! facts lie in that shard of the fact store. See `shards` for what one promises.
//!
//! Left to others: every decision (`milena_coordinator`), reading records (the handlers).

use std::sync::Arc;

use milena_coordinator::{Effects, LoadError, Reply, SharePartitions as SharePartitionsShard};
use milena_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse, WriteShareGroupStateRequest,
    WriteShareGroupStateResponse,
};
use milena_protocol::{ErrorCode, Uuid};
use milena_state::{Row, StateStore};

use crate::broker::StartError;
use crate::clock::Clock;
use crate::handlers::group_reply;
use crate::outcome::BoxFuture;
use crate::shards::{Machine, Shard, hash};
use crate::stop::Stop;
use crate::topics::Topics;

/// How many shards share partitions are spread over. Part of the stored format: never to be changed.
const SHARE_SHARDS: usize = 8;

#[derive(Debug)]
pub(crate) struct SharePartitions {
    shards: Vec<Arc<Shard<SharePartitionsShard>>>,
}

impl Machine for SharePartitionsShard {
    fn load(&mut self, _now_ms: i64, _epoch: i32, rows: Vec<Row>) -> Result<Effects, LoadError> {
        self.load(rows).map(|()| Effects::default())
    }

    fn unload(&mut self) -> Effects {
        self.unload()
    }

    fn tick(&mut self, _now_ms: i64) -> Effects {
        Effects::default()
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        None
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
            let reply = self.shard(&request.group_id).ask(|$machine, $now_ms, $ticket| $decide);
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
        let shards: Vec<Arc<Shard<SharePartitionsShard>>> = (0..SHARE_SHARDS)
            .map(|index| {
                let machine = SharePartitionsShard::new();
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
        Ok(Self { shards })
    }

    fn shard(&self, group_id: &str) -> &Arc<Shard<SharePartitionsShard>> {
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

    /// Topics were deleted: forgets what share groups have of them.
    pub(crate) async fn topics_deleted(&self, ids: &[Uuid]) {
        let changes: Vec<_> = self
            .shards
            .iter()
            .map(|shard| shard.change(|machine, _| machine.topics_deleted(ids)))
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
