//! What a step of the state machine asks of its driver: facts to store, replies to send.

use bytes::Bytes;
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::{
    AlterShareGroupOffsetsResponse, ConsumerGroupHeartbeatResponse, DeleteShareGroupOffsetsResponse,
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, EndTxnResponse, HeartbeatResponse,
    InitProducerIdResponse, InitializeShareGroupStateRequest, InitializeShareGroupStateResponse,
    JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse, OffsetDeleteResponse,
    ReadShareGroupStateResponse, ReadShareGroupStateSummaryResponse, ShareGroupHeartbeatResponse,
    StreamsGroupHeartbeatResponse, SyncGroupResponse, TxnOffsetCommitResponse, WriteShareGroupStateResponse,
};
use milena_protocol::{ErrorCode, Str};

use crate::share_partitions::{AcquiredRecords, FetchStart, Refusal};

/// Names a request that waits for its reply. The driver chooses the numbers; each is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One fact's new value; `None` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactChange {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    /// With the internal topics that are to be created for it.
    StreamsGroupHeartbeat(Box<StreamsGroupHeartbeatResponse>, Vec<CreatableTopic>),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetDelete(OffsetDeleteResponse),
    TxnOffsetCommit(TxnOffsetCommitResponse),
    DeleteGroup(ErrorCode),
    /// With the states that are to be initialized; what came of it is told by
    /// [`crate::Groups::share_states_initialized`] or [`crate::Groups::share_states_not_initialized`].
    ShareGroupHeartbeat(
        ShareGroupHeartbeatResponse,
        Option<Box<InitializeShareGroupStateRequest>>,
    ),
    /// What to answer when the states are initialized, as above.
    AlterShareGroupOffsets(
        AlterShareGroupOffsetsResponse,
        Option<Box<InitializeShareGroupStateRequest>>,
    ),
    /// What to answer besides the topics whose states are to be removed; see [`crate::Groups::share_states_deleted`].
    DeleteShareGroupOffsets(
        DeleteShareGroupOffsetsResponse,
        Option<Box<DeleteShareGroupStateRequest>>,
    ),
    /// The group can be deleted when its states are removed; see [`crate::Groups::delete_share_group`].
    DeleteShareGroup(Box<DeleteShareGroupStateRequest>),
    InitProducerId(InitProducerIdResponse),
    /// One for each partition, in the order of the request.
    AddPartitions(Vec<ErrorCode>),
    EndTxn(EndTxnResponse),
    InitializeShareGroupState(InitializeShareGroupStateResponse),
    ReadShareGroupState(ReadShareGroupStateResponse),
    WriteShareGroupState(WriteShareGroupStateResponse),
    DeleteShareGroupState(DeleteShareGroupStateResponse),
    ReadShareGroupStateSummary(ReadShareGroupStateSummaryResponse),
    ShareFetchStart(Result<FetchStart, Refusal>),
    ShareAcquire(Vec<AcquiredRecords>),
    ShareAcknowledge(Result<(), Refusal>),
}

/// A transaction whose end is decided, to be ended in everything that takes part: markers in the
/// partitions, and the offsets of groups where `__consumer_offsets` is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTransaction {
    pub transactional_id: Str,
    pub producer_id: i64,
    /// The epoch of the markers.
    pub producer_epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub transaction_version: i16,
    pub partitions: Vec<(Str, i32)>,
}

/// The outcome of one step. The facts are to be stored, as one atomic batch, before any of the
/// replies is sent and any of the tasks is begun; the effects of several steps are to be stored in the order of the steps.
#[must_use]
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Effects {
    pub facts: Vec<FactChange>,
    pub replies: Vec<(Ticket, Reply)>,
    pub tasks: Vec<EndTransaction>,
}

impl Effects {
    pub(crate) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }

    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) {
        self.facts.push(FactChange {
            key,
            value: Some(value),
        });
    }

    pub(crate) fn remove(&mut self, key: Bytes) {
        self.facts.push(FactChange { key, value: None });
    }
}
