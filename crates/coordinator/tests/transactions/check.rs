//! Looks at the history: what clients were told, and what can be read when everything has ended.

use std::collections::BTreeSet;

use super::producer::{History, Told};

pub(crate) struct Seen<'a> {
    pub(crate) transactions: Vec<&'a History>,
    /// By partition, what a committed reader reads.
    pub(crate) records: Vec<Vec<u64>>,
    /// By group partition, the offsets that took effect, in their order.
    pub(crate) offsets: Vec<Vec<i64>>,
}

/// # Panics
/// On the first anomaly.
pub(crate) fn check(seen: &Seen<'_>) {
    let all: Vec<u64> = seen.records.iter().flatten().copied().collect();
    let read: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(all.len(), read.len(), "a record is there twice");
    let mut effective = BTreeSet::new();
    for offsets in &seen.offsets {
        for offset in offsets {
            assert!(effective.insert(*offset), "offset {offset} took effect twice");
        }
    }
    for transaction in &seen.transactions {
        let there = |value: &&u64| read.contains(*value);
        match transaction.told {
            Told::Committed => {
                let lost: Vec<_> = transaction.acknowledged.iter().filter(|it| !there(it)).collect();
                assert!(
                    lost.is_empty(),
                    "of a committed transaction {lost:?} is lost: {transaction:?}"
                );
                if let Some((offset, true)) = transaction.offset {
                    assert!(
                        effective.contains(&offset),
                        "a committed offset is lost: {transaction:?}"
                    );
                }
            }
            Told::Aborted => {
                let back: Vec<_> = transaction.sent.iter().filter(there).collect();
                assert!(
                    back.is_empty(),
                    "of an aborted transaction {back:?} is read: {transaction:?}"
                );
                if let Some((offset, _)) = transaction.offset {
                    assert!(
                        !effective.contains(&offset),
                        "an aborted offset took effect: {transaction:?}"
                    );
                }
            }
            Told::Unknown => {
                // All of it, or nothing: what was sent and never acknowledged may be missing.
                let any = transaction.sent.iter().any(|value| there(&value));
                let whole = transaction.acknowledged.iter().all(|value| there(&value));
                assert!(!any || whole, "a torn transaction: {transaction:?}");
                if let Some((offset, acknowledged)) = transaction.offset {
                    let applied = effective.contains(&offset);
                    assert!(
                        !any || !acknowledged || applied,
                        "records without their offset: {transaction:?}"
                    );
                    let has_records = !transaction.acknowledged.is_empty();
                    assert!(
                        !applied || !has_records || whole,
                        "an offset without its records: {transaction:?}"
                    );
                }
            }
        }
    }
}
