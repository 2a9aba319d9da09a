//! Fetch (API 1), versions 4 to 18: record batches of partitions from given offsets on; waits for
//! data as long as the consumer allows.
//!
//! Versions: 7 incremental sessions (KIP-227), 9 leader epoch fencing (KIP-320), 10 zstd, 11 rack
//! (KIP-392), 12 flexible, with the last fetched epoch and diverging epochs (KIP-595), 13 topics
//! by id (KIP-516), 15 replica state (KIP-903), 16 the leader's address in errors (KIP-951), 17
//! and 18 for replicas only.
//!
//! Rules: the first batch found is given whole, however large (KIP-74); after it, as much as the
//! partition's and the request's `max_bytes` and `fetch.max.bytes` allow, the last batch cut where
//! that ends, and the client throws that part away. A fetch from the middle of a batch gives the
//! whole batch, and the client skips. An error of any partition ends the wait.
//!
//! Differences from Kafka, and why:
//! - A request with a `replica_id` is not from a replica, as this broker has none: its partitions
//!   are answered with NOT_LEADER_OR_FOLLOWER (UNKNOWN_LEADER_EPOCH when it names an epoch), as
//!   Kafka answers replicas that are not in the assignment. It reads nothing and moves nothing
//!   (CVE-2018-1288). Kafka's debugging replica (-2) reads as a consumer, not beyond the high
//!   watermark.

use std::sync::Arc;

use milena_log::ReadBound;
use milena_protocol::messages::fetch_request::FetchRequest;
use milena_protocol::messages::fetch_response::{
    FetchResponse, FetchableTopicResponse, NodeEndpoint, PartitionData,
};
use milena_protocol::{Chunk, ErrorCode, Str, Uuid};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;
use crate::partitions::Partition;
use crate::sessions::{FetchContext, PartitionKey, SessionAnswer, SessionRequest, TopicKey, Wanted};

mod read;

use read::{Limits, Reading, Waiting};

/// The first version that names topics by id.
const TOPIC_IDS_VERSION: i16 = 13;
/// The first version that tells the address of the leader with an error.
const NODE_ENDPOINTS_VERSION: i16 = 16;
/// The first version whose clients know KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_VERSION: i16 = 6;
/// The first version whose clients can read zstd.
const ZSTD_VERSION: i16 = 10;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: FetchRequest,
) -> Outcome<FetchResponse> {
    let session_request = SessionRequest {
        session_id: request.session_id,
        epoch: request.session_epoch,
        uses_topic_ids: context.api_version >= TOPIC_IDS_VERSION,
        now_ms: broker.clock.now_ms(),
    };
    let (partitions, forgotten) = named_partitions(&request, session_request.uses_topic_ids);
    let session = match broker.sessions.open(session_request, partitions, &forgotten) {
        Ok(session) => session,
        Err(error) => {
            return Outcome::Now(FetchResponse {
                error_code: error.code(),
                ..FetchResponse::default()
            });
        }
    };
    let (reading, erroneous) = resolve(broker, &request, &session);
    let answer = Answer {
        broker: Arc::clone(broker),
        context: context.clone(),
        session,
        erroneous,
    };
    let limits = limits(broker, context, &request);
    let mut waiting = Waiting::new(reading, limits);
    waiting.read_all().await;
    if waiting.is_complete() || request.max_wait_ms <= 0 || broker.stop.is_stopping() {
        return Outcome::Now(answer.finish(waiting));
    }
    let stopped = broker.stop.stopped();
    let max_wait = std::time::Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    Outcome::Later(Box::pin(async move {
        waiting.wait(max_wait, stopped).await;
        answer.finish(waiting)
    }))
}

fn limits(broker: &Broker, context: &RequestContext, request: &FetchRequest) -> Limits {
    let mut max_bytes = request.max_bytes.min(broker.config.fetch_max_bytes).max(0);
    if let Some(quota_bytes) = broker.quotas.max_fetch_bytes(context) {
        max_bytes = max_bytes.min(i32::try_from(quota_bytes).unwrap_or(i32::MAX));
    }
    Limits {
        bound: if request.isolation_level == 1 {
            ReadBound::LastStable
        } else {
            ReadBound::HighWatermark
        },
        max_bytes: usize::try_from(max_bytes).unwrap_or(0),
        min_bytes: usize::try_from(request.min_bytes.min(max_bytes)).unwrap_or(0),
    }
}

/// The partitions that a request names, and those it forgets. A fetch may wait for long, so names are
/// copies that do not keep the request's buffer.
fn named_partitions(request: &FetchRequest, by_id: bool) -> (Vec<(PartitionKey, Wanted)>, Vec<PartitionKey>) {
    let topic_key = |name: &Str, id: Uuid| {
        if by_id {
            TopicKey::Id(id)
        } else {
            TopicKey::Name(name.detached())
        }
    };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = PartitionKey {
                topic: topic_key(&topic.topic, topic.topic_id),
                partition: partition.partition,
            };
            let wanted = Wanted {
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            };
            partitions.push((key, wanted));
        }
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = topic_key(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|index| PartitionKey {
            topic: key.clone(),
            partition: *index,
        }));
    }
    (partitions, forgotten)
}

/// Finds the partitions of a fetch; those that cannot be read are answered at once, after the
/// others.
fn resolve(
    broker: &Broker,
    request: &FetchRequest,
    session: &FetchContext,
) -> (Vec<Reading>, Vec<(PartitionKey, PartitionData)>) {
    let replica_id = if request.replica_state.replica_id >= 0 {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    let mut reading = Vec::with_capacity(session.partitions.len());
    let mut erroneous = Vec::new();
    // Partitions of a topic mostly follow each other: look each topic up once.
    let mut latest: Option<(&TopicKey, Option<Arc<crate::topics::Topic>>)> = None;
    for (key, wanted) in &session.partitions {
        if latest.as_ref().is_none_or(|(topic, _)| **topic != key.topic) {
            let topic = match &key.topic {
                TopicKey::Name(name) => broker.topics.get(name),
                TopicKey::Id(id) => broker.topics.get_by_id(id),
            };
            latest = Some((&key.topic, topic));
        }
        let topic = latest.as_ref().and_then(|(_, topic)| topic.as_ref());
        let found = match (topic, &key.topic) {
            (None, TopicKey::Id(_)) => Err(ErrorCode::UnknownTopicId),
            (None, TopicKey::Name(_)) => Err(ErrorCode::UnknownTopicOrPartition),
            (Some(topic), _) => topic
                .partition(key.partition)
                .ok_or(ErrorCode::UnknownTopicOrPartition),
        };
        match found {
            Err(error) => {
                let unknown = PartitionData {
                    aborted_transactions: Some(Vec::new()),
                    ..failed(key.partition, error)
                };
                erroneous.push((key.clone(), unknown));
            }
            Ok(partition) if replica_id >= 0 => {
                erroneous.push((
                    key.clone(),
                    failed(key.partition, not_a_replica(partition, wanted)),
                ));
            }
            Ok(partition) => reading.push(Reading::new(key.clone(), Arc::clone(partition), *wanted)),
        }
    }
    (reading, erroneous)
}

fn not_a_replica(partition: &Partition, wanted: &Wanted) -> ErrorCode {
    match partition.check_leader_epoch(wanted.current_leader_epoch) {
        Err(error) => error,
        Ok(()) if wanted.current_leader_epoch >= 0 => ErrorCode::UnknownLeaderEpoch,
        Ok(()) => ErrorCode::NotLeaderOrFollower,
    }
}

/// The answer for a partition of which nothing was read.
fn failed(partition: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code: error.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: None,
        records: Some(Chunk::default()),
        ..PartitionData::default()
    }
}

/// What is needed to make a response of what was read.
struct Answer {
    broker: Arc<Broker>,
    context: RequestContext,
    session: FetchContext,
    erroneous: Vec<(PartitionKey, PartitionData)>,
}

impl Answer {
    fn finish(self, waiting: Waiting) -> FetchResponse {
        let throttle_time_ms =
            self.broker
                .quotas
                .fetched(&self.context, waiting.held_bytes(), self.broker.clock.now_ms());
        if throttle_time_ms > 0 {
            let (error, session_id) = self.broker.sessions.close_unanswered(self.session);
            return FetchResponse {
                throttle_time_ms,
                error_code: error.code(),
                session_id,
                ..FetchResponse::default()
            };
        }
        let mut answers = Vec::with_capacity(self.session.partitions.len());
        let mut leader_is_told = false;
        for (key, partition, mut data) in waiting.into_answers() {
            self.adapt(&partition, &mut data);
            if self.context.api_version >= NODE_ENDPOINTS_VERSION && tells_leader(data.error_code) {
                data.current_leader.leader_id = self.broker.config.node_id;
                data.current_leader.leader_epoch = partition.leader_epoch();
                leader_is_told = true;
            }
            answers.push((key, data));
        }
        answers.extend(self.erroneous);
        let SessionAnswer {
            error,
            session_id,
            partitions,
        } = self.broker.sessions.close(self.session, answers);
        let mut response = FetchResponse {
            error_code: error.code(),
            session_id,
            responses: by_topic(partitions),
            ..FetchResponse::default()
        };
        if leader_is_told && let Some(endpoint) = self.broker.endpoint(&self.context) {
            response.node_endpoints.push(NodeEndpoint {
                node_id: self.broker.config.node_id,
                host: endpoint.host,
                port: i32::from(endpoint.port),
                rack: self.broker.config.broker_rack.clone().map(Str::from),
                ..NodeEndpoint::default()
            });
        }
        response
    }

    /// Says it in the words that a client of an old version knows.
    fn adapt(&self, partition: &Partition, data: &mut PartitionData) {
        if self.context.api_version < STORAGE_ERROR_VERSION
            && data.error_code == ErrorCode::KafkaStorageError.code()
        {
            data.error_code = ErrorCode::NotLeaderOrFollower.code();
        }
        let stores_zstd = matches!(
            partition.config().compression_type,
            milena_log::CompressionType::Zstd(_)
        );
        if self.context.api_version < ZSTD_VERSION && stores_zstd {
            *data = failed(data.partition_index, ErrorCode::UnsupportedCompressionType);
        }
    }
}

fn tells_leader(error_code: i16) -> bool {
    error_code == ErrorCode::NotLeaderOrFollower.code() || error_code == ErrorCode::FencedLeaderEpoch.code()
}

/// Puts neighbours of the same topic together, in the order given.
fn by_topic(partitions: Vec<(PartitionKey, PartitionData)>) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut latest: Option<TopicKey> = None;
    for (key, data) in partitions {
        if latest.as_ref() != Some(&key.topic) {
            let mut topic = FetchableTopicResponse::default();
            match &key.topic {
                TopicKey::Name(name) => topic.topic = name.clone(),
                TopicKey::Id(id) => topic.topic_id = *id,
            }
            latest = Some(key.topic);
            topics.push(topic);
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(data);
        }
    }
    topics
}
