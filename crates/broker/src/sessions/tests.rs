use bytes::Bytes;

use super::*;

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicKey::Name(Str::from("t")),
        partition,
    }
}

fn wanted(fetch_offset: i64) -> Wanted {
    Wanted {
        fetch_offset,
        max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn request(session_id: i32, epoch: i32, now_ms: i64) -> SessionRequest {
    SessionRequest {
        session_id,
        epoch,
        uses_topic_ids: false,
        now_ms,
    }
}

fn data(partition: i32, high_watermark: i64, records: &'static [u8]) -> PartitionData {
    PartitionData {
        partition_index: partition,
        high_watermark,
        log_start_offset: 0,
        records: Some(Bytes::from_static(records).into()),
        ..PartitionData::default()
    }
}

fn full(sessions: &FetchSessions, partitions: i32, now_ms: i64) -> i32 {
    let wanted = (0..partitions).map(|index| (key(index), wanted(0))).collect();
    let context = sessions.open(request(0, 0, now_ms), wanted, &[]).unwrap();
    let answers = (0..partitions)
        .map(|index| (key(index), data(index, 0, b"")))
        .collect();
    sessions.close(context, answers).session_id
}

fn served(context: &FetchContext) -> Vec<i32> {
    context.partitions.iter().map(|(key, _)| key.partition).collect()
}

#[test]
fn an_incremental_answer_holds_only_what_changed() {
    let sessions = FetchSessions::new(10, 7);
    let id = full(&sessions, 3, 0);
    assert_ne!(id, 0);
    let context = sessions.open(request(id, 1, 1), Vec::new(), &[]).unwrap();
    assert_eq!(served(&context), [0, 1, 2]);
    let answer = sessions.close(
        context,
        vec![
            (key(0), data(0, 0, b"")),
            (key(1), data(1, 5, b"abc")),
            (key(2), data(2, 1, b"")),
        ],
    );
    assert_eq!(answer.session_id, id);
    assert_eq!(
        answer
            .partitions
            .iter()
            .map(|(key, _)| key.partition)
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_partition_that_gave_data_is_served_last_next_time() {
    let sessions = FetchSessions::new(10, 7);
    let id = full(&sessions, 3, 0);
    let context = sessions.open(request(id, 1, 1), Vec::new(), &[]).unwrap();
    sessions.close(
        context,
        vec![(key(0), data(0, 3, b"abc")), (key(1), data(1, 0, b""))],
    );
    let context = sessions.open(request(id, 2, 1), Vec::new(), &[]).unwrap();
    assert_eq!(served(&context), [1, 2, 0]);
}

#[test]
fn an_error_is_told_each_time_and_its_end_is_told_too() {
    let sessions = FetchSessions::new(10, 7);
    let id = full(&sessions, 1, 0);
    let failed = PartitionData {
        error_code: ErrorCode::KafkaStorageError.code(),
        ..data(0, -1, b"")
    };
    for epoch in 1..=2 {
        let context = sessions.open(request(id, epoch, 1), Vec::new(), &[]).unwrap();
        assert_eq!(
            sessions
                .close(context, vec![(key(0), failed.clone())])
                .partitions
                .len(),
            1
        );
    }
    let context = sessions.open(request(id, 3, 1), Vec::new(), &[]).unwrap();
    assert_eq!(
        sessions
            .close(context, vec![(key(0), data(0, 0, b""))])
            .partitions
            .len(),
        1
    );
}

#[test]
fn forgotten_partitions_are_gone_and_an_emptied_session_is_closed() {
    let sessions = FetchSessions::new(10, 7);
    let id = full(&sessions, 2, 0);
    let context = sessions
        .open(request(id, 1, 1), vec![(key(5), wanted(9))], &[key(0)])
        .unwrap();
    assert_eq!(served(&context), [1, 5]);
    sessions
        .open(request(id, 2, 1), Vec::new(), &[key(1), key(5)])
        .unwrap();
    assert_eq!(
        sessions.open(request(id, 3, 1), Vec::new(), &[]).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
}

#[test]
fn session_errors_are_those_of_kafka() {
    let sessions = FetchSessions::new(10, 7);
    assert_eq!(
        sessions.open(request(99, 1, 0), Vec::new(), &[]).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
    let id = full(&sessions, 1, 0);
    assert_eq!(
        sessions.open(request(id, 2, 0), Vec::new(), &[]).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch
    );
    let by_id = SessionRequest {
        uses_topic_ids: true,
        ..request(id, 1, 0)
    };
    assert_eq!(
        sessions.open(by_id, Vec::new(), &[]).unwrap_err(),
        ErrorCode::FetchSessionTopicIdError
    );
}

#[test]
fn an_answer_that_was_overtaken_by_the_next_request_is_refused() {
    let sessions = FetchSessions::new(10, 7);
    let id = full(&sessions, 1, 0);
    let first = sessions.open(request(id, 1, 0), Vec::new(), &[]).unwrap();
    let second = sessions.open(request(id, 2, 0), Vec::new(), &[]).unwrap();
    assert_eq!(
        sessions.close(first, Vec::new()).error,
        ErrorCode::InvalidFetchSessionEpoch
    );
    assert_eq!(sessions.close(second, Vec::new()).error, ErrorCode::None);
}

#[test]
fn the_final_epoch_closes_the_session() {
    let sessions = FetchSessions::new(10, 7);
    let id = full(&sessions, 1, 0);
    let context = sessions
        .open(request(id, -1, 0), vec![(key(0), wanted(0))], &[])
        .unwrap();
    assert_eq!(
        sessions
            .close(context, vec![(key(0), data(0, 0, b""))])
            .session_id,
        0
    );
    assert_eq!(
        sessions.open(request(id, 1, 0), Vec::new(), &[]).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
}

#[test]
fn a_full_cache_gives_room_only_to_larger_sessions_than_an_old_one_or_for_a_stale_one() {
    let sessions = FetchSessions::new(1, 7);
    let first = full(&sessions, 2, 0);
    assert_ne!(first, 0);
    assert_eq!(
        full(&sessions, 3, 10),
        0,
        "the one that is there is new and in use"
    );
    // Used after two minutes: old enough to give way to a larger one, not to one of its size.
    sessions
        .open(request(first, 1, 120_001), Vec::new(), &[])
        .unwrap();
    assert_eq!(full(&sessions, 2, 120_002), 0);
    let second = full(&sessions, 3, 120_003);
    assert_ne!(second, 0);
    assert_eq!(
        sessions
            .open(request(first, 2, 120_004), Vec::new(), &[])
            .unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
    // Not used for more than two minutes: gives way to anyone.
    assert_ne!(full(&sessions, 1, 240_004), 0);
}

#[test]
fn a_partition_named_twice_is_fetched_once_as_last_said() {
    let sessions = FetchSessions::new(1, 7);
    let named_twice = vec![(key(0), wanted(1)), (key(1), wanted(2)), (key(0), wanted(3))];
    let context = sessions.open(request(0, 0, 0), named_twice, &[]).unwrap();
    assert_eq!(context.partitions, [(key(0), wanted(3)), (key(1), wanted(2))]);
}
