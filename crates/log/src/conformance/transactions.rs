//! What every engine must do with transactions (KIP-98, KIP-890).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_protocol::records::{BatchBuilder, EndTransactionMarker, batches};

use super::{Case, Maker, NOW_MS, append, appended, open, plain, until, wait};
use crate::{
    Append, Appended, EndTransaction, LogConfig, LogError, PartitionLog, Read, ReadBound, StartVerification,
    VerificationGuard,
};

const TRANSACTIONAL: i16 = 0x10;

pub(super) const CASES: &[(&str, Case)] = &[
    (
        "an open transaction holds the last stable offset back",
        an_open_transaction_holds_the_last_stable_offset_back,
    ),
    (
        "a committed reader sees nothing that is open or aborted",
        a_committed_reader_sees_nothing_that_is_open_or_aborted,
    ),
    (
        "a transaction is opened by a verified append alone",
        a_transaction_is_opened_by_a_verified_append_alone,
    ),
    ("a marker makes a guard void", a_marker_makes_a_guard_void),
    ("late markers are fenced", late_markers_are_fenced),
    (
        "a bumped epoch starts again at zero",
        a_bumped_epoch_starts_again_at_zero,
    ),
    (
        "deleted records are no reason to wait",
        deleted_records_are_no_reason_to_wait,
    ),
    (
        "committed readers agree with a model",
        committed_readers_agree_with_a_model,
    ),
];

/// A transactional batch of `count` records, without a guard.
#[must_use]
pub fn transactional(producer_id: i64, epoch: i16, sequence: i32, count: usize) -> Append {
    let builder = BatchBuilder::new()
        .producer(producer_id, epoch, sequence)
        .attributes(TRANSACTIONAL);
    append(builder, &vec![0; count], 10)
}

fn start(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> StartVerification {
    StartVerification {
        producer_id,
        producer_epoch,
        base_sequence,
        supports_epoch_bump: false,
        now_ms: NOW_MS,
    }
}

/// Verifies a transactional batch as a broker does, and appends it.
///
/// # Panics
/// When the producer is fenced.
#[must_use]
pub fn verified(log: &dyn PartitionLog, batch: Append) -> Append {
    let header = batch.batch.batch.header;
    let start = start(header.producer_id, header.producer_epoch, header.base_sequence);
    let verification = log
        .start_verification(start)
        .unwrap_or_else(|e| panic!("verify: {e}"));
    Append {
        verification,
        ..batch
    }
}

/// The end of a transaction by the protocol in which a producer keeps its epoch.
#[must_use]
pub fn end(producer_id: i64, producer_epoch: i16, commit: bool) -> EndTransaction {
    EndTransaction {
        producer_id,
        producer_epoch,
        commit,
        coordinator_epoch: 3,
        leader_epoch: 0,
        transaction_version: 0,
        now_ms: NOW_MS,
    }
}

/// Ends a transaction, and waits until the high watermark has passed the marker.
///
/// # Panics
/// When the engine refuses.
pub fn ended(log: &dyn PartitionLog, end: EndTransaction) -> Appended {
    let ended = wait(log.end_transaction(end)).unwrap_or_else(|e| panic!("end: {e}"));
    until("the high watermark passes the marker", || {
        log.check().unwrap_or_else(|e| panic!("commit: {e}"));
        log.watermarks().high_watermark > ended.last_offset
    });
    ended
}

fn sent(log: &dyn PartitionLog, producer_id: i64, sequence: i32, count: usize) -> i64 {
    appended(log, verified(log, transactional(producer_id, 0, sequence, count))).base_offset
}

/// What one `read_committed` fetch gives: the offsets that a client hands to its user, and where it goes
/// on.
fn fetch_committed(log: &dyn PartitionLog, offset: i64, max_bytes: usize) -> (Vec<i64>, i64) {
    let result = wait(log.read(Read {
        offset,
        max_bytes,
        at_least_one_batch: true,
        bound: ReadBound::LastStable,
    }))
    .unwrap_or_else(|e| panic!("read at {offset}: {e}"));
    let mut aborted = result.aborted.clone();
    for one in &aborted {
        assert!(
            one.first_offset < result.watermarks.last_stable,
            "{one:?} is decided"
        );
    }
    aborted.sort_by_key(|one| std::cmp::Reverse(one.first_offset));
    let (mut open, mut seen, mut next) = (BTreeSet::new(), Vec::new(), offset);
    let records = result.records.into_bytes().unwrap_or_else(|e| panic!("{e}"));
    for batch in batches(&records).map_while(Result::ok) {
        batch.check_crc().unwrap_or_else(|e| panic!("{e}"));
        let header = batch.header;
        assert!(header.last_offset() < result.watermarks.last_stable);
        while let Some(one) = aborted.pop_if(|one| one.first_offset <= header.last_offset()) {
            open.insert(one.producer_id);
        }
        next = header.next_offset();
        if header.is_control() {
            let marker = EndTransactionMarker::of(&batch).unwrap_or_else(|e| panic!("{e}"));
            if marker.is_some_and(|marker| !marker.commit) {
                open.remove(&header.producer_id);
            }
            continue;
        }
        if header.is_transactional() && open.contains(&header.producer_id) {
            continue;
        }
        for record in batch.records(1 << 20).unwrap_or_else(|e| panic!("{e}")) {
            let at = record.unwrap_or_else(|e| panic!("{e}")).offset;
            seen.extend((at >= offset).then_some(at));
        }
    }
    (seen, next)
}

/// The offsets of the records that a `read_committed` client meets from `offset` on, which fetches so much
/// at a time.
///
/// # Panics
/// When a read fails.
pub fn committed(log: &dyn PartitionLog, offset: i64, max_bytes: usize) -> Vec<i64> {
    let (mut all, mut at) = (Vec::new(), offset);
    loop {
        let (seen, next) = fetch_committed(log, at, max_bytes);
        if next == at {
            return all;
        }
        all.extend(seen);
        at = next;
    }
}

fn last_stable(log: &dyn PartitionLog) -> i64 {
    log.watermarks().last_stable
}

fn an_open_transaction_holds_the_last_stable_offset_back(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    appended(&*log, plain(2));
    assert_eq!(last_stable(&*log), 2);
    assert_eq!(sent(&*log, 1, 0, 2), 2);
    assert_eq!(last_stable(&*log), 2, "where the transaction begins");
    assert_eq!(sent(&*log, 2, 0, 1), 4);
    appended(&*log, plain(1));
    assert_eq!(sent(&*log, 1, 2, 1), 6);
    let starts = log.producers().into_iter();
    let starts: Vec<i64> = starts.map(|one| one.current_transaction_start_offset).collect();
    assert_eq!(starts, [2, 4]);
    assert_eq!(ended(&*log, end(1, 0, true)).base_offset, 7);
    assert_eq!(last_stable(&*log), 4, "the next one is open still");
    let late = wait(log.offset_for_timestamp(NOW_MS, ReadBound::LastStable));
    assert_eq!(late.ok().flatten().map(|found| found.offset), Some(0));
    ended(&*log, end(2, 0, false));
    assert_eq!(last_stable(&*log), 9);
    let producers = log.producers();
    assert!(
        producers
            .iter()
            .all(|one| one.current_transaction_start_offset == -1 && one.coordinator_epoch == 3)
    );
    // A marker for nothing is written and changes nothing.
    assert_eq!(ended(&*log, end(99, 0, false)).base_offset, 9);
    assert_eq!(last_stable(&*log), 10);
}

fn a_committed_reader_sees_nothing_that_is_open_or_aborted(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    sent(&*log, 1, 0, 2);
    sent(&*log, 2, 0, 2);
    ended(&*log, end(1, 0, false));
    ended(&*log, end(2, 0, true));
    appended(&*log, plain(1));
    let first_open = sent(&*log, 3, 0, 1);
    assert_eq!(committed(&*log, 0, 1 << 20), [2, 3, 6]);
    assert_eq!(committed(&*log, 0, 1), [2, 3, 6], "one batch at a time");
    assert_eq!(committed(&*log, 3, 1 << 20), [3, 6]);
    let read = |offset, bound| {
        let read = Read {
            offset,
            max_bytes: 1 << 20,
            at_least_one_batch: true,
            bound,
        };
        wait(log.read(read)).unwrap_or_else(|e| panic!("{e}"))
    };
    let unfinished = read(first_open, ReadBound::LastStable);
    assert!(unfinished.records.is_empty() && unfinished.aborted.is_empty());
    let all = read(0, ReadBound::HighWatermark);
    assert!(all.aborted.is_empty(), "nobody asked");
    assert_eq!(all.watermarks.last_stable, first_open);
    let times = |bound| wait(log.offset_for_timestamp(NOW_MS + 1, bound)).ok().flatten();
    let late = append(BatchBuilder::new(), &[7], 10);
    let late = appended(&*log, late).base_offset;
    assert_eq!(
        times(ReadBound::LastStable),
        None,
        "not above the last stable offset"
    );
    assert_eq!(
        times(ReadBound::HighWatermark).map(|found| found.offset),
        Some(late)
    );
    // Of another producer's transactions nothing is said.
    let aborted = read(0, ReadBound::LastStable).aborted;
    assert_eq!(
        aborted
            .iter()
            .map(|one| (one.producer_id, one.first_offset))
            .collect::<Vec<_>>(),
        [(1, 0)]
    );
    assert_eq!(read(5, ReadBound::LastStable).aborted, [], "it is over before");
}

fn a_transaction_is_opened_by_a_verified_append_alone(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    let refused = |append: Append| matches!(wait(log.append(append)), Err(LogError::InvalidTxnState { .. }));
    assert!(refused(transactional(1, 0, 0, 1)));
    let good = verified(&*log, transactional(1, 0, 0, 1));
    assert!(good.verification.is_some());
    let others = Append {
        verification: good.verification,
        ..transactional(2, 0, 0, 1)
    };
    assert!(refused(others), "a guard is one producer's");
    assert_eq!(log.watermarks().log_end, 0);
    appended(&*log, good);
    let next = verified(&*log, transactional(1, 0, 1, 1));
    assert_eq!(next.verification, None, "it is open");
    appended(&*log, next);
    // The first one again is the first one, whatever its guard was.
    assert!(appended(&*log, transactional(1, 0, 0, 1)).duplicate);
    assert!(
        refused(append(BatchBuilder::new().producer(1, 0, 2), &[0], 10)),
        "outside of a transaction that is open"
    );
    assert!(
        refused(transactional(1, 1, 0, 1)),
        "another epoch is verified anew"
    );
    let unverified = Append {
        verification: Some(VerificationGuard::NOT_REQUIRED),
        ..transactional(5, 0, 0, 1)
    };
    appended(&*log, unverified);
}

fn a_marker_makes_a_guard_void(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    let late = verified(&*log, transactional(1, 0, 0, 1));
    ended(&*log, end(1, 0, false));
    assert!(matches!(
        wait(log.append(late.clone())),
        Err(LogError::InvalidTxnState { .. })
    ));
    let again = verified(&*log, transactional(1, 0, 0, 1));
    assert!(matches!(
        wait(log.append(late)),
        Err(LogError::InvalidTxnState { .. })
    ));
    appended(&*log, again);
    // The lowest sequence that waits comes first.
    let low = verified(&*log, transactional(2, 0, 4, 1));
    let high = verified(&*log, transactional(2, 0, 5, 1));
    assert!(matches!(
        wait(log.append(high)),
        Err(LogError::OutOfOrderSequence { .. })
    ));
    appended(&*log, low);
}

fn late_markers_are_fenced(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    appended(&*log, verified(&*log, transactional(1, 4, 0, 1)));
    let refused = |end: EndTransaction| match wait(log.end_transaction(end)) {
        Ok(_) => "written",
        Err(LogError::InvalidProducerEpoch { .. }) => "epoch",
        Err(LogError::TransactionCoordinatorFenced { .. }) => "coordinator",
        Err(error) => panic!("{error}"),
    };
    let with = |epoch, transaction_version, coordinator_epoch| EndTransaction {
        transaction_version,
        coordinator_epoch,
        ..end(1, epoch, true)
    };
    assert_eq!(refused(with(3, 0, 3)), "epoch");
    assert_eq!(
        refused(with(4, 2, 3)),
        "epoch",
        "a transaction of version 2 ends with a new epoch"
    );
    assert_eq!(last_stable(&*log), 0);
    assert_eq!(refused(with(5, 2, 3)), "written");
    assert_eq!(refused(with(5, 2, 3)), "written", "again, as nothing is open");
    assert_eq!(refused(with(4, 2, 3)), "epoch");
    assert_eq!(refused(with(5, 2, 2)), "coordinator");
    assert!(matches!(
        log.start_verification(start(1, 4, 1)),
        Err(LogError::InvalidProducerEpoch { current: 5, .. })
    ));
    appended(&*log, verified(&*log, transactional(1, 5, 0, 1)));
    assert_eq!(
        refused(with(5, 2, 3)),
        "epoch",
        "it does not end the transaction after its own"
    );
    // The largest epoch cannot be bumped.
    appended(&*log, verified(&*log, transactional(2, i16::MAX, 0, 1)));
    let last = EndTransaction {
        producer_id: 2,
        ..with(i16::MAX, 2, 3)
    };
    assert_eq!(refused(last), "written");
}

fn a_bumped_epoch_starts_again_at_zero(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    appended(&*log, verified(&*log, transactional(1, 0, 0, 3)));
    let bumped = EndTransaction {
        transaction_version: 2,
        ..end(1, 1, true)
    };
    ended(&*log, bumped);
    assert!(matches!(
        wait(log.append(verified(&*log, transactional(1, 1, 3, 1)))),
        Err(LogError::OutOfOrderSequence { expected: 0, .. })
    ));
    appended(&*log, verified(&*log, transactional(1, 1, 0, 1)));
    ended(&*log, end(1, 1, true));
    // By the older protocol sequences go on over markers.
    appended(&*log, verified(&*log, transactional(1, 1, 1, 1)));
    let producers = log.producers();
    assert_eq!((producers[0].producer_epoch, producers[0].last_sequence), (1, 1));
}

fn deleted_records_are_no_reason_to_wait(make: Maker<'_>) {
    let store = make();
    let (log, _) = open(&*store, LogConfig::default());
    sent(&*log, 1, 0, 2);
    appended(&*log, plain(2));
    assert_eq!(wait(log.delete_records(3)).ok(), Some(3));
    assert_eq!(last_stable(&*log), 3, "not below the log's start");
    ended(&*log, end(1, 0, false));
    assert_eq!(last_stable(&*log), 5);
    assert_eq!(committed(&*log, 3, 1 << 20), [3]);
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn committed_readers_agree_with_a_model(make: Maker<'_>) {
    for seed in 1..=8 {
        let store = make();
        let config = LogConfig {
            segment_bytes: 700,
            index_interval_bytes: 150,
            ..LogConfig::default()
        };
        let (log, _) = open(&*store, config);
        agrees_with_a_model(&log, &mut Numbers(seed));
    }
}

/// Producers that open, commit and abort at random; readers that fetch from random offsets in pieces.
fn agrees_with_a_model(log: &Arc<dyn PartitionLog>, numbers: &mut Numbers) {
    // Records of each open transaction, by producer; records that count; next sequences.
    let mut open: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut visible: BTreeSet<i64> = BTreeSet::new();
    let mut sequences = [0; 4];
    for _ in 0..120 {
        let producer = numbers.below(4);
        let producer_id = producer as i64;
        let count = 1 + numbers.below(3) as usize;
        match numbers.below(10) {
            0..5 => {
                let sequence = &mut sequences[producer as usize];
                let first = sent(&**log, producer_id, *sequence, count);
                *sequence += count as i32;
                let records = open.entry(producer_id).or_default();
                records.extend(first..first + count as i64);
            }
            5..8 => {
                let commit = numbers.below(2) == 0;
                ended(&**log, end(producer_id, 0, commit));
                let records = open.remove(&producer_id).unwrap_or_default();
                if commit {
                    visible.extend(records);
                }
            }
            _ => {
                let first = appended(&**log, plain(count)).base_offset;
                visible.extend(first..first + count as i64);
            }
        }
        let high_watermark = log.watermarks().high_watermark;
        let first_open = open.values().filter_map(|records| records.first()).min();
        let stable = first_open.copied().unwrap_or(high_watermark);
        assert_eq!(last_stable(&**log), stable);
        let from = numbers.below(stable as u64 + 1) as i64;
        let max_bytes = [1, 200, 500, 1 << 20][numbers.below(4) as usize];
        let expected: Vec<i64> = visible.range(from..stable.max(from)).copied().collect();
        assert_eq!(
            committed(&**log, from, max_bytes),
            expected,
            "from {from}, {max_bytes} bytes"
        );
    }
}
