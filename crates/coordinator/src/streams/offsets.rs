//! Who may change and see the committed offsets of a streams group: members by their epoch.

use milena_protocol::messages::{OffsetCommitRequest, TxnOffsetCommitRequest};
use milena_protocol::{ErrorCode, Str};

use super::StreamsGroup;
use super::member::Member;
use crate::group::UnusedSince;

/// OffsetCommit from this version on knows STALE_MEMBER_EPOCH.
const FIRST_COMMIT_VERSION_WITH_MEMBER_EPOCHS: i16 = 9;

impl StreamsGroup {
    pub(crate) fn validate_offset_commit(
        &self,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let epoch = request.generation_id_or_member_epoch;
        // An administrator.
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&request.member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if version < FIRST_COMMIT_VERSION_WITH_MEMBER_EPOCHS {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let partitions = request.topics.iter().flat_map(|topic| {
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
            indexes.map(|index| (&topic.name, index))
        });
        self.validate_epoch(member, epoch, partitions, ErrorCode::StaleMemberEpoch)
    }

    pub(crate) fn validate_transactional_commit(
        &self,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let epoch = request.generation_id;
        let names_nobody = request.member_id.is_empty() && request.group_instance_id.is_none();
        if epoch < 0 && (self.members.is_empty() || (epoch == -1 && names_nobody)) {
            return Ok(());
        }
        let member = self.members.get(&request.member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        let partitions = request.topics.iter().flat_map(|topic| {
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
            indexes.map(|index| (&topic.name, index))
        });
        self.validate_epoch(member, epoch, partitions, ErrorCode::IllegalGeneration)
    }

    /// Whoever commits with an older epoch may do so for the active tasks that it has had since then.
    fn validate_epoch<'a>(
        &self,
        member: &Member,
        epoch: i32,
        mut partitions: impl Iterator<Item = (&'a Str, i32)>,
        stale: ErrorCode,
    ) -> Result<(), ErrorCode> {
        if epoch == member.epoch {
            return Ok(());
        }
        let held_since = |topic: &Str, partition: i32| {
            let subtopology = &self.topology.as_ref()?.reader_of(topic)?.subtopology_id;
            let since = |held: &super::Held| {
                let of_subtopology = held.active.get(subtopology)?;
                of_subtopology.get(&partition).copied()
            };
            since(&member.assigned).or_else(|| since(&member.revoking))
        };
        let is_held = epoch < member.epoch
            && partitions
                .all(|(topic, partition)| held_since(topic, partition).is_some_and(|since| since <= epoch));
        if is_held { Ok(()) } else { Err(stale) }
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
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.epoch == epoch {
            Ok(())
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    pub(crate) fn offsets_unused_since(&self) -> UnusedSince {
        UnusedSince::Commit
    }
}
