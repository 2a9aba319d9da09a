//! A log directory whose disk fails: what waited there ends, everything is answered as Kafka answers
//! it, nothing is tried again as if it had worked, and the other directory goes on.

use milena_log_disk::CommitMode;
use milena_protocol::ErrorCode;
use milena_protocol::messages::describe_topic_partitions_request::TopicRequest;
use milena_protocol::messages::fetch_request::FetchRequest;
use milena_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use milena_protocol::messages::metadata_request::MetadataRequestTopic;
use milena_protocol::messages::produce_request::ProduceRequest;
use milena_protocol::messages::{DescribeLogDirsRequest, DescribeTopicPartitionsRequest, MetadataRequest};
use rustix::io::Errno;

use crate::batches::produce_request;
use crate::engine::{FETCH, LONG_WAIT_MS, batch, fetch, patiently, records, until, whole_batches};
use crate::faults::{PARTITIONS, TwoDisks, What};
use crate::harness::{Client, error, text};

const PRODUCE: i16 = 9;

fn produce(partition: i32, acks: i16) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: LONG_WAIT_MS,
        ..produce_request("t", partition, batch(7, 1, 100))
    }
}

async fn produced(client: &mut Client, correlation_id: i32) -> ErrorCode {
    let answer = patiently(client.receive::<ProduceRequest>(PRODUCE, correlation_id)).await;
    error(answer.responses[0].partition_responses[0].error_code)
}

async fn fetched(client: &mut Client, correlation_id: i32) -> ErrorCode {
    let answer = patiently(client.receive::<FetchRequest>(FETCH, correlation_id)).await;
    error(answer.responses[0].partitions[0].error_code)
}

/// A request that waits, and the client that sent it.
struct Waiting {
    client: Client,
    sent: i32,
}

impl TwoDisks {
    /// A fetch of a partition without records; it waits when this returns.
    async fn waiting_fetch(&self, partition: i32) -> Waiting {
        let looks = self.hook(partition).looks;
        let mut client = self.broker.connect().await;
        let mut request = fetch("t", &[(partition, 0)]);
        request.max_wait_ms = 1;
        looks.reset();
        patiently(client.call(&request, FETCH)).await;
        let waits_after = looks.count();
        request.max_wait_ms = LONG_WAIT_MS;
        looks.reset();
        let sent = client.send(&request, FETCH).await;
        until(|| looks.count() == waits_after).await;
        Waiting { client, sent }
    }

    /// An acks=all produce that has appended, and waits for its sync.
    async fn waiting_produce(&self, partition: i32) -> Waiting {
        let log = self.hook(partition).log;
        let before = log.watermarks().log_end;
        let mut client = self.broker.connect().await;
        let sent = client.send(&produce(partition, -1), PRODUCE).await;
        until(|| log.watermarks().log_end > before).await;
        Waiting { client, sent }
    }

    /// What becomes of requests to a directory that is offline, and of those to the other.
    async fn assert_first_is_offline(&self) {
        let mut client = self.broker.connect().await;
        for partition in [0, 2] {
            for acks in [1, -1] {
                let sent = client.send(&produce(partition, acks), PRODUCE).await;
                assert_eq!(produced(&mut client, sent).await, ErrorCode::KafkaStorageError);
            }
            let mut request = fetch("t", &[(partition, 0)]);
            request.max_wait_ms = LONG_WAIT_MS;
            let sent = client.send(&request, FETCH).await;
            assert_eq!(fetched(&mut client, sent).await, ErrorCode::KafkaStorageError);
            // Clients of that time do not know the code.
            let old = patiently(client.call(&request, 5)).await;
            let code = error(old.responses[0].partitions[0].error_code);
            assert_eq!(code, ErrorCode::NotLeaderOrFollower);
        }
        for partition in [1, 3] {
            let mut waiting = self.waiting_produce(partition).await;
            self.logs.commit();
            assert_eq!(produced(&mut waiting.client, waiting.sent).await, ErrorCode::None);
        }
    }
}

/// With requests of every kind waiting in both directories.
async fn fails(what: What) {
    let disks = TwoDisks::start(CommitMode::Manual).await;
    let mut readers = Vec::new();
    for partition in 0..PARTITIONS {
        readers.push(disks.waiting_fetch(partition).await);
    }
    let mut producer = disks.waiting_produce(0).await;
    disks.fail_first(what, Errno::IO);
    if what == What::Writes {
        let mut other = disks.broker.connect().await;
        let sent = other.send(&produce(0, 1), PRODUCE).await;
        assert_eq!(produced(&mut other, sent).await, ErrorCode::KafkaStorageError);
    }
    disks.logs.commit();
    let code = produced(&mut producer.client, producer.sent).await;
    assert_eq!(code, ErrorCode::KafkaStorageError);
    let mut readers = readers.into_iter();
    for partition in 0..PARTITIONS {
        let mut reader = readers.next().unwrap();
        if partition % 2 == 0 {
            let code = fetched(&mut reader.client, reader.sent).await;
            assert_eq!(code, ErrorCode::KafkaStorageError, "partition {partition}");
            continue;
        }
        let mut producer = disks.waiting_produce(partition).await;
        disks.logs.commit();
        assert_eq!(
            produced(&mut producer.client, producer.sent).await,
            ErrorCode::None
        );
        let answer = patiently(reader.client.receive::<FetchRequest>(FETCH, reader.sent)).await;
        let records = records(&answer.responses[0].partitions[0]);
        assert_eq!(whole_batches(&records).len(), 1, "partition {partition}");
    }
    disks.assert_first_is_offline().await;
    // Not even when the disk seems to work: nobody knows what it has lost.
    disks.faults.end();
    disks.assert_first_is_offline().await;
    // What is new goes where there is a disk, and what is old can be deleted.
    disks.broker.topic("new", 2).await;
    for partition in 0..2 {
        assert!(disks.dirs[1].path().join(format!("new-{partition}")).is_dir());
    }
    disks.broker.delete_topic("t").await;
}

#[tokio::test]
async fn a_failed_sync_ends_what_waits_in_its_directory_and_nothing_else() {
    fails(What::Syncs).await;
}

#[tokio::test]
async fn a_failed_write_ends_what_waits_in_its_directory_and_nothing_else() {
    fails(What::Writes).await;
}

/// Two disks of which the first has failed.
async fn first_failed() -> TwoDisks {
    let disks = TwoDisks::start(CommitMode::Manual).await;
    for partition in 0..PARTITIONS {
        let mut waiting = disks.waiting_produce(partition).await;
        disks.logs.commit();
        assert_eq!(produced(&mut waiting.client, waiting.sent).await, ErrorCode::None);
    }
    disks.fail_first(What::Syncs, Errno::IO);
    let mut waiting = disks.waiting_produce(0).await;
    disks.logs.commit();
    let code = produced(&mut waiting.client, waiting.sent).await;
    assert_eq!(code, ErrorCode::KafkaStorageError);
    disks
}

#[tokio::test]
async fn log_dirs_are_described_with_the_error_of_the_one_that_failed() {
    let disks = first_failed().await;
    let mut client = disks.broker.connect().await;
    let request = DescribeLogDirsRequest {
        topics: None,
        ..DescribeLogDirsRequest::default()
    };
    for version in 1..=4 {
        let response = patiently(client.call(&request, version)).await;
        let [failed, works] = &response.results[..] else {
            panic!("{:?}", response.results)
        };
        assert_eq!(*failed.log_dir, *disks.dirs[0].path().to_string_lossy());
        assert_eq!(error(failed.error_code), ErrorCode::KafkaStorageError);
        assert!(failed.topics.is_empty());
        assert_eq!((failed.total_bytes, failed.usable_bytes), (-1, -1));
        assert_eq!(*works.log_dir, *disks.dirs[1].path().to_string_lossy());
        assert_eq!(error(works.error_code), ErrorCode::None);
        let partitions = works.topics[0].partitions.iter();
        let partitions: Vec<i32> = partitions.map(|partition| partition.partition_index).collect();
        assert_eq!(partitions, [1, 3]);
    }
}

#[tokio::test]
async fn offsets_of_a_directory_that_failed_are_not_told() {
    let disks = first_failed().await;
    let mut client = disks.broker.connect().await;
    // Latest, earliest, of the newest record, of a time.
    for timestamp in [-1, -2, -3, 0] {
        let partition = |partition_index| ListOffsetsPartition {
            partition_index,
            timestamp,
            ..ListOffsetsPartition::default()
        };
        let topic = ListOffsetsTopic {
            name: text("t"),
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..ListOffsetsTopic::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![topic],
            ..ListOffsetsRequest::default()
        };
        let response = patiently(client.call(&request, 7)).await;
        for answer in &response.topics[0].partitions {
            if answer.partition_index % 2 == 0 {
                assert_eq!(error(answer.error_code), ErrorCode::KafkaStorageError);
                assert_eq!(
                    (answer.offset, answer.timestamp, answer.leader_epoch),
                    (-1, -1, -1)
                );
            } else {
                assert_eq!(error(answer.error_code), ErrorCode::None);
                assert_eq!(answer.offset, i64::from(timestamp == -1), "timestamp {timestamp}");
            }
        }
    }
}

#[tokio::test]
async fn partitions_of_a_directory_that_failed_have_no_leader() {
    let disks = first_failed().await;
    let mut client = disks.broker.connect().await;
    let topic = MetadataRequestTopic {
        name: Some(text("t")),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        ..MetadataRequest::default()
    };
    // Version 5 brought the offline replicas.
    for version in [1, 5, 12] {
        let response = patiently(client.call(&request, version)).await;
        let node = response.brokers[0].node_id;
        let topic = &response.topics[0];
        assert_eq!(error(topic.error_code), ErrorCode::None);
        for answer in &topic.partitions {
            let failed = answer.partition_index % 2 == 0;
            let (code, leader) = if failed {
                (ErrorCode::LeaderNotAvailable, -1)
            } else {
                (ErrorCode::None, node)
            };
            assert_eq!((error(answer.error_code), answer.leader_id), (code, leader));
            assert_eq!(
                (&answer.replica_nodes[..], &answer.isr_nodes[..]),
                (&[node][..], &[node][..])
            );
            let offline: &[i32] = if failed && version >= 5 { &[node] } else { &[] };
            assert_eq!(answer.offline_replicas, offline, "version {version}");
        }
    }
    let topic = TopicRequest {
        name: text("t"),
        ..TopicRequest::default()
    };
    let request = DescribeTopicPartitionsRequest {
        topics: vec![topic],
        ..DescribeTopicPartitionsRequest::default()
    };
    let response = patiently(client.call(&request, 0)).await;
    for answer in &response.topics[0].partitions {
        let (code, has_leader) = if answer.partition_index % 2 == 0 {
            (ErrorCode::LeaderNotAvailable, false)
        } else {
            (ErrorCode::None, true)
        };
        assert_eq!(
            (error(answer.error_code), answer.leader_id >= 0),
            (code, has_leader)
        );
        assert_eq!(answer.offline_replicas.is_empty(), has_leader);
    }
}
