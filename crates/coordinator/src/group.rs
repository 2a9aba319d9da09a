//! One group of any type: its committed offsets, which stay when the type changes, and its membership, which
//! decides who may change them.
//!
//! What differs from type to type is asked of [`Membership`] here, and nowhere else.

use bytes::Bytes;
use milena_protocol::messages::{OffsetCommitRequest, TxnOffsetCommitRequest};
use milena_protocol::stored::GroupMetadataValue;
use milena_protocol::{ErrorCode, Str};

use crate::Effects;
use crate::classic::{ClassicGroup, State};
use crate::consumer::ConsumerGroup;
use crate::facts::{self, LoadError, Part, PartsOf};
use crate::offsets::Offsets;
use crate::share::{SHARE_PROTOCOL_TYPE, ShareGroup};
use crate::step::Step;
use crate::streams::StreamsGroup;
use crate::subscription::CONSUMER_PROTOCOL_TYPE;
use crate::timers::{TimerKey, Timers};
use crate::topics::TopicImage;

/// What keeps a group's members.
#[derive(Debug)]
pub(crate) enum Membership {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
    Streams(StreamsGroup),
    Share(ShareGroup),
}

impl Membership {
    /// Of a group that is stored in several facts, before the first of them.
    pub(crate) fn in_parts(of: PartsOf, id: Str) -> Self {
        match of {
            PartsOf::Consumer => Self::Consumer(ConsumerGroup::new(id)),
            PartsOf::Streams => Self::Streams(StreamsGroup::new(id)),
            PartsOf::Share => Self::Share(ShareGroup::new(id)),
        }
    }

    /// Takes one of the stored facts, in any order. [`Self::all_parts_loaded`] must follow the last.
    pub(crate) fn load_part(&mut self, part: Part, key: &Bytes, value: &Bytes) -> Result<(), LoadError> {
        match self {
            Self::Classic(_) => Err(LoadError::UnknownKey(key.clone())),
            Self::Consumer(group) => group.load(part, key, value),
            Self::Streams(group) => group.load(part, key, value),
            Self::Share(group) => group.load(part, key, value),
        }
    }

    pub(crate) fn all_parts_loaded(&mut self) {
        match self {
            Self::Classic(_) => {}
            Self::Consumer(group) => group.loaded(),
            Self::Streams(group) => group.loaded(),
            Self::Share(group) => group.loaded(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Str,
    pub(crate) offsets: Offsets,
    pub(crate) membership: Membership,
}

/// Since when the offsets of topics that nobody subscribes to are unused (KIP-211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnusedSince {
    /// They are in use, or it is not known whether.
    InUse,
    /// Each since it was committed.
    Commit,
    Time(i64),
}

impl Group {
    pub(crate) fn of(id: Str, membership: Membership) -> Self {
        Self {
            id,
            offsets: Offsets::default(),
            membership,
        }
    }

    /// An empty classic group: what commits without membership use.
    pub(crate) fn new(id: Str, now_ms: i64) -> Self {
        let group = ClassicGroup::new(id.clone(), now_ms);
        Self::of(id, Membership::Classic(group))
    }

    pub(crate) fn load_classic(id: Str, value: GroupMetadataValue) -> Self {
        let group = ClassicGroup::load(id.clone(), value);
        Self::of(id, Membership::Classic(group))
    }

    /// The classic group that this is.
    pub(crate) fn classic(&self) -> Option<&ClassicGroup> {
        match &self.membership {
            Membership::Classic(group) => Some(group),
            _ => None,
        }
    }

    pub(crate) fn classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match &mut self.membership {
            Membership::Classic(group) => Some(group),
            _ => None,
        }
    }

    /// The consumer group that this is.
    pub(crate) fn consumer(&self) -> Option<&ConsumerGroup> {
        match &self.membership {
            Membership::Consumer(group) => Some(group),
            _ => None,
        }
    }

    pub(crate) fn consumer_mut(&mut self) -> Option<&mut ConsumerGroup> {
        match &mut self.membership {
            Membership::Consumer(group) => Some(group),
            _ => None,
        }
    }

    /// The share group that this is.
    pub(crate) fn share(&self) -> Option<&ShareGroup> {
        match &self.membership {
            Membership::Share(group) => Some(group),
            _ => None,
        }
    }

    pub(crate) fn share_mut(&mut self) -> Option<&mut ShareGroup> {
        match &mut self.membership {
            Membership::Share(group) => Some(group),
            _ => None,
        }
    }

    /// A classic group becomes a consumer group; the offsets stay. Its members are told to join again.
    pub(crate) fn become_consumer(&mut self, step: &mut Step<'_>, mut new: ConsumerGroup) {
        if let Membership::Classic(old) = &mut self.membership {
            old.unload(step, ErrorCode::RebalanceInProgress);
            old.cancel_timers(step);
            step.effects.remove(facts::group_key(&self.id));
        }
        new.begin(step);
        self.membership = Membership::Consumer(new);
    }

    /// An empty classic group becomes a streams group; the offsets stay.
    pub(crate) fn become_streams(&mut self, step: &mut Step<'_>, new: StreamsGroup) {
        if let Membership::Classic(old) = &mut self.membership {
            old.unload(step, ErrorCode::RebalanceInProgress);
            old.cancel_timers(step);
            step.effects.remove(facts::group_key(&self.id));
        }
        self.membership = Membership::Streams(new);
    }

    /// A consumer group whose members all use the classic protocol by now becomes a classic group.
    pub(crate) fn become_classic_if_it_is(&mut self, step: &mut Step<'_>) {
        if let Membership::Consumer(old) = &self.membership
            && step.config.consumer.downgrade
            && old.is_classic_by_now()
            && i32::try_from(old.member_count()).is_ok_and(|count| count <= step.config.max_group_size)
        {
            self.membership = Membership::Classic(old.to_classic(step));
        }
    }

    /// A consumer or streams group that nobody is in becomes a classic group; the offsets stay.
    pub(crate) fn become_classic_if_empty(&mut self, step: &mut Step<'_>) {
        if self.is_empty() {
            match &self.membership {
                // Of a share group it would be lost where its members go on from.
                Membership::Classic(_) | Membership::Share(_) => return,
                Membership::Consumer(old) => old.forget(step.effects),
                Membership::Streams(old) => {
                    old.cancel_timers(step.timers);
                    old.forget(step.effects);
                }
            }
            let new = ClassicGroup::new(self.id.clone(), step.now_ms);
            new.persist(step.effects);
            self.membership = Membership::Classic(new);
        }
    }

    /// The type as ListGroups gives it (KIP-848).
    pub(crate) fn group_type(&self) -> &'static str {
        match &self.membership {
            Membership::Classic(_) => "classic",
            Membership::Consumer(_) => "consumer",
            Membership::Streams(_) => "streams",
            Membership::Share(_) => "share",
        }
    }

    /// The state as ListGroups gives it.
    pub(crate) fn state_name(&self) -> &'static str {
        match &self.membership {
            Membership::Classic(group) => group.state.name(),
            Membership::Consumer(group) => group.state_name(),
            Membership::Streams(group) => group.state_name(),
            Membership::Share(group) => group.state_name(),
        }
    }

    /// The name by which Kafka knows the state in ListGroups' filter, which differs for one.
    pub(crate) fn state_in_filters(&self) -> &'static str {
        match self.state_name() {
            "NotReady" => "not_ready",
            name => name,
        }
    }

    pub(crate) fn protocol_type(&self) -> Str {
        match &self.membership {
            Membership::Classic(group) => group.protocol_type.clone().unwrap_or_default(),
            Membership::Consumer(_) => Str::from(CONSUMER_PROTOCOL_TYPE),
            Membership::Streams(_) => Str::from_static("streams"),
            Membership::Share(_) => Str::from(SHARE_PROTOCOL_TYPE),
        }
    }

    pub(crate) fn member_count(&self) -> usize {
        match &self.membership {
            Membership::Classic(group) => group.members.len(),
            Membership::Consumer(group) => group.member_count(),
            Membership::Streams(group) => group.member_count(),
            Membership::Share(group) => group.member_count(),
        }
    }

    /// Whether it may be deleted.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.membership {
            Membership::Classic(group) => group.state == State::Empty,
            Membership::Consumer(group) => group.is_empty(),
            Membership::Streams(group) => group.is_empty(),
            Membership::Share(group) => group.is_empty(),
        }
    }

    /// Nothing would be lost with this group: it was created by the request that was just refused.
    pub(crate) fn is_vacant(&self) -> bool {
        let nobody = match &self.membership {
            Membership::Classic(group) => group.is_vacant(),
            Membership::Consumer(_) | Membership::Streams(_) | Membership::Share(_) => false,
        };
        nobody && self.offsets.is_empty()
    }

    /// Empty for so long that nothing is left of it but its name.
    pub(crate) fn is_unused(&self) -> bool {
        match &self.membership {
            Membership::Classic(group) => group.state == State::Empty && !group.has_pending_joins(),
            Membership::Consumer(group) => group.is_empty(),
            Membership::Streams(group) => group.is_empty(),
            // Where its members go on from would be lost.
            Membership::Share(_) => false,
        }
    }

    /// Starts the sessions of the members that were loaded.
    pub(crate) fn start_timers(&mut self, step: &mut Step<'_>) {
        match &mut self.membership {
            Membership::Classic(group) => group.start_timers(step),
            Membership::Consumer(group) => group.start_timers(step),
            Membership::Streams(group) => group.start_timers(step),
            Membership::Share(group) => group.start_timers(step),
        }
    }

    pub(crate) fn session_expired(&mut self, step: &mut Step<'_>, member_id: &Str) {
        match &mut self.membership {
            Membership::Classic(group) => group.session_expired(step, member_id),
            Membership::Consumer(group) => group.session_expired(step, member_id),
            Membership::Streams(group) => group.session_expired(step, member_id),
            Membership::Share(group) => group.session_expired(step, member_id),
        }
    }

    /// Removes what is stored of a group that is empty, and the timers that it still has.
    pub(crate) fn forget(mut self, timers: &mut Timers, effects: &mut Effects) {
        self.offsets.clear(&self.id, effects);
        match self.membership {
            Membership::Classic(group) => {
                assert!(
                    group.members.is_empty(),
                    "group {} is removed with members",
                    self.id
                );
                for member in group.member_ids_pending() {
                    timers.cancel(TimerKey::Session {
                        group: self.id.clone(),
                        member: member.clone(),
                    });
                }
                effects.remove(facts::group_key(&self.id));
            }
            Membership::Consumer(group) => {
                assert!(group.is_empty(), "group {} is removed with members", self.id);
                group.forget(effects);
            }
            Membership::Streams(group) => {
                assert!(group.is_empty(), "group {} is removed with members", self.id);
                group.cancel_timers(timers);
                group.forget(effects);
            }
            Membership::Share(group) => {
                assert!(group.is_empty(), "group {} is removed with members", self.id);
                group.forget(effects);
            }
        }
    }

    /// Answers everybody who waits, because this coordinator stops being responsible.
    pub(crate) fn unload(&mut self, step: &mut Step<'_>, error: ErrorCode) {
        match &mut self.membership {
            Membership::Classic(group) => group.unload(step, error),
            // Their requests are answered at once.
            Membership::Consumer(_) | Membership::Streams(_) | Membership::Share(_) => {}
        }
    }

    pub(crate) fn check_invariants(&self) {
        match &self.membership {
            Membership::Classic(group) => {
                assert_eq!(self.id, group.id);
                group.check_invariants();
            }
            Membership::Consumer(group) => {
                assert_eq!(self.id, group.id);
                group.check_invariants();
            }
            Membership::Streams(group) => {
                assert_eq!(self.id, group.id);
                group.check_invariants();
            }
            Membership::Share(group) => {
                assert_eq!(self.id, group.id);
                group.check_invariants();
            }
        }
    }

    // --- who may change the offsets -----------------------------------------------------------

    pub(crate) fn validate_offset_commit(
        &self,
        topics: &TopicImage,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        match &self.membership {
            Membership::Classic(group) => group.validate_offset_commit(request),
            Membership::Consumer(group) => group.validate_offset_commit(topics, version, request),
            Membership::Streams(group) => group.validate_offset_commit(version, request),
            // It has no committed offsets.
            Membership::Share(_) => Err(ErrorCode::GroupIdNotFound),
        }
    }

    pub(crate) fn validate_transactional_commit(
        &self,
        topics: &TopicImage,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        match &self.membership {
            Membership::Classic(group) => group.validate_transactional_commit(request),
            Membership::Consumer(group) => group.validate_transactional_commit(topics, request),
            Membership::Streams(group) => group.validate_transactional_commit(request),
            Membership::Share(_) => Err(ErrorCode::GroupIdNotFound),
        }
    }

    /// The member id and epoch (v9) mean nothing to classic groups and are not looked at, as in Kafka.
    pub(crate) fn validate_offset_fetch(&self, member_id: Option<&Str>, epoch: i32) -> Result<(), ErrorCode> {
        match &self.membership {
            // To Kafka a share group has nothing committed; that is no error.
            Membership::Classic(_) | Membership::Share(_) => Ok(()),
            Membership::Consumer(group) => group.validate_offset_fetch(member_id, epoch),
            Membership::Streams(group) => group.validate_offset_fetch(member_id, epoch),
        }
    }

    /// A commit keeps the session of a classic member alive, as a heartbeat does.
    pub(crate) fn keep_alive(&self, step: &mut Step<'_>, member_id: &Str) {
        match &self.membership {
            Membership::Classic(group) => {
                if matches!(group.state, State::Stable | State::PreparingRebalance) {
                    group.reschedule_session(step, member_id);
                }
            }
            Membership::Consumer(_) | Membership::Streams(_) | Membership::Share(_) => {}
        }
    }

    /// Whether the offsets of single topics may be deleted now.
    pub(crate) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        match &self.membership {
            // What the members of other protocols use is not known.
            Membership::Classic(group) if group.state != State::Empty && !group.uses_consumer_protocol() => {
                Err(ErrorCode::NonEmptyGroup)
            }
            Membership::Classic(_) | Membership::Consumer(_) | Membership::Streams(_) => Ok(()),
            Membership::Share(_) => Err(ErrorCode::GroupIdNotFound),
        }
    }

    /// Whether a member consumes the topic; when it is not known, whether one may.
    pub(crate) fn is_subscribed_to(&self, topic: &Str) -> bool {
        match &self.membership {
            Membership::Classic(group) => group.is_subscribed_to(topic),
            Membership::Consumer(group) => group.is_subscribed_to(topic),
            Membership::Streams(group) => group.is_subscribed_to(topic),
            // It has no committed offsets that this could be asked for.
            Membership::Share(_) => true,
        }
    }

    pub(crate) fn offsets_unused_since(&self) -> UnusedSince {
        match &self.membership {
            Membership::Classic(group) => group.offsets_unused_since(),
            Membership::Consumer(group) => group.offsets_unused_since(),
            Membership::Streams(group) => group.offsets_unused_since(),
            Membership::Share(_) => UnusedSince::InUse,
        }
    }
}
