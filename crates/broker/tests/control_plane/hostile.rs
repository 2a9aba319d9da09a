//! Bad input: the right answer or a closed connection, the broker alive, its memory flat.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use milena_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
};
use milena_protocol::testing::Sampler;
use milena_protocol::{ApiKey, ErrorCode, Message, Reader, Request, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{TestBroker, error};

/// Nothing here takes long; a broker that hangs fails the test instead of the machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn raw(broker: &TestBroker) -> TcpStream {
    TcpStream::connect(broker.address()).await.unwrap()
}

/// Sends bytes and reads until the broker closes the connection; gives what it said.
async fn say(broker: &TestBroker, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw(broker).await;
    // The broker may close before it has taken everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the broker closes the connection");
    answer
}

async fn assert_alive(broker: &TestBroker) {
    let response = broker
        .connect()
        .await
        .call(&ApiVersionsRequest::default(), 0)
        .await;
    assert_eq!(error(response.error_code), ErrorCode::None);
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn header(api_key: i16, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_i16(api_key);
    bytes.put_i16(version);
    bytes.put_i32(7);
    bytes.put_i16(-1);
    bytes
}

fn framed(body: &[u8]) -> Bytes {
    frame::prefix(body)
}

#[tokio::test]
async fn a_frame_of_two_gibibytes_closes_the_connection_and_reserves_nothing() {
    let broker = TestBroker::start().await;
    let before = resident_bytes();
    for size in [i32::MAX, 104_857_601, -1, i32::MIN] {
        assert!(say(&broker, &size.to_be_bytes()).await.is_empty(), "{size}");
    }
    // The largest size that is allowed, announced by many and sent by none.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut stream = raw(&broker).await;
        stream.write_all(&104_857_600_i32.to_be_bytes()).await.unwrap();
        waiting.push(stream);
    }
    assert_alive(&broker).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {grown} bytes");
}

#[tokio::test]
async fn truncated_frames_change_nothing() {
    let broker = TestBroker::start().await;
    let frames = frame::encode_request(&MetadataRequest::default(), 12, 1, None).unwrap();
    let whole: Vec<u8> = frames.iter().flat_map(|chunk| chunk.iter().copied()).collect();
    for end in 0..whole.len() {
        let mut stream = raw(&broker).await;
        stream.write_all(&whole[..end]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty(), "{end} bytes were answered");
    }
    // Frames that say they are whole but end in the middle of the request.
    for end in 0..whole.len() - 4 {
        say_framed_and_leave(&broker, &whole[4..4 + end]).await;
    }
    assert_alive(&broker).await;
}

/// Sends a frame, ends the sending side, and waits until the broker has closed.
async fn say_framed_and_leave(broker: &TestBroker, body: &[u8]) {
    let mut stream = raw(broker).await;
    let _ = stream.write_all(&framed(body)).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the broker closes the connection");
}

#[tokio::test]
async fn unknown_apis_and_versions_close_the_connection() {
    let broker = TestBroker::start().await;
    for (api_key, version) in [
        (-1, 0),
        (999, 0),
        (i16::MAX, 0),
        (52, 0),
        (3, 99),
        (3, -1),
        (0, 2),
        (22, 6),
    ] {
        let answer = say(&broker, &framed(&header(api_key, version))).await;
        assert!(answer.is_empty(), "API {api_key} version {version}");
    }
    assert_alive(&broker).await;
}

#[tokio::test]
async fn http_and_tls_clients_on_the_plaintext_port_are_closed() {
    let broker = TestBroker::start().await;
    assert!(
        say(&broker, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .is_empty()
    );
    let client_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    assert!(say(&broker, &client_hello).await.is_empty());
    assert_alive(&broker).await;
}

/// Trap 2.
#[tokio::test]
async fn trap_2_api_versions_of_an_unknown_version_is_answered_in_the_form_of_version_0() {
    let broker = TestBroker::start().await;
    for version in [5, 99, i16::MAX] {
        let mut stream = raw(&broker).await;
        let mut request = header(18, version);
        // What a later version has in its header and body is not looked at.
        request.put_slice(&[0xff; 9]);
        stream.write_all(&framed(&request)).await.unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.unwrap();
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let mut reader = Reader::new(Bytes::from(body));
        assert_eq!(
            reader.i32().unwrap(),
            7,
            "correlation id, and a header of version 0"
        );
        let response = <ApiVersionsRequest as Request>::Response::decode(&mut reader, 0).unwrap();
        assert_eq!(reader.remaining(), 0);
        assert_eq!(error(response.error_code), ErrorCode::UnsupportedVersion);
        let own = response
            .api_keys
            .iter()
            .find(|range| range.api_key == 18)
            .unwrap();
        assert_eq!((own.min_version, own.max_version), (0, 4));
    }
    // The next request on the same connection is answered as usual.
    assert_alive(&broker).await;
}

#[tokio::test]
async fn a_body_that_is_longer_than_its_request_is_answered_as_kafka_does() {
    let broker = TestBroker::start().await;
    let mut request = header(3, 1);
    request.put_i32(0);
    request.put_slice(b"and more");
    let mut stream = raw(&broker).await;
    stream.write_all(&framed(&request)).await.unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.unwrap();
    assert!(i32::from_be_bytes(length) > 0);
}

/// Bodies of a request with 2^31-1 written over every place that could be a count or a length.
fn with_huge_counts<R: Request>() -> Vec<(i16, BytesMut)> {
    let mut bodies = Vec::new();
    let api_key: ApiKey = R::KEY;
    for version in api_key.stable_versions() {
        let flexible = R::is_flexible(version);
        let mut sampler = Sampler::new(u64::from(version.unsigned_abs()) + 17);
        let sample = R::sample(&mut sampler, version);
        let Ok(frames) = frame::encode_request(&sample, version, 1, None) else {
            continue;
        };
        let whole: Vec<u8> = frames
            .iter()
            .flat_map(|chunk| chunk.iter().copied())
            .skip(4)
            .collect();
        // Request samples can be long; every place of the first bytes has the interesting ones.
        for at in 10..whole.len().min(120) {
            let mut body = BytesMut::from(&whole[..at]);
            if flexible {
                body.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]);
                body.put_slice(whole.get(at + 1..).unwrap_or_default());
            } else {
                body.put_i32(i32::MAX);
                body.put_slice(whole.get(at + 4..).unwrap_or_default());
            }
            bodies.push((version, body));
        }
    }
    bodies
}

/// Trap 16.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_16_a_count_of_two_to_the_31_in_any_array_of_any_request_costs_nothing() {
    let broker = TestBroker::start().await;
    let before = resident_bytes();
    macro_rules! each {
        ($($request:ty),* $(,)?) => { $( send_all::<$request>(&broker).await; )* };
    }
    each!(
        AlterConfigsRequest,
        ApiVersionsRequest,
        CreatePartitionsRequest,
        CreateTopicsRequest,
        DeleteGroupsRequest,
        DeleteRecordsRequest,
        DeleteTopicsRequest,
        DescribeClusterRequest,
        DescribeConfigsRequest,
        DescribeGroupsRequest,
        DescribeLogDirsRequest,
        DescribeProducersRequest,
        DescribeTopicPartitionsRequest,
        FetchRequest,
        FindCoordinatorRequest,
        HeartbeatRequest,
        IncrementalAlterConfigsRequest,
        InitProducerIdRequest,
        JoinGroupRequest,
        LeaveGroupRequest,
        ListGroupsRequest,
        ListOffsetsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        OffsetDeleteRequest,
        OffsetFetchRequest,
        OffsetForLeaderEpochRequest,
        ProduceRequest,
        SyncGroupRequest,
    );
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {grown} bytes");
}

async fn send_all<R: Request>(broker: &TestBroker) {
    for (_, body) in with_huge_counts::<R>() {
        say_framed_and_leave(broker, &body).await;
    }
    assert_alive(broker).await;
}

#[tokio::test]
async fn connections_that_are_opened_and_left_silent_cost_little() {
    const PROCESS_ENDS: u64 = 2;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(1024);
    // Both ends are in this process, and a part of the descriptors is kept for files.
    let count = 10_000.min((limit * 3 / 4).saturating_sub(100) / PROCESS_ENDS);
    let broker = TestBroker::start().await;
    assert_alive(&broker).await;
    let before = resident_bytes();
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(raw(&broker).await);
    }
    assert_alive(&broker).await;
    let each = resident_bytes().saturating_sub(before) / usize::try_from(count).unwrap();
    // The client's end of each is in this number, too.
    assert!(each < 8 * 1024, "{each} bytes for each of {count} connections");
}
