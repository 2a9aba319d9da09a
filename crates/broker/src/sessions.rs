//! Incremental fetch sessions (KIP-227): the broker remembers which partitions a consumer follows
//! and from where, so that a request names only what changed and an answer holds only what is new.
//!
//! Promises Kafka's rules: a full fetch (epoch 0) may get a session if there is room, the final
//! epoch (-1) closes it; an unknown id answers FETCH_SESSION_ID_NOT_FOUND, an unexpected epoch
//! INVALID_FETCH_SESSION_EPOCH, a session of the other way to name topics
//! FETCH_SESSION_TOPIC_ID_ERROR. A new session may take the place of one that was not used for two
//! minutes, or of a smaller one that is older than that. Partitions that gave data move to the end,
//! so each gets its turn.
//!
//! Bounded by `max.incremental.fetch.session.cache.slots` and [`MAX_CACHED_PARTITIONS`]; a fetch
//! that finds no room is answered all the same, without a session.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use milena_protocol::messages::fetch_response::PartitionData;
use milena_protocol::{ErrorCode, Str, Uuid};

/// Partitions that all sessions together remember.
pub(crate) const MAX_CACHED_PARTITIONS: usize = 500_000;

/// How long a session is left alone before it may be evicted for another (Kafka's
/// `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const EVICTION_MS: i64 = 120_000;

const INVALID_SESSION_ID: i32 = 0;
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// How a request names a topic: by id from Fetch version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(Str),
    Id(Uuid),
}

impl TopicKey {
    /// A key that does not keep the request's buffer alive.
    fn detached(&self) -> Self {
        match self {
            Self::Name(name) => Self::Name(name.detached()),
            Self::Id(id) => Self::Id(*id),
        }
    }
}

/// One partition of a topic, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
}

/// What the consumer wants of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
    /// -1: not given.
    pub(crate) current_leader_epoch: i32,
    /// -1: not given.
    pub(crate) last_fetched_epoch: i32,
}

/// The session part of a fetch request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionRequest {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    pub(crate) uses_topic_ids: bool,
    pub(crate) now_ms: i64,
}

#[derive(Debug)]
struct CachedPartition {
    key: PartitionKey,
    wanted: Wanted,
    /// As last told to the consumer; -1 makes the next answer include the partition.
    high_watermark: i64,
    log_start_offset: i64,
}

impl CachedPartition {
    /// Takes note of an answer; false when it tells the consumer nothing new.
    fn is_news(&mut self, data: &PartitionData) -> bool {
        let mut news = has_records(data)
            || data.preferred_read_replica != -1
            || data.diverging_epoch.epoch >= 0
            || data.error_code != ErrorCode::None.code();
        if self.high_watermark != data.high_watermark {
            self.high_watermark = data.high_watermark;
            news = true;
        }
        if self.log_start_offset != data.log_start_offset {
            self.log_start_offset = data.log_start_offset;
            news = true;
        }
        if data.error_code != ErrorCode::None.code() {
            self.high_watermark = -1;
        }
        news
    }
}

fn has_records(data: &PartitionData) -> bool {
    data.records.as_ref().is_some_and(|records| !records.is_empty())
}

/// The partitions of one session in the order in which they are served.
#[derive(Debug)]
struct Session {
    epoch: i32,
    uses_topic_ids: bool,
    ordered: BTreeMap<u64, CachedPartition>,
    places: HashMap<PartitionKey, u64>,
    next_place: u64,
}

impl Session {
    fn put(&mut self, key: &PartitionKey, wanted: Wanted) {
        if let Some(cached) = self.places.get(key).and_then(|place| self.ordered.get_mut(place)) {
            cached.wanted = wanted;
            return;
        }
        let key = PartitionKey {
            topic: key.topic.detached(),
            partition: key.partition,
        };
        self.append(CachedPartition {
            key,
            wanted,
            high_watermark: -1,
            log_start_offset: -1,
        });
    }

    fn append(&mut self, cached: CachedPartition) {
        self.places.insert(cached.key.clone(), self.next_place);
        self.ordered.insert(self.next_place, cached);
        self.next_place += 1;
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(place) = self.places.remove(key) {
            self.ordered.remove(&place);
        }
    }

    /// Drops from `answers` what the consumer knows already, and puts partitions that gave data last.
    fn keep_news(
        &mut self,
        answers: Vec<(PartitionKey, PartitionData)>,
    ) -> Vec<(PartitionKey, PartitionData)> {
        let mut news = Vec::new();
        for (key, data) in answers {
            let Some(place) = self.places.get(&key).copied() else {
                continue;
            };
            let Some(cached) = self.ordered.get_mut(&place) else {
                continue;
            };
            if !cached.is_news(&data) {
                continue;
            }
            if has_records(&data)
                && let Some(cached) = self.ordered.remove(&place)
            {
                self.append(cached);
            }
            news.push((key, data));
        }
        news
    }
}

/// What the cache knows of a session beside its partitions.
#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    created_ms: i64,
    last_used_ms: i64,
    size: usize,
}

#[derive(Debug, Default)]
struct Cache {
    slots: HashMap<i32, Slot>,
    /// `(last used, id)`
    by_use: BTreeSet<(i64, i32)>,
    /// `(partitions, id)` of sessions that are old enough to give way to a larger one.
    evictable: BTreeSet<(usize, i32)>,
    partitions: usize,
    last_id: u32,
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.by_use.remove(&(slot.last_used_ms, id));
            self.evictable.remove(&(slot.size, id));
            self.partitions = self.partitions.saturating_sub(slot.size);
        }
    }

    fn touch(&mut self, id: i32, size: usize, now_ms: i64) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        self.by_use.remove(&(slot.last_used_ms, id));
        self.evictable.remove(&(slot.size, id));
        self.partitions = self.partitions.saturating_sub(slot.size) + size;
        slot.last_used_ms = now_ms;
        slot.size = size;
        self.by_use.insert((now_ms, id));
        if now_ms.saturating_sub(slot.created_ms) > EVICTION_MS {
            self.evictable.insert((size, id));
        }
    }

    fn make_room(&mut self, max_slots: usize, size: usize, now_ms: i64) -> bool {
        if self.partitions.saturating_add(size) > MAX_CACHED_PARTITIONS {
            return false;
        }
        if self.slots.len() < max_slots {
            return true;
        }
        let Some((last_used_ms, stalest)) = self.by_use.first().copied() else {
            return false;
        };
        if now_ms.saturating_sub(last_used_ms) > EVICTION_MS {
            self.remove(stalest);
            return true;
        }
        match self.evictable.first().copied() {
            // Kafka compares (size, id) with an id of 0 for the newcomer, so equal sizes stay.
            Some((smallest, id)) if size > smallest => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    /// Positive, unused, and not to be guessed from the previous one.
    fn new_id(&mut self) -> i32 {
        loop {
            // A full-period step through 32 bits; the multiplier scatters neighbours.
            self.last_id = self.last_id.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = i32::try_from(self.last_id >> 1).unwrap_or(1);
            if id != INVALID_SESSION_ID && !self.slots.contains_key(&id) {
                return id;
            }
        }
    }
}

/// All fetch sessions of this broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    max_slots: usize,
    cache: Mutex<Cache>,
}

impl FetchSessions {
    /// `seed` makes the ids of one start differ from the next's, so that a session of an earlier
    /// process is not mistaken for one of this.
    pub(crate) fn new(max_slots: usize, seed: u32) -> Self {
        Self {
            max_slots,
            cache: Mutex::new(Cache {
                last_id: seed,
                ..Cache::default()
            }),
        }
    }

    /// Finds out what a fetch is about: its own partitions, or those of its session.
    pub(crate) fn open(
        &self,
        request: SessionRequest,
        partitions: Vec<(PartitionKey, Wanted)>,
        forgotten: &[PartitionKey],
    ) -> Result<FetchContext, ErrorCode> {
        let mut cache = lock(&self.cache);
        if request.epoch == INITIAL_EPOCH || request.epoch == FINAL_EPOCH {
            cache.remove(request.session_id);
            let kind = if request.epoch == FINAL_EPOCH {
                Kind::Sessionless
            } else {
                Kind::Full(request)
            };
            return Ok(FetchContext {
                kind,
                partitions: deduplicated(partitions),
            });
        }
        let Some(slot) = cache.slots.get(&request.session_id) else {
            return Err(ErrorCode::FetchSessionIdNotFound);
        };
        let shared = Arc::clone(&slot.session);
        let mut session = lock(&shared);
        if session.epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for (key, wanted) in &partitions {
            session.put(key, *wanted);
        }
        for key in forgotten {
            session.forget(key);
        }
        let size = session.ordered.len();
        if size == 0 {
            cache.remove(request.session_id);
            return Ok(FetchContext {
                kind: Kind::Sessionless,
                partitions: deduplicated(partitions),
            });
        }
        cache.touch(request.session_id, size, request.now_ms);
        if cache.partitions > MAX_CACHED_PARTITIONS {
            // The consumer starts again with a full fetch, which is answered without a session.
            cache.remove(request.session_id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        session.epoch = next_epoch(session.epoch);
        let expected_epoch = session.epoch;
        let partitions = session
            .ordered
            .values()
            .map(|cached| (cached.key.clone(), cached.wanted))
            .collect();
        drop(session);
        Ok(FetchContext {
            kind: Kind::Incremental {
                id: request.session_id,
                session: shared,
                expected_epoch,
            },
            partitions,
        })
    }

    /// Makes the answer of what was read: creates the session of a full fetch, leaves out of an
    /// incremental one what the consumer knows.
    pub(crate) fn close(
        &self,
        context: FetchContext,
        answers: Vec<(PartitionKey, PartitionData)>,
    ) -> SessionAnswer {
        match context.kind {
            Kind::Sessionless => SessionAnswer::of(INVALID_SESSION_ID, answers),
            Kind::Full(request) => {
                let id = self.create(request, &context.partitions, &answers);
                SessionAnswer::of(id, answers)
            }
            Kind::Incremental {
                id,
                session,
                expected_epoch,
            } => {
                let mut session = lock(&session);
                if session.epoch != expected_epoch {
                    return SessionAnswer {
                        error: ErrorCode::InvalidFetchSessionEpoch,
                        session_id: id,
                        partitions: Vec::new(),
                    };
                }
                SessionAnswer::of(id, session.keep_news(answers))
            }
        }
    }

    /// Makes no answer, because the client has to wait first: no session is created, and none learns anything. Gives the error
    /// and the session's id.
    pub(crate) fn close_unanswered(&self, context: FetchContext) -> (ErrorCode, i32) {
        match context.kind {
            Kind::Sessionless | Kind::Full(_) => (ErrorCode::None, INVALID_SESSION_ID),
            Kind::Incremental {
                id,
                session,
                expected_epoch,
            } => {
                if lock(&session).epoch == expected_epoch {
                    (ErrorCode::None, id)
                } else {
                    (ErrorCode::InvalidFetchSessionEpoch, id)
                }
            }
        }
    }

    fn create(
        &self,
        request: SessionRequest,
        partitions: &[(PartitionKey, Wanted)],
        answers: &[(PartitionKey, PartitionData)],
    ) -> i32 {
        let mut cache = lock(&self.cache);
        if self.max_slots == 0 || !cache.make_room(self.max_slots, answers.len(), request.now_ms) {
            return INVALID_SESSION_ID;
        }
        let wanted: HashMap<&PartitionKey, Wanted> =
            partitions.iter().map(|(key, wanted)| (key, *wanted)).collect();
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids: request.uses_topic_ids,
            ordered: BTreeMap::new(),
            places: HashMap::with_capacity(answers.len()),
            next_place: 0,
        };
        for (key, data) in answers {
            if let Some(wanted) = wanted.get(key) {
                session.append(CachedPartition {
                    key: PartitionKey {
                        topic: key.topic.detached(),
                        partition: key.partition,
                    },
                    wanted: *wanted,
                    high_watermark: data.high_watermark,
                    log_start_offset: data.log_start_offset,
                });
            }
        }
        let (id, size) = (cache.new_id(), session.ordered.len());
        let slot = Slot {
            session: Arc::new(Mutex::new(session)),
            created_ms: request.now_ms,
            last_used_ms: request.now_ms,
            size: 0,
        };
        cache.slots.insert(id, slot);
        cache.touch(id, size, request.now_ms);
        id
    }
}

/// What one fetch is about.
#[derive(Debug)]
pub(crate) struct FetchContext {
    kind: Kind,
    /// In the order in which they are to be served.
    pub(crate) partitions: Vec<(PartitionKey, Wanted)>,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    Full(SessionRequest),
    Incremental {
        id: i32,
        session: Arc<Mutex<Session>>,
        expected_epoch: i32,
    },
}

/// What goes back to the consumer.
#[derive(Debug)]
pub(crate) struct SessionAnswer {
    pub(crate) error: ErrorCode,
    pub(crate) session_id: i32,
    pub(crate) partitions: Vec<(PartitionKey, PartitionData)>,
}

impl SessionAnswer {
    fn of(session_id: i32, partitions: Vec<(PartitionKey, PartitionData)>) -> Self {
        Self {
            error: ErrorCode::None,
            session_id,
            partitions,
        }
    }
}

/// A partition named twice is one partition; what was said last counts.
fn deduplicated(partitions: Vec<(PartitionKey, Wanted)>) -> Vec<(PartitionKey, Wanted)> {
    let mut places: HashMap<PartitionKey, usize> = HashMap::with_capacity(partitions.len());
    let mut unique: Vec<(PartitionKey, Wanted)> = Vec::with_capacity(partitions.len());
    for (key, wanted) in partitions {
        match places.get(&key).and_then(|place| unique.get_mut(*place)) {
            Some((_, earlier)) => *earlier = wanted,
            None => {
                places.insert(key.clone(), unique.len());
                unique.push((key, wanted));
            }
        }
    }
    unique
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch < 0 {
        FINAL_EPOCH
    } else {
        epoch.checked_add(1).unwrap_or(1)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
