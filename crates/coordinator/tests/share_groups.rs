//! Share groups (KIP-932) as their members and administrators see them, and after a restart from what was stored.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_coordinator::{
    Client, ConsumerGroupConfig, Effects, GroupConfig, Groups, Reply, ShareGroupConfig, Ticket, TopicImage,
    TopicInfo,
};
use milena_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use milena_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use milena_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, ConsumerGroupHeartbeatRequest,
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, DeleteShareGroupStateRequest,
    HeartbeatRequest, InitializeShareGroupStateRequest, JoinGroupRequest, OffsetCommitRequest,
    OffsetDeleteRequest, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, SyncGroupRequest,
};
use milena_protocol::{ErrorCode, Str, Uuid};

const GROUP: &str = "g";

fn text(value: &str) -> Str {
    Str::from(value.to_owned())
}

fn topic_id(name: &str) -> Uuid {
    let mut bytes = [7; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

fn partitions(name: &str, count: i32) -> BTreeMap<Uuid, BTreeSet<i32>> {
    BTreeMap::from([(topic_id(name), (0..count).collect())])
}

/// A shard that is driven as the broker drives it, but for states, which the tests initialize.
struct Bench {
    groups: Groups,
    rows: BTreeMap<Bytes, Bytes>,
    topics: TopicImage,
    config: ShareGroupConfig,
    now_ms: i64,
    tickets: u64,
}

type Heartbeat = (
    ShareGroupHeartbeatResponse,
    Option<InitializeShareGroupStateRequest>,
);

impl Bench {
    fn new() -> Self {
        let mut groups = Groups::new(GroupConfig::default(), || Uuid::ZERO);
        groups.load(0, []).unwrap();
        Self {
            groups,
            rows: BTreeMap::new(),
            topics: TopicImage::default(),
            config: ShareGroupConfig {
                assignment_interval_ms: 0,
                ..ShareGroupConfig::default()
            },
            now_ms: 1_000,
            tickets: 0,
        }
    }

    fn topic(&mut self, name: &str, partitions: i32) {
        self.topics.put(TopicInfo {
            id: topic_id(name),
            name: text(name),
            partitions,
            is_internal: false,
        });
    }

    fn store(&mut self, effects: &Effects) {
        for change in &effects.facts {
            match &change.value {
                Some(value) => self.rows.insert(change.key.clone(), value.clone()),
                None => self.rows.remove(&change.key),
            };
        }
        self.groups.check_invariants();
    }

    fn restart(&mut self) {
        let before = self.groups.describe_share_group(&text(GROUP), &self.topics);
        self.groups = Groups::new(GroupConfig::default(), || Uuid::ZERO);
        self.groups.load(self.now_ms, self.rows.clone()).unwrap();
        self.groups.check_invariants();
        assert_eq!(
            self.groups.describe_share_group(&text(GROUP), &self.topics),
            before
        );
    }

    fn ask(&mut self, ask: impl FnOnce(&mut Groups, i64, Ticket) -> Effects) -> Reply {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.groups.see_topics(&Arc::new(self.topics.clone()));
        let mut effects = ask(&mut self.groups, self.now_ms, ticket);
        self.store(&effects);
        let (answered, reply) = effects.replies.remove(0);
        assert_eq!((answered, effects.replies.len()), (ticket, 0));
        reply
    }

    fn heartbeat(&mut self, member: &str, epoch: i32, topics: Option<&[&str]>) -> Heartbeat {
        let request = ShareGroupHeartbeatRequest {
            group_id: text(GROUP),
            member_id: text(member),
            member_epoch: epoch,
            subscribed_topic_names: topics.map(|names| names.iter().map(|name| text(name)).collect()),
            ..ShareGroupHeartbeatRequest::default()
        };
        let config = self.config.clone();
        match self.ask(|groups, now_ms, ticket| {
            groups.share_heartbeat(now_ms, ticket, &client(), &config, &request)
        }) {
            Reply::ShareGroupHeartbeat(response, initialize) => {
                (response, initialize.map(|request| *request))
            }
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, member: &str, topics: &[&str]) -> Heartbeat {
        let answer = self.heartbeat(member, 0, Some(topics));
        assert_eq!(answer.0.error_code, 0, "{:?}", answer.0.error_message);
        answer
    }

    fn initialized(&mut self, partitions: &BTreeMap<Uuid, BTreeSet<i32>>) {
        let effects = self
            .groups
            .share_states_initialized(self.now_ms, &text(GROUP), partitions);
        self.store(&effects);
    }

    /// A member who joined, and whose partitions are initialized and assigned.
    fn settled(&mut self, member: &str, topic: &str, count: i32) -> i32 {
        let (joined, initialize) = self.join(member, &[topic]);
        assert_eq!(asked(&initialize), partitions(topic, count));
        self.initialized(&partitions(topic, count));
        let (response, _) = self.heartbeat(member, joined.member_epoch, None);
        assert_eq!(given(&response), Some(partitions(topic, count)));
        response.member_epoch
    }

    fn alter(&mut self, topic: &str, offsets: &[(i32, i64)]) -> (AlterShareGroupOffsetsResponse, bool) {
        let request = AlterShareGroupOffsetsRequest {
            group_id: text(GROUP),
            topics: vec![AlterShareGroupOffsetsRequestTopic {
                topic_name: text(topic),
                partitions: offsets
                    .iter()
                    .map(|(index, offset)| AlterShareGroupOffsetsRequestPartition {
                        partition_index: *index,
                        start_offset: *offset,
                        ..AlterShareGroupOffsetsRequestPartition::default()
                    })
                    .collect(),
                ..AlterShareGroupOffsetsRequestTopic::default()
            }],
            ..AlterShareGroupOffsetsRequest::default()
        };
        match self.ask(|groups, now_ms, ticket| groups.alter_share_offsets(now_ms, ticket, &request)) {
            Reply::AlterShareGroupOffsets(response, initialize) => {
                let states = initialize.iter().flat_map(|request| &request.topics);
                let starts: Vec<(i32, i64)> = states
                    .flat_map(|topic| &topic.partitions)
                    .map(|state| (state.partition, state.start_offset))
                    .collect();
                assert!(starts.iter().all(|start| offsets.contains(start)), "{starts:?}");
                (response, initialize.is_some())
            }
            other => panic!("{other:?}"),
        }
    }

    fn delete_offsets(
        &mut self,
        topic: &str,
    ) -> (
        DeleteShareGroupOffsetsResponse,
        Option<DeleteShareGroupStateRequest>,
    ) {
        let request = DeleteShareGroupOffsetsRequest {
            group_id: text(GROUP),
            topics: vec![DeleteShareGroupOffsetsRequestTopic {
                topic_name: text(topic),
                ..DeleteShareGroupOffsetsRequestTopic::default()
            }],
            ..DeleteShareGroupOffsetsRequest::default()
        };
        match self.ask(|groups, now_ms, ticket| groups.delete_share_offsets(now_ms, ticket, &request)) {
            Reply::DeleteShareGroupOffsets(response, delete) => (response, delete.map(|request| *request)),
            other => panic!("{other:?}"),
        }
    }
}

fn client() -> Client {
    Client {
        client_id: text("client"),
        client_host: text("/127.0.0.1"),
    }
}

fn asked(initialize: &Option<InitializeShareGroupStateRequest>) -> BTreeMap<Uuid, BTreeSet<i32>> {
    let topics = initialize.iter().flat_map(|request| &request.topics);
    topics
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|state| state.partition);
            (topic.topic_id, partitions.collect())
        })
        .collect()
}

fn given(response: &ShareGroupHeartbeatResponse) -> Option<BTreeMap<Uuid, BTreeSet<i32>>> {
    let topics = response.assignment.as_ref()?.topic_partitions.iter();
    Some(
        topics
            .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
            .collect(),
    )
}

fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

#[test]
fn a_partition_is_assigned_only_when_its_state_is_initialized() {
    let mut bench = Bench::new();
    bench.topic("t", 3);
    let (joined, initialize) = bench.join("a", &["t"]);
    assert_eq!((joined.member_epoch, given(&joined)), (2, Some(BTreeMap::new())));
    assert_eq!(asked(&initialize), partitions("t", 3));
    let state = &initialize.unwrap().topics[0].partitions[0];
    assert_eq!((state.state_epoch, state.start_offset), (2, -1));

    // It was asked for: nobody asks again, and nobody has it yet.
    let (waits, again) = bench.heartbeat("a", 2, None);
    assert_eq!((waits.member_epoch, given(&waits), again), (2, None, None));
    bench.initialized(&BTreeMap::from([(topic_id("t"), BTreeSet::from([0, 2]))]));
    let (some, _) = bench.heartbeat("a", 2, None);
    let two = BTreeMap::from([(topic_id("t"), BTreeSet::from([0, 2]))]);
    assert_eq!((some.member_epoch, given(&some)), (3, Some(two)));
    bench.initialized(&partitions("t", 3));
    let (all, _) = bench.heartbeat("a", 3, None);
    assert_eq!((all.member_epoch, given(&all)), (4, Some(partitions("t", 3))));
    let (rest, none) = bench.heartbeat("a", 4, None);
    assert_eq!((rest.member_epoch, given(&rest), none), (4, None, None));
    bench.restart();
    let (rest, none) = bench.heartbeat("a", 4, None);
    assert_eq!((rest.member_epoch, given(&rest), none), (4, None, None));
}

#[test]
fn an_initialization_that_fails_or_is_not_heard_of_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.join("a", &["t"]);
    let effects = bench
        .groups
        .share_states_not_initialized(1_000, &text(GROUP), &partitions("t", 2));
    bench.store(&effects);
    let (_, again) = bench.heartbeat("a", 2, None);
    assert_eq!(asked(&again), partitions("t", 2));
    bench.now_ms += 29_999;
    assert_eq!(bench.heartbeat("a", 2, None).1, None);
    bench.now_ms += 1;
    let (_, again) = bench.heartbeat("a", 2, None);
    assert_eq!(asked(&again), partitions("t", 2));
    // A restart does not know what became of it.
    bench.restart();
    assert_eq!(asked(&bench.heartbeat("a", 2, None).1), partitions("t", 2));
}

#[test]
fn members_share_partitions_and_take_their_target_at_once() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    let epoch = bench.settled("a", "t", 1);
    let (joined, _) = bench.join("b", &["t"]);
    assert_eq!(
        given(&joined),
        Some(partitions("t", 1)),
        "both have the one partition"
    );
    let (first, _) = bench.heartbeat("a", epoch, None);
    assert_eq!((first.member_epoch, given(&first)), (joined.member_epoch, None));

    bench.topic("u", 4);
    let (more, initialize) = bench.heartbeat("a", first.member_epoch, Some(&["u"]));
    assert_eq!(given(&more), Some(BTreeMap::new()));
    assert_eq!(asked(&initialize), partitions("u", 4));
    bench.initialized(&partitions("u", 4));
    let (more, _) = bench.heartbeat("a", more.member_epoch, None);
    assert_eq!(given(&more), Some(partitions("u", 4)));
}

#[test]
fn topics_that_grow_come_and_go_are_followed() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    let epoch = bench.settled("a", "t", 1);
    bench.topic("t", 3);
    let (grown, initialize) = bench.heartbeat("a", epoch, None);
    assert_eq!(
        asked(&initialize),
        BTreeMap::from([(topic_id("t"), BTreeSet::from([1, 2]))])
    );
    bench.initialized(&BTreeMap::from([(topic_id("t"), BTreeSet::from([1, 2]))]));
    let (grown, _) = bench.heartbeat("a", grown.member_epoch, None);
    assert_eq!(given(&grown), Some(partitions("t", 3)));

    bench.topics.remove("t");
    let image = Arc::new(bench.topics.clone());
    bench.groups.see_topics(&image);
    let effects = bench.groups.topic_deleted(bench.now_ms, &[text("t")]);
    bench.store(&effects);
    assert!(bench.groups.initialized_share_partitions(&text(GROUP)).is_empty());
    let (gone, none) = bench.heartbeat("a", grown.member_epoch, None);
    assert_eq!((given(&gone), none), (Some(BTreeMap::new()), None));
    bench.restart();
}

#[test]
fn epochs_are_fenced_and_a_lost_reply_is_forgiven() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    let epoch = bench.settled("a", "t", 1);
    assert_eq!(epoch, 3);
    let code = |bench: &mut Bench, member: &str, epoch: i32| {
        let (response, _) = bench.heartbeat(member, epoch, None);
        (error(response.error_code), response.error_message)
    };
    assert_eq!(code(&mut bench, "a", 2), (ErrorCode::None, None));
    let (greater, sentence) = code(&mut bench, "a", 4);
    assert_eq!(greater, ErrorCode::FencedMemberEpoch);
    assert!(
        sentence
            .unwrap()
            .starts_with("The share group member has a greater member epoch (4)")
    );
    bench.join("b", &["t"]);
    bench.heartbeat("a", 3, None);
    let (smaller, sentence) = code(&mut bench, "a", 2);
    assert_eq!(smaller, ErrorCode::FencedMemberEpoch);
    assert!(
        sentence
            .unwrap()
            .contains("does not match the previous member epoch (3)")
    );
    assert_eq!(code(&mut bench, "nobody", 1).0, ErrorCode::UnknownMemberId);
    // Zero joins again, whatever was before.
    let (again, _) = bench.join("a", &["t"]);
    assert_eq!((again.member_epoch, given(&again)), (4, Some(partitions("t", 1))));
}

#[test]
fn wrong_heartbeats_are_refused_in_kafkas_words() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    let mut refused = |member: &str, epoch: i32, topics: Option<&[&str]>| {
        let (response, _) = bench.heartbeat(member, epoch, topics);
        let sentence = response.error_message.map(|sentence| sentence.to_string());
        (error(response.error_code), sentence.unwrap_or_default())
    };
    for (member, epoch, topics, code, sentence) in [
        (
            "",
            0,
            Some(&["t"][..]),
            ErrorCode::InvalidRequest,
            "MemberId can't be empty.",
        ),
        (
            "a",
            0,
            None,
            ErrorCode::InvalidRequest,
            "SubscribedTopicNames must be set in first request.",
        ),
        (
            "a",
            0,
            Some(&[]),
            ErrorCode::InvalidRequest,
            "SubscribedTopicNames must be set in first request.",
        ),
        (
            "a",
            -2,
            None,
            ErrorCode::InvalidRequest,
            "MemberEpoch is invalid.",
        ),
        (
            "a",
            1,
            None,
            ErrorCode::GroupIdNotFound,
            "Share group g not found.",
        ),
        ("a", -1, None, ErrorCode::GroupIdNotFound, "Group g not found."),
    ] {
        assert_eq!(refused(member, epoch, topics), (code, sentence.to_owned()));
    }
}

#[test]
fn a_group_is_full_at_its_size_and_members_go_with_their_sessions() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    bench.config.max_size = 1;
    let epoch = bench.settled("a", "t", 1);
    let (full, _) = bench.heartbeat("b", 0, Some(&["t"]));
    assert_eq!(error(full.error_code), ErrorCode::GroupMaxSizeReached);
    assert_eq!(
        &**full.error_message.as_ref().unwrap(),
        "The share group has reached its maximum capacity of 1 members."
    );
    bench.now_ms += 45_000;
    let effects = bench.groups.tick(bench.now_ms);
    bench.store(&effects);
    let (gone, _) = bench.heartbeat("a", epoch, None);
    assert_eq!(error(gone.error_code), ErrorCode::UnknownMemberId);
    let listed = bench.groups.list(&[text("empty")], &[text("SHARE")]);
    assert_eq!((listed.len(), &*listed[0].protocol_type), (1, "share"));
    bench.restart();
    let (joined, _) = bench.join("b", &["t"]);
    let (left, _) = bench.heartbeat("b", -1, None);
    assert_eq!(
        (left.member_epoch, joined.error_code, left.error_code),
        (-1, 0, 0)
    );
}

#[test]
fn the_assignment_is_computed_anew_only_once_per_interval() {
    let mut bench = Bench::new();
    bench.config.assignment_interval_ms = 1_000;
    bench.topic("t", 2);
    bench.join("a", &["t"]);
    bench.initialized(&partitions("t", 2));
    let (waits, _) = bench.heartbeat("a", 2, None);
    assert_eq!((waits.member_epoch, given(&waits)), (2, None));
    bench.now_ms += 1_000;
    let (assigned, _) = bench.heartbeat("a", 2, None);
    assert_eq!(
        (assigned.member_epoch, given(&assigned)),
        (3, Some(partitions("t", 2)))
    );
}

#[test]
fn offsets_of_an_empty_group_are_altered_and_deleted() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    // It creates the group.
    let (altered, initializes) = bench.alter("t", &[(0, 10), (5, 1)]);
    assert!(initializes);
    let codes: Vec<i16> = altered.responses[0]
        .partitions
        .iter()
        .map(|partition| partition.error_code)
        .collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    bench.initialized(&BTreeMap::from([(topic_id("t"), BTreeSet::from([0]))]));
    bench.restart();

    let (none, delete) = bench.delete_offsets("unknown");
    assert_eq!((none.responses.len(), delete), (1, None));
    let (_, delete) = bench.delete_offsets("t");
    assert_eq!(delete.unwrap().topics[0].partitions.len(), 1);
    // Until it is said that the states are gone, it is tried again, with all partitions.
    let (_, delete) = bench.delete_offsets("t");
    assert_eq!(delete.unwrap().topics[0].partitions.len(), 2);
    let effects = bench
        .groups
        .share_states_deleted(bench.now_ms, &text(GROUP), &[topic_id("t")]);
    bench.store(&effects);
    let (nothing, delete) = bench.delete_offsets("t");
    assert_eq!(delete, None);
    assert_eq!(
        nothing.responses[0].error_message,
        Some(text("There is no offset information to delete."))
    );

    bench.join("a", &["t"]);
    assert_eq!(
        error(bench.alter("t", &[(0, 1)]).0.error_code),
        ErrorCode::NonEmptyGroup
    );
    assert_eq!(
        error(bench.delete_offsets("t").0.error_code),
        ErrorCode::NonEmptyGroup
    );
}

#[test]
fn a_group_is_deleted_when_its_states_are_removed() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.settled("a", "t", 2);
    let delete = |bench: &mut Bench| bench.ask(|groups, _, ticket| groups.delete_group(ticket, &text(GROUP)));
    assert_eq!(delete(&mut bench), Reply::DeleteGroup(ErrorCode::NonEmptyGroup));
    bench.heartbeat("a", -1, None);
    for _ in 0..2 {
        // The second is after one that did not come to its end.
        match delete(&mut bench) {
            Reply::DeleteShareGroup(states) => assert_eq!(states.topics[0].partitions.len(), 2),
            other => panic!("{other:?}"),
        }
        bench.restart();
    }
    let finish =
        |bench: &mut Bench| bench.ask(|groups, _, ticket| groups.delete_share_group(ticket, &text(GROUP)));
    assert_eq!(finish(&mut bench), Reply::DeleteGroup(ErrorCode::None));
    assert!(bench.rows.is_empty(), "{:?}", bench.rows);
    assert_eq!(finish(&mut bench), Reply::DeleteGroup(ErrorCode::GroupIdNotFound));
    // What was under way for it does no harm.
    bench.initialized(&partitions("t", 2));
    assert!(bench.rows.is_empty());
}

#[test]
fn requests_for_other_types_of_groups_are_refused() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    bench.settled("a", "t", 1);
    let join = JoinGroupRequest {
        group_id: text(GROUP),
        session_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![milena_protocol::messages::join_group_request::JoinGroupRequestProtocol::default()],
        ..JoinGroupRequest::default()
    };
    let consumer = ConsumerGroupConfig::default();
    match bench.ask(|groups, now_ms, ticket| groups.join(now_ms, ticket, 9, &client(), &consumer, &join)) {
        Reply::JoinGroup(response) => {
            assert_eq!(error(response.error_code), ErrorCode::InconsistentGroupProtocol);
        }
        other => panic!("{other:?}"),
    }
    let sync = SyncGroupRequest {
        group_id: text(GROUP),
        ..SyncGroupRequest::default()
    };
    let reply = bench.ask(|groups, now_ms, ticket| groups.sync(now_ms, ticket, &sync));
    assert!(
        matches!(reply, Reply::SyncGroup(response) if error(response.error_code) == ErrorCode::UnknownMemberId)
    );
    let heartbeat = HeartbeatRequest {
        group_id: text(GROUP),
        ..HeartbeatRequest::default()
    };
    let reply = bench.ask(|groups, now_ms, ticket| groups.heartbeat(now_ms, ticket, &heartbeat));
    assert!(
        matches!(reply, Reply::Heartbeat(response) if error(response.error_code) == ErrorCode::UnknownMemberId)
    );
    let delete = OffsetDeleteRequest {
        group_id: text(GROUP),
        ..OffsetDeleteRequest::default()
    };
    let reply = bench.ask(|groups, _, ticket| groups.delete_offsets(ticket, &delete));
    assert!(
        matches!(reply, Reply::OffsetDelete(response) if error(response.error_code) == ErrorCode::GroupIdNotFound)
    );
    let commit = OffsetCommitRequest {
        group_id: text(GROUP),
        generation_id_or_member_epoch: -1,
        ..OffsetCommitRequest::default()
    };
    let reply = bench.ask(|groups, now_ms, ticket| groups.commit_offsets(now_ms, ticket, 9, &commit));
    assert!(matches!(reply, Reply::OffsetCommit(_)));
    let consumes = ConsumerGroupHeartbeatRequest {
        group_id: text(GROUP),
        member_id: text("c"),
        rebalance_timeout_ms: 1_000,
        subscribed_topic_names: Some(vec![text("t")]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    match bench.ask(|groups, now_ms, ticket| {
        groups.consumer_heartbeat(now_ms, ticket, 1, &client(), &consumer, &consumes)
    }) {
        Reply::ConsumerGroupHeartbeat(response) => {
            assert_eq!(
                response.error_message,
                Some(text("Group g is not a consumer group."))
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.groups.describe(&text(GROUP), 6).error_message,
        Some(text("Group g is not a classic group."))
    );
}

#[test]
fn a_group_without_members_is_kept_whatever_time_passes() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    bench.settled("a", "t", 1);
    bench.heartbeat("a", -1, None);
    bench.now_ms += 30 * 24 * 60 * 60 * 1000;
    let effects = bench.groups.tick(bench.now_ms);
    bench.store(&effects);
    assert_eq!(bench.groups.group_count(), 1);
}
