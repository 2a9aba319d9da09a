//! Share sessions (KIP-932): which partitions a member fetches, so that it need not name them each time, and in which
//! order its requests come. A session belongs to the connection that opened it, and ends with it.
//!
//! There are at most `group.share.max.share.sessions`, each of at most [`MAX_PARTITIONS_PER_SESSION`] partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use milena_protocol::{ErrorCode, Str, Uuid};

use crate::context::ConnectionInfo;

/// Partitions that one session follows. A request that would make it more is answered with INVALID_REQUEST.
const MAX_PARTITIONS_PER_SESSION: usize = 100_000;

/// A fetch of this epoch opens a session.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// A request of this epoch ends it.
pub(crate) const FINAL_EPOCH: i32 = -1;

/// A partition of a topic, by the topic's id.
pub(crate) type TopicPartition = (Uuid, i32);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SessionKey {
    group: Str,
    member: Str,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    partitions: Followed,
    connection: Weak<ConnectionInfo>,
}

/// The partitions of a session, in the order in which they are looked at.
#[derive(Debug, Default)]
struct Followed {
    places: HashMap<TopicPartition, u64>,
    /// With whether the next answer must tell of the partition.
    order: BTreeMap<u64, (TopicPartition, bool)>,
    next_place: u64,
}

impl Followed {
    fn add(&mut self, partition: TopicPartition, must_be_told: bool) {
        if !self.places.contains_key(&partition) {
            self.put_last(partition, must_be_told);
        }
    }

    fn put_last(&mut self, partition: TopicPartition, must_be_told: bool) {
        self.remove(&partition);
        self.places.insert(partition, self.next_place);
        self.order.insert(self.next_place, (partition, must_be_told));
        self.next_place += 1;
    }

    fn remove(&mut self, partition: &TopicPartition) {
        if let Some(place) = self.places.remove(partition) {
            self.order.remove(&place);
        }
    }
}

/// What a fetch of a session is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) partitions: Vec<TopicPartition>,
    /// Only what changed is told.
    pub(crate) is_incremental: bool,
    /// What the session's epoch is until its next request.
    next_epoch: i32,
}

/// What an answer tells of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) has_records: bool,
    pub(crate) has_error: bool,
}

/// A session that has ended, and what its member had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) group: Str,
    pub(crate) member: Str,
    pub(crate) partitions: Vec<TopicPartition>,
    /// Nobody else of the group has a session.
    pub(crate) is_last: bool,
}

/// A fetch as its session sees it.
#[derive(Debug)]
pub(crate) struct FetchRequest<'a> {
    pub(crate) group: &'a Str,
    pub(crate) member: &'a Str,
    pub(crate) epoch: i32,
    pub(crate) partitions: &'a [TopicPartition],
    pub(crate) forgotten: &'a [TopicPartition],
    pub(crate) acknowledges: bool,
    pub(crate) connection: &'a Arc<ConnectionInfo>,
    pub(crate) max_sessions: usize,
}

#[derive(Debug, Default)]
pub(crate) struct ShareSessions {
    sessions: Mutex<HashMap<SessionKey, Session>>,
}

impl ShareSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session or goes on with it. A fetch that ends it asks for no partitions; [`Self::end`] must follow.
    pub(crate) fn fetch(&self, request: &FetchRequest<'_>) -> Result<Opened, ErrorCode> {
        let key = key_of(request.group, request.member);
        let mut sessions = self.lock();
        match request.epoch {
            FINAL_EPOCH => {
                let known = sessions.contains_key(&key);
                let known = known.then_some(()).ok_or(ErrorCode::ShareSessionNotFound);
                known.map(|()| Opened {
                    partitions: Vec::new(),
                    is_incremental: false,
                    next_epoch: FINAL_EPOCH,
                })
            }
            INITIAL_EPOCH => {
                if request.acknowledges || request.partitions.len() > MAX_PARTITIONS_PER_SESSION {
                    return Err(ErrorCode::InvalidRequest);
                }
                sessions.remove(&key);
                if sessions.len() >= request.max_sessions {
                    return Err(ErrorCode::ShareSessionLimitReached);
                }
                let mut partitions = Followed::default();
                for partition in request.partitions {
                    partitions.add(*partition, false);
                }
                let opened = Opened {
                    partitions: in_order(&partitions),
                    is_incremental: false,
                    next_epoch: 1,
                };
                let session = Session {
                    epoch: 1,
                    partitions,
                    connection: Arc::downgrade(request.connection),
                };
                sessions.insert(key, session);
                Ok(opened)
            }
            epoch => {
                let session = session_at(&mut sessions, &key, epoch)?;
                let known = session.partitions.places.len();
                if known + request.partitions.len() > MAX_PARTITIONS_PER_SESSION {
                    return Err(ErrorCode::InvalidRequest);
                }
                for partition in request.partitions {
                    session.partitions.add(*partition, true);
                }
                for partition in request.forgotten {
                    session.partitions.remove(partition);
                }
                session.epoch = next_epoch(session.epoch);
                Ok(Opened {
                    partitions: in_order(&session.partitions),
                    is_incremental: true,
                    next_epoch: session.epoch,
                })
            }
        }
    }

    /// Goes on with a session by a ShareAcknowledge.
    pub(crate) fn acknowledge(&self, group: &Str, member: &Str, epoch: i32) -> Result<(), ErrorCode> {
        if epoch == INITIAL_EPOCH {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        let mut sessions = self.lock();
        let key = key_of(group, member);
        if epoch == FINAL_EPOCH {
            let known = sessions.contains_key(&key);
            return known.then_some(()).ok_or(ErrorCode::ShareSessionNotFound);
        }
        let session = session_at(&mut sessions, &key, epoch)?;
        session.epoch = next_epoch(session.epoch);
        Ok(())
    }

    /// Which partitions an answer has to tell of, and makes the order fair to those that had nothing.
    pub(crate) fn answer(
        &self,
        group: &Str,
        member: &Str,
        opened: &Opened,
        told: &[(TopicPartition, Told)],
    ) -> Result<Vec<bool>, ErrorCode> {
        if !opened.is_incremental {
            return Ok(vec![true; told.len()]);
        }
        let mut sessions = self.lock();
        let session = sessions
            .get_mut(&key_of(group, member))
            .filter(|session| session.epoch == opened.next_epoch)
            .ok_or(ErrorCode::InvalidShareSessionEpoch)?;
        let followed = &mut session.partitions;
        Ok(told
            .iter()
            .map(|(partition, told)| {
                let Some(place) = followed.places.get(partition).copied() else {
                    return true;
                };
                let must_be_told = followed.order.get(&place).is_some_and(|(_, must)| *must);
                if told.has_records {
                    followed.put_last(*partition, told.has_error);
                } else if let Some((_, must)) = followed.order.get_mut(&place) {
                    *must = told.has_error;
                }
                must_be_told || told.has_records || told.has_error
            })
            .collect())
    }

    /// Ends a member's session.
    pub(crate) fn end(&self, group: &Str, member: &Str) -> Option<Ended> {
        let mut sessions = self.lock();
        let key = key_of(group, member);
        let session = sessions.remove(&key)?;
        Some(ended(&sessions, key, session))
    }

    /// A connection is gone, and with it the sessions that it opened.
    pub(crate) fn disconnected(&self, connection: &Arc<ConnectionInfo>) -> Vec<Ended> {
        let mut sessions = self.lock();
        if sessions.is_empty() {
            return Vec::new();
        }
        let gone: Vec<SessionKey> = sessions
            .iter()
            .filter(|(_, session)| std::ptr::eq(session.connection.as_ptr(), Arc::as_ptr(connection)))
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter()
            .filter_map(|key| {
                let session = sessions.remove(&key)?;
                Some(ended(&sessions, key, session))
            })
            .collect()
    }
}

fn ended(sessions: &HashMap<SessionKey, Session>, key: SessionKey, session: Session) -> Ended {
    Ended {
        is_last: !sessions.keys().any(|other| other.group == key.group),
        group: key.group,
        member: key.member,
        partitions: session.partitions.places.into_keys().collect(),
    }
}

fn key_of(group: &Str, member: &Str) -> SessionKey {
    SessionKey {
        group: group.detached(),
        member: member.detached(),
    }
}

fn session_at<'a>(
    sessions: &'a mut HashMap<SessionKey, Session>,
    key: &SessionKey,
    epoch: i32,
) -> Result<&'a mut Session, ErrorCode> {
    let session = sessions.get_mut(key).ok_or(ErrorCode::ShareSessionNotFound)?;
    match session.epoch == epoch {
        true => Ok(session),
        false => Err(ErrorCode::InvalidShareSessionEpoch),
    }
}

fn in_order(partitions: &Followed) -> Vec<TopicPartition> {
    partitions
        .order
        .values()
        .map(|(partition, _)| *partition)
        .collect()
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}
