//! A reader that takes its time, and what happens to the records meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use milena_log::LogStore;
use milena_log_disk::DiskLogStore;
use milena_protocol::ErrorCode;
use milena_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use milena_protocol::messages::fetch_request::FetchRequest;
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::batches::{now_ms, produce_bytes};
use crate::engine::{
    Expected, FETCH, SEGMENT_BYTES, batch, fetch, fetched, fill, open, options, patiently, records, segments,
    started, tempdir, whole_batches,
};
use crate::harness::{Client, TestBroker, decode_response, error, text};

/// A segment has room for five of them.
const LARGE_BYTES: usize = SEGMENT_BYTES / 5 - 1000;
/// What the socket of a slow reader may hold.
const SMALL_SOCKET_BYTES: usize = 32 * 1024;
/// What the sockets may hold of an answer that is half sent, at both ends. Less would have the system wait for
/// its timers.
const SOCKET_BYTES: usize = 128 * 1024;

/// A client whose socket takes little at a time.
async fn slow_client(broker: &TestBroker, socket_bytes: usize) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_recv_buffer_size(socket_bytes).unwrap();
    socket.connect(&broker.address().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    Client::over(TcpStream::from_std(socket.into()).unwrap())
}

/// Reads so many bytes, a few KiB at a time, and lets the broker run between.
async fn read_slowly(client: &mut Client, count: usize) -> Vec<u8> {
    let mut read = Vec::with_capacity(count);
    while read.len() < count {
        // Of no round number, so that pieces end wherever they can.
        let mut piece = [0; 3001];
        let most = piece.len().min(count - read.len());
        let length = client.stream.read(&mut piece[..most]).await.unwrap();
        assert!(length > 0, "the connection ended after {} bytes", read.len());
        read.extend_from_slice(&piece[..length]);
        tokio::task::yield_now().await;
    }
    read
}

/// The next frame without its length.
async fn slow_frame(client: &mut Client) -> Bytes {
    let length = read_slowly(client, 4).await;
    let length = i32::from_be_bytes(length.try_into().unwrap());
    read_slowly(client, usize::try_from(length).unwrap()).await.into()
}

#[tokio::test]
async fn a_slow_reader_gets_every_segment_byte_for_byte() {
    const PARTITIONS: i32 = 4;
    let dir = tempdir();
    let (broker, _logs) = started(&dir).await;
    let config = [("segment.bytes", SEGMENT_BYTES.to_string())];
    let config = config.each_ref().map(|(name, value)| (*name, &**value));
    broker.topic_with("t", PARTITIONS, &config).await;
    let mut expected = Vec::new();
    for partition in 0..PARTITIONS {
        let seed = u64::from(partition.unsigned_abs()) * 100;
        let batches = (0..15).map(|number| batch(seed + number, 3, LARGE_BYTES / 3));
        expected.push(fill(&broker, "t", partition, batches).await);
        assert_eq!(segments(&dir, &format!("t-{partition}")).len(), 3);
    }
    let mut client = slow_client(&broker, SMALL_SOCKET_BYTES).await;
    let mut got = vec![Vec::new(); expected.len()];
    let mut offsets: Vec<(i32, i64)> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    // An answer has a segment of each partition at most, as Kafka's.
    for round in 0..3 {
        let correlation_id = client.send(&fetch("t", &offsets), FETCH).await;
        let frame = patiently(slow_frame(&mut client)).await;
        assert!(frame.len() > 3 << 20, "round {round}: {} bytes", frame.len());
        let response = decode_response::<FetchRequest>(frame, FETCH, correlation_id);
        for (data, (partition, offset)) in response.responses[0].partitions.iter().zip(&mut offsets) {
            assert_eq!(data.partition_index, *partition);
            let records = records(data);
            *offset = whole_batches(&records).last().unwrap().header.next_offset();
            got[usize::try_from(*partition).unwrap()].extend_from_slice(&records);
        }
    }
    for (partition, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!(
            *got == expected.bytes,
            "partition {partition} is not what was produced"
        );
    }
}

/// An answer of which the reader has taken a part, and that fits no socket's buffers.
struct HalfSent {
    broker: TestBroker,
    logs: Arc<DiskLogStore>,
    dir: TempDir,
    reader: Client,
    /// The whole answer, as another reader got it.
    promised: Bytes,
    taken: Vec<u8>,
}

const RETENTION_MS: i64 = 3_600_000;

impl HalfSent {
    const PARTITIONS: i32 = 6;

    async fn start() -> Self {
        let dir = tempdir();
        let logs = open(&[&dir], options());
        let buffer = SOCKET_BYTES.to_string();
        let broker = TestBroker::new(&[("socket.send.buffer.bytes", &buffer)], logs.clone()).await;
        Self::topic(&broker).await;
        for partition in 0..Self::PARTITIONS {
            let seed = 5000 + u64::from(partition.unsigned_abs()) * 100;
            let batches = (0..6).map(|number| batch(seed + number, 1, LARGE_BYTES));
            fill(&broker, "t", partition, batches).await;
        }
        let partitions: Vec<(i32, i64)> = (0..Self::PARTITIONS).map(|partition| (partition, 0)).collect();
        let request = fetch("t", &partitions);
        let mut quick = broker.connect().await;
        quick.send(&request, FETCH).await;
        let promised = patiently(quick.frame()).await.unwrap();
        let mut reader = slow_client(&broker, SOCKET_BYTES).await;
        reader.send(&request, FETCH).await;
        let taken = patiently(read_slowly(&mut reader, 4 + SEGMENT_BYTES)).await[4..].to_vec();
        // Beside what was read, the system has this much at most, as it doubles what it is asked for.
        assert!(promised.len() > taken.len() + 4 * SOCKET_BYTES + (2 << 20));
        Self {
            broker,
            logs,
            dir,
            reader,
            promised,
            taken,
        }
    }

    async fn topic(broker: &TestBroker) {
        let config = [
            ("segment.bytes", SEGMENT_BYTES.to_string()),
            ("file.delete.delay.ms", "0".to_owned()),
            ("retention.ms", RETENTION_MS.to_string()),
        ];
        let config = config.each_ref().map(|(name, value)| (*name, &**value));
        broker.topic_with("t", Self::PARTITIONS, &config).await;
    }

    /// No file is left of what is being sent.
    fn assert_removed(&self) {
        for partition in 0..Self::PARTITIONS {
            let left = segments(&self.dir, &format!("t-{partition}"));
            let first = "00000000000000000000.log";
            assert!(left.iter().all(|path| !path.ends_with(first)), "{left:?}");
        }
    }

    /// Others are served as if nothing was; then the reader takes the rest.
    async fn ends_as_promised(mut self, other_offset: i64) {
        let mut other = self.broker.connect().await;
        let leader_epoch = self.broker.leader_epoch("t").await;
        for partition in 0..Self::PARTITIONS {
            let batch = batch(9000, 1, LARGE_BYTES);
            let answer = produce_bytes(&mut other, "t", partition, batch.clone()).await;
            assert_eq!(error(answer.error_code), ErrorCode::None);
            assert_eq!(answer.base_offset, other_offset);
            let mut stored = Expected {
                next_offset: other_offset,
                ..Default::default()
            };
            stored.push(&batch, leader_epoch);
            let request = fetch("t", &[(partition, other_offset)]);
            assert!(fetched(&mut other, &request).await == stored.bytes);
        }
        let rest = self.promised.len() - self.taken.len();
        self.taken
            .extend(patiently(read_slowly(&mut self.reader, rest)).await);
        assert!(
            self.taken == self.promised,
            "the reader got other bytes than it was promised"
        );
        // And nothing follows that nobody asked for: the connection is in step.
        let request = fetch("t", &[(0, other_offset)]);
        assert!(!fetched(&mut self.reader, &request).await.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_is_half_sent_outlasts_the_deletion_of_its_topic() {
    let half = HalfSent::start().await;
    half.broker.delete_topic("t").await;
    half.logs.maintain(now_ms()).await;
    half.assert_removed();
    // The same folders and names, with other bytes.
    HalfSent::topic(&half.broker).await;
    half.ends_as_promised(0).await;
}

#[tokio::test]
async fn an_answer_that_is_half_sent_outlasts_delete_records() {
    let half = HalfSent::start().await;
    let partition = |partition_index| DeleteRecordsPartition {
        partition_index,
        offset: -1,
        ..DeleteRecordsPartition::default()
    };
    let topic = DeleteRecordsTopic {
        name: text("t"),
        partitions: (0..HalfSent::PARTITIONS).map(partition).collect(),
        ..DeleteRecordsTopic::default()
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        ..DeleteRecordsRequest::default()
    };
    let response = half.broker.connect().await.call(&request, 2).await;
    for partition in &response.topics[0].partitions {
        assert_eq!((partition.error_code, partition.low_watermark), (0, 6));
    }
    half.logs.maintain(now_ms()).await;
    half.assert_removed();
    half.ends_as_promised(6).await;
}

#[tokio::test]
async fn an_answer_that_is_half_sent_outlasts_retention() {
    let half = HalfSent::start().await;
    half.logs.maintain(now_ms() + 2 * RETENTION_MS).await;
    half.assert_removed();
    half.ends_as_promised(6).await;
}

#[tokio::test]
async fn a_reader_that_goes_away_in_the_middle_of_an_answer_leaves_the_broker_to_others() {
    let half = HalfSent::start().await;
    let HalfSent { broker, reader, .. } = half;
    drop(reader);
    let mut other = broker.connect().await;
    assert!(!fetched(&mut other, &fetch("t", &[(0, 0)])).await.is_empty());
}
