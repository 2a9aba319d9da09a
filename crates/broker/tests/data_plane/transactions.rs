//! Transactions over the wire, as clients before KIP-890 speak (they add partitions themselves and keep
//! their epoch) and as those since (the broker adds partitions, each end gives a new epoch).

use milena_protocol::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use milena_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use milena_protocol::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use milena_protocol::messages::describe_transactions_request::DescribeTransactionsRequest;
use milena_protocol::messages::end_txn_request::EndTxnRequest;
use milena_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use milena_protocol::messages::fetch_response::PartitionData;
use milena_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use milena_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use milena_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use milena_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use milena_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use milena_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use milena_protocol::{ErrorCode, Uuid};

use crate::batches::{Batch, Fetched, decode, produce_request};
use crate::harness::{Client, TestBroker, error, text};

const TRANSACTIONAL: i16 = 0x10;

/// A producer with the id `tx`, as one of the two kinds of clients.
struct Producer {
    client: Client,
    id: i64,
    epoch: i16,
    sequence: i32,
    bumps_epoch: bool,
}

impl Producer {
    async fn start(broker: &TestBroker, bumps_epoch: bool) -> Self {
        let mut client = broker.connect().await;
        let found = client
            .call(
                &FindCoordinatorRequest {
                    key_type: 1,
                    coordinator_keys: vec![text("tx")],
                    ..FindCoordinatorRequest::default()
                },
                6,
            )
            .await;
        assert_eq!(error(found.coordinators[0].error_code), ErrorCode::None);
        let (id, epoch) = init(&mut client).await;
        Self {
            client,
            id,
            epoch,
            sequence: 0,
            bumps_epoch,
        }
    }

    fn batch(&self, value: &str) -> Batch {
        Batch {
            attributes: TRANSACTIONAL,
            ..Batch::of(&[value]).idempotent(self.id, self.epoch, self.sequence)
        }
    }

    async fn add_partition(&mut self, topic: &str, partition: i32) -> ErrorCode {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: text("tx"),
            v3_and_below_producer_id: self.id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: text(topic),
                partitions: vec![partition],
                ..AddPartitionsToTxnTopic::default()
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        let response = self.client.call(&request, 3).await;
        let topic = &response.results_by_topic_v3_and_below[0];
        error(topic.results_by_partition[0].partition_error_code)
    }

    async fn produce(&mut self, topic: &str, value: &str) -> ErrorCode {
        let mut request = produce_request(topic, 0, self.batch(value).encode());
        request.transactional_id = Some(text("tx"));
        let version = if self.bumps_epoch { 12 } else { 9 };
        let response = self.client.call(&request, version).await;
        error(response.responses[0].partition_responses[0].error_code)
    }

    /// A record in the open transaction.
    async fn send(&mut self, topic: &str, value: &str) {
        if !self.bumps_epoch {
            while self.add_partition(topic, 0).await == ErrorCode::ConcurrentTransactions {
                tokio::task::yield_now().await;
            }
        }
        loop {
            match self.produce(topic, value).await {
                ErrorCode::None => break,
                ErrorCode::ConcurrentTransactions => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
        self.sequence += 1;
    }

    async fn try_end(&mut self, committed: bool) -> ErrorCode {
        let request = EndTxnRequest {
            transactional_id: text("tx"),
            producer_id: self.id,
            producer_epoch: self.epoch,
            committed,
            ..EndTxnRequest::default()
        };
        let version = if self.bumps_epoch { 5 } else { 4 };
        let response = self.client.call(&request, version).await;
        if error(response.error_code) == ErrorCode::None && self.bumps_epoch {
            assert_eq!(response.producer_epoch, self.epoch + 1);
            self.epoch = response.producer_epoch;
            self.sequence = 0;
        }
        error(response.error_code)
    }

    async fn end(&mut self, committed: bool) {
        assert_eq!(self.try_end(committed).await, ErrorCode::None);
    }

    async fn state(&mut self) -> String {
        let request = DescribeTransactionsRequest {
            transactional_ids: vec![text("tx")],
            ..DescribeTransactionsRequest::default()
        };
        let response = self.client.call(&request, 0).await;
        response.transaction_states[0].transaction_state.to_string()
    }

    /// Waits until every partition knows how the transaction ended.
    async fn ended(&mut self) -> String {
        loop {
            let state = self.state().await;
            if !state.starts_with("Prepare") {
                return state;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn send_offset(&mut self, group: &str, offset: i64) -> ErrorCode {
        if !self.bumps_epoch {
            let request = AddOffsetsToTxnRequest {
                transactional_id: text("tx"),
                producer_id: self.id,
                producer_epoch: self.epoch,
                group_id: text(group),
                ..AddOffsetsToTxnRequest::default()
            };
            let added = self.client.call(&request, 3).await;
            assert_eq!(error(added.error_code), ErrorCode::None);
        }
        let request = TxnOffsetCommitRequest {
            transactional_id: text("tx"),
            group_id: text(group),
            producer_id: self.id,
            producer_epoch: self.epoch,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: text("t"),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let version = if self.bumps_epoch { 5 } else { 3 };
        let response = self.client.call(&request, version).await;
        error(response.topics[0].partitions[0].error_code)
    }
}

async fn init(client: &mut Client) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transactional_id: Some(text("tx")),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    loop {
        let response = client.call(&request, 5).await;
        match error(response.error_code) {
            ErrorCode::None => return (response.producer_id, response.producer_epoch),
            ErrorCode::ConcurrentTransactions => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

/// Of the coordinator that wrote the last marker to partition 0 of `t`.
async fn coordinator_epoch(client: &mut Client) -> i32 {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: text("t"),
            partition_indexes: vec![0],
            ..TopicRequest::default()
        }],
        ..DescribeProducersRequest::default()
    };
    let response = client.call(&request, 0).await;
    response.topics[0].partitions[0].active_producers[0].coordinator_epoch
}

async fn fetch(client: &mut Client, committed: bool, from: i64) -> PartitionData {
    let request = FetchRequest {
        max_bytes: 1 << 20,
        isolation_level: i8::from(committed),
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: text("t"),
            partitions: vec![FetchPartition {
                fetch_offset: from,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let mut response = client.call(&request, 12).await;
    response.responses.remove(0).partitions.remove(0)
}

/// What a client makes of an answer: markers left out, and the records of aborted transactions.
fn records(data: &PartitionData) -> Vec<Fetched> {
    let bytes = data.records.clone().unwrap().into_bytes().unwrap();
    let mut aborted: Vec<(i64, i64)> = data
        .aborted_transactions
        .iter()
        .flatten()
        .map(|it| (it.first_offset, it.producer_id))
        .collect();
    aborted.sort_unstable();
    let mut open = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    for batch in milena_protocol::records::batches(&bytes) {
        let batch = batch.unwrap();
        aborted.retain(|(first, producer)| {
            let reached = *first <= batch.header.last_offset();
            if reached {
                open.insert(*producer);
            }
            !reached
        });
        if batch.header.is_control() {
            open.remove(&batch.header.producer_id);
        } else if !(batch.header.is_transactional() && open.contains(&batch.header.producer_id)) {
            found.extend(decode(&milena_protocol::Chunk::Bytes(batch.bytes)));
        }
    }
    found
}

fn values(data: &PartitionData) -> Vec<String> {
    records(data).into_iter().map(|(_, value)| value).collect()
}

async fn committed_offset(client: &mut Client, group: &str, require_stable: bool) -> (i64, ErrorCode) {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: text(group),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: text("t"),
                partition_indexes: vec![0],
                topic_id: Uuid::ZERO,
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable,
        ..OffsetFetchRequest::default()
    };
    let response = client.call(&request, 8).await;
    let partition = &response.groups[0].topics[0].partitions[0];
    (partition.committed_offset, error(partition.error_code))
}

#[tokio::test]
async fn a_committed_transaction_is_read_when_it_is_committed_and_an_aborted_one_never() {
    for bumps_epoch in [false, true] {
        let broker = TestBroker::start().await;
        broker.topic("t", 1).await;
        let mut producer = Producer::start(&broker, bumps_epoch).await;
        let mut reader = broker.connect().await;
        producer.send("t", "a").await;
        producer.send("t", "b").await;
        let open = fetch(&mut reader, true, 0).await;
        assert_eq!((open.last_stable_offset, open.high_watermark), (0, 2));
        assert!(values(&open).is_empty(), "nothing of it is decided");
        assert_eq!(values(&fetch(&mut reader, false, 0).await), ["a", "b"]);
        producer.end(true).await;
        assert_eq!(producer.ended().await, "CompleteCommit");
        let done = fetch(&mut reader, true, 0).await;
        assert_eq!((done.last_stable_offset, done.high_watermark), (3, 3));
        assert_eq!(values(&done), ["a", "b"]);
        producer.send("t", "c").await;
        producer.end(false).await;
        assert_eq!(producer.ended().await, "CompleteAbort");
        producer.send("t", "d").await;
        producer.end(true).await;
        producer.ended().await;
        let all = fetch(&mut reader, true, 0).await;
        assert_eq!(all.aborted_transactions.as_ref().map(Vec::len), Some(1));
        assert_eq!(values(&all), ["a", "b", "d"]);
        let uncommitted = fetch(&mut reader, false, 0).await;
        // Trap 8: readers that want everything are told of nothing to leave out.
        assert_eq!(uncommitted.aborted_transactions, None);
        assert_eq!(values(&uncommitted), ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn the_last_stable_offset_is_what_list_offsets_tells_a_committed_reader() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut producer = Producer::start(&broker, true).await;
    producer.send("t", "a").await;
    let latest = async |client: &mut Client, isolation_level| {
        let request = ListOffsetsRequest {
            isolation_level,
            topics: vec![ListOffsetsTopic {
                name: text("t"),
                partitions: vec![ListOffsetsPartition {
                    timestamp: -1,
                    ..ListOffsetsPartition::default()
                }],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        client.call(&request, 6).await.topics[0].partitions[0].offset
    };
    let mut reader = broker.connect().await;
    assert_eq!(latest(&mut reader, 1).await, 0);
    assert_eq!(latest(&mut reader, 0).await, 1);
}

#[tokio::test]
async fn a_zombie_is_fenced_everywhere() {
    for bumps_epoch in [false, true] {
        let broker = TestBroker::start().await;
        broker.topic("t", 1).await;
        let mut zombie = Producer::start(&broker, bumps_epoch).await;
        zombie.send("t", "lost").await;
        let mut producer = Producer::start(&broker, bumps_epoch).await;
        assert_eq!(zombie.produce("t", "late").await, ErrorCode::InvalidProducerEpoch);
        assert_eq!(zombie.try_end(true).await, ErrorCode::ProducerFenced);
        assert_eq!(zombie.add_partition("t", 0).await, ErrorCode::ProducerFenced);
        producer.send("t", "kept").await;
        producer.end(true).await;
        producer.ended().await;
        let mut reader = broker.connect().await;
        assert_eq!(values(&fetch(&mut reader, true, 0).await), ["kept"]);
    }
}

#[tokio::test]
async fn offsets_take_effect_with_the_transaction() {
    for bumps_epoch in [false, true] {
        let broker = TestBroker::start().await;
        broker.topic("t", 1).await;
        let mut producer = Producer::start(&broker, bumps_epoch).await;
        let mut reader = broker.connect().await;
        producer.send("t", "a").await;
        assert_eq!(producer.send_offset("g", 7).await, ErrorCode::None);
        assert_eq!(
            committed_offset(&mut reader, "g", false).await,
            (-1, ErrorCode::None)
        );
        let unstable = committed_offset(&mut reader, "g", true).await;
        assert_eq!(unstable.1, ErrorCode::UnstableOffsetCommit);
        producer.end(true).await;
        producer.ended().await;
        assert_eq!(
            committed_offset(&mut reader, "g", true).await,
            (7, ErrorCode::None)
        );
        producer.send("t", "b").await;
        assert_eq!(producer.send_offset("g", 9).await, ErrorCode::None);
        producer.end(false).await;
        producer.ended().await;
        assert_eq!(
            committed_offset(&mut reader, "g", true).await,
            (7, ErrorCode::None)
        );
    }
}

#[tokio::test]
async fn what_is_open_or_pending_survives_a_restart() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut producer = Producer::start(&broker, true).await;
    producer.send("t", "a").await;
    assert_eq!(producer.send_offset("g", 3).await, ErrorCode::None);
    broker.restart().await;
    producer.client = broker.connect().await;
    let mut reader = broker.connect().await;
    assert!(values(&fetch(&mut reader, true, 0).await).is_empty());
    producer.send("t", "b").await;
    producer.end(true).await;
    producer.ended().await;
    assert_eq!(values(&fetch(&mut reader, true, 0).await), ["a", "b"]);
    assert_eq!(
        committed_offset(&mut reader, "g", true).await,
        (3, ErrorCode::None)
    );
}

/// Trap 9: a transaction whose producer is gone ends by itself.
#[tokio::test]
async fn a_transaction_that_nobody_ends_is_aborted_at_its_timeout() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let request = InitProducerIdRequest {
        transactional_id: Some(text("tx")),
        transaction_timeout_ms: 50,
        ..InitProducerIdRequest::default()
    };
    let given = client.call(&request, 5).await;
    let mut producer = Producer {
        client,
        id: given.producer_id,
        epoch: given.producer_epoch,
        sequence: 0,
        bumps_epoch: true,
    };
    producer.send("t", "gone").await;
    let mut reader = broker.connect().await;
    while fetch(&mut reader, true, 0).await.last_stable_offset == 0 {
        tokio::task::yield_now().await;
    }
    assert!(values(&fetch(&mut reader, true, 0).await).is_empty());
    assert_eq!(
        producer.produce("t", "late").await,
        ErrorCode::InvalidProducerEpoch
    );
    assert_eq!(producer.try_end(true).await, ErrorCode::InvalidTxnState);
}

#[tokio::test]
async fn a_batch_that_is_part_of_no_transaction_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut producer = Producer::start(&broker, false).await;
    assert_eq!(producer.produce("t", "a").await, ErrorCode::InvalidTxnState);
    producer.id += 1;
    assert_eq!(
        producer.produce("t", "a").await,
        ErrorCode::InvalidProducerIdMapping
    );
    let mut reader = broker.connect().await;
    assert_eq!(fetch(&mut reader, false, 0).await.high_watermark, 0);
}

#[tokio::test]
async fn partitions_that_do_not_exist_are_not_added_and_keep_the_others_out() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut producer = Producer::start(&broker, false).await;
    assert_eq!(
        producer.add_partition("t", 1).await,
        ErrorCode::UnknownTopicOrPartition
    );
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: text("tx"),
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: text("t"),
            partitions: vec![0, 5],
            ..AddPartitionsToTxnTopic::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    let response = producer.client.call(&request, 3).await;
    let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
    let mut codes: Vec<ErrorCode> = results.iter().map(|it| error(it.partition_error_code)).collect();
    codes.sort_by_key(|code| code.code());
    assert_eq!(
        codes,
        [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::OperationNotAttempted
        ]
    );
}

#[tokio::test]
async fn a_hanging_transaction_can_be_ended_by_hand() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut producer = Producer::start(&broker, true).await;
    producer.send("t", "hanging").await;
    let marker = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic {
                name: text("t"),
                partition_indexes: vec![0, 3],
                ..WritableTxnMarkerTopic::default()
            }],
            ..WritableTxnMarker::default()
        }],
        ..WriteTxnMarkersRequest::default()
    };
    let mut admin = broker.connect().await;
    let response = admin.call(&marker, 1).await;
    let results = &response.markers[0].topics[0].partitions;
    assert_eq!(error(results[0].error_code), ErrorCode::None);
    assert_eq!(error(results[1].error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(fetch(&mut admin, true, 0).await.last_stable_offset, 2);
}

/// What a coordinator may not end stays decided, until one may.
#[tokio::test]
async fn a_transaction_whose_marker_is_refused_as_an_old_coordinators_is_not_complete() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut producer = Producer::start(&broker, false).await;
    producer.send("t", "a").await;
    producer.end(true).await;
    producer.ended().await;
    let mut admin = broker.connect().await;
    let marker = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            transaction_result: false,
            coordinator_epoch: coordinator_epoch(&mut admin).await + 3,
            topics: vec![WritableTxnMarkerTopic {
                name: text("t"),
                partition_indexes: vec![0],
                ..WritableTxnMarkerTopic::default()
            }],
            ..WritableTxnMarker::default()
        }],
        ..WriteTxnMarkersRequest::default()
    };
    let response = admin.call(&marker, 1).await;
    assert_eq!(response.markers[0].topics[0].partitions[0].error_code, 0);
    producer.send("t", "b").await;
    producer.end(true).await;
    // Every start takes a later coordinator epoch.
    for _ in 0..4 {
        producer.state().await;
        broker.restart().await;
        producer.client = broker.connect().await;
    }
    assert_eq!(producer.ended().await, "CompleteCommit");
    let mut reader = broker.connect().await;
    assert_eq!(values(&fetch(&mut reader, true, 0).await), ["a", "b"]);
}
