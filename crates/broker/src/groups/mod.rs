//! Drives the group coordinator: feeds its shards with requests and the time, stores what they
//! decide, and sends their replies.
//!
//! A group belongs to one of [`GROUP_SHARDS`] shards, by a hash of its id that never changes,
//! because its facts lie in that shard of the fact store. See `shard` for what one promises.
//!
//! Left to others: every decision (`milena_coordinator`), whether topics exist (the handlers).

mod shard;

use std::sync::Arc;

use milena_coordinator::{Effects, GroupConfig, Groups as GroupsShard, Reply, Ticket};
use milena_protocol::{ErrorCode, Str};
use milena_state::StateStore;

use crate::broker::StartError;
use crate::clock::Clock;
use crate::outcome::BoxFuture;
use crate::stop::Stop;

use shard::Shard;

/// How many shards groups are spread over. Part of the stored format: never to be changed.
pub(crate) const GROUP_SHARDS: usize = 8;

#[derive(Debug)]
pub(crate) struct Groups {
    shards: Vec<Arc<Shard>>,
}

impl Groups {
    /// Takes all shards and loads them.
    pub(crate) async fn start(
        facts: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        config: GroupConfig,
        stop: &Stop,
    ) -> Result<Self, StartError> {
        let shards: Vec<Arc<Shard>> = (0..GROUP_SHARDS)
            .map(|index| Shard::new(index, facts.clone(), clock.clone(), config.clone()))
            .collect();
        // All at once, so that an engine may take them together.
        let loads: Vec<_> = shards.iter().map(Shard::start_load).collect();
        for load in loads {
            load.await?;
        }
        for shard in &shards {
            shard.start_tasks(stop);
        }
        Ok(Self { shards })
    }

    fn shard(&self, group_id: &str) -> &Arc<Shard> {
        // FNV-1a, 64 bits. Never to be changed: it decides where a group's facts are found.
        let hash = group_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let index = usize::try_from(hash % GROUP_SHARDS as u64).unwrap_or(0);
        &self.shards[index]
    }

    /// Hands a request to its group's shard, in the order of the calls, and gives its reply.
    pub(crate) fn ask(
        &self,
        group_id: &str,
        request: impl FnOnce(&mut GroupsShard, i64, Ticket) -> Effects,
    ) -> BoxFuture<Result<Reply, ErrorCode>> {
        self.shard(group_id).ask(request)
    }

    /// Looks at a group as it is stored.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        group_id: &str,
        look: impl FnOnce(&GroupsShard) -> T,
    ) -> BoxFuture<Result<T, ErrorCode>> {
        self.shard(group_id).read(look)
    }

    /// Looks at every shard, one after the other.
    pub(crate) fn read_all<T: Send + 'static>(
        &self,
        look: impl Fn(&GroupsShard) -> T,
    ) -> Vec<BoxFuture<Result<T, ErrorCode>>> {
        self.shards.iter().map(|shard| shard.read(&look)).collect()
    }

    /// Topics were deleted: forgets the offsets that were committed for them.
    pub(crate) async fn topics_deleted(&self, topics: &[Str]) {
        let changes: Vec<_> = self
            .shards
            .iter()
            .map(|shard| shard.topics_deleted(topics))
            .collect();
        for change in changes {
            if let Err(error) = change.await {
                // The offsets stay until they expire; they do no harm, as a topic of the same
                // name has another id.
                tracing::warn!(
                    error = error.name(),
                    "offsets of deleted topics could not be removed"
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

#[cfg(test)]
mod tests;
