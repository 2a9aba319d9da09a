//! Coordination as pure state machines: groups of several types with their committed offsets, what share groups have of
//! partitions, and transactions.
//!
//! [`Groups`] holds one shard of groups, [`SharePartitions`] one of share partitions, [`Transactions`] one of
//! transactional ids (see there). They do no I/O, read no clock and have no threads: whoever drives one gives it a request
//! and the time, and gets [`Effects`] back: the facts that changed, and the replies that may be sent once those facts are
//! stored.
//!
//! What it promises
//! - Kafka's behaviour for JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch,
//!   OffsetDelete, DescribeGroups, ListGroups and DeleteGroups of classic groups: KIP-62 (rebalance
//!   timeout), KIP-134 (initial rebalance delay), KIP-211 (offset expiry), KIP-345 (static
//!   membership), KIP-389 (group size), KIP-394 (member id required), KIP-429 (nothing to do: the
//!   protocol is opaque to the coordinator), KIP-496 (OffsetDelete), KIP-800 (reasons).
//! - The same for the groups whose assignment the broker computes: consumer groups (KIP-848), share groups
//!   (KIP-932) and streams groups (KIP-1071).
//! - Every [`Ticket`] that is given to it is answered exactly once, at the latest when
//!   [`Groups::unload`] is called.
//! - What is loaded from the facts is what was decided: members, generation and assignment survive
//!   a restart, so members go on without a rebalance.
//! - Everything that a peer's input can make grow has a limit in [`limits`].
//!
//! What it leaves to others
//! - Authorisation, the existence of topics, and the translation of topic ids to names: the
//!   broker's handlers.
//! - Storing the facts, *before* the replies of the same [`Effects`] go out and in the order in
//!   which the effects were given. When storing fails, the state in memory is ahead of what is
//!   stored: the driver drops the shard and loads it again.

mod classic;
mod consumer;
mod effects;
mod facts;
mod group;
mod groups;
mod modern;
mod offsets;
mod share;
mod share_partitions;
mod step;
mod streams;
mod subscription;
mod timers;
mod topics;
mod transactions;

pub mod limits;

pub use consumer::{Assignor, ConsumerGroupConfig};
pub use effects::{Effects, EndTransaction, FactChange, Reply, Ticket};
pub use facts::LoadError;
pub use groups::Groups;
pub use share::{SHARE_ASSIGNOR, ShareGroupConfig};
pub use share_partitions::{
    AcknowledgementBatch, Acquire, AcquiredRecords, FetchStart, LogBatch, LogView, RecordState, Refusal,
    SharePartitionConfig, SharePartitionKey, SharePartitions, StateBatch,
};
pub use streams::StreamsGroupConfig;
pub use topics::{TopicImage, TopicInfo};
pub use transactions::{
    AddPartitions, TransactionConfig, TransactionFilter, TransactionState, Transactions, whole_match,
};

use milena_protocol::Str;

/// The broker's settings that groups follow. Defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`; above [`limits::MAX_MEMBERS_PER_GROUP`] that limit holds.
    pub max_group_size: i32,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`, in milliseconds
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// What consumer groups have that were given no configs of their own.
    pub consumer: ConsumerGroupConfig,
    /// The same for streams groups.
    pub streams: StreamsGroupConfig,
    /// What share groups have that were given no configs of their own.
    pub share: ShareGroupConfig,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_group_size: i32::MAX,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_retention_check_interval_ms: 600_000,
            consumer: ConsumerGroupConfig::default(),
            streams: StreamsGroupConfig::default(),
            share: ShareGroupConfig::default(),
        }
    }
}

/// Who sent a JoinGroup, as DescribeGroups will tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub client_id: Str,
    /// In the form of Java's `InetAddress.toString()`: `/127.0.0.1`.
    pub client_host: Str,
}
