//! What strangers can cost: memory and descriptors. In a process of its own, because both belong to
//! the whole process and would be another test's, too.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../data_plane/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "../control_plane/raw.rs"]
#[allow(dead_code)]
mod raw;
mod requests;

use bytes::{BufMut, BytesMut};
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
use milena_protocol::{ApiKey, Request, frame};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::harness::TestBroker;
use crate::raw::{assert_alive, for_each_request, raw, say, say_framed_and_leave};

/// Memory and descriptors are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_frame_of_two_gibibytes_closes_the_connection_and_reserves_nothing() {
    let _alone = ALONE.lock().await;
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
    let _alone = ALONE.lock().await;
    let broker = TestBroker::start().await;
    let before = resident_bytes();
    macro_rules! each {
        ($($request:ty),* $(,)?) => { $( send_all::<$request>(&broker).await; )* };
    }
    for_each_request!(each);
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
    let _alone = ALONE.lock().await;
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
