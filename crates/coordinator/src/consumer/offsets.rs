//! Who may change and see the committed offsets of a consumer group: members by their epoch.

use milena_protocol::messages::{OffsetCommitRequest, TxnOffsetCommitRequest};
use milena_protocol::{ErrorCode, Str};

use super::ConsumerGroup;
use super::member::Member;
use crate::group::UnusedSince;
use crate::topics::TopicImage;

impl ConsumerGroup {
    pub(crate) fn validate_offset_commit(
        &self,
        topics: &TopicImage,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let epoch = request.generation_id_or_member_epoch;
        // An administrator, or a consumer that assigns its partitions itself.
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.known_member(&request.member_id)?;
        if member.classic.is_none() && version < FIRST_COMMIT_VERSION_WITH_MEMBER_EPOCHS {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let of_topics = request.topics.iter();
        let partitions =
            of_topics.flat_map(|topic| named(&topic.name, &topic.partitions, |one| one.partition_index));
        let may = may_commit(topics, member, epoch, partitions);
        may.then_some(()).ok_or(stale(member))
    }

    pub(crate) fn validate_transactional_commit(
        &self,
        topics: &TopicImage,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let epoch = request.generation_id;
        let names_nobody = request.member_id.is_empty() && request.group_instance_id.is_none();
        if epoch < 0 && (self.members.is_empty() || (epoch == -1 && names_nobody)) {
            return Ok(());
        }
        let member = self.known_member(&request.member_id)?;
        let of_topics = request.topics.iter();
        let partitions =
            of_topics.flat_map(|topic| named(&topic.name, &topic.partitions, |one| one.partition_index));
        let may = may_commit(topics, member, epoch, partitions);
        may.then_some(()).ok_or(ErrorCode::IllegalGeneration)
    }

    /// A fetch that names no member is anybody's.
    pub(crate) fn validate_offset_fetch(&self, member_id: Option<&Str>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(member_id) = member_id else {
            return if epoch < 0 {
                Ok(())
            } else {
                Err(ErrorCode::UnknownMemberId)
            };
        };
        let member = self.known_member(member_id)?;
        (member.epoch == epoch).then_some(()).ok_or(stale(member))
    }

    fn known_member(&self, member_id: &Str) -> Result<&Member, ErrorCode> {
        self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)
    }

    pub(crate) fn offsets_unused_since(&self) -> UnusedSince {
        UnusedSince::Commit
    }
}

/// OffsetCommit from this version on knows STALE_MEMBER_EPOCH.
const FIRST_COMMIT_VERSION_WITH_MEMBER_EPOCHS: i16 = 9;

/// The partitions of a topic in a request, each with the topic's name.
fn named<'a, P>(
    topic: &'a Str,
    partitions: &'a [P],
    index: impl Fn(&P) -> i32,
) -> impl Iterator<Item = (&'a Str, i32)> {
    partitions.iter().map(move |one| (topic, index(one)))
}

/// Whoever commits with an older epoch may do so for what it has had since then, also while it is to give it
/// up (KIP-1251).
fn may_commit<'a>(
    topics: &TopicImage,
    member: &Member,
    epoch: i32,
    mut partitions: impl Iterator<Item = (&'a Str, i32)>,
) -> bool {
    if epoch == member.epoch {
        return true;
    }
    let held_since = |topic: &Str, partition: i32| {
        let id = topics.get(topic)?.id;
        let mut held = [&member.assigned, &member.revoking].into_iter();
        held.find_map(|held| held.get(&id)?.get(&partition).copied())
    };
    epoch < member.epoch
        && partitions
            .all(|(topic, partition)| held_since(topic, partition).is_some_and(|since| since <= epoch))
}

fn stale(member: &Member) -> ErrorCode {
    match member.classic {
        Some(_) => ErrorCode::IllegalGeneration,
        None => ErrorCode::StaleMemberEpoch,
    }
}
