//! The limits that bound what peers can make a shard of groups hold.

/// How long the JoinGroup of a member that is new to the group may wait (Kafka's constant). The
/// session timeout cannot serve: such a member cannot send heartbeats yet.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// Groups that one shard holds. When it is full, requests that would create a group are answered
/// with COORDINATOR_NOT_AVAILABLE, on which clients retry: groups expire.
pub const MAX_GROUPS_PER_SHARD: usize = 250_000;

/// Transactional ids that one shard holds. When it is full, a new one is answered with
/// COORDINATOR_NOT_AVAILABLE, on which clients retry: ids expire.
pub const MAX_TRANSACTIONAL_IDS_PER_SHARD: usize = 250_000;

/// Partitions of one transaction.
pub const MAX_PARTITIONS_PER_TRANSACTION: usize = 100_000;

/// Producers whose offsets wait in one group for their transaction's end. Beyond it, those of another are
/// answered with COORDINATOR_NOT_AVAILABLE.
pub const MAX_PENDING_PRODUCERS_PER_GROUP: usize = 10_000;

/// Members of one group, whatever `group.max.size` says.
pub const MAX_MEMBERS_PER_GROUP: usize = 100_000;

/// Members of one group that were given an id (KIP-394) and have not joined with it yet. Beyond
/// it, the oldest is forgotten: its client is told UNKNOWN_MEMBER_ID and starts afresh.
pub const MAX_PENDING_MEMBERS_PER_GROUP: usize = 10_000;

/// Bytes that the names and metadata of one member's protocols, or the names of its topics, may take. Kafka's own limit is
/// that the whole group fits one record of `__consumer_offsets`, 1 MiB by default.
pub const MAX_MEMBER_PROTOCOLS_BYTES: usize = 1 << 20;

/// The shortest wait before a rebalance that nobody joined is tried again, so that a member with
/// a rebalance timeout of zero cannot keep the coordinator busy.
pub const MIN_REBALANCE_RETRY_MS: i64 = 1_000;

/// Bytes that the protocols of all members of a group may take, and that the assignments of one
/// generation may take. New members beyond it are refused with GROUP_MAX_SIZE_REACHED; a leader's
/// assignment beyond it ends the generation with UNKNOWN_SERVER_ERROR (as in Kafka, when the
/// group does not fit a record).
pub const MAX_GROUP_METADATA_BYTES: usize = 64 << 20;

/// Bytes of any name that a peer chooses and a group keeps: the longest string that the formats
/// of stored values hold. Compact strings of newer request versions could be longer.
pub const MAX_NAME_BYTES: usize = i16::MAX as usize;

/// Bytes of the client id or instance id that a member id starts with.
pub const MAX_MEMBER_ID_PREFIX_BYTES: usize = 1_024;

/// Different patterns that the members of one group subscribe by. Beyond it, members with a new one are refused with
/// GROUP_MAX_SIZE_REACHED.
pub const MAX_PATTERNS_PER_GROUP: usize = 256;

/// Bytes of a pattern that a member subscribes by.
pub const MAX_PATTERN_BYTES: usize = 16 << 10;

/// Bytes of the topology that a member of a streams group brings. Kafka's own limit is that it fits one record of
/// `__consumer_offsets`.
pub const MAX_TOPOLOGY_BYTES: usize = 1 << 20;

/// Tasks of one streams group. Beyond it, its topology is refused with STREAMS_INVALID_TOPOLOGY.
pub const MAX_TASKS_PER_GROUP: i64 = 1 << 20;
/// Share partitions that one shard holds. When it is full, a new one is answered with COORDINATOR_NOT_AVAILABLE.
pub const MAX_SHARE_PARTITIONS_PER_SHARD: usize = 250_000;

/// State batches that are stored of one share partition. Kafka's own limit is that they fit one record.
pub const MAX_STATE_BATCHES_PER_SHARE_PARTITION: usize = 100_000;
