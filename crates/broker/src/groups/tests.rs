use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use milena_state::memory::MemoryStore;
use milena_state::{Change, Lease, Row, Shard as FactShard, StateError};
use tokio::sync::oneshot;

use super::*;
use crate::clock::SystemClock;

/// A store whose next commit can be made to fail, or to wait until the test lets it go.
#[derive(Debug)]
struct MoodyStore {
    inner: MemoryStore,
    fail_next: AtomicBool,
    hold_next: AtomicBool,
    held: Mutex<Vec<oneshot::Sender<()>>>,
}

impl MoodyStore {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            fail_next: AtomicBool::new(false),
            hold_next: AtomicBool::new(false),
            held: Mutex::new(Vec::new()),
        })
    }

    fn let_go(&self) {
        for held in self.held.lock().unwrap().drain(..) {
            held.send(()).unwrap();
        }
    }
}

impl StateStore for MoodyStore {
    fn acquire(&self, shard: FactShard) -> milena_state::BoxFuture<'static, Result<Lease, StateError>> {
        self.inner.acquire(shard)
    }

    fn scan(
        &self,
        shard: FactShard,
        prefix: Bytes,
    ) -> milena_state::BoxFuture<'static, Result<Vec<Row>, StateError>> {
        self.inner.scan(shard, prefix)
    }

    fn commit(
        &self,
        lease: &Lease,
        changes: Vec<Change>,
    ) -> milena_state::BoxFuture<'static, Result<(), StateError>> {
        if self.fail_next.swap(false, Ordering::SeqCst) {
            return Box::pin(async { Err(StateError::Unavailable("no room".to_owned())) });
        }
        let committed = self.inner.commit(lease, changes);
        if !self.hold_next.swap(false, Ordering::SeqCst) {
            return committed;
        }
        let (release, released) = oneshot::channel();
        self.held.lock().unwrap().push(release);
        Box::pin(async move {
            released.await.unwrap();
            committed.await
        })
    }

    fn close(&self) -> milena_state::BoxFuture<'static, Result<(), StateError>> {
        self.inner.close()
    }
}

async fn start(store: &Arc<MoodyStore>) -> Groups {
    let config = GroupConfig::default();
    Groups::start(store.clone(), Arc::new(SystemClock), config, &Stop::new())
        .await
        .unwrap()
}

fn commit(groups: &Groups, offset: i64) -> BoxFuture<Result<Reply, ErrorCode>> {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: Str::from("t"),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: Str::from("g"),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    groups.ask("g", |groups, now_ms, ticket| {
        groups.commit_offsets(now_ms, ticket, 9, &request)
    })
}

fn committed(groups: &Groups) -> BoxFuture<Result<i64, ErrorCode>> {
    let topic = OffsetFetchRequestTopics {
        name: Str::from("t"),
        partition_indexes: vec![0],
        ..Default::default()
    };
    let request = OffsetFetchRequestGroup {
        group_id: Str::from("g"),
        topics: Some(vec![topic]),
        ..Default::default()
    };
    groups.read("g", move |groups| {
        groups.fetch_offsets(&request, false).topics[0].partitions[0].committed_offset
    })
}

/// Asks until the shard is loaded again.
async fn once_loaded<T>(mut ask: impl FnMut() -> BoxFuture<Result<T, ErrorCode>>) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(ErrorCode::CoordinatorLoadInProgress) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_commit_that_was_not_stored_is_not_acknowledged_and_leaves_no_trace() {
    let store = MoodyStore::new();
    let groups = start(&store).await;
    commit(&groups, 1).await.unwrap();
    store.fail_next.store(true, Ordering::SeqCst);
    assert_eq!(commit(&groups, 2).await, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(once_loaded(|| committed(&groups)).await, 1);
    once_loaded(|| commit(&groups, 3)).await;
    assert_eq!(committed(&groups).await, Ok(3));
}

#[tokio::test]
async fn what_was_decided_behind_a_failed_commit_is_not_acknowledged_either() {
    let store = MoodyStore::new();
    let groups = start(&store).await;
    store.fail_next.store(true, Ordering::SeqCst);
    let (failed, behind, read) = (commit(&groups, 1), commit(&groups, 2), committed(&groups));
    assert_eq!(failed.await, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(behind.await, Err(ErrorCode::NotCoordinator));
    assert_eq!(read.await, Err(ErrorCode::NotCoordinator));
}

#[tokio::test]
async fn nobody_reads_an_offset_before_it_is_stored() {
    let store = MoodyStore::new();
    let groups = start(&store).await;
    store.hold_next.store(true, Ordering::SeqCst);
    let first = tokio::spawn(commit(&groups, 1));
    let second = tokio::spawn(commit(&groups, 2));
    let read = tokio::spawn(committed(&groups));
    // Everything that can run has run, and nothing was answered.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && !second.is_finished() && !read.is_finished());
    store.let_go();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert_eq!(read.await.unwrap(), Ok(2));
}

#[tokio::test]
async fn a_shard_that_somebody_else_took_is_acquired_and_read_again() {
    let store = MoodyStore::new();
    let groups = start(&store).await;
    commit(&groups, 1).await.unwrap();
    for index in 0..GROUP_SHARDS {
        store
            .inner
            .acquire(FactShard(format!("groups-{index}")))
            .await
            .unwrap();
    }
    assert_eq!(commit(&groups, 2).await, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(once_loaded(|| committed(&groups)).await, 1);
}

#[tokio::test]
async fn closing_stores_what_was_decided_and_answers_it() {
    let store = MoodyStore::new();
    let groups = start(&store).await;
    store.hold_next.store(true, Ordering::SeqCst);
    let answer = commit(&groups, 7);
    let (closed, ()) = tokio::join!(groups.close(), async { store.let_go() });
    let () = closed;
    assert!(answer.await.is_ok());
    assert_eq!(committed(&groups).await, Err(ErrorCode::NotCoordinator));
    let again = start(&store).await;
    assert_eq!(committed(&again).await, Ok(7));
}

#[tokio::test]
async fn a_group_is_found_in_the_same_shard_for_ever() {
    let groups = start(&MoodyStore::new()).await;
    let shard_of = |id: &str| {
        groups
            .shards
            .iter()
            .position(|shard| Arc::ptr_eq(shard, groups.shard(id)))
    };
    // Written down: another answer would lose everybody's offsets.
    let ids = ["", "a", "group-1", "console-consumer-12345", "grün"];
    assert_eq!(ids.map(|id| shard_of(id).unwrap()), [5, 4, 6, 7, 7]);
}
