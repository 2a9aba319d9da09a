//! A member of a share group (KIP-932), as the console share consumer needs one: it joins, fetches from the leaders of
//! what it is assigned, acknowledges, and leaves.
//!
//! A lost connection, a broker that moved and a membership that has ended are begun anew; the broker gives what was not
//! acknowledged to somebody again. What nothing can be done about is an error.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use milena_client::{Client, ClientError, GROUP_COORDINATOR, Options as ClientOptions};
use milena_protocol::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as AcknowledgeBatch,
};
use milena_protocol::messages::share_fetch_request::{
    AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic,
};
use milena_protocol::messages::share_fetch_response::{AcquiredRecords, PartitionData};
use milena_protocol::messages::{
    ShareAcknowledgeRequest, ShareFetchRequest, ShareFetchResponse, ShareGroupHeartbeatRequest,
};
use milena_protocol::records::{Record, TimestampType, batches};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::acknowledge::{Acknowledge, Said, together, without};
use crate::group_admin::Fault;
use crate::{ToolError, ToolResult, admin};

const JOINING: i32 = 0;
const LEAVING: i32 = -1;
/// Epochs of a share session: its first request, and its last.
const SESSION_BEGINS: i32 = 0;
const SESSION_ENDS: i32 = -1;

/// How long a member without partitions, or with a broker that does not answer, waits.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a member without partitions asks for some: a group that others have just left computes its assignment
/// later, and does not send it by itself.
const UNASSIGNED: Duration = Duration::from_millis(500);
/// A batch that is larger when it is decompressed is not read.
const MOST_BATCH_BYTES: usize = 1 << 28;

/// How to fetch.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    pub(super) bootstrap: String,
    pub(super) client: ClientOptions,
    pub(super) group: Str,
    pub(super) topic: Str,
    pub(super) rack: Option<Str>,
    pub(super) max_wait_ms: i32,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) max_records: i32,
    /// A record that cannot be read is rejected, and does not end the command.
    pub(super) reject_unreadable: bool,
}

/// A partition by its topic's id.
type Place = (Uuid, i32);

/// A record that this member has until it acknowledges it.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) leader: i32,
    pub(super) place: Place,
    pub(super) delivery_count: i16,
    pub(super) timestamp_type: TimestampType,
    pub(super) record: Record,
}

/// A share session with one broker.
#[derive(Debug, Default)]
struct Session {
    epoch: i32,
    partitions: BTreeSet<Place>,
    said: BTreeMap<Place, Vec<Said>>,
}

#[derive(Debug)]
pub(super) struct Member {
    wishes: Wishes,
    client: Client,
    id: Str,
    epoch: i32,
    next_heartbeat: Instant,
    assigned: BTreeSet<Place>,
    leaders: BTreeMap<Place, i32>,
    sessions: BTreeMap<i32, Session>,
    /// The brokers that are still to be asked in this round.
    turn: VecDeque<i32>,
}

impl Member {
    /// # Errors
    /// When no broker answers.
    pub(super) async fn new(wishes: Wishes) -> ToolResult<Self> {
        let client = Client::connect(&wishes.bootstrap, wishes.client.clone()).await?;
        Ok(Self {
            wishes,
            client,
            id: Str::from(admin::random_uuid().to_string()),
            epoch: JOINING,
            next_heartbeat: Instant::now(),
            assigned: BTreeSet::new(),
            leaders: BTreeMap::new(),
            sessions: BTreeMap::new(),
            turn: VecDeque::new(),
        })
    }

    /// Asks one broker for records, and keeps the membership; no records if there are none yet.
    ///
    /// # Errors
    /// When it makes no sense to ask again.
    pub(super) async fn poll(&mut self) -> ToolResult<Vec<Delivered>> {
        match self.try_poll().await {
            Err(ToolError::Client(error)) if is_passing(&error) => {
                eprintln!("WARN {error}");
                tokio::time::sleep(PAUSE).await;
                self.reconnect().await;
                Ok(Vec::new())
            }
            result => result,
        }
    }

    async fn try_poll(&mut self) -> ToolResult<Vec<Delivered>> {
        if Instant::now() >= self.next_heartbeat {
            self.heartbeat().await?;
        }
        if self
            .assigned
            .iter()
            .any(|place| !self.leaders.contains_key(place))
        {
            self.find_leaders().await?;
        }
        if self.turn.is_empty() {
            let assigned = self.assigned.iter();
            let leaders: BTreeSet<i32> = assigned
                .filter_map(|place| self.leaders.get(place))
                .copied()
                .collect();
            // A broker that has nothing more to give may still be told something.
            let open = self.sessions.keys().copied();
            self.turn = leaders
                .into_iter()
                .chain(open)
                .collect::<BTreeSet<i32>>()
                .into_iter()
                .collect();
        }
        let Some(leader) = self.turn.pop_front() else {
            tokio::time::sleep(PAUSE).await;
            return Ok(Vec::new());
        };
        self.fetch(leader).await
    }

    /// Connects anew; the sessions have ended with their connections.
    async fn reconnect(&mut self) {
        self.forget_sessions();
        if let Ok(client) = Client::connect(&self.wishes.bootstrap, self.wishes.client.clone()).await {
            self.client = client;
        }
    }

    fn forget_sessions(&mut self) {
        self.sessions.clear();
        self.leaders.clear();
        self.turn.clear();
    }

    async fn heartbeat(&mut self) -> ToolResult {
        let joins = self.epoch == JOINING;
        let request = ShareGroupHeartbeatRequest {
            group_id: self.wishes.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            rack_id: self.wishes.rack.clone().filter(|_| joins),
            subscribed_topic_names: joins.then(|| vec![self.wishes.topic.clone()]),
            ..ShareGroupHeartbeatRequest::default()
        };
        let group = self.wishes.group.clone();
        let coordinator = self.client.coordinator(&group, GROUP_COORDINATOR).await?;
        let response = self.client.send_to(coordinator, request).await?;
        match Fault::of(response.error_code, response.error_message.as_ref()) {
            None => {}
            Some(fault) => return self.lose_membership(&fault),
        }
        self.epoch = response.member_epoch;
        if let Some(assignment) = response.assignment {
            self.assigned = assignment
                .topic_partitions
                .into_iter()
                .flat_map(|topic| topic.partitions.into_iter().map(move |one| (topic.topic_id, one)))
                .collect();
        }
        let interval_ms = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0);
        let mut interval = Duration::from_millis(interval_ms).max(PAUSE);
        if self.assigned.is_empty() {
            interval = interval.min(UNASSIGNED);
        }
        self.next_heartbeat = Instant::now() + interval;
        Ok(())
    }

    /// A member that the group does not have any more joins again; other errors end the command or pass.
    fn lose_membership(&mut self, fault: &Fault) -> ToolResult {
        match fault.code {
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                self.epoch = JOINING;
                self.assigned.clear();
                self.forget_sessions();
            }
            code if code.is_retriable() => {}
            _ => return Err(ToolError::Failed(fault.exception())),
        }
        self.next_heartbeat = Instant::now() + PAUSE;
        Ok(())
    }

    async fn find_leaders(&mut self) -> ToolResult {
        let topic = self.wishes.topic.clone();
        for topic in self.client.metadata(Some(&[topic])).await?.topics {
            for one in topic.partitions.iter().filter(|one| one.leader_id >= 0) {
                self.leaders
                    .insert((topic.topic_id, one.partition_index), one.leader_id);
            }
        }
        Ok(())
    }

    /// What the next request to a broker says of partitions; what was to be said of records is in it.
    fn fetch_topics(&mut self, leader: i32) -> (Vec<FetchTopic>, Vec<ForgottenTopic>) {
        let assigned = self.assigned.iter();
        let wanted: BTreeSet<Place> = assigned
            .filter(|place| self.leaders.get(place) == Some(&leader))
            .copied()
            .collect();
        let session = self.sessions.entry(leader).or_default();
        let mut places: BTreeMap<Place, Vec<AcknowledgementBatch>> = BTreeMap::new();
        for place in wanted.difference(&session.partitions) {
            places.insert(*place, Vec::new());
        }
        for (place, said) in std::mem::take(&mut session.said) {
            let batches = together(said).into_iter().map(|said| AcknowledgementBatch {
                first_offset: said.first,
                last_offset: said.last,
                acknowledge_types: vec![said.acknowledge as i8],
                ..AcknowledgementBatch::default()
            });
            places.insert(place, batches.collect());
        }
        let forgotten = session
            .partitions
            .difference(&wanted)
            .map(|(topic_id, partition)| ForgottenTopic {
                topic_id: *topic_id,
                partitions: vec![*partition],
                ..ForgottenTopic::default()
            });
        let forgotten = forgotten.collect();
        session.partitions = wanted;
        let mut topics: BTreeMap<Uuid, Vec<FetchPartition>> = BTreeMap::new();
        for ((topic_id, partition_index), acknowledgement_batches) in places {
            topics.entry(topic_id).or_default().push(FetchPartition {
                partition_index,
                acknowledgement_batches,
                ..FetchPartition::default()
            });
        }
        let topics = topics.into_iter().map(|(topic_id, partitions)| FetchTopic {
            topic_id,
            partitions,
            ..FetchTopic::default()
        });
        (topics.collect(), forgotten)
    }

    async fn fetch(&mut self, leader: i32) -> ToolResult<Vec<Delivered>> {
        let (topics, forgotten_topics_data) = self.fetch_topics(leader);
        let session = self.sessions.entry(leader).or_default();
        let request = ShareFetchRequest {
            group_id: Some(self.wishes.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: session.epoch,
            max_wait_ms: self.wishes.max_wait_ms,
            min_bytes: self.wishes.min_bytes,
            max_bytes: self.wishes.max_bytes,
            max_records: self.wishes.max_records,
            batch_size: self.wishes.max_records,
            topics,
            forgotten_topics_data,
            ..ShareFetchRequest::default()
        };
        let response = self.client.send_to(leader, request).await?;
        if let Some(fault) = Fault::of(response.error_code, response.error_message.as_ref()) {
            // Retriable ones are those of the session too: a new one begins.
            self.sessions.remove(&leader);
            tokio::time::sleep(PAUSE).await;
            self.lose_membership(&fault)?;
            return Ok(Vec::new());
        }
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        self.take(leader, response)
    }

    /// The records of an answer. Of offsets that hold none, it is said at once that they are gaps.
    fn take(&mut self, leader: i32, response: ShareFetchResponse) -> ToolResult<Vec<Delivered>> {
        let mut all = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let place = (topic.topic_id, data.partition_index);
                if let Some(fault) = Fault::of(
                    data.acknowledge_error_code,
                    data.acknowledge_error_message.as_ref(),
                ) {
                    eprintln!("WARN acknowledging partition {}: {}", place.1, fault.message());
                }
                if let Some(fault) = Fault::of(data.error_code, data.error_message.as_ref()) {
                    if !fault.code.is_retriable() {
                        return Err(ToolError::Failed(fault.exception()));
                    }
                    // Somebody else leads it, or will.
                    self.leaders.remove(&place);
                    continue;
                }
                self.take_partition(leader, place, data, &mut all)?;
            }
        }
        Ok(all)
    }

    fn take_partition(
        &mut self,
        leader: i32,
        place: Place,
        data: PartitionData,
        all: &mut Vec<Delivered>,
    ) -> ToolResult {
        let mut acquired = data.acquired_records;
        acquired.sort_by_key(|range| range.first_offset);
        let bytes = match data.records {
            Some(records) => records.into_bytes()?,
            None => bytes::Bytes::new(),
        };
        let before = all.len();
        let read = read_records(&bytes, &acquired, |timestamp_type, delivery_count, record| {
            all.push(Delivered {
                leader,
                place,
                delivery_count,
                timestamp_type,
                record,
            });
        });
        let rest = match read {
            Ok(()) => Acknowledge::Gap,
            Err(error) if self.wishes.reject_unreadable => {
                eprintln!("Error processing message, rejecting this message: {error}");
                Acknowledge::Reject
            }
            Err(error) => return Err(ToolError::Failed(error)),
        };
        let offsets: Vec<i64> = all[before..].iter().map(|one| one.record.offset).collect();
        let said = without(&acquired, &offsets)
            .into_iter()
            .map(|(first, last)| Said {
                first,
                last,
                acknowledge: rest,
            });
        let session = self.sessions.entry(leader).or_default();
        session.said.entry(place).or_default().extend(said);
        Ok(())
    }

    /// Says something of a record; the broker hears it with the next request.
    pub(super) fn acknowledge(&mut self, delivered: &Delivered, acknowledge: Acknowledge) {
        // A session that has ended has given its records back.
        if let Some(session) = self.sessions.get_mut(&delivered.leader) {
            session.said.entry(delivered.place).or_default().push(Said {
                first: delivered.record.offset,
                last: delivered.record.offset,
                acknowledge,
            });
        }
    }

    /// Says what is still to be said, and leaves the group. Records that nothing was said of go back to it.
    pub(super) async fn close(mut self) {
        for (leader, session) in std::mem::take(&mut self.sessions) {
            if session.epoch == SESSION_BEGINS {
                continue;
            }
            if let Err(error) = self.end_session(leader, session).await {
                eprintln!("WARN cannot acknowledge: {error}");
            }
        }
        if self.epoch != JOINING
            && let Err(error) = self.leave().await
        {
            eprintln!("WARN cannot leave the group: {error}");
        }
    }

    async fn end_session(&mut self, leader: i32, session: Session) -> ToolResult {
        let mut topics: BTreeMap<Uuid, Vec<AcknowledgePartition>> = BTreeMap::new();
        for ((topic_id, partition_index), said) in session.said {
            let batches = together(said).into_iter().map(|said| AcknowledgeBatch {
                first_offset: said.first,
                last_offset: said.last,
                acknowledge_types: vec![said.acknowledge as i8],
                ..AcknowledgeBatch::default()
            });
            topics.entry(topic_id).or_default().push(AcknowledgePartition {
                partition_index,
                acknowledgement_batches: batches.collect(),
                ..AcknowledgePartition::default()
            });
        }
        let topics = topics.into_iter().map(|(topic_id, partitions)| AcknowledgeTopic {
            topic_id,
            partitions,
            ..AcknowledgeTopic::default()
        });
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.wishes.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: SESSION_ENDS,
            topics: topics.collect(),
            ..ShareAcknowledgeRequest::default()
        };
        let response = self.client.send_to(leader, request).await?;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let mut faults = partitions.map(|one| Fault::of(one.error_code, one.error_message.as_ref()));
        let whole = Fault::of(response.error_code, response.error_message.as_ref());
        match whole.or_else(|| faults.find_map(|fault| fault)) {
            Some(fault) => Err(ToolError::Failed(fault.message())),
            None => Ok(()),
        }
    }

    async fn leave(&mut self) -> ToolResult {
        let request = ShareGroupHeartbeatRequest {
            group_id: self.wishes.group.clone(),
            member_id: self.id.clone(),
            member_epoch: LEAVING,
            ..ShareGroupHeartbeatRequest::default()
        };
        let group = self.wishes.group.clone();
        let coordinator = self.client.coordinator(&group, GROUP_COORDINATOR).await?;
        let response = self.client.send_to(coordinator, request).await?;
        match Fault::of(response.error_code, response.error_message.as_ref()) {
            Some(fault) => Err(ToolError::Failed(fault.message())),
            None => Ok(()),
        }
    }
}

/// Errors after which the same may be asked again.
fn is_passing(error: &ClientError) -> bool {
    error.is_connection()
        || matches!(error, ClientError::Connect { .. } | ClientError::UnknownBroker(_))
        || matches!(error, ClientError::Broker(code, _) if code.is_retriable())
}

/// Gives the records that are among the acquired ones, with how often they were delivered.
fn read_records(
    bytes: &bytes::Bytes,
    acquired: &[AcquiredRecords],
    mut give: impl FnMut(TimestampType, i16, Record),
) -> Result<(), String> {
    for batch in batches(bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        if batch.header.is_control() {
            continue;
        }
        batch.check_crc().map_err(|error| error.to_string())?;
        for record in batch
            .records(MOST_BATCH_BYTES)
            .map_err(|error| error.to_string())?
        {
            let record = record.map_err(|error| error.to_string())?;
            let after = acquired.partition_point(|range| range.first_offset <= record.offset);
            let range = after.checked_sub(1).map(|at| &acquired[at]);
            if let Some(range) = range.filter(|range| record.offset <= range.last_offset) {
                give(batch.header.timestamp_type(), range.delivery_count, record);
            }
        }
    }
    Ok(())
}
