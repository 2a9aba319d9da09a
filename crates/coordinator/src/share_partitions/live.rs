//! A share partition that members fetch from: what is in flight, what is stored of it, and when.
//!
//! Acquiring is not stored. What a member acknowledges or gives back is, and what a lock's end gives back: with the
//! start offset as it was before, as in Kafka, so that the records that are done count until the next change.

use std::collections::BTreeSet;

use milena_protocol::{ErrorCode, Str};

use super::acknowledge::{self, AcknowledgementBatch, Refusal};
use super::acquire::{self, Acquire, AcquiredRecords};
use super::batches::StateBatch;
use super::in_flight::InFlight;
use super::stored::{NO_EPOCH, NO_START_OFFSET};
use super::{SharePartition, SharePartitionKey, SharePartitions};
use crate::facts::share_state_key;
use crate::limits::MAX_STATE_BATCHES_PER_SHARE_PARTITION;
use crate::{Effects, Reply, Ticket};

/// What is in force for a share group. Defaults are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharePartitionConfig {
    /// `share.partition.max.record.locks`
    pub partition_max_record_locks: i32,
    /// `share.delivery.count.limit`
    pub delivery_count_limit: i16,
    /// `share.record.lock.duration.ms`
    pub record_lock_duration_ms: i32,
    /// `share.renew.acknowledge.enable`
    pub renewals_enabled: bool,
}

impl Default for SharePartitionConfig {
    fn default() -> Self {
        Self {
            partition_max_record_locks: 2_000,
            delivery_count_limit: 5,
            record_lock_duration_ms: 30_000,
            renewals_enabled: true,
        }
    }
}

/// Where a member's fetch from a share partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchStart {
    /// Nobody has fetched yet, and no offset was set: `share.auto.offset.reset` says where to start. Ask again with that.
    Reset,
    At(i64),
    /// As much is in flight as may be.
    Full,
}

/// The log as whoever fetches sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogView {
    pub start: i64,
    pub leader_epoch: i32,
}

/// What is in flight, and the settings that were in force when somebody last asked.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) in_flight: InFlight,
    config: SharePartitionConfig,
    /// Its place among the shard's timers.
    armed_ms: Option<i64>,
}

const READ_UNINITIALIZED: &str = "Read operation on uninitialized share partition not allowed.";
const UNKNOWN_PARTITION: &str = "This server does not host this topic-partition.";
const UNREADABLE: &str = "The stored state of the share partition contradicts itself.";

impl SharePartitions {
    /// Where a member's fetch begins. `reset` is where to start if that was not decided before.
    pub fn fetch_start(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        log: LogView,
        reset: Option<i64>,
    ) -> Effects {
        let mut effects = Effects::default();
        let start = self.try_fetch_start(now_ms, &mut effects, key, config, log, reset);
        effects.reply(ticket, Reply::ShareFetchStart(start));
        effects
    }

    fn try_fetch_start(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        log: LogView,
        reset: Option<i64>,
    ) -> Result<FetchStart, Refusal> {
        let partition = self
            .partitions
            .get_mut(key)
            .ok_or((ErrorCode::UnknownServerError, READ_UNINITIALIZED))?;
        if partition.live.is_none() && !partition.open(now_ms, effects, key, config, log, reset)? {
            return Ok(FetchStart::Reset);
        }
        let Some(live) = &mut partition.live else {
            return Ok(FetchStart::Reset);
        };
        live.config = *config;
        let in_flight = &mut live.in_flight;
        let mut next = in_flight.next_fetch_offset();
        if next < log.start {
            in_flight.log_start_moved(log.start);
            next = in_flight.next_fetch_offset().max(log.start);
        }
        let has_room = in_flight.count() < i64::from(config.partition_max_record_locks);
        let start = match next == in_flight.end + 1 && !has_room {
            true => FetchStart::Full,
            false => FetchStart::At(next),
        };
        self.rearm(key);
        Ok(start)
    }

    /// Gives a member what it can of what was read.
    pub fn acquire(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        ask: &Acquire,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut acquired: Vec<AcquiredRecords> = Vec::new();
        if let Some(live) = self.live_mut(key) {
            live.config = *config;
            let start = live.in_flight.start;
            acquired = acquire::acquire(&mut live.in_flight, now_ms, config, ask);
            assert!(live.in_flight.start >= start, "the start offset does not go back");
            self.rearm(key);
        }
        effects.reply(ticket, Reply::ShareAcquire(acquired));
        effects
    }

    /// Does what a member says of records that it has acquired.
    pub fn acknowledge(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        member: &str,
        batches: &[AcknowledgementBatch],
    ) -> Effects {
        let mut effects = Effects::default();
        let done = match self.live_mut(key) {
            None => Err((ErrorCode::UnknownTopicOrPartition, UNKNOWN_PARTITION)),
            Some(live) => {
                live.config = *config;
                acknowledge::acknowledge(&mut live.in_flight, now_ms, config, member, batches)
            }
        };
        let done = done.and_then(|changes| self.changed(now_ms, &mut effects, key, &changes));
        effects.reply(ticket, Reply::ShareAcknowledge(done));
        effects
    }

    /// Gives back everything that a member has acquired in some of its group's share partitions.
    pub fn release_member(&mut self, now_ms: i64, keys: &[SharePartitionKey], member: &str) -> Effects {
        let mut effects = Effects::default();
        for key in keys {
            self.give_back(now_ms, &mut effects, key, |held_by, _| *held_by == *member);
        }
        effects
    }

    /// Nobody fetches from a group's share partitions any more: what is stored of them is enough.
    pub fn release_group(&mut self, now_ms: i64, group: &Str) -> Effects {
        let mut effects = Effects::default();
        for key in self.keys_of(group) {
            self.give_back(now_ms, &mut effects, &key, |_, _| true);
            self.let_go(&key);
        }
        effects
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.locks.first().map(|(until_ms, _)| *until_ms)
    }

    /// Gives back what was acquired for too long.
    pub fn tick(&mut self, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        let due: Vec<SharePartitionKey> = self
            .locks
            .iter()
            .take_while(|(until_ms, _)| *until_ms <= now_ms)
            .map(|(_, key)| key.clone())
            .collect();
        for key in due {
            self.give_back(now_ms, &mut effects, &key, |_, until_ms| until_ms <= now_ms);
        }
        effects
    }

    fn give_back(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        key: &SharePartitionKey,
        ends: impl Fn(&str, i64) -> bool,
    ) {
        let Some(live) = self.live_mut(key) else {
            return;
        };
        let limit = live.config.delivery_count_limit;
        let in_flight = &mut live.in_flight;
        let held: Vec<i64> = in_flight.batches_due(i64::MAX);
        let mut changes = Vec::new();
        for first in held {
            changes.extend(in_flight.give_back(first, limit, |lock| ends(&lock.member, lock.until_ms)));
        }
        // What does not fit a fact is in memory only, and is tried again with the next change.
        let _ = self.changed(now_ms, effects, key, &changes);
    }

    /// Stores what changed, lets go of what is done, and says that there may be something to fetch.
    fn changed(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        key: &SharePartitionKey,
        changes: &[StateBatch],
    ) -> Result<(), Refusal> {
        let mut stored = Ok(());
        if let Some(partition) = self.partitions.get_mut(key)
            && let Some(live) = &mut partition.live
            && !changes.is_empty()
        {
            let written = partition.stored.written(
                now_ms,
                live.in_flight.start,
                live.in_flight.complete_count(),
                changes,
                MAX_STATE_BATCHES_PER_SHARE_PARTITION,
            );
            match written {
                Some(state) => {
                    effects.put(share_state_key(key), state.encode());
                    partition.stored = state;
                }
                None => stored = Err((ErrorCode::UnknownServerError, "There are too many state batches.")),
            }
            live.in_flight.move_start();
            self.woken.insert(key.clone());
        }
        self.rearm(key);
        stored
    }

    fn live_mut(&mut self, key: &SharePartitionKey) -> Option<&mut Live> {
        self.partitions.get_mut(key)?.live.as_mut()
    }

    fn keys_of(&self, group: &Str) -> Vec<SharePartitionKey> {
        let first = SharePartitionKey {
            group: group.clone(),
            topic_id: milena_protocol::Uuid::ZERO,
            partition: i32::MIN,
        };
        self.partitions
            .range(first..)
            .take_while(|(key, _)| key.group == *group)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// What is in flight of a share partition counts no more.
    pub(super) fn let_go(&mut self, key: &SharePartitionKey) {
        if let Some(partition) = self.partitions.get_mut(key)
            && let Some(live) = partition.live.take()
            && let Some(armed_ms) = live.armed_ms
        {
            self.locks.remove(&(armed_ms, key.clone()));
        }
        self.woken.insert(key.clone());
    }

    /// Keeps a share partition's place among the timers.
    fn rearm(&mut self, key: &SharePartitionKey) {
        let Some(live) = self.partitions.get_mut(key).and_then(|one| one.live.as_mut()) else {
            return;
        };
        let next_ms = live.in_flight.next_lock_ms();
        if next_ms == live.armed_ms {
            return;
        }
        if let Some(armed_ms) = std::mem::replace(&mut live.armed_ms, next_ms) {
            self.locks.remove(&(armed_ms, key.clone()));
        }
        if let Some(next_ms) = next_ms {
            self.locks.insert((next_ms, key.clone()));
        }
    }

    /// The share partitions of which there may be more to fetch since this was last asked.
    pub fn take_woken(&mut self) -> BTreeSet<SharePartitionKey> {
        std::mem::take(&mut self.woken)
    }

    /// The start offset, once it is decided. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn start_offset(&self, key: &SharePartitionKey) -> Option<i64> {
        let partition = self.partitions.get(key)?;
        Some(match &partition.live {
            Some(live) => live.in_flight.start,
            None => partition.stored.start_offset,
        })
    }

    /// Panics if something that must hold between steps does not. For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let mut locks = BTreeSet::new();
        for (key, partition) in &self.partitions {
            let Some(live) = &partition.live else {
                continue;
            };
            live.in_flight.check_invariants();
            assert_eq!(live.armed_ms, live.in_flight.next_lock_ms(), "every lock ends");
            locks.extend(live.armed_ms.map(|armed_ms| (armed_ms, key.clone())));
        }
        assert_eq!(locks, self.locks, "every lock has its place");
    }
}

impl SharePartition {
    /// Reads what is stored; `false` if it does not say where to start and `reset` does not either.
    fn open(
        &mut self,
        now_ms: i64,
        effects: &mut Effects,
        key: &SharePartitionKey,
        config: &SharePartitionConfig,
        log: LogView,
        reset: Option<i64>,
    ) -> Result<bool, Refusal> {
        let start = match (self.stored.start_offset, reset) {
            (NO_START_OFFSET, None) => return Ok(false),
            (NO_START_OFFSET, Some(reset)) => reset,
            (start, _) => start,
        };
        let in_flight =
            InFlight::load(start, &self.stored.batches).ok_or((ErrorCode::UnknownServerError, UNREADABLE))?;
        if log.leader_epoch != NO_EPOCH && log.leader_epoch > self.stored.highest_leader_epoch {
            self.stored = self.stored.with_leader_epoch(now_ms, log.leader_epoch);
            effects.put(share_state_key(key), self.stored.encode());
        }
        self.live = Some(Live {
            in_flight,
            config: *config,
            armed_ms: None,
        });
        Ok(true)
    }
}
