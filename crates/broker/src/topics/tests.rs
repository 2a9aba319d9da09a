//! Crashes and failing stores between the steps of a change.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use milena_log::{LogConfig, MemoryLogStore, PartitionId, WatermarkObserver, Watermarks};
use milena_protocol::ErrorCode;
use milena_state::memory::MemoryStore;
use milena_state::{BoxFuture, Change, Lease, Row, Shard, StateError};

use super::*;
use crate::broker::StartError;
use crate::config::{BrokerConfig, Properties};
use crate::settings::BrokerEntity;

/// What the next commit does.
const WORKS: u8 = 0;
const FAILS_BEFORE: u8 = 1;
const FAILS_AFTER: u8 = 2;

/// A fact store whose next commit can fail before or after it has written.
#[derive(Debug)]
struct Faulty {
    facts: MemoryStore,
    next: AtomicU8,
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            facts: MemoryStore::new(),
            next: AtomicU8::new(WORKS),
        })
    }

    fn fail(&self, how: u8) {
        self.next.store(how, Ordering::SeqCst);
    }
}

impl StateStore for Faulty {
    fn acquire(&self, shard: Shard) -> BoxFuture<'static, Result<Lease, StateError>> {
        self.facts.acquire(shard)
    }

    fn scan(&self, shard: Shard, prefix: Bytes) -> BoxFuture<'static, Result<Vec<Row>, StateError>> {
        self.facts.scan(shard, prefix)
    }

    fn commit(&self, lease: &Lease, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StateError>> {
        let failed = Err(StateError::Unavailable("as the test wants it".to_owned()));
        match self.next.swap(WORKS, Ordering::SeqCst) {
            WORKS => self.facts.commit(lease, changes),
            FAILS_BEFORE => Box::pin(std::future::ready(failed)),
            _ => {
                let committed = self.facts.commit(lease, changes);
                Box::pin(async move { committed.await.and(failed) })
            }
        }
    }

    fn close(&self) -> BoxFuture<'static, Result<(), StateError>> {
        self.facts.close()
    }
}

struct Deaf;

impl WatermarkObserver for Deaf {
    fn advanced(&self, _: Watermarks) {}

    fn failed(&self) {}
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings::new(BrokerConfig::new(Properties::new()).unwrap()))
}

async fn load(facts: &Arc<Faulty>, logs: &Arc<MemoryLogStore>) -> Result<Topics, StartError> {
    Topics::load(None, facts.clone(), logs.clone(), settings())
        .await
        .map(|loaded| loaded.topics)
}

fn new_topic(name: &'static str, partitions: i32) -> NewTopic {
    NewTopic {
        name: Str::from(name),
        partitions,
        overrides: Overrides::new(),
    }
}

async fn create(
    topics: &Topics,
    name: &'static str,
    partitions: i32,
) -> Result<Arc<Topic>, crate::api_error::ApiError> {
    topics.create(vec![new_topic(name, partitions)]).await.remove(0)
}

#[tokio::test]
async fn a_topic_whose_logs_a_crash_has_prevented_gets_them_at_the_next_start() {
    let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
    let topics = load(&facts, &logs).await.unwrap();
    let id = create(&topics, "t", 2).await.unwrap().id;
    let lost = PartitionId {
        topic: Str::from("t"),
        topic_id: id,
        partition: 1,
    };
    logs.delete(&lost).await.unwrap();
    let topics = load(&facts, &logs).await.unwrap();
    assert_eq!(topics.get("t").unwrap().partitions.len(), 2);
    assert!(logs.stored().unwrap().contains(&lost));
}

#[tokio::test]
async fn a_log_that_belongs_to_no_topic_is_set_aside_at_the_next_start() {
    let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
    let topics = load(&facts, &logs).await.unwrap();
    let id = create(&topics, "t", 1).await.unwrap().id;
    let partition = |topic_id, partition| PartitionId {
        topic: Str::from("t"),
        topic_id,
        partition,
    };
    // Of an earlier topic of the name, and of a partition that was never stored.
    for stray in [partition(Uuid::from_bytes([1; 16]), 0), partition(id, 1)] {
        logs.open(stray, LogConfig::default(), Arc::new(Deaf))
            .await
            .unwrap();
    }
    load(&facts, &logs).await.unwrap();
    assert_eq!(logs.stored().unwrap(), [partition(id, 0)]);
}

#[tokio::test]
async fn logs_without_any_metadata_are_not_taken_for_strays() {
    let logs = Arc::new(MemoryLogStore::default());
    create(&load(&Faulty::new(), &logs).await.unwrap(), "t", 3)
        .await
        .unwrap();
    let refused = load(&Faulty::new(), &logs).await.unwrap_err().to_string();
    assert!(
        refused.contains("hold 3 partitions, but the metadata that belongs to them is missing"),
        "{refused}"
    );
    assert_eq!(logs.stored().unwrap().len(), 3);
}

#[tokio::test]
async fn a_creation_of_unknown_outcome_is_found_out_before_the_next_change() {
    for (how, exists) in [(FAILS_BEFORE, false), (FAILS_AFTER, true)] {
        let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
        let topics = load(&facts, &logs).await.unwrap();
        facts.fail(how);
        let error = create(&topics, "doubtful", 1).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::KafkaStorageError);
        assert!(
            topics.get("doubtful").is_none(),
            "what was not answered is not shown"
        );
        create(&topics, "next", 1).await.unwrap();
        assert_eq!(topics.get("doubtful").is_some(), exists);
        assert_eq!(
            load(&facts, &logs).await.unwrap().list().len(),
            topics.list().len()
        );
    }
}

#[tokio::test]
async fn a_deletion_of_unknown_outcome_is_found_out_before_the_next_change() {
    for (how, exists) in [(FAILS_BEFORE, true), (FAILS_AFTER, false)] {
        let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
        let topics = load(&facts, &logs).await.unwrap();
        let id = create(&topics, "doubtful", 1).await.unwrap().id;
        facts.fail(how);
        assert!(topics.delete(&[id]).await.remove(0).is_err());
        create(&topics, "next", 1).await.unwrap();
        assert_eq!(topics.get("doubtful").is_some(), exists);
        assert_eq!(logs.stored().unwrap().len(), topics.list().len());
    }
}

#[tokio::test]
async fn growth_and_configs_of_unknown_outcome_are_found_out_before_the_next_change() {
    for (how, count, value) in [(FAILS_BEFORE, 1, None), (FAILS_AFTER, 3, Some("7"))] {
        let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
        let topics = load(&facts, &logs).await.unwrap();
        create(&topics, "t", 1).await.unwrap();
        facts.fail(how);
        assert!(topics.add_partitions("t", 3, |_| Ok(())).await.is_err());
        create(&topics, "next", 1).await.unwrap();
        assert_eq!(topics.get("t").unwrap().partitions.len(), count);
        let overrides = Overrides::from([("retention.ms".to_owned(), "7".to_owned())]);
        facts.fail(how);
        assert!(
            topics
                .alter_topic_configs("t", false, |_| Ok(overrides.clone()))
                .await
                .is_err()
        );
        facts.fail(how);
        let broker_wide = Overrides::from([("log.retention.bytes".to_owned(), "99".to_owned())]);
        assert!(
            topics
                .alter_broker_configs(BrokerEntity::Default, false, |_| Ok(broker_wide.clone()))
                .await
                .is_err()
        );
        create(&topics, "last", 1).await.unwrap();
        let topic = topics.get("t").unwrap();
        assert_eq!(topic.overrides.get("retention.ms").map(String::as_str), value);
        assert_eq!(topic.partitions[0].config().retention_ms == 7, value.is_some());
        assert_eq!(
            topic.partitions[0].config().retention_bytes == 99,
            value.is_some()
        );
    }
}

#[tokio::test]
async fn configs_reach_the_logs_of_every_partition() {
    let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
    let topics = load(&facts, &logs).await.unwrap();
    create(&topics, "t", 2).await.unwrap();
    let set = |name: &str, value: &str| Overrides::from([(name.to_owned(), value.to_owned())]);
    topics
        .alter_topic_configs("t", false, |_| Ok(set("max.message.bytes", "1234")))
        .await
        .unwrap();
    for partition in &topics.get("t").unwrap().partitions {
        assert_eq!(partition.config().max_message_bytes, 1234);
    }
    let bytes = set("log.segment.bytes", "2097152");
    topics
        .alter_broker_configs(BrokerEntity::This, false, |_| Ok(bytes))
        .await
        .unwrap();
    for partition in &load(&facts, &logs).await.unwrap().get("t").unwrap().partitions {
        assert_eq!(partition.config().max_message_bytes, 1234);
        assert_eq!(partition.config().segment_bytes, 2_097_152);
    }
}

#[tokio::test]
async fn another_clusters_id_is_refused() {
    let (facts, logs) = (Faulty::new(), Arc::new(MemoryLogStore::default()));
    let start = |id| Topics::load(id, facts.clone(), logs.clone(), settings());
    let first = start(Some("one")).await.unwrap();
    assert_eq!(&*first.cluster_id, "one");
    assert_eq!(&*start(None).await.unwrap().cluster_id, "one");
    let refused = start(Some("two")).await.unwrap_err().to_string();
    assert!(
        refused.contains("the cluster id two does not match the stored one, one"),
        "{refused}"
    );
}
