//! Bytes instead of requests, and what the tests of bad input share.

use std::time::Duration;

use bytes::Bytes;
use milena_protocol::messages::ApiVersionsRequest;
use milena_protocol::{ErrorCode, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{TestBroker, error};

/// Nothing here takes long; a broker that hangs fails the test instead of the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn raw(broker: &TestBroker) -> TcpStream {
    TcpStream::connect(broker.address()).await.unwrap()
}

/// Sends bytes and reads until the broker closes the connection; gives what it said.
pub(crate) async fn say(broker: &TestBroker, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw(broker).await;
    // The broker may close before it has taken everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the broker closes the connection");
    answer
}

pub(crate) async fn assert_alive(broker: &TestBroker) {
    let response = broker
        .connect()
        .await
        .call(&ApiVersionsRequest::default(), 0)
        .await;
    assert_eq!(error(response.error_code), ErrorCode::None);
}

pub(crate) fn framed(body: &[u8]) -> Bytes {
    frame::prefix(body)
}

/// Sends a frame, ends the sending side, and waits until the broker has closed.
pub(crate) async fn say_framed_and_leave(broker: &TestBroker, body: &[u8]) {
    let mut stream = raw(broker).await;
    let _ = stream.write_all(&framed(body)).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the broker closes the connection");
}

/// Calls a macro with every request that the broker answers.
macro_rules! for_each_request {
    ($each:ident) => {
        $each!(
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
        )
    };
}

pub(crate) use for_each_request;
