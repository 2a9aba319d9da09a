//! Bad input: the right answer or a closed connection, the broker alive, its memory flat.

use std::sync::{Mutex, PoisonError};

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

use crate::harness::{TestBroker, error};
use crate::raw::{assert_alive, for_each_request, framed, raw, say, say_framed_and_leave};

fn header(api_key: i16, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_i16(api_key);
    bytes.put_i16(version);
    bytes.put_i32(7);
    bytes.put_i16(-1);
    bytes
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

/// Panics of any thread of this process while the test runs; a connection's task that panics only
/// closes its connection, so nobody else would notice.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_random_content_never_make_a_handler_panic() {
    const SEEDS: u64 = 12;
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(info.to_string());
        previous(info);
    }));
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    macro_rules! each {
        ($($request:ty),* $(,)?) => { $( send_random::<$request>(&broker, SEEDS).await; )* };
    }
    for_each_request!(each);
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(panics.is_empty(), "{panics:#?}");
}

async fn send_random<R: Request>(broker: &TestBroker, seeds: u64) {
    let api_key: ApiKey = R::KEY;
    for version in api_key.stable_versions() {
        for seed in 0..seeds {
            let sample = R::sample(&mut Sampler::new(seed), version);
            let Ok(frames) = frame::encode_request(&sample, version, 1, None) else {
                continue;
            };
            let body: Vec<u8> = frames
                .iter()
                .flat_map(|chunk| chunk.iter().copied())
                .skip(4)
                .collect();
            say_framed_and_leave(broker, &body).await;
        }
    }
    assert_alive(broker).await;
}
