use bytes::{Bytes, BytesMut};
use milena_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use milena_protocol::{ErrorCode, Uuid};

use crate::batches::{Batch, decode, produce, produce_by_id, produce_bytes, produce_request};
use crate::fetch::fetch_all;
use crate::harness::{TestBroker, error, text};

fn no_transactions() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: None,
        ..InitProducerIdRequest::default()
    }
}

#[tokio::test]
async fn records_get_consecutive_offsets_and_come_back() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut client = broker.connect().await;
    let first = produce(&mut client, "t", 1, &Batch::of(&["a", "b"])).await;
    let second = produce(&mut client, "t", 1, &Batch::of(&["c"])).await;
    assert_eq!((error(first.error_code), first.base_offset), (ErrorCode::None, 0));
    assert_eq!(
        (error(second.error_code), second.base_offset),
        (ErrorCode::None, 2)
    );
    let expected = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())];
    assert_eq!(decode(&fetch_all(&mut client, "t", 1, 0).await), expected);
}

#[tokio::test]
async fn acks_other_than_0_1_and_all_are_refused_for_each_partition() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut request = produce_request("t", 0, Batch::of(&["a"]).encode());
    request.acks = 2;
    let response = broker.connect().await.call(&request, 9).await;
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(error(partition.error_code), ErrorCode::InvalidRequiredAcks);
    assert_eq!(partition.base_offset, -1);
}

#[tokio::test]
async fn acks_all_is_taken_where_the_topic_asks_for_more_replicas_than_it_has() {
    let broker = TestBroker::start().await;
    broker.topic_with("t", 1, &[("min.insync.replicas", "2")]).await;
    // Kafka compares the setting with the topic's replicas, and takes it for no more than those.
    let answer = produce(&mut broker.connect().await, "t", 0, &Batch::of(&["a"])).await;
    assert_eq!(
        (error(answer.error_code), answer.base_offset),
        (ErrorCode::None, 0)
    );
}

#[tokio::test]
async fn acks_0_is_not_answered_and_an_error_closes_the_connection() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut request = produce_request("t", 0, Batch::of(&["a"]).encode());
    request.acks = 0;
    client.send(&request, 9).await;
    // The next answer on the connection is that of the next request.
    assert_eq!(
        produce(&mut client, "t", 0, &Batch::of(&["b"])).await.base_offset,
        1
    );
    let mut request = produce_request("unknown", 0, Batch::of(&["a"]).encode());
    request.acks = 0;
    client.send(&request, 9).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn unknown_topics_partitions_and_ids_have_codes_of_their_own() {
    let broker = TestBroker::start().await;
    let id = broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let records = Batch::of(&["a"]).encode();
    let unknown = produce_bytes(&mut client, "no", 0, records.clone()).await;
    assert_eq!(error(unknown.error_code), ErrorCode::UnknownTopicOrPartition);
    let outside = produce_bytes(&mut client, "t", 1, records.clone()).await;
    assert_eq!(error(outside.error_code), ErrorCode::UnknownTopicOrPartition);
    let strange = client
        .call(&produce_by_id(Uuid::from_bytes([9; 16]), 0, records.clone()), 13)
        .await;
    assert_eq!(
        error(strange.responses[0].partition_responses[0].error_code),
        ErrorCode::UnknownTopicId
    );
    let known = client.call(&produce_by_id(id, 0, records), 13).await;
    assert_eq!(
        error(known.responses[0].partition_responses[0].error_code),
        ErrorCode::None
    );
    assert_eq!(known.responses[0].topic_id, id);
}

#[tokio::test]
async fn a_batch_with_a_wrong_crc_is_corrupt_and_nothing_is_stored() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut bytes = BytesMut::from(&Batch::of(&["a"]).encode()[..]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let refused = produce_bytes(&mut client, "t", 0, bytes.freeze()).await;
    assert_eq!(error(refused.error_code), ErrorCode::CorruptMessage);
    assert!(fetch_all(&mut client, "t", 0, 0).await.is_empty());
}

#[tokio::test]
async fn a_batch_whose_count_lies_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    for lie in [-1, 1, i32::MAX - 2] {
        let batch = Batch {
            count_lie: lie,
            ..Batch::of(&["a", "b"])
        };
        let refused = produce(&mut client, "t", 0, &batch).await;
        assert_eq!(
            error(refused.error_code),
            ErrorCode::InvalidRecord,
            "count off by {lie}"
        );
    }
}

#[tokio::test]
async fn old_magic_two_batches_at_once_and_no_batch_are_invalid() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let batch = Batch::of(&["a"]).encode();
    let twice = Bytes::from([&batch[..], &batch[..]].concat());
    assert_eq!(
        error(produce_bytes(&mut client, "t", 0, twice).await.error_code),
        ErrorCode::InvalidRecord
    );
    assert_eq!(
        error(produce_bytes(&mut client, "t", 0, Bytes::new()).await.error_code),
        ErrorCode::InvalidRecord
    );
    let old = Batch {
        magic: 1,
        ..Batch::of(&["a"])
    };
    assert_ne!(
        error(produce(&mut client, "t", 0, &old).await.error_code),
        ErrorCode::None
    );
    assert!(fetch_all(&mut client, "t", 0, 0).await.is_empty());
}

#[tokio::test]
async fn trap_6_max_message_bytes_is_enforced() {
    let broker = TestBroker::start().await;
    broker.topic_with("t", 1, &[("max.message.bytes", "200")]).await;
    let mut client = broker.connect().await;
    let large = "x".repeat(300);
    let refused = produce(&mut client, "t", 0, &Batch::of(&[&large])).await;
    assert_eq!(error(refused.error_code), ErrorCode::MessageTooLarge);
    let small = produce(&mut client, "t", 0, &Batch::of(&["x"])).await;
    assert_eq!((error(small.error_code), small.base_offset), (ErrorCode::None, 0));
}

#[tokio::test]
async fn trap_6_keyless_records_are_refused_on_a_compacted_topic() {
    let broker = TestBroker::start().await;
    broker.topic_with("t", 1, &[("cleanup.policy", "compact")]).await;
    let mut client = broker.connect().await;
    let refused = produce(&mut client, "t", 0, &Batch::of(&["x"])).await;
    assert_eq!(error(refused.error_code), ErrorCode::InvalidRecord);
    let why = "Compacted topic cannot accept message without key in topic partition t-0";
    assert_eq!(refused.record_errors.len(), 1);
    assert_eq!(refused.record_errors[0].batch_index, 0);
    assert_eq!(
        refused.record_errors[0].batch_index_error_message,
        Some(text(why))
    );
    let all = format!(
        "One or more records have been rejected due to 1 record errors in total, and only showing the first three \
         errors at most: [RecordError(batchIndex=0, message='{why}')]"
    );
    assert_eq!(refused.error_message, Some(text(&all)));
    let keyed = Batch {
        key: Some(b"k".to_vec()),
        ..Batch::of(&["x"])
    };
    assert_eq!(
        error(produce(&mut client, "t", 0, &keyed).await.error_code),
        ErrorCode::None
    );
}

#[tokio::test]
async fn a_timestamp_out_of_bounds_is_told_with_the_record_that_has_it() {
    let broker = TestBroker::start().await;
    broker
        .topic_with("t", 1, &[("message.timestamp.after.max.ms", "1000")])
        .await;
    let mut client = broker.connect().await;
    let batch = Batch {
        first_timestamp: crate::batches::now_ms() + 3_600_000,
        ..Batch::of(&["a", "b"])
    };
    let refused = produce(&mut client, "t", 0, &batch).await;
    assert_eq!(error(refused.error_code), ErrorCode::InvalidTimestamp);
    let indexes: Vec<i32> = refused
        .record_errors
        .iter()
        .map(|record| record.batch_index)
        .collect();
    assert_eq!(indexes, [0, 1]);
    let message = "One or more records have been rejected due to invalid timestamp";
    assert_eq!(refused.error_message, Some(text(message)));
}

#[tokio::test]
async fn a_transactional_batch_of_nobodys_transaction_is_refused() {
    const TRANSACTIONAL: i16 = 0x10;
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let batch = Batch {
        attributes: TRANSACTIONAL,
        ..Batch::of(&["a"]).idempotent(1, 0, 0)
    };
    let mut request = produce_request("t", 0, batch.encode());
    let without_id = client.call(&request, 9).await;
    let code = error(without_id.responses[0].partition_responses[0].error_code);
    assert_eq!(code, ErrorCode::TransactionalIdAuthorizationFailed);
    request.transactional_id = Some(text("tx"));
    let with_id = client.call(&request, 9).await;
    assert_eq!(
        error(with_id.responses[0].partition_responses[0].error_code),
        ErrorCode::InvalidProducerIdMapping
    );
    assert!(fetch_all(&mut client, "t", 0, 0).await.is_empty());
}

#[tokio::test]
async fn zstd_needs_version_7() {
    const ZSTD: i16 = 4;
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    // Not even a zstd frame: below version 7 nobody looks inside.
    let batch = Batch {
        attributes: ZSTD,
        ..Batch::of(&["a"])
    };
    let response = client.call(&produce_request("t", 0, batch.encode()), 6).await;
    let code = error(response.responses[0].partition_responses[0].error_code);
    assert_eq!(code, ErrorCode::UnsupportedCompressionType);
}

#[tokio::test]
async fn trap_7_a_duplicate_is_answered_with_its_first_offset() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    for sequence in 0..5 {
        let batch = Batch::of(&["x"]).idempotent(7, 0, sequence);
        assert_eq!(
            produce(&mut client, "t", 0, &batch).await.base_offset,
            i64::from(sequence)
        );
    }
    for sequence in 0..5 {
        let again = produce(&mut client, "t", 0, &Batch::of(&["x"]).idempotent(7, 0, sequence)).await;
        assert_eq!(
            (error(again.error_code), again.base_offset),
            (ErrorCode::None, i64::from(sequence))
        );
    }
    let gap = produce(&mut client, "t", 0, &Batch::of(&["x"]).idempotent(7, 0, 9)).await;
    assert_eq!(error(gap.error_code), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(decode(&fetch_all(&mut client, "t", 0, 0).await).len(), 5);
}

#[tokio::test]
async fn trap_7_an_unknown_producer_may_start_anywhere_and_the_sequence_wraps() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let first = produce(&mut client, "t", 0, &Batch::of(&["x"]).idempotent(7, 3, i32::MAX)).await;
    assert_eq!(error(first.error_code), ErrorCode::None);
    let wrapped = produce(&mut client, "t", 0, &Batch::of(&["x"]).idempotent(7, 3, 0)).await;
    assert_eq!(error(wrapped.error_code), ErrorCode::None);
    let fenced = produce(&mut client, "t", 0, &Batch::of(&["x"]).idempotent(7, 2, 1)).await;
    assert_eq!(error(fenced.error_code), ErrorCode::InvalidProducerEpoch);
}

#[tokio::test]
async fn trap_7_producer_ids_are_given_once_also_across_restarts() {
    let mut broker = TestBroker::start().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..2 {
        let mut client = broker.connect().await;
        for version in 0..=5 {
            let response = client.call(&no_transactions(), version).await;
            assert_eq!(
                (error(response.error_code), response.producer_epoch),
                (ErrorCode::None, 0)
            );
            assert!(
                seen.insert(response.producer_id),
                "{} was given twice",
                response.producer_id
            );
        }
        broker.restart().await;
    }
}

#[tokio::test]
async fn an_idempotent_producer_that_tells_its_epoch_gets_a_new_id() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let first = client.call(&no_transactions(), 5).await;
    let mut request = InitProducerIdRequest {
        producer_id: first.producer_id,
        producer_epoch: first.producer_epoch,
        ..no_transactions()
    };
    let second = client.call(&request, 5).await;
    assert_eq!(
        (error(second.error_code), second.producer_epoch),
        (ErrorCode::None, 0)
    );
    assert_ne!(second.producer_id, first.producer_id);
    request.producer_epoch = -1;
    assert_eq!(
        error(client.call(&request, 5).await.error_code),
        ErrorCode::InvalidRequest
    );
}
