//! What a share consumer says of the offsets that it has (KIP-932), in as few ranges as it takes.

use milena_protocol::messages::share_fetch_response::AcquiredRecords;

/// What is said of a record (KIP-932). A gap is an offset without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledge {
    Gap = 0,
    Accept = 1,
    Release = 2,
    Reject = 3,
}

/// Offsets from the first to the last, and what is said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) acknowledge: Acknowledge,
}

/// The acquired ranges without these offsets, which ascend.
pub(super) fn without(acquired: &[AcquiredRecords], offsets: &[i64]) -> Vec<(i64, i64)> {
    let mut gaps = Vec::new();
    let mut offsets = offsets.iter().copied().peekable();
    for range in acquired {
        let mut first = range.first_offset;
        while let Some(offset) = offsets.next_if(|offset| *offset <= range.last_offset) {
            if offset > first {
                gaps.push((first, offset - 1));
            }
            first = offset.saturating_add(1).max(first);
        }
        if first <= range.last_offset {
            gaps.push((first, range.last_offset));
        }
    }
    gaps
}

/// Neighbours of which the same is said become one, in the order of offsets.
pub(super) fn together(mut said: Vec<Said>) -> Vec<Said> {
    said.sort_by_key(|one| one.first);
    let mut out: Vec<Said> = Vec::new();
    for one in said {
        match out.last_mut() {
            Some(last)
                if last.acknowledge == one.acknowledge && last.last.checked_add(1) == Some(one.first) =>
            {
                last.last = one.last;
            }
            _ => out.push(one),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(i64, i64)]) -> Vec<AcquiredRecords> {
        let range = |(first_offset, last_offset): &(i64, i64)| AcquiredRecords {
            first_offset: *first_offset,
            last_offset: *last_offset,
            ..AcquiredRecords::default()
        };
        pairs.iter().map(range).collect()
    }

    #[test]
    fn offsets_without_a_record_are_gaps_however_many_there_are() {
        let acquired = ranges(&[(0, 4), (10, i64::MAX)]);
        assert_eq!(
            without(&acquired, &[0, 2, 4, 11]),
            [(1, 1), (3, 3), (10, 10), (12, i64::MAX)]
        );
        assert_eq!(without(&ranges(&[(3, 3)]), &[3]), []);
        assert_eq!(without(&ranges(&[(3, 5)]), &[]), [(3, 5)]);
    }

    #[test]
    fn neighbours_are_acknowledged_together() {
        let said = |first, last, acknowledge| Said {
            first,
            last,
            acknowledge,
        };
        let one_by_one = vec![
            said(2, 2, Acknowledge::Accept),
            said(0, 0, Acknowledge::Accept),
            said(1, 1, Acknowledge::Accept),
            said(3, 3, Acknowledge::Gap),
            said(5, 5, Acknowledge::Gap),
        ];
        assert_eq!(
            together(one_by_one),
            [
                said(0, 2, Acknowledge::Accept),
                said(3, 3, Acknowledge::Gap),
                said(5, 5, Acknowledge::Gap)
            ]
        );
    }
}
