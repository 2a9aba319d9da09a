//! Produce (API 0), versions 3 to 13: appends one record batch to each of some partitions.
//!
//! Versions: 3 magic 2 and transactional id (KIP-98), 5 log start offset, 7 zstd (KIP-110), 8
//! errors of single records (KIP-467), 9 flexible, 10 the leader's address in errors (KIP-951),
//! 11 and 12 transactions (KIP-890), 13 topics by id (KIP-516).
//!
//! `acks=0` is not answered, and an error closes the connection, so that the producer notices and
//! looks its metadata up again. `acks=1` is answered when the log has accepted the batch, `acks=-1`
//! when the high watermark has passed it. `min.insync.replicas` cannot fail: Kafka compares it with
//! the replicas there are, and here that is one.
//!
//! A transactional batch that opens its producer's transaction in its partition is verified with the
//! transaction coordinator first (KIP-890); from version 12 on that adds the partition to the
//! transaction. What cannot be verified now is answered with NOT_ENOUGH_REPLICAS, which clients retry,
//! as in Kafka.
//!
//! Differences from Kafka: a null batch is INVALID_RECORD, not an unknown server error. And
//! a batch that is invalid as a whole is answered with a sentence, where Kafka gives the code alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milena_log::{Append, Appended, LogError, VerificationGuard};
use milena_protocol::messages::produce_request::{ProduceRequest, TopicProduceData};
use milena_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use milena_protocol::records::{self, BatchHeader, Compression, RecordError, Validated};
use milena_protocol::{ErrorCode, Str, Uuid};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::{BoxFuture, Outcome};
use crate::partitions::Partition;
use crate::topics::Topic;
use crate::transactions::{Unverified, Verified, verify_produce};

mod record_errors;

/// The first version that names topics by id.
const TOPIC_IDS_VERSION: i16 = 13;
/// The first version in which batches may be compressed with zstd.
const ZSTD_VERSION: i16 = 7;
/// Kafka's admin client may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// The first version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 11;
/// The first version whose clients leave it to the broker to add partitions to their transaction.
const EPOCH_BUMP_VERSION: i16 = 12;

const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;
const ACKS_LEADER: i16 = 1;

/// Why a partition was refused.
struct Refusal {
    code: ErrorCode,
    message: Option<Str>,
    record_errors: Vec<BatchIndexAndErrorMessage>,
    log_start_offset: i64,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            record_errors: Vec::new(),
            log_start_offset: -1,
        }
    }
}

impl Refusal {
    fn of_log(error: &LogError, partition: &Partition) -> Self {
        let is_about_content =
            error.code() == ErrorCode::InvalidTimestamp || error.code() == ErrorCode::InvalidRecord;
        Self::of(
            error.code(),
            is_about_content.then(|| Str::from(error.to_string())),
            partition,
        )
    }

    fn of_records(error: &LogError, partition: &Partition, batch: &Validated, now_ms: i64) -> Self {
        let mut refusal = Self::of_log(error, partition);
        if let Some(explained) = record_errors::explain(error, partition, batch, now_ms) {
            refusal.message = Some(explained.message);
            refusal.record_errors = explained.records;
        }
        refusal
    }

    fn of_batch(error: &RecordError, partition: &Partition) -> Self {
        let is_about_content = error.code() == ErrorCode::InvalidRecord;
        Self::of(
            error.code(),
            is_about_content.then(|| Str::from(error.to_string())),
            partition,
        )
    }

    /// Kafka tells where the log starts with errors that it found while it looked at the records.
    fn of(code: ErrorCode, message: Option<Str>, partition: &Partition) -> Self {
        let before_records = matches!(
            code,
            ErrorCode::UnknownTopicOrPartition
                | ErrorCode::MessageTooLarge
                | ErrorCode::RecordListTooLarge
                | ErrorCode::CorruptMessage
                | ErrorCode::KafkaStorageError
        );
        let log_start_offset = if before_records {
            -1
        } else {
            partition.log().watermarks().log_start
        };
        Self {
            code,
            message,
            record_errors: Vec::new(),
            log_start_offset,
        }
    }
}

/// One partition's way through the handler.
enum Step {
    Refused(Refusal),
    Appending {
        partition: Arc<Partition>,
        /// To say which of its records were wrong, should the log refuse it.
        batch: Validated,
        now_ms: i64,
        append: BoxFuture<Result<Appended, LogError>>,
    },
}

struct TopicSteps {
    name: Str,
    topic_id: Uuid,
    partitions: Vec<(i32, Step)>,
}

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ProduceRequest,
) -> Outcome<ProduceResponse> {
    let acks = request.acks;
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let verified = verify(broker, context, &request).await;
    let topics = start_appends(broker, context, request, &verified);
    let client_id = context.client_id.clone().unwrap_or_default();
    let throttle_time_ms = broker
        .quotas
        .produced(context, context.request_bytes, broker.clock.now_ms());
    let stopped = broker.stop.stopped();
    let finish = Box::pin(async move {
        let mut responses = Vec::with_capacity(topics.len());
        let deadline = tokio::time::Instant::now() + timeout;
        let mut stopped = Box::pin(stopped);
        for topic in topics {
            let mut partition_responses = Vec::with_capacity(topic.partitions.len());
            for (index, step) in topic.partitions {
                partition_responses.push(finish_partition(index, step, acks, deadline, &mut stopped).await);
            }
            responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.topic_id,
                partition_responses,
                ..TopicProduceResponse::default()
            });
        }
        ProduceResponse {
            responses,
            throttle_time_ms,
            ..ProduceResponse::default()
        }
    });
    if acks != ACKS_NONE {
        return Outcome::Later(finish);
    }
    context.connection.mute.for_ms(throttle_time_ms);
    match first_error(&finish.await) {
        None => Outcome::Nothing,
        Some(error) => Outcome::Close(format!(
            "a produce request with acks=0 of client '{client_id}' failed: {error}"
        )),
    }
}

/// Asks the transaction coordinator about the batches that need it. Before anything is appended, so that
/// a connection's batches stay in their order.
async fn verify(broker: &Arc<Broker>, context: &RequestContext, request: &ProduceRequest) -> Verified {
    let Some(transactional_id) = &request.transactional_id else {
        return Verified::new();
    };
    let mut unverified = Vec::new();
    for data in &request.topic_data {
        let topic = match context.api_version >= TOPIC_IDS_VERSION {
            true => broker.topics.get_by_id(&data.topic_id),
            false => broker.topics.get(&data.name),
        };
        let Some(topic) = topic else { continue };
        for batch in &data.partition_data {
            let header = batch.records.as_deref().and_then(header);
            if let Some(header) = header.filter(BatchHeader::is_transactional)
                && let Some(partition) = topic.partition(batch.index)
            {
                unverified.push(Unverified {
                    topic: topic.name.clone(),
                    partition: Arc::clone(partition),
                    header,
                });
            }
        }
    }
    let adds = context.api_version >= EPOCH_BUMP_VERSION;
    verify_produce(broker, transactional_id, adds, unverified).await
}

/// The guard that a batch is appended with, or why it is not, in the words that its client knows.
fn guard_of(
    version: i16,
    verification: Option<&Result<VerificationGuard, ErrorCode>>,
) -> Result<Option<VerificationGuard>, Refusal> {
    let error = match verification {
        None => return Ok(None),
        Some(Ok(guard)) => return Ok(Some(*guard)),
        Some(Err(error)) => *error,
    };
    Err(match error {
        ErrorCode::ConcurrentTransactions if version >= EPOCH_BUMP_VERSION => error.into(),
        ErrorCode::ConcurrentTransactions
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => Refusal {
            message: Some(Str::from(format!(
                "Unable to verify the partition has been added to the transaction. Underlying error: {}",
                error.name()
            ))),
            ..ErrorCode::NotEnoughReplicas.into()
        },
        ErrorCode::TransactionAbortable if version < ABORTABLE_VERSION => ErrorCode::InvalidTxnState.into(),
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch.into(),
        other => other.into(),
    })
}

/// Gives every batch to its log, in the order of the request.
fn start_appends(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ProduceRequest,
    verified: &Verified,
) -> Vec<TopicSteps> {
    let by_id = context.api_version >= TOPIC_IDS_VERSION;
    let whole = refuse_all(&request);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for data in request.topic_data {
        let topic = if by_id {
            broker.topics.get_by_id(&data.topic_id)
        } else {
            broker.topics.get(&data.name)
        };
        let TopicProduceData {
            name,
            topic_id,
            partition_data,
            ..
        } = data;
        let mut partitions = Vec::with_capacity(partition_data.len());
        for partition in partition_data {
            let step = match (whole, &topic) {
                (Some(error), _) => Err(Refusal::from(error)),
                (None, None) if by_id => Err(ErrorCode::UnknownTopicId.into()),
                (None, None) => Err(ErrorCode::UnknownTopicOrPartition.into()),
                (None, Some(topic)) => {
                    let verification = verified.get(&(topic.name.clone(), partition.index));
                    guard_of(context.api_version, verification).and_then(|guard| {
                        start_append(broker, context, topic, partition.index, partition.records, guard)
                    })
                }
            };
            partitions.push((partition.index, step.unwrap_or_else(Step::Refused)));
        }
        topics.push(TopicSteps {
            name,
            topic_id,
            partitions,
        });
    }
    topics
}

/// What is wrong with the request as a whole.
fn refuse_all(request: &ProduceRequest) -> Option<ErrorCode> {
    let transactional = || {
        request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
            .any(|partition| {
                partition
                    .records
                    .as_deref()
                    .and_then(header)
                    .is_some_and(|header| header.is_transactional())
            })
    };
    if request.transactional_id.is_none() && transactional() {
        return Some(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    match request.acks {
        ACKS_ALL | ACKS_NONE | ACKS_LEADER => None,
        _ => Some(ErrorCode::InvalidRequiredAcks),
    }
}

fn start_append(
    broker: &Broker,
    context: &RequestContext,
    topic: &Topic,
    index: i32,
    batch: Option<Bytes>,
    verification: Option<VerificationGuard>,
) -> Result<Step, Refusal> {
    let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let batch = batch.ok_or(ErrorCode::InvalidRecord)?;
    if topic.is_internal() && context.client_id.as_deref() != Some(ADMIN_CLIENT_ID) {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    check_header(context.api_version, partition, &batch)?;
    let batch = records::validate(&batch).map_err(|error| Refusal::of_batch(&error, partition))?;
    let now_ms = broker.clock.now_ms();
    let append = Append {
        batch: batch.clone(),
        leader_epoch: partition.leader_epoch(),
        now_ms,
        verification,
    };
    Ok(Step::Appending {
        partition: Arc::clone(partition),
        batch,
        now_ms,
        append: partition.log().append(append),
    })
}

/// The header of a partition's only batch; `None` when the bytes are no such thing, which
/// [`records::validate`] says in more words.
fn header(batch: &[u8]) -> Option<BatchHeader> {
    BatchHeader::parse(batch)
        .ok()
        .filter(|header| header.size_bytes() == batch.len())
}

/// What can be refused without looking at the records.
fn check_header(version: i16, partition: &Partition, batch: &[u8]) -> Result<(), Refusal> {
    let Some(header) = header(batch) else {
        return Ok(());
    };
    if version < ZSTD_VERSION && header.compression() == Ok(Compression::Zstd) {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    let limit = partition.config().max_message_bytes;
    if batch.len() > usize::try_from(limit).unwrap_or(0) {
        return Err(Refusal::of_log(
            &LogError::MessageTooLarge {
                size: batch.len(),
                limit,
            },
            partition,
        ));
    }
    Ok(())
}

async fn finish_partition(
    index: i32,
    step: Step,
    acks: i16,
    deadline: tokio::time::Instant,
    stopped: &mut (impl Future<Output = ()> + Unpin),
) -> PartitionProduceResponse {
    match finish_append(step, acks, deadline, stopped).await {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset,
            log_append_time_ms: appended.log_append_time_ms,
            log_start_offset: appended.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(refusal) => PartitionProduceResponse {
            index,
            error_code: refusal.code.code(),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: refusal.log_start_offset,
            record_errors: refusal.record_errors,
            error_message: refusal.message,
            ..PartitionProduceResponse::default()
        },
    }
}

async fn finish_append(
    step: Step,
    acks: i16,
    deadline: tokio::time::Instant,
    stopped: &mut (impl Future<Output = ()> + Unpin),
) -> Result<Appended, Refusal> {
    let (partition, appended) = match step {
        Step::Refused(refusal) => return Err(refusal),
        Step::Appending {
            partition,
            batch,
            now_ms,
            append,
        } => {
            let appended = append.await;
            let appended =
                appended.map_err(|error| Refusal::of_records(&error, &partition, &batch, now_ms))?;
            (partition, appended)
        }
    };
    if acks != ACKS_ALL || partition.log().watermarks().high_watermark > appended.last_offset {
        return Ok(appended);
    }
    tokio::select! {
        reached = partition.reached(appended.last_offset) => reached?,
        () = tokio::time::sleep_until(deadline) => return Err(ErrorCode::RequestTimedOut.into()),
        () = stopped => return Err(ErrorCode::NotLeaderOrFollower.into()),
    }
    Ok(appended)
}

fn first_error(response: &ProduceResponse) -> Option<&'static str> {
    response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .find(|partition| partition.error_code != ErrorCode::None.code())
        .map(|partition| ErrorCode::from_code(partition.error_code).name())
}
