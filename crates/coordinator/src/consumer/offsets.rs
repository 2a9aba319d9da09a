//! Who may change and see the committed offsets of a consumer group: members by their epoch.

use milena_protocol::messages::{OffsetCommitRequest, TxnOffsetCommitRequest};
use milena_protocol::{ErrorCode, Str};

use super::ConsumerGroup;
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
        let member = self.members.get(&request.member_id);
        let uses_epochs = member.is_some_and(|member| member.classic.is_none());
        if uses_epochs && version < FIRST_COMMIT_VERSION_WITH_MEMBER_EPOCHS {
            return Err(ErrorCode::UnsupportedVersion);
        }
        self.validate_epoch(&request.member_id, epoch, ErrorCode::StaleMemberEpoch, || {
            // Whoever commits with an older epoch may do so for what it has had since then (KIP-1251).
            let member = self.members.get(&request.member_id)?;
            let held = request.topics.iter().all(|topic| {
                let by_name = topics.get(&topic.name).map(|topic| topic.id);
                let assigned = by_name.and_then(|id| member.assigned.get(&id));
                topic.partitions.iter().all(|partition| {
                    let since = assigned.and_then(|assigned| assigned.get(&partition.partition_index));
                    since.is_some_and(|since| *since <= epoch)
                })
            });
            (held && epoch < member.epoch).then_some(())
        })
    }

    pub(crate) fn validate_transactional_commit(
        &self,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let epoch = request.generation_id;
        if epoch < 0 && (self.members.is_empty() || request.member_id.is_empty()) {
            return Ok(());
        }
        self.validate_epoch(&request.member_id, epoch, ErrorCode::IllegalGeneration, || None)
    }

    /// A fetch that names no member is anybody's.
    pub(crate) fn validate_offset_fetch(&self, member_id: Option<&Str>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(member_id) = member_id.filter(|_| epoch >= 0) else {
            return Ok(());
        };
        self.validate_epoch(member_id, epoch, ErrorCode::StaleMemberEpoch, || None)
    }

    fn validate_epoch(
        &self,
        member_id: &Str,
        epoch: i32,
        stale: ErrorCode,
        exception: impl FnOnce() -> Option<()>,
    ) -> Result<(), ErrorCode> {
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.epoch == epoch {
            return Ok(());
        }
        match member.classic {
            Some(_) => Err(ErrorCode::IllegalGeneration),
            None => exception().ok_or(stale),
        }
    }

    pub(crate) fn offsets_unused_since(&self) -> UnusedSince {
        UnusedSince::Commit
    }
}

/// OffsetCommit from this version on knows STALE_MEMBER_EPOCH.
const FIRST_COMMIT_VERSION_WITH_MEMBER_EPOCHS: i16 = 9;
