//! Streams groups (KIP-1071) as their members see them, and after a restart from what was stored.
#![allow(clippy::unwrap_used)]

#[path = "support/streams.rs"]
mod streams;

use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Endpoint, KeyValue, TaskIds,
};
use milena_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest,
    StreamsGroupHeartbeatRequest, SyncGroupRequest,
};
use milena_protocol::{ErrorCode, Str};

use milena_coordinator::{ConsumerGroupConfig, Reply};
use streams::{Bench, GROUP, Member, client, internal, subtopology, text, topology};

const STALE_TOPOLOGY: i8 = 0;
const MISSING_SOURCE_TOPICS: i8 = 1;
const INCORRECTLY_PARTITIONED_TOPICS: i8 = 2;
const MISSING_INTERNAL_TOPICS: i8 = 3;
const SHUTDOWN_APPLICATION: i8 = 4;
const ASSIGNMENT_DELAYED: i8 = 5;

/// One subtopology that reads `in` (four partitions) and keeps state.
fn counting() -> Bench {
    let mut bench = Bench::new();
    bench.topic("in", 4);
    bench.topic("g-store-changelog", 4);
    bench.topology = topology(0, [subtopology("0", &["in"], &["g-store-changelog"])]);
    bench
}

#[test]
fn the_first_member_gets_every_task_and_its_epoch() {
    let mut bench = counting();
    let mut a = Member::new("a", "p1");
    let response = bench.join(&mut a);
    assert_eq!((response.error_code, response.member_epoch), (0, 2));
    assert_eq!(a.active_of("0"), [0, 1, 2, 3]);
    assert_eq!(response.status, Some(Vec::new()));
    assert_eq!(bench.state(), "Stable");
    let response = bench.beat(&mut a);
    assert_eq!((response.error_code, response.member_epoch), (0, 2));
    assert_eq!(response.active_tasks, None, "nothing new");
}

#[test]
fn a_second_member_gets_its_share_only_when_the_first_has_given_it_up() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    assert_eq!((b.active_of("0").len(), b.epoch), (0, 3), "nothing is free yet");
    assert_eq!(bench.state(), "Reconciling");
    let told = bench.beat(&mut a);
    assert_eq!(
        told.member_epoch, 2,
        "it stays in its epoch until it has given up"
    );
    assert_eq!(a.active_of("0").len(), 2);
    bench.beat(&mut b);
    assert_eq!(b.active_of("0").len(), 0, "the first has not said so yet");
    bench.tell(&mut a);
    assert_eq!(a.epoch, 3);
    bench.beat(&mut b);
    assert_eq!(b.active_of("0").len(), 2);
    assert_eq!(bench.state(), "Stable");
    bench.restart();
    assert_eq!(bench.state(), "Stable");
    bench.beat(&mut b);
    assert_eq!(
        (b.active_of("0").len(), b.epoch),
        (2, 3),
        "a restart changes nothing"
    );
}

#[test]
fn standby_tasks_are_at_another_process_than_the_active_ones() {
    let mut bench = counting();
    bench.config.standby_replicas = 1;
    let mut a = Member::new("a", "p1");
    let mut same = Member::new("b", "p1");
    bench.join(&mut a);
    bench.join(&mut same);
    bench.settle(&mut [&mut a, &mut same]);
    assert_eq!(
        a.standby.values().map(Vec::len).sum::<usize>(),
        0,
        "there is one process"
    );
    assert_eq!(same.standby.values().map(Vec::len).sum::<usize>(), 0);
    let mut c = Member::new("c", "p2");
    bench.join(&mut c);
    bench.settle(&mut [&mut a, &mut same, &mut c]);
    assert_eq!(bench.state(), "Stable");
    let mut first: Vec<i32> = [a.active_of("0"), same.active_of("0")].concat();
    first.sort_unstable();
    assert_eq!(
        first,
        c.standby_of("0"),
        "the first process's tasks stand by in the second"
    );
    let mut others = [a.standby_of("0"), same.standby_of("0")].concat();
    others.sort_unstable();
    assert_eq!(others, c.active_of("0"));
}

#[test]
fn more_standby_replicas_are_a_new_epoch() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    bench.settle(&mut [&mut a, &mut b]);
    let before = a.epoch;
    bench.config.standby_replicas = 1;
    bench.settle(&mut [&mut a, &mut b]);
    assert_eq!(a.epoch, before + 1);
    assert_eq!(a.standby_of("0"), b.active_of("0"));
    assert_eq!(b.standby_of("0"), a.active_of("0"));
}

#[test]
fn a_member_that_leaves_frees_its_tasks_at_once() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    bench.settle(&mut [&mut a, &mut b]);
    let response = bench.leave(&a);
    assert_eq!((response.error_code, response.member_epoch), (0, -1));
    bench.beat(&mut b);
    assert_eq!(b.active_of("0"), [0, 1, 2, 3]);
    bench.leave(&b);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_session_that_ends_and_a_revocation_that_does_not_come_take_a_member_out() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    bench.beat(&mut a);
    bench.pass_beating(streams::REBALANCE_MS + 1, &mut [&mut a, &mut b]);
    assert!(!bench.has_member("a"), "it did not give up what it was told to");
    bench.beat(&mut b);
    assert_eq!(b.active_of("0"), [0, 1, 2, 3]);
    bench.pass(bench.config.session_timeout_ms + 1);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn an_empty_group_waits_for_more_members_before_it_is_assigned() {
    let mut bench = counting();
    bench.config.initial_rebalance_delay_ms = 3_000;
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    let response = bench.join(&mut a);
    assert_eq!((response.member_epoch, a.active_of("0").len()), (1, 0));
    assert_eq!(
        streams::statuses(&response),
        [(
            ASSIGNMENT_DELAYED,
            "Assignment delayed due to the configured initial rebalance delay.".to_owned()
        )]
    );
    bench.join(&mut b);
    assert_eq!(bench.state(), "Assigning");
    bench.pass(3_001);
    assert_eq!(bench.state(), "Reconciling");
    bench.beat(&mut a);
    bench.beat(&mut b);
    assert_eq!(
        (a.active_of("0").len(), b.active_of("0").len()),
        (2, 2),
        "both at once"
    );
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn assignments_are_apart_by_the_interval() {
    let mut bench = counting();
    bench.config.assignment_interval_ms = 1_000;
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    let response = bench.join(&mut b);
    let delayed = "Assignment delayed due to the configured assignment interval.".to_owned();
    assert_eq!(streams::statuses(&response), [(ASSIGNMENT_DELAYED, delayed)]);
    assert_eq!(bench.state(), "Assigning");
    bench.pass(1_000);
    assert_eq!(bench.beat(&mut b).status, Some(Vec::new()));
}

#[test]
fn source_topics_that_are_missing_are_told_until_they_are_there() {
    let mut bench = Bench::new();
    bench.topology = topology(0, [subtopology("0", &["d", "c", "b", "a"], &[])]);
    let mut a = Member::new("a", "p1");
    let response = bench.join(&mut a);
    assert_eq!(
        streams::statuses(&response),
        [(
            MISSING_SOURCE_TOPICS,
            "Source topics a, b, c and 1 additional topics are missing.".to_owned()
        )]
    );
    assert_eq!(
        (bench.state(), a.active_of("0").len()),
        ("NotReady".to_owned(), 0)
    );
    for name in ["a", "b", "c", "d"] {
        bench.topic(name, 3);
    }
    bench.beat(&mut a);
    assert_eq!(a.active_of("0"), [0, 1, 2]);
    bench.remove_topic("b");
    let response = bench.beat(&mut a);
    assert_eq!(streams::statuses(&response)[0].0, MISSING_SOURCE_TOPICS);
    assert_eq!(a.active_of("0").len(), 0, "and no task goes on");
}

#[test]
fn internal_topics_that_are_missing_are_asked_for_with_their_counts_and_configs() {
    let mut bench = Bench::new();
    bench.topic("in", 3);
    let mut writer = subtopology("0", &["in"], &[]);
    writer.repartition_sink_topics = vec![text("g-by-word-repartition")];
    let mut reader = subtopology("1", &[], &["g-counts-changelog"]);
    reader.repartition_source_topics = vec![internal("g-by-word-repartition", 0, &[("retention.ms", "-1")])];
    bench.topology = topology(0, [writer, reader]);
    let mut a = Member::new("a", "p1");
    let (response, missing) = bench.join_and_see(&mut a);
    let sentence = "Internal topics are missing: g-by-word-repartition, g-counts-changelog";
    assert_eq!(
        streams::statuses(&response),
        [(MISSING_INTERNAL_TOPICS, sentence.to_owned())]
    );
    let summary = |topic: &CreatableTopic| {
        let configs: Vec<String> = topic
            .configs
            .iter()
            .map(|config| config.name.to_string())
            .collect();
        (
            topic.name.to_string(),
            topic.num_partitions,
            topic.replication_factor,
            configs,
        )
    };
    assert_eq!(
        missing.iter().map(summary).collect::<Vec<_>>(),
        [
            (
                "g-by-word-repartition".to_owned(),
                3,
                -1,
                vec!["retention.ms".to_owned()]
            ),
            ("g-counts-changelog".to_owned(), 3, -1, Vec::new()),
        ]
    );
    bench.topic("g-by-word-repartition", 3);
    bench.topic("g-counts-changelog", 3);
    bench.beat(&mut a);
    assert_eq!((a.active_of("0").len(), a.active_of("1").len()), (3, 3));
    let described = bench.describe();
    let topology = described.topology.unwrap();
    let counts = &topology.subtopologies.unwrap()[1];
    assert_eq!(
        counts.state_changelog_topics[0].partitions, 3,
        "as it is configured"
    );
}

#[test]
fn topics_that_are_joined_have_to_have_equally_many_partitions() {
    let mut bench = Bench::new();
    bench.topic("left", 2);
    bench.topic("right", 3);
    let mut joins = subtopology("0", &["left", "right"], &[]);
    joins.copartition_groups = vec![CopartitionGroup {
        source_topics: vec![0, 1],
        ..CopartitionGroup::default()
    }];
    bench.topology = topology(0, [joins]);
    let mut a = Member::new("a", "p1");
    let response = bench.join(&mut a);
    let sentence = "Following topics do not have the same number of partitions: [{left=2, right=3}]";
    assert_eq!(
        streams::statuses(&response),
        [(INCORRECTLY_PARTITIONED_TOPICS, sentence.to_owned())]
    );
    bench.topic("left", 3);
    bench.beat(&mut a);
    assert_eq!(a.active_of("0"), [0, 1, 2]);
}

#[test]
fn an_internal_topic_of_another_size_is_told() {
    let mut bench = counting();
    bench.topic("g-store-changelog", 5);
    let response = bench.join(&mut Member::new("a", "p1"));
    let sentence = "Existing topic g-store-changelog has different number of partitions: expected 4, found 5";
    assert_eq!(
        streams::statuses(&response),
        [(INCORRECTLY_PARTITIONED_TOPICS, sentence.to_owned())]
    );
}

#[test]
fn topologies_that_cannot_be_run_are_refused() {
    let mut bench = Bench::new();
    bench.topic("in", 1);
    let refused = |bench: &mut Bench, topology| {
        bench.topology = topology;
        let response = bench.join(&mut Member::new("a", "p1"));
        let error = ErrorCode::from_code(response.error_code);
        (error, response.error_message.unwrap_or_default().to_string())
    };
    let nothing = subtopology("0", &[], &["g-changelog"]);
    assert_eq!(
        refused(&mut bench, topology(0, [nothing])),
        (
            ErrorCode::StreamsInvalidTopology,
            "No source topics found for subtopology 0".to_owned()
        )
    );
    let mut never_written = subtopology("0", &["in"], &[]);
    never_written.repartition_source_topics = vec![internal("g-repartition", 0, &[])];
    assert_eq!(
        refused(&mut bench, topology(0, [never_written])).0,
        ErrorCode::StreamsInvalidTopology
    );
    let mut fixed = subtopology("0", &["in"], &[]);
    fixed.state_changelog_topics = vec![internal("g-changelog", 2, &[])];
    assert_eq!(
        refused(&mut bench, topology(0, [fixed])).1,
        "Changelog topic g-changelog must have an undefined partition count, but it is set to 2."
    );
    let mut outside = subtopology("0", &["in"], &[]);
    outside.copartition_groups = vec![CopartitionGroup {
        source_topics: vec![0, 7],
        ..CopartitionGroup::default()
    }];
    assert_eq!(
        refused(&mut bench, topology(0, [outside])).0,
        ErrorCode::UnknownServerError
    );
    let twice = [subtopology("0", &["in"], &[]), subtopology("0", &["in"], &[])];
    assert_eq!(
        refused(&mut bench, topology(0, twice)).0,
        ErrorCode::UnknownServerError
    );
    assert!(bench.groups.list(&[], &[]).is_empty(), "no group came of it");
}

#[test]
fn another_topology_is_refused_and_an_older_one_is_told_that_it_is_stale() {
    let mut bench = counting();
    bench.topology = topology(3, [subtopology("0", &["in"], &["g-store-changelog"])]);
    let mut a = Member::new("a", "p1");
    bench.join(&mut a);
    bench.topology = topology(4, [subtopology("0", &["in"], &[])]);
    let response = bench.join(&mut Member::new("b", "p2"));
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(
        response.error_message.as_deref(),
        Some("Topology updates are not supported yet.")
    );
    bench.topology = topology(2, [subtopology("0", &["in"], &[])]);
    let mut b = Member::new("b", "p2");
    let response = bench.join(&mut b);
    let sentence = "The member's topology epoch 2 is behind the group's topology epoch 3.".to_owned();
    assert_eq!(streams::statuses(&response), [(STALE_TOPOLOGY, sentence)]);
    bench.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.active_of("0").len(), 2, "it gets tasks all the same");
}

#[test]
fn a_member_that_asks_for_the_end_of_the_application_ends_it_for_everybody() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    let mut request = a.request();
    request.shutdown_application = true;
    bench.ask(&request);
    let sentence = "Streams group member a encountered a fatal error and requested a shutdown for the entire application.";
    for _ in 0..2 {
        let response = bench.beat(&mut b);
        let told = streams::statuses(&response);
        assert_eq!(told.last().unwrap(), &(SHUTDOWN_APPLICATION, sentence.to_owned()));
    }
    bench.leave(&a);
    bench.leave(&b);
    let mut again = Member::new("c", "p3");
    assert_eq!(
        bench.join(&mut again).status,
        Some(Vec::new()),
        "a new start is one"
    );
}

#[test]
fn who_has_an_endpoint_is_told_to_everybody_when_it_gets_other_tasks() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    a.endpoint = Some(Endpoint {
        host: text("localhost"),
        port: 8_080,
        ..Endpoint::default()
    });
    let first = bench.join(&mut a);
    assert_eq!(
        first.endpoint_information_epoch, 0,
        "it counts from when the group is there"
    );
    let told = first.partitions_by_user_endpoint.unwrap();
    assert_eq!(told[0].user_endpoint.port, 8_080);
    assert_eq!(told[0].active_partitions[0].partitions, [0, 1, 2, 3]);
    bench.join(&mut b);
    bench.settle(&mut [&mut a, &mut b]);
    let response = bench.beat(&mut b);
    assert!(response.endpoint_information_epoch > 0);
    let told = response.partitions_by_user_endpoint.unwrap();
    assert_eq!((told.len(), &*told[0].active_partitions[0].topic), (1, "in"));
    assert_eq!(told[0].active_partitions[0].partitions.len(), 2);
    let mut request = b.request();
    request.endpoint_information_epoch = response.endpoint_information_epoch;
    let response = bench.ask(&request).0;
    assert_eq!(
        response.partitions_by_user_endpoint, None,
        "it knows that already"
    );
}

#[test]
fn epochs_that_are_wrong_fence_a_member_but_a_lost_reply_does_not() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    let mut ahead = a.request();
    ahead.member_epoch = 9;
    assert_eq!(
        bench.ask(&ahead).0.error_code,
        ErrorCode::FencedMemberEpoch.code()
    );
    bench.join(&mut b);
    bench.settle(&mut [&mut a, &mut b]);
    let mut late = a.request();
    late.member_epoch = a.epoch - 1;
    assert_eq!(bench.ask(&late).0.error_code, ErrorCode::FencedMemberEpoch.code());
    a.own(&mut late);
    let response = bench.ask(&late).0;
    assert_eq!((response.error_code, response.member_epoch), (0, a.epoch));
    let mut unknown = a.request();
    unknown.member_id = text("z");
    assert_eq!(
        bench.ask(&unknown).0.error_code,
        ErrorCode::UnknownMemberId.code()
    );
    unknown.group_id = text("other");
    let response = bench.ask(&unknown).0;
    assert_eq!(response.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(
        response.error_message.as_deref(),
        Some("Streams group other not found.")
    );
}

#[test]
fn a_member_that_did_not_hear_what_it_was_given_is_told_again_when_it_says_what_it_has() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    bench.settle(&mut [&mut a, &mut b]);
    bench.leave(&b);
    bench.ask(&a.request());
    assert_eq!(a.active_of("0").len(), 2, "that answer was lost");
    let mut request = a.request();
    a.own(&mut request);
    let response = bench.ask(&request).0;
    assert_eq!(response.active_tasks.unwrap()[0].partitions, [0, 1, 2, 3]);
}

#[test]
fn requests_that_are_wrong_get_kafkas_sentences() {
    let mut bench = counting();
    let good = |bench: &Bench| bench.join_request(&Member::new("a", "p1"));
    type Spoil = fn(&mut StreamsGroupHeartbeatRequest);
    let wrong: [(&str, Spoil); 12] = [
        ("Static membership is not yet supported.", |request| {
            request.instance_id = Some(text("i"))
        }),
        ("TaskOffsets are not supported yet.", |request| {
            request.task_offsets = Some(Vec::new())
        }),
        ("TaskEndOffsets are not supported yet.", |request| {
            request.task_end_offsets = Some(Vec::new())
        }),
        ("WarmupTasks are not supported yet.", |request| {
            request.warmup_tasks = Some(vec![TaskIds::default()]);
        }),
        (
            "Regular expressions for source topics are not supported yet.",
            |request| {
                request.topology.as_mut().unwrap().subtopologies[0].source_topic_regex = vec![text("a.*")];
            },
        ),
        ("MemberId can't be empty.", |request| {
            request.member_id = text(" ")
        }),
        ("GroupId can't be empty.", |request| {
            request.group_id = Str::default()
        }),
        ("RackId can't be empty.", |request| {
            request.rack_id = Some(Str::default())
        }),
        (
            "RebalanceTimeoutMs must be provided in first request.",
            |request| request.rebalance_timeout_ms = -1,
        ),
        ("ActiveTasks must be empty when (re-)joining.", |request| {
            request.active_tasks = None
        }),
        ("Topology must be non-null when (re-)joining.", |request| {
            request.topology = None
        }),
        ("Topology can only be provided when (re-)joining.", |request| {
            request.member_epoch = 1
        }),
    ];
    for (sentence, spoil) in wrong {
        let mut request = good(&bench);
        spoil(&mut request);
        let response = bench.ask(&request).0;
        assert_eq!(response.error_message.as_deref(), Some(sentence));
        assert_eq!(
            response.error_code,
            ErrorCode::InvalidRequest.code(),
            "{sentence}"
        );
    }
    let mut a = Member::new("a", "p1");
    bench.join(&mut a);
    let mut request = a.request();
    a.own(&mut request);
    request.active_tasks.as_mut().unwrap()[0].partitions.push(4);
    let response = bench.ask(&request).0;
    let sentence = "Task 4 for subtopology 0 is invalid. Number of tasks for this subtopology: 4";
    assert_eq!(response.error_message.as_deref(), Some(sentence));
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut bench = counting();
    bench.config.max_size = 1;
    bench.join(&mut Member::new("a", "p1"));
    let response = bench.join(&mut Member::new("b", "p2"));
    assert_eq!(response.error_code, ErrorCode::GroupMaxSizeReached.code());
    let sentence = "The streams group has reached its maximum capacity of 1 members.";
    assert_eq!(response.error_message.as_deref(), Some(sentence));
}

fn commit(member: &str, epoch: i32, topic: &str, partition: i32) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: text(GROUP),
        member_id: text(member),
        generation_id_or_member_epoch: epoch,
        topics: vec![OffsetCommitRequestTopic {
            name: text(topic),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: 7,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

#[test]
fn offsets_are_committed_by_the_epoch_in_which_a_task_was_given() {
    let mut bench = counting();
    let (mut a, mut b) = (Member::new("a", "p1"), Member::new("b", "p2"));
    bench.join(&mut a);
    bench.join(&mut b);
    bench.settle(&mut [&mut a, &mut b]);
    let kept = a.active_of("0")[0];
    let gone = b.active_of("0")[0];
    let stale = ErrorCode::StaleMemberEpoch;
    let cases = [
        (commit("a", a.epoch, "in", gone), 9, ErrorCode::None),
        (commit("a", a.epoch, "in", kept), 8, ErrorCode::UnsupportedVersion),
        (commit("a", a.epoch - 1, "in", kept), 9, ErrorCode::None),
        (commit("a", a.epoch - 1, "in", gone), 9, stale),
        (commit("b", b.epoch - 1, "in", gone), 9, stale),
        (commit("a", a.epoch + 1, "in", kept), 9, stale),
        (commit("a", a.epoch - 1, "elsewhere", kept), 9, stale),
        (commit("z", 1, "in", kept), 9, ErrorCode::UnknownMemberId),
        (commit("", -1, "in", kept), 9, ErrorCode::UnknownMemberId),
    ];
    for (request, version, expected) in cases {
        assert_eq!(bench.commit(version, &request), expected, "{request:?}");
    }
    let fetch = |member: Option<&str>, member_epoch| OffsetFetchRequestGroup {
        group_id: text(GROUP),
        member_id: member.map(text),
        member_epoch,
        ..OffsetFetchRequestGroup::default()
    };
    let error =
        |bench: &Bench, request| ErrorCode::from_code(bench.groups.fetch_offsets(&request, false).error_code);
    assert_eq!(error(&bench, fetch(None, -1)), ErrorCode::None);
    assert_eq!(error(&bench, fetch(Some("a"), a.epoch)), ErrorCode::None);
    assert_eq!(error(&bench, fetch(Some("a"), a.epoch - 1)), stale);
    assert_eq!(error(&bench, fetch(Some("z"), 1)), ErrorCode::UnknownMemberId);
}

#[test]
fn requests_of_other_protocols_do_not_find_a_streams_group() {
    let mut bench = counting();
    let mut a = Member::new("a", "p1");
    bench.join(&mut a);
    let join = JoinGroupRequest {
        group_id: text(GROUP),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![Default::default()],
        ..JoinGroupRequest::default()
    };
    let reply = bench.reply(|groups, now_ms, ticket| {
        groups.join(
            now_ms,
            ticket,
            5,
            &client(),
            &ConsumerGroupConfig::default(),
            &join,
        )
    });
    let Reply::JoinGroup(response) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(response.error_code, ErrorCode::InconsistentGroupProtocol.code());
    let heartbeat = HeartbeatRequest {
        group_id: text(GROUP),
        member_id: text("a"),
        ..HeartbeatRequest::default()
    };
    let reply = bench.reply(|groups, now_ms, ticket| groups.heartbeat(now_ms, ticket, &heartbeat));
    let Reply::Heartbeat(response) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(response.error_code, ErrorCode::UnknownMemberId.code());
    let sync = SyncGroupRequest {
        group_id: text(GROUP),
        member_id: text("a"),
        ..SyncGroupRequest::default()
    };
    let reply = bench.reply(|groups, now_ms, ticket| groups.sync(now_ms, ticket, &sync));
    let Reply::SyncGroup(response) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(response.error_code, ErrorCode::UnknownMemberId.code());
    let consumer = ConsumerGroupHeartbeatRequest {
        group_id: text(GROUP),
        member_id: text("a"),
        rebalance_timeout_ms: 1_000,
        subscribed_topic_names: Some(vec![text("in")]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let reply = bench.reply(|groups, now_ms, ticket| {
        groups.consumer_heartbeat(
            now_ms,
            ticket,
            1,
            &client(),
            &ConsumerGroupConfig::default(),
            &consumer,
        )
    });
    let Reply::ConsumerGroupHeartbeat(response) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(
        response.error_message.as_deref(),
        Some("Group g is not a consumer group.")
    );
    let described = bench.groups.describe(&text(GROUP), 6);
    assert_eq!(
        (described.error_code, &*described.group_state),
        (ErrorCode::GroupIdNotFound.code(), "Dead")
    );
    let listed = bench.groups.list(&[], &[text("Streams")]);
    assert_eq!(
        (&*listed[0].group_type, &*listed[0].protocol_type),
        ("streams", "streams")
    );
}

#[test]
fn an_empty_group_changes_its_type_both_ways_and_keeps_its_offsets() {
    let mut bench = counting();
    assert_eq!(bench.commit(8, &commit("", -1, "in", 0)), ErrorCode::None);
    assert_eq!(bench.groups.list(&[], &[])[0].group_type, *"classic");
    let mut a = Member::new("a", "p1");
    bench.join(&mut a);
    bench.restart();
    assert_eq!(bench.groups.list(&[], &[])[0].group_type, *"streams");
    assert_eq!(bench.delete(), ErrorCode::NonEmptyGroup);
    bench.leave(&a);
    let join = JoinGroupRequest {
        group_id: text(GROUP),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![Default::default()],
        ..JoinGroupRequest::default()
    };
    bench.reply(|groups, now_ms, ticket| {
        groups.join(
            now_ms,
            ticket,
            5,
            &client(),
            &ConsumerGroupConfig::default(),
            &join,
        )
    });
    assert_eq!(bench.groups.list(&[], &[])[0].group_type, *"classic");
    assert!(
        bench.rows.keys().all(|key| !key.starts_with(b"streams-group/")),
        "nothing is left of the streams group"
    );
    let all = OffsetFetchRequestGroup {
        group_id: text(GROUP),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    assert_eq!(bench.groups.fetch_offsets(&all, false).topics.len(), 1);
}

#[test]
fn a_group_that_is_deleted_leaves_nothing() {
    let mut bench = counting();
    bench.config.initial_rebalance_delay_ms = 3_000;
    let mut a = Member::new("a", "p1");
    a.tags = vec![KeyValue {
        key: text("zone"),
        value: text("1"),
        ..KeyValue::default()
    }];
    bench.join(&mut a);
    assert_eq!(bench.describe().members[0].client_tags[0].value, *"1");
    bench.leave(&a);
    assert_eq!(bench.delete(), ErrorCode::None);
    assert!(bench.rows.is_empty(), "{:?}", bench.rows.keys());
    bench.pass(10_000);
    assert!(bench.groups.list(&[], &[]).is_empty());
}
