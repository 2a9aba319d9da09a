//! Drives the group coordinator: feeds its shards with requests and the time, stores what they
//! decide, and sends their replies.
//!
//! A group belongs to one of [`GROUP_SHARDS`] shards, by a hash of its id that never changes,
//! because its facts lie in that shard of the fact store. See `shards` for what one promises.
//!
//! Left to others: every decision (`milena_coordinator`), whether topics exist (the handlers).

pub(crate) mod internal_topics;
pub(crate) mod settings;
pub(crate) mod share;

use std::sync::Arc;

use milena_coordinator::{Effects, GroupConfig, Groups as GroupsShard, LoadError, Reply, Ticket, TopicImage};
use milena_protocol::{ErrorCode, Str, Uuid};
use milena_state::{Row, StateStore};

use crate::broker::StartError;
use crate::clock::Clock;
use crate::outcome::BoxFuture;
use crate::shards::{Machine, Shard, hash};
use crate::stop::Stop;
use crate::topics::Topics;

/// How many shards groups are spread over. Part of the stored format: never to be changed.
pub(crate) const GROUP_SHARDS: usize = 8;

#[derive(Debug)]
pub(crate) struct Groups {
    shards: Vec<Arc<Shard<GroupsShard>>>,
}

impl Machine for GroupsShard {
    fn load(&mut self, now_ms: i64, _epoch: i32, rows: Vec<Row>) -> Result<Effects, LoadError> {
        self.load(now_ms, rows).map(|()| Effects::default())
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

impl Groups {
    /// Takes all shards and loads them.
    pub(crate) async fn start(
        facts: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        config: GroupConfig,
        stop: &Stop,
    ) -> Result<Self, StartError> {
        let new_member_suffix = || Uuid::from_bytes(rand::random());
        let shards: Vec<Arc<Shard<GroupsShard>>> = (0..GROUP_SHARDS)
            .map(|index| {
                let groups = GroupsShard::new(config.clone(), new_member_suffix);
                Shard::new(
                    format!("groups-{index}"),
                    groups,
                    facts.clone(),
                    clock.clone(),
                    None,
                )
            })
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

    fn shard(&self, group_id: &str) -> &Arc<Shard<GroupsShard>> {
        &self.shards[hash(group_id, GROUP_SHARDS)]
    }

    /// Hands a request to its group's shard, in the order of the calls, and gives its reply.
    pub(crate) fn ask(
        &self,
        group_id: &str,
        request: impl FnOnce(&mut GroupsShard, i64, Ticket) -> Effects,
    ) -> BoxFuture<Result<Reply, ErrorCode>> {
        self.shard(group_id).ask(request)
    }

    /// The same for a request whose decision depends on the topics.
    pub(crate) fn ask_seeing(
        &self,
        topics: &Topics,
        group_id: &str,
        request: impl FnOnce(&mut GroupsShard, i64, Ticket) -> Effects,
    ) -> BoxFuture<Result<Reply, ErrorCode>> {
        let image = topics.image();
        self.ask(group_id, |groups, now_ms, ticket| {
            groups.see_topics(&image);
            request(groups, now_ms, ticket)
        })
    }

    /// Tells a group's shard something that nobody is answered about; resolves when what follows is stored.
    pub(crate) fn change(
        &self,
        group_id: &str,
        change: impl FnOnce(&mut GroupsShard, i64) -> Effects,
    ) -> BoxFuture<Result<(), ErrorCode>> {
        self.shard(group_id).change(change)
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

    /// Topics were deleted, and `image` is without them: forgets the offsets that were committed for them, and their share
    /// states.
    pub(crate) async fn topics_deleted(&self, image: &Arc<TopicImage>, topics: &[Str]) {
        let changes: Vec<_> = self
            .shards
            .iter()
            .map(|shard| {
                shard.change(|groups, now_ms| {
                    groups.see_topics(image);
                    groups.topic_deleted(now_ms, topics)
                })
            })
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

    /// A producer's transaction has ended: its offsets take effect, or go. Resolves when that is stored.
    pub(crate) async fn end_transaction(&self, producer_id: i64, commit: bool) -> Result<(), ErrorCode> {
        let changes: Vec<_> = self
            .shards
            .iter()
            .map(|shard| shard.change(|groups, _| groups.end_transaction(producer_id, commit)))
            .collect();
        for change in changes {
            change.await?;
        }
        Ok(())
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
