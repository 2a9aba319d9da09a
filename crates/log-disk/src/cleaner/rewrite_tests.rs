use super::*;

const NOW_MS: i64 = 1_000_000;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// Types of control records: the second number in their key.
const ABORT: [u8; 2] = [0, 0];
const COMMIT: [u8; 2] = [0, 1];

fn data(offset: i64, producer_id: i64, key: &str) -> Batch {
    let mut builder = BatchBuilder::new()
        .attributes(TRANSACTIONAL)
        .producer(producer_id, 0, 0)
        .base_offset(offset);
    builder.push(&NewRecord {
        timestamp: 5,
        key: Some(Bytes::from(key.to_owned())),
        value: Some(Bytes::from_static(b"value")),
        headers: Vec::new(),
    });
    Batch::parse(&builder.build().unwrap()).unwrap()
}

fn marker(offset: i64, producer_id: i64, kind: [u8; 2]) -> Batch {
    let mut builder = BatchBuilder::new()
        .attributes(TRANSACTIONAL | CONTROL)
        .producer(producer_id, 0, -1)
        .base_offset(offset);
    builder.push(&NewRecord {
        timestamp: 5,
        key: Some(Bytes::from([[0, 0], kind].concat())),
        value: Some(Bytes::from_static(&[0; 6])),
        headers: Vec::new(),
    });
    Batch::parse(&builder.build().unwrap()).unwrap()
}

/// A map in which `newest` are the newest offsets, that reaches up to 100.
fn map(newest: &[(&str, i64)]) -> OffsetMap {
    let mut map = OffsetMap::new(0, 100, 1 << 16, 0.9);
    for (key, offset) in newest {
        map.put(key.as_bytes(), *offset);
    }
    map.reached(99);
    map
}

/// Filters the batches one behind the other, and gives what is left.
fn left(batches: &[Batch], newest: &[(&str, i64)], aborted: &[EndedTransaction], now_ms: i64) -> Vec<Batch> {
    let (map, last_records) = (map(newest), LastRecords::default());
    let rules = Rules {
        map: &map,
        now_ms,
        delete_retention_ms: 500,
        round_end: 100,
        last_records: &last_records,
    };
    let mut transactions = Transactions::new(aborted.to_vec());
    batches
        .iter()
        .filter_map(
            |batch| match rules.filter(batch, &mut transactions).unwrap().outcome {
                Outcome::Keep => Some(batch.clone()),
                Outcome::Drop => None,
                Outcome::Replace(bytes) => Some(Batch::parse(&bytes).unwrap()),
            },
        )
        .collect()
}

fn offsets(batches: &[Batch]) -> Vec<i64> {
    batches.iter().map(|batch| batch.header.base_offset).collect()
}

#[test]
fn a_commit_marker_stays_as_long_as_its_records_and_then_until_its_horizon() {
    let log = [
        data(0, 7, "a"),
        marker(1, 7, COMMIT),
        data(2, 8, "a"),
        marker(3, 8, COMMIT),
    ];
    let log = left(&log, &[("a", 0)], &[], NOW_MS);
    assert_eq!(offsets(&log), [0, 1, 2, 3]);
    // A newer record: those of the first transaction go, its marker is seen to be alone a round later.
    let log = left(&log, &[("a", 2)], &[], NOW_MS);
    assert_eq!(offsets(&log), [1, 2, 3]);
    assert_eq!(log[0].header.delete_horizon_ms(), None);
    let log = left(&log, &[("a", 2)], &[], NOW_MS);
    assert_eq!(log[0].header.delete_horizon_ms(), Some(NOW_MS + 500));
    assert_eq!(log[2].header.delete_horizon_ms(), None);
    log.iter().for_each(|batch| batch.check_crc().unwrap());
    assert_eq!(offsets(&left(&log, &[], &[], NOW_MS + 499)), [1, 2, 3]);
    assert_eq!(offsets(&left(&log, &[], &[], NOW_MS + 500)), [2, 3]);
}

#[test]
fn the_records_of_an_aborted_transaction_go_whatever_their_keys() {
    let log = [
        data(0, 7, "a"),
        data(1, 8, "b"),
        marker(2, 7, ABORT),
        data(3, 7, "c"),
    ];
    let aborted = [EndedTransaction {
        producer_id: 7,
        first_offset: 0,
        last_offset: 2,
        last_stable_offset: 1,
    }];
    let log = left(&log, &[("a", 0), ("b", 1), ("c", 3)], &aborted, NOW_MS);
    assert_eq!(offsets(&log), [1, 2, 3]);
    assert_eq!(
        log[1].header.delete_horizon_ms(),
        None,
        "its records were there a moment ago"
    );
    let log = left(&log, &[], &aborted, NOW_MS);
    assert_eq!(log[1].header.delete_horizon_ms(), Some(NOW_MS + 500));
    assert_eq!(offsets(&left(&log, &[], &[], NOW_MS + 500)), [1, 3]);
}

#[test]
fn the_batch_at_the_end_of_the_round_stays_without_records() {
    let (first, last) = (data(98, 7, "a"), data(99, 7, "a"));
    let log = left(&[first, last], &[("a", 200)], &[], NOW_MS);
    assert_eq!(offsets(&log), [99]);
    let header = log[0].header;
    assert_eq!(
        (header.record_count, header.last_offset(), header.base_timestamp),
        (0, 99, -1)
    );
    assert!(header.is_transactional());
    log[0].check_crc().unwrap();
    assert_eq!(left(&log, &[], &[], NOW_MS), log, "once empty it stays as it is");
}

#[test]
fn what_is_above_the_map_stays_as_it_is() {
    let mut map = OffsetMap::new(0, 10, 1 << 16, 0.9);
    map.put(b"a", 4);
    let batch = data(5, 7, "a");
    let rules = Rules {
        map: &map,
        now_ms: NOW_MS,
        delete_retention_ms: 0,
        round_end: 100,
        last_records: &LastRecords::default(),
    };
    let filtered = rules.filter(&batch, &mut Transactions::default()).unwrap();
    assert_eq!(filtered.outcome, Outcome::Keep);
}
