//! From a frame to its handler and back to bytes: header, version check, body, handler, answer.
//!
//! What cannot be understood (an unknown or unimplemented API, a version outside the range, a body
//! that does not decode) closes the connection with one log line, as in Kafka; ApiVersions alone
//! is answered in any version, because it is how a client finds out what it may ask (KIP-511).

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Context, Poll};

use bytes::Bytes;
use milena_protocol::frame;
use milena_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddRaftVoterRequest, AlterClientQuotasRequest,
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest,
    AlterShareGroupOffsetsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
    DeleteRecordsRequest, DeleteShareGroupOffsetsRequest, DeleteShareGroupStateRequest, DeleteTopicsRequest,
    DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
    DescribeShareGroupOffsetsRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, GetTelemetrySubscriptionsRequest, HeartbeatRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, InitializeShareGroupStateRequest,
    JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    PushTelemetryRequest, ReadShareGroupStateRequest, ReadShareGroupStateSummaryRequest,
    RemoveRaftVoterRequest, ShareAcknowledgeRequest, ShareFetchRequest, ShareGroupDescribeRequest,
    ShareGroupHeartbeatRequest, StreamsGroupDescribeRequest, StreamsGroupHeartbeatRequest, SyncGroupRequest,
    TxnOffsetCommitRequest, UnregisterBrokerRequest, UpdateFeaturesRequest, WriteShareGroupStateRequest,
    WriteTxnMarkersRequest,
};
use milena_protocol::{ApiKey, Chunk, Message, Reader, Request, Str};
use tracing::debug;

use crate::broker::Broker;
use crate::context::{ConnectionInfo, RequestContext};
use crate::handlers;
use crate::loggers::REQUEST_TARGET;
use crate::outcome::{BoxFuture, Outcome};
use crate::quotas::throttle;

/// One answer in chunks, ready for the socket.
pub(crate) type Frames = Vec<Chunk>;

/// An [`Outcome`] whose answer is encoded.
pub(crate) enum Reply {
    Now(Frames),
    /// `Err` is why the connection has to be closed.
    Later(BoxFuture<Result<Frames, String>>),
    Nothing,
    Close(String),
}

impl Reply {
    /// Takes the answer that is waited for, if it is there. Pending only as long as it is not.
    pub(crate) fn settle(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if let Self::Later(answer) = self {
            *self = task::ready!(answer.as_mut().poll(task)).map_or_else(Self::Close, Self::Now);
        }
        Poll::Ready(())
    }
}

impl<R> From<R> for Outcome<R> {
    fn from(response: R) -> Self {
        Self::Now(response)
    }
}

/// The table from APIs to their handlers, in the order of keys. A handler takes the decoded request
/// and gives the response or an [`Outcome`] of it.
macro_rules! apis {
    ($($api:ident: $request:ident => handlers::$handler:ident,)*) => {
        /// Every API that is implemented: what ApiVersions tells.
        pub(crate) const ADVERTISED: &[ApiKey] = &[$(ApiKey::$api),*];

        /// Decodes the body, calls the handler and encodes what it answers.
        fn answer<'a>(broker: &'a Arc<Broker>, context: &'a RequestContext, body: Reader) -> Answering<'a> {
            match context.api_key {
                $(ApiKey::$api => match decode_body::<$request>(context, body) {
                    Ok(request) => Box::pin(async move {
                        let handling = pin!(handlers::$handler::handle(broker, context, request));
                        carry_out::<<$request as Request>::Response, _>(broker, context, handling).await
                    }),
                    Err(why) => Box::pin(ready(Reply::Close(why))),
                },)*
                other => Box::pin(ready(Reply::Close(format!("{} is not implemented", other.name())))),
            }
        }
    };
}

/// Of the size of its API: one type for all would take from each request what the largest needs.
type Answering<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

async fn carry_out<R: Message + Send + 'static, O: Into<Outcome<R>>>(
    broker: &Arc<Broker>,
    context: &RequestContext,
    handling: Pin<&mut impl Future<Output = O>>,
) -> Reply {
    let outcome = if broker.quotas.is_active() {
        let (outcome, worked) = throttle::timed(handling).await;
        throttle::apply(broker, context, outcome.into(), worked)
    } else {
        handling.await.into()
    };
    encode_outcome(context, outcome)
}

apis! {
    Produce: ProduceRequest => handlers::produce,
    Fetch: FetchRequest => handlers::fetch,
    ListOffsets: ListOffsetsRequest => handlers::list_offsets,
    Metadata: MetadataRequest => handlers::metadata,
    OffsetCommit: OffsetCommitRequest => handlers::offset_commit,
    OffsetFetch: OffsetFetchRequest => handlers::offset_fetch,
    FindCoordinator: FindCoordinatorRequest => handlers::find_coordinator,
    JoinGroup: JoinGroupRequest => handlers::join_group,
    Heartbeat: HeartbeatRequest => handlers::heartbeat,
    LeaveGroup: LeaveGroupRequest => handlers::leave_group,
    SyncGroup: SyncGroupRequest => handlers::sync_group,
    DescribeGroups: DescribeGroupsRequest => handlers::describe_groups,
    ListGroups: ListGroupsRequest => handlers::list_groups,
    ApiVersions: ApiVersionsRequest => handlers::api_versions,
    CreateTopics: CreateTopicsRequest => handlers::create_topics,
    DeleteTopics: DeleteTopicsRequest => handlers::delete_topics,
    DeleteRecords: DeleteRecordsRequest => handlers::delete_records,
    InitProducerId: InitProducerIdRequest => handlers::init_producer_id,
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => handlers::offset_for_leader_epoch,
    AddPartitionsToTxn: AddPartitionsToTxnRequest => handlers::add_partitions_to_txn,
    AddOffsetsToTxn: AddOffsetsToTxnRequest => handlers::add_offsets_to_txn,
    EndTxn: EndTxnRequest => handlers::end_txn,
    WriteTxnMarkers: WriteTxnMarkersRequest => handlers::write_txn_markers,
    TxnOffsetCommit: TxnOffsetCommitRequest => handlers::txn_offset_commit,
    DescribeConfigs: DescribeConfigsRequest => handlers::describe_configs,
    AlterConfigs: AlterConfigsRequest => handlers::alter_configs,
    AlterReplicaLogDirs: AlterReplicaLogDirsRequest => handlers::alter_replica_log_dirs,
    DescribeLogDirs: DescribeLogDirsRequest => handlers::describe_log_dirs,
    CreatePartitions: CreatePartitionsRequest => handlers::create_partitions,
    DeleteGroups: DeleteGroupsRequest => handlers::delete_groups,
    ElectLeaders: ElectLeadersRequest => handlers::elect_leaders,
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest => handlers::incremental_alter_configs,
    AlterPartitionReassignments: AlterPartitionReassignmentsRequest => handlers::alter_partition_reassignments,
    ListPartitionReassignments: ListPartitionReassignmentsRequest => handlers::list_partition_reassignments,
    OffsetDelete: OffsetDeleteRequest => handlers::offset_delete,
    DescribeClientQuotas: DescribeClientQuotasRequest => handlers::describe_client_quotas,
    AlterClientQuotas: AlterClientQuotasRequest => handlers::alter_client_quotas,
    DescribeUserScramCredentials: DescribeUserScramCredentialsRequest => handlers::describe_user_scram_credentials,
    DescribeQuorum: DescribeQuorumRequest => handlers::describe_quorum,
    UpdateFeatures: UpdateFeaturesRequest => handlers::update_features,
    DescribeCluster: DescribeClusterRequest => handlers::describe_cluster,
    DescribeProducers: DescribeProducersRequest => handlers::describe_producers,
    UnregisterBroker: UnregisterBrokerRequest => handlers::unregister_broker,
    DescribeTransactions: DescribeTransactionsRequest => handlers::describe_transactions,
    ListTransactions: ListTransactionsRequest => handlers::list_transactions,
    ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest => handlers::consumer_group_heartbeat,
    ConsumerGroupDescribe: ConsumerGroupDescribeRequest => handlers::consumer_group_describe,
    GetTelemetrySubscriptions: GetTelemetrySubscriptionsRequest => handlers::get_telemetry_subscriptions,
    PushTelemetry: PushTelemetryRequest => handlers::push_telemetry,
    ListConfigResources: ListConfigResourcesRequest => handlers::list_config_resources,
    DescribeTopicPartitions: DescribeTopicPartitionsRequest => handlers::describe_topic_partitions,
    ShareGroupHeartbeat: ShareGroupHeartbeatRequest => handlers::share_group_heartbeat,
    ShareGroupDescribe: ShareGroupDescribeRequest => handlers::share_group_describe,
    ShareFetch: ShareFetchRequest => handlers::share_fetch,
    ShareAcknowledge: ShareAcknowledgeRequest => handlers::share_acknowledge,
    AddRaftVoter: AddRaftVoterRequest => handlers::add_raft_voter,
    RemoveRaftVoter: RemoveRaftVoterRequest => handlers::remove_raft_voter,
    InitializeShareGroupState: InitializeShareGroupStateRequest => handlers::initialize_share_group_state,
    ReadShareGroupState: ReadShareGroupStateRequest => handlers::read_share_group_state,
    WriteShareGroupState: WriteShareGroupStateRequest => handlers::write_share_group_state,
    DeleteShareGroupState: DeleteShareGroupStateRequest => handlers::delete_share_group_state,
    ReadShareGroupStateSummary: ReadShareGroupStateSummaryRequest => handlers::read_share_group_state_summary,
    StreamsGroupHeartbeat: StreamsGroupHeartbeatRequest => handlers::streams_group_heartbeat,
    StreamsGroupDescribe: StreamsGroupDescribeRequest => handlers::streams_group_describe,
    DescribeShareGroupOffsets: DescribeShareGroupOffsetsRequest => handlers::describe_share_group_offsets,
    AlterShareGroupOffsets: AlterShareGroupOffsetsRequest => handlers::alter_share_group_offsets,
    DeleteShareGroupOffsets: DeleteShareGroupOffsetsRequest => handlers::delete_share_group_offsets,
}

/// Handles one frame (without its length prefix).
pub(crate) async fn dispatch(broker: &Arc<Broker>, connection: &Arc<ConnectionInfo>, frame: Bytes) -> Reply {
    let request_bytes = frame.len();
    let mut body = Reader::new(frame);
    let context = match decode_context(connection, &mut body, request_bytes) {
        Ok(context) => context,
        Err(Undecodable::ApiVersions { correlation_id }) => {
            return match frame::encode_response(
                ApiKey::ApiVersions,
                0,
                correlation_id,
                &handlers::api_versions::unsupported_version(),
            ) {
                Ok(frames) => Reply::Now(frames),
                Err(error) => Reply::Close(error.to_string()),
            };
        }
        Err(Undecodable::Close(why)) => return Reply::Close(why),
    };
    debug!(
        target: REQUEST_TARGET,
        "{} version {} of client {:?} at {} on {}, correlation id {}",
        context.api_key.name(),
        context.api_version,
        context.client_id.as_deref().unwrap_or_default(),
        connection.peer,
        connection.listener,
        context.correlation_id
    );
    answer(broker, &context, body).await
}

enum Undecodable {
    /// ApiVersions in a version that this broker does not know: answered in the form of version 0.
    ApiVersions {
        correlation_id: i32,
    },
    Close(String),
}

fn decode_context(
    connection: &Arc<ConnectionInfo>,
    body: &mut Reader,
    request_bytes: usize,
) -> Result<RequestContext, Undecodable> {
    let frame = body.clone().into_rest();
    let start = frame::peek_request(&frame)
        .map_err(|error| Undecodable::Close(format!("bad request header: {error}")))?;
    let Some(api_key) = ApiKey::from_code(start.api_key) else {
        return Err(Undecodable::Close(format!("unknown API key {}", start.api_key)));
    };
    if !ADVERTISED.contains(&api_key) {
        return Err(Undecodable::Close(format!(
            "{} is not implemented",
            api_key.name()
        )));
    }
    if !api_key.stable_versions().contains(&start.api_version) {
        if api_key == ApiKey::ApiVersions {
            return Err(Undecodable::ApiVersions {
                correlation_id: start.correlation_id,
            });
        }
        return Err(Undecodable::Close(format!(
            "{} version {} is outside {:?}",
            api_key.name(),
            start.api_version,
            api_key.stable_versions()
        )));
    }
    let header = frame::decode_request_header(body, api_key, start.api_version)
        .map_err(|error| Undecodable::Close(format!("bad header of {}: {error}", api_key.name())))?;
    Ok(RequestContext {
        connection: Arc::clone(connection),
        api_key,
        api_version: start.api_version,
        correlation_id: header.correlation_id,
        // A request that waits for long must not keep its buffer.
        client_id: header.client_id.as_ref().map(Str::detached),
        request_bytes,
    })
}

fn decode_body<Q: Request>(context: &RequestContext, mut body: Reader) -> Result<Q, String> {
    Q::decode(&mut body, context.api_version).map_err(|error| {
        format!(
            "bad {} version {}: {error}",
            context.api_key.name(),
            context.api_version
        )
    })
}

fn encode<R: Message>(context: &RequestContext, response: &R) -> Result<Frames, String> {
    frame::encode_response(
        context.api_key,
        context.api_version,
        context.correlation_id,
        response,
    )
    .map_err(|error| {
        format!(
            "cannot answer {} version {}: {error}",
            context.api_key.name(),
            context.api_version
        )
    })
}

fn encode_outcome<R: Message + Send + 'static>(context: &RequestContext, outcome: Outcome<R>) -> Reply {
    match outcome {
        Outcome::Now(response) => match encode(context, &response) {
            Ok(frames) => Reply::Now(frames),
            Err(why) => Reply::Close(why),
        },
        Outcome::Later(answer) => {
            let context = context.clone();
            Reply::Later(Box::pin(async move { encode(&context, &answer.await) }))
        }
        Outcome::Nothing => Reply::Nothing,
        Outcome::Close(why) => Reply::Close(why),
    }
}
