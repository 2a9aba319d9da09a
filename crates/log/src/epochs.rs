//! Leader epochs of a log: from which offset on each epoch wrote (KIP-101).

use crate::EpochEndOffset;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    pub leader_epoch: i32,
    pub start_offset: i64,
}

/// Epochs in ascending order, each with the offset of its first record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochs(Vec<EpochStart>);

impl LeaderEpochs {
    /// Entries that are not ascending in both numbers are left out.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = EpochStart>) -> Self {
        let mut epochs = Self::default();
        for entry in entries {
            epochs.assign(entry.leader_epoch, entry.start_offset);
        }
        epochs
    }

    #[must_use]
    pub fn entries(&self) -> &[EpochStart] {
        &self.0
    }

    /// Notes that `leader_epoch` writes from `offset` on. True when that was news.
    pub fn assign(&mut self, leader_epoch: i32, offset: i64) -> bool {
        let newer = leader_epoch >= 0
            && self
                .0
                .last()
                .is_none_or(|last| leader_epoch > last.leader_epoch && offset >= last.start_offset);
        if newer {
            // An epoch that wrote nothing is replaced by the one that does.
            while self.0.last().is_some_and(|last| last.start_offset >= offset) {
                self.0.pop();
            }
            self.0.push(EpochStart {
                leader_epoch,
                start_offset: offset,
            });
        }
        newer
    }

    /// Forgets what is below the log's start: the epoch in force there starts there now.
    pub fn truncate_front(&mut self, log_start: i64) {
        let first_after = self.0.partition_point(|entry| entry.start_offset <= log_start);
        if first_after > 0 {
            self.0.drain(..first_after - 1);
            self.0[0].start_offset = log_start.max(self.0[0].start_offset);
        }
    }

    /// Forgets what is at or above the log's end.
    pub fn truncate_back(&mut self, log_end: i64) {
        self.0.retain(|entry| entry.start_offset < log_end);
    }

    #[must_use]
    pub fn latest(&self) -> Option<i32> {
        self.0.last().map(|entry| entry.leader_epoch)
    }

    /// See [`crate::PartitionLog::end_offset_for_epoch`].
    #[must_use]
    pub fn end_offset(&self, leader_epoch: i32, log_end: i64) -> Option<EpochEndOffset> {
        let latest = self.latest()?;
        if leader_epoch == latest {
            return Some(EpochEndOffset {
                leader_epoch,
                end_offset: log_end,
            });
        }
        let higher = self.0.partition_point(|entry| entry.leader_epoch <= leader_epoch);
        let end_offset = self.0.get(higher)?.start_offset;
        let leader_epoch = higher
            .checked_sub(1)
            .map_or(leader_epoch, |floor| self.0[floor].leader_epoch);
        Some(EpochEndOffset {
            leader_epoch,
            end_offset,
        })
    }

    #[must_use]
    pub fn epoch_for(&self, offset: i64) -> Option<i32> {
        let after = self.0.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|at| self.0[at].leader_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        LeaderEpochs::new(
            [(0, 0), (2, 10), (5, 30)].map(|(leader_epoch, start_offset)| EpochStart {
                leader_epoch,
                start_offset,
            }),
        )
    }

    #[test]
    fn an_epoch_ends_where_the_next_starts() {
        let ends = |asked| {
            epochs()
                .end_offset(asked, 50)
                .map(|end| (end.leader_epoch, end.end_offset))
        };
        assert_eq!(ends(0), Some((0, 10)));
        assert_eq!(ends(1), Some((0, 10)));
        assert_eq!(ends(2), Some((2, 30)));
        assert_eq!(ends(5), Some((5, 50)));
        assert_eq!(ends(6), None);
        assert_eq!(LeaderEpochs::default().end_offset(0, 0), None);
    }

    #[test]
    fn an_epoch_older_than_all_known_ends_where_they_start() {
        let mut known = epochs();
        known.truncate_front(15);
        assert_eq!(
            known.end_offset(0, 50),
            Some(EpochEndOffset {
                leader_epoch: 0,
                end_offset: 15
            })
        );
    }

    #[test]
    fn only_a_larger_epoch_is_news() {
        let mut known = epochs();
        assert!(!known.assign(5, 40));
        assert!(!known.assign(4, 40));
        assert!(known.assign(6, 40));
        assert_eq!(known.epoch_for(39), Some(5));
        assert_eq!(known.epoch_for(40), Some(6));
        known.truncate_back(40);
        assert_eq!(known.latest(), Some(5));
    }
}
