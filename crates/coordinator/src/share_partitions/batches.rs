//! State batches: runs of offsets of a share partition that have one state and one delivery count, as they are stored.

use milena_protocol::stored::share_snapshot_value::StateBatch as StoredBatch;

/// What has become of a record, with its number in stored batches and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    Available,
    Acquired,
    Acknowledged,
    Archived,
}

impl RecordState {
    /// Its number.
    #[must_use]
    pub fn id(self) -> i8 {
        match self {
            Self::Available => 0,
            Self::Acquired => 1,
            Self::Acknowledged => 2,
            Self::Archived => 4,
        }
    }

    #[must_use]
    pub fn of_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(Self::Available),
            1 => Some(Self::Acquired),
            2 => Some(Self::Acknowledged),
            4 => Some(Self::Archived),
            _ => None,
        }
    }

    /// Nobody is given the record any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }
}

/// Offsets `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateBatch {
    pub first: i64,
    pub last: i64,
    /// A state's number: clients of the state APIs may store others than [`RecordState`] knows.
    pub state: i8,
    pub delivery_count: i16,
}

impl StateBatch {
    /// Which of two batches wins where they overlap: the one that was delivered more often, then that of the later state.
    fn rank(self) -> (i16, i8) {
        (self.delivery_count, self.state)
    }

    pub(crate) fn of_stored(stored: &StoredBatch) -> Self {
        Self {
            first: stored.first_offset,
            last: stored.last_offset,
            state: stored.delivery_state,
            delivery_count: stored.delivery_count,
        }
    }

    pub(crate) fn to_stored(self) -> StoredBatch {
        StoredBatch {
            first_offset: self.first,
            last_offset: self.last,
            delivery_state: self.state,
            delivery_count: self.delivery_count,
            ..StoredBatch::default()
        }
    }
}

/// One list, in order and without overlaps, of what two lists say: where they overlap, the higher rank holds, and
/// neighbours that say the same become one. What lies before the start offset is left out (unless that is -1).
///
/// A single batch is taken as it is, as in Kafka.
pub(crate) fn combine(so_far: &[StateBatch], new: &[StateBatch], start_offset: i64) -> Vec<StateBatch> {
    let mut batches: Vec<StateBatch> = so_far
        .iter()
        .chain(new)
        .filter(|batch| start_offset == -1 || batch.last >= start_offset)
        .map(|batch| StateBatch {
            first: if start_offset == -1 {
                batch.first
            } else {
                batch.first.max(start_offset)
            },
            ..*batch
        })
        .collect();
    if batches.len() < 2 {
        return batches;
    }
    batches.sort_by_key(|batch| batch.first);
    sweep(&batches)
}

/// Goes from edge to edge; between two of them the batch of the highest rank holds.
fn sweep(batches: &[StateBatch]) -> Vec<StateBatch> {
    let mut combined: Vec<StateBatch> = Vec::with_capacity(batches.len());
    let mut open: Vec<StateBatch> = Vec::new();
    let mut coming = batches.iter().peekable();
    let mut at = i64::MIN;
    loop {
        open.retain(|batch| batch.last >= at);
        if open.is_empty() {
            match coming.peek() {
                Some(next) => at = next.first,
                None => return combined,
            }
        }
        while let Some(next) = coming.next_if(|next| next.first <= at) {
            if next.last >= at {
                open.push(*next);
            }
        }
        let Some(best) = open.iter().copied().max_by_key(|batch| batch.rank()) else {
            continue;
        };
        // It holds to its end, or until one comes that may be better.
        let edge = coming
            .peek()
            .map_or(best.last, |next| best.last.min(next.first - 1));
        push(
            &mut combined,
            StateBatch {
                first: at,
                last: edge,
                ..best
            },
        );
        match edge.checked_add(1) {
            Some(next) => at = next,
            None => return combined,
        }
    }
}

fn push(combined: &mut Vec<StateBatch>, batch: StateBatch) {
    if let Some(last) = combined.last_mut()
        && last.rank() == batch.rank()
        && last.last.checked_add(1) == Some(batch.first)
    {
        last.last = batch.last;
        return;
    }
    combined.push(batch);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: i64, last: i64, state: i8, delivery_count: i16) -> StateBatch {
        StateBatch {
            first,
            last,
            state,
            delivery_count,
        }
    }

    #[test]
    fn overlapping_batches_become_one_list_in_which_the_higher_rank_holds() {
        let cases = [
            // The same.
            (
                vec![batch(100, 110, 0, 1)],
                vec![batch(100, 110, 0, 1)],
                vec![batch(100, 110, 0, 1)],
            ),
            // More deliveries hold, wherever they lie.
            (
                vec![batch(100, 120, 0, 1)],
                vec![batch(105, 110, 0, 2)],
                vec![
                    batch(100, 104, 0, 1),
                    batch(105, 110, 0, 2),
                    batch(111, 120, 0, 1),
                ],
            ),
            // The later state at the same count.
            (
                vec![batch(100, 110, 0, 1)],
                vec![batch(105, 115, 2, 1)],
                vec![batch(100, 104, 0, 1), batch(105, 115, 2, 1)],
            ),
            // The lower rank only shows where the higher is not.
            (
                vec![batch(100, 110, 4, 3)],
                vec![batch(95, 115, 0, 1)],
                vec![batch(95, 99, 0, 1), batch(100, 110, 4, 3), batch(111, 115, 0, 1)],
            ),
            // Neighbours that say the same.
            (
                vec![batch(100, 110, 2, 1)],
                vec![batch(111, 119, 2, 1), batch(121, 122, 2, 1)],
                vec![batch(100, 119, 2, 1), batch(121, 122, 2, 1)],
            ),
        ];
        for (so_far, new, expected) in cases {
            assert_eq!(combine(&so_far, &new, -1), expected, "{so_far:?} and {new:?}");
            assert_eq!(combine(&new, &so_far, -1), expected, "{new:?} and {so_far:?}");
        }
    }

    #[test]
    fn what_lies_before_the_start_offset_is_left_out() {
        let batches = [batch(0, 4, 2, 1), batch(5, 14, 0, 2), batch(20, 24, 4, 5)];
        assert_eq!(
            combine(&batches, &[], 10),
            [batch(10, 14, 0, 2), batch(20, 24, 4, 5)]
        );
        assert_eq!(combine(&batches, &[], 100), []);
    }

    #[test]
    fn every_offset_has_what_ranks_highest_of_what_was_said_of_it() {
        let mut seed = 7_u64;
        let mut draw = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            i64::try_from((seed >> 33) % below).unwrap()
        };
        for _ in 0..2_000 {
            let mut drawn = || -> Vec<StateBatch> {
                (0..draw(6))
                    .map(|_| {
                        let first = draw(30);
                        let state = [0, 2, 4][usize::try_from(draw(3)).unwrap()];
                        batch(first, first + draw(10), state, i16::try_from(draw(3)).unwrap())
                    })
                    .collect()
            };
            let (so_far, new) = (drawn(), drawn());
            let combined = combine(&so_far, &new, 5);
            assert!(
                combined.windows(2).all(|pair| pair[0].last < pair[1].first),
                "{combined:?}"
            );
            for offset in 5..45 {
                let said = |list: &[StateBatch]| {
                    let mine = list.iter().filter(|one| (one.first..=one.last).contains(&offset));
                    mine.map(|one| one.rank()).max()
                };
                let both: Vec<StateBatch> = so_far.iter().chain(&new).copied().collect();
                assert_eq!(said(&combined), said(&both), "{offset} of {so_far:?} and {new:?}");
            }
        }
    }

    #[test]
    fn offsets_at_the_end_of_their_range_do_no_harm() {
        let all = [batch(0, i64::MAX, 0, 1), batch(i64::MAX, i64::MAX, 2, 1)];
        assert_eq!(combine(&all, &[], -1).len(), 2);
    }
}
