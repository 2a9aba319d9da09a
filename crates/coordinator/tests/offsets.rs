//! Committed offsets: who may commit, what is kept with an offset, and when it is forgotten.

mod support;

use milena_coordinator::{GroupConfig, Reply};
use milena_protocol::messages::OffsetDeleteRequest;
use milena_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use milena_protocol::{ErrorCode, Str, Uuid};
use support::{Joiner, SESSION_MS, Shard, commit_request, text};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const CHECK_MS: i64 = 600_000;

fn delete(shard: &mut Shard, group: &str, topic: &str) -> Result<ErrorCode, ErrorCode> {
    let partition = OffsetDeleteRequestPartition {
        partition_index: 0,
        ..OffsetDeleteRequestPartition::default()
    };
    let topic = OffsetDeleteRequestTopic {
        name: text(topic),
        partitions: vec![partition],
        ..OffsetDeleteRequestTopic::default()
    };
    let request = OffsetDeleteRequest {
        group_id: text(group),
        topics: vec![topic],
        ..OffsetDeleteRequest::default()
    };
    let ticket = shard.ticket();
    let effects = shard.groups.delete_offsets(ticket, &request);
    shard.apply(effects);
    let Some(Reply::OffsetDelete(response)) = shard.reply(ticket) else {
        panic!("no OffsetDelete reply")
    };
    match ErrorCode::from_code(response.error_code) {
        ErrorCode::None => Ok(ErrorCode::from_code(response.topics[0].partitions[0].error_code)),
        error => Err(error),
    }
}

/// Keeps the members' sessions alive while time passes.
fn advance_alive(shard: &mut Shard, members: &[Joiner], generation: i32, ms: i64) {
    let end = shard.now_ms + ms;
    while shard.now_ms < end {
        let step = (end - shard.now_ms).min(i64::from(members[0].session_ms) / 2);
        shard.advance(step);
        for member in members {
            assert_eq!(
                shard.heartbeat(&member.group, &member.member_id, generation),
                ErrorCode::None
            );
        }
    }
}

#[test]
fn a_consumer_without_membership_commits_and_reads_back_what_it_committed() {
    let mut shard = Shard::new();
    let mut request = commit_request("g", "", -1, "t", 42);
    request.topics[0].partitions[0].committed_metadata = Some(text("where I was"));
    request.topics[0].partitions[0].committed_leader_epoch = 7;
    assert_eq!(
        shard.commit_request(9, &request),
        vec![(text("t"), 0, ErrorCode::None)]
    );
    let found = shard.fetch("g", Some(&[("t", 0), ("t", 1), ("u", 0)]));
    let one = &found[&(text("t"), 0)];
    assert_eq!(
        (one.committed_offset, one.committed_leader_epoch, one.error_code),
        (42, 7, 0)
    );
    assert_eq!(one.metadata, Some(text("where I was")));
    for missing in [&found[&(text("t"), 1)], &found[&(text("u"), 0)]] {
        assert_eq!(
            (
                missing.committed_offset,
                missing.committed_leader_epoch,
                missing.error_code
            ),
            (-1, -1, 0)
        );
        assert_eq!(missing.metadata, Some(Str::default()));
    }
    assert_eq!(shard.state("g"), "Empty");
}

#[test]
fn all_offsets_of_a_group_are_told_when_no_topics_are_named() {
    let mut shard = Shard::new();
    for (topic, offset) in [("a", 1), ("b", 2)] {
        assert_eq!(shard.commit("g", "", -1, topic, offset), ErrorCode::None);
    }
    let all = shard.fetch("g", None);
    let all: Vec<(&str, i64)> = all
        .iter()
        .map(|((name, _), one)| (&**name, one.committed_offset))
        .collect();
    assert_eq!(all, [("a", 1), ("b", 2)]);
    assert!(shard.fetch("nobody", None).is_empty());
}

#[test]
fn the_empty_group_id_is_a_group_like_others_for_offsets() {
    let mut shard = Shard::new();
    assert_eq!(shard.commit("", "", -1, "t", 5), ErrorCode::None);
    assert_eq!(shard.committed("", "t"), 5);
}

#[test]
fn only_members_of_the_current_generation_may_commit() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g")]);
    let id = members[0].member_id.clone();
    assert_eq!(shard.commit("g", &id, generation, "t", 1), ErrorCode::None);
    assert_eq!(
        shard.commit("g", &id, generation - 1, "t", 2),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(shard.commit("g", &id, -1, "t", 2), ErrorCode::IllegalGeneration);
    assert_eq!(
        shard.commit("g", "stranger", generation, "t", 2),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        shard.commit("g", "", -1, "t", 2),
        ErrorCode::UnknownMemberId,
        "members own the offsets"
    );
    assert_eq!(shard.committed("g", "t"), 1);
}

#[test]
fn a_commit_is_taken_before_a_rebalance_is_joined_and_not_between_join_and_sync() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g"), Joiner::new("g")]);
    let (leader, follower) = (&members[0], &members[1]);
    let ticket = shard.join(leader);
    assert_eq!(
        shard.commit("g", &follower.member_id, generation, "t", 1),
        ErrorCode::None
    );
    shard.join(follower);
    let next = shard.joined(ticket).unwrap().generation_id;
    assert_eq!(
        shard.commit("g", &follower.member_id, next, "t", 2),
        ErrorCode::RebalanceInProgress
    );
    assert_eq!(
        shard.commit("g", &follower.member_id, generation, "t", 2),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(shard.committed("g", "t"), 1);
}

#[test]
fn a_commit_with_a_generation_to_an_unknown_group_is_refused_in_the_words_of_its_version() {
    let mut shard = Shard::new();
    let request = commit_request("g", "m", 3, "t", 1);
    assert_eq!(
        shard.commit_request(8, &request)[0].2,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(shard.commit_request(9, &request)[0].2, ErrorCode::GroupIdNotFound);
    assert_eq!(shard.groups.group_count(), 0);
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g")]);
    for _ in 0..5 {
        shard.advance(i64::from(SESSION_MS) - 1);
        assert_eq!(
            shard.commit("g", &members[0].member_id, generation, "t", 1),
            ErrorCode::None
        );
    }
}

#[test]
fn metadata_above_the_limit_is_refused_for_its_partition_only() {
    let mut shard = Shard::with(GroupConfig {
        offset_metadata_max_bytes: 4,
        ..GroupConfig::default()
    });
    let mut request = commit_request("g", "", -1, "t", 1);
    let mut second = request.topics[0].partitions[0].clone();
    second.partition_index = 1;
    second.committed_metadata = Some(text("12345"));
    request.topics[0].partitions.push(second.clone());
    second.partition_index = 2;
    second.committed_metadata = Some(text("\u{e4}\u{f6}\u{fc}\u{df}"));
    request.topics[0].partitions.push(second);
    let results = shard.commit_request(9, &request);
    let errors: Vec<ErrorCode> = results.into_iter().map(|(_, _, error)| error).collect();
    assert_eq!(
        errors,
        [
            ErrorCode::None,
            ErrorCode::OffsetMetadataTooLarge,
            ErrorCode::None
        ]
    );
}

#[test]
fn a_commit_that_is_refused_whole_creates_no_group() {
    let mut shard = Shard::with(GroupConfig {
        offset_metadata_max_bytes: 0,
        ..GroupConfig::default()
    });
    let mut request = commit_request("g", "", -1, "t", 1);
    request.topics[0].partitions[0].committed_metadata = Some(text("x"));
    assert_eq!(
        shard.commit_request(9, &request)[0].2,
        ErrorCode::OffsetMetadataTooLarge
    );
    assert_eq!(shard.groups.group_count(), 0);
}

#[test]
fn an_offset_committed_for_a_topic_id_is_not_told_for_another_topic_of_that_name() {
    let mut shard = Shard::new();
    let (old, new) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
    let mut request = commit_request("g", "", -1, "t", 9);
    request.topics[0].topic_id = old;
    shard.commit_request(10, &request);
    for _ in 0..2 {
        for (asked, offset) in [(old, 9), (new, -1), (Uuid::ZERO, 9)] {
            let topic = OffsetFetchRequestTopics {
                name: text("t"),
                topic_id: asked,
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            };
            let request = OffsetFetchRequestGroup {
                group_id: text("g"),
                topics: Some(vec![topic]),
                ..OffsetFetchRequestGroup::default()
            };
            let response = shard.groups.fetch_offsets(&request, false);
            assert_eq!(response.topics[0].topic_id, asked);
            assert_eq!(response.topics[0].partitions[0].committed_offset, offset);
        }
        shard.restart();
    }
}

#[test]
fn the_offsets_of_a_deleted_topic_are_forgotten_in_every_group() {
    let mut shard = Shard::new();
    for group in ["a", "b"] {
        shard.commit(group, "", -1, "gone", 1);
        shard.commit(group, "", -1, "stays", 1);
    }
    let effects = shard.groups.topic_deleted(0, &[text("gone"), text("unheard-of")]);
    assert_eq!(effects.facts.len(), 2);
    shard.apply(effects);
    shard.restart();
    for group in ["a", "b"] {
        assert_eq!(
            (shard.committed(group, "gone"), shard.committed(group, "stays")),
            (-1, 1)
        );
    }
}

#[test]
fn offsets_that_a_member_consumes_cannot_be_deleted_and_others_can() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g")]);
    for topic in ["t", "other"] {
        shard.commit("g", &members[0].member_id, generation, topic, 1);
    }
    assert_eq!(
        delete(&mut shard, "g", "t"),
        Ok(ErrorCode::GroupSubscribedToTopic)
    );
    assert_eq!(delete(&mut shard, "g", "other"), Ok(ErrorCode::None));
    assert_eq!(
        delete(&mut shard, "g", "other"),
        Ok(ErrorCode::None),
        "deleting nothing is no error"
    );
    assert_eq!(
        (shard.committed("g", "t"), shard.committed("g", "other")),
        (1, -1)
    );
    assert_eq!(delete(&mut shard, "nobody", "t"), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(delete(&mut shard, "", "t"), Err(ErrorCode::InvalidGroupId));
}

#[test]
fn offsets_of_a_group_whose_protocol_is_not_the_consumers_are_deleted_only_when_it_is_empty() {
    let mut shard = Shard::new();
    let mut joiner = Joiner::new("g");
    joiner.protocol_type = text("connect");
    let (members, generation) = shard.stable(&[joiner]);
    shard.commit("g", &members[0].member_id, generation, "t", 1);
    assert_eq!(delete(&mut shard, "g", "t"), Err(ErrorCode::NonEmptyGroup));
    shard.leave("g", 5, &[(&members[0].member_id, None)]);
    assert_eq!(delete(&mut shard, "g", "t"), Ok(ErrorCode::None));
    assert_eq!(shard.committed("g", "t"), -1);
}

#[test]
fn offsets_without_membership_expire_a_retention_after_their_commit_and_their_group_with_them() {
    let mut shard = Shard::new();
    shard.commit("g", "", -1, "old", 1);
    shard.advance(4 * DAY_MS);
    shard.commit("g", "", -1, "new", 1);
    shard.advance(3 * DAY_MS + CHECK_MS);
    assert_eq!(
        (shard.committed("g", "old"), shard.committed("g", "new")),
        (-1, 1)
    );
    shard.advance(4 * DAY_MS);
    assert_eq!(shard.groups.group_count(), 0);
    assert!(shard.facts.is_empty(), "{:?}", shard.facts);
}

#[test]
fn offsets_of_a_group_expire_a_retention_after_its_last_member_left() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g")]);
    shard.commit("g", &members[0].member_id, generation, "t", 1);
    advance_alive(&mut shard, &members, generation, DAY_MS / 24);
    shard.leave("g", 5, &[(&members[0].member_id, None)]);
    shard.advance(7 * DAY_MS - 1);
    assert_eq!(shard.committed("g", "t"), 1);
    shard.restart();
    shard.advance(CHECK_MS + 1);
    assert_eq!(shard.committed("g", "t"), -1);
    assert_eq!(shard.groups.group_count(), 0);
}

#[test]
fn what_members_consume_does_not_expire_and_what_they_no_longer_do_does() {
    let mut shard = Shard::with(GroupConfig {
        offsets_retention_ms: 3_600_000,
        ..GroupConfig::default()
    });
    let mut joiner = Joiner::new("g");
    joiner.session_ms = 1_800_000;
    let (members, generation) = shard.stable(&[joiner]);
    for topic in ["t", "dropped"] {
        shard.commit("g", &members[0].member_id, generation, topic, 1);
    }
    advance_alive(&mut shard, &members, generation, 3_600_000 + CHECK_MS);
    assert_eq!(
        (shard.committed("g", "t"), shard.committed("g", "dropped")),
        (1, -1)
    );
}

#[test]
fn nothing_expires_while_it_is_unknown_what_the_members_use() {
    let mut shard = Shard::with(GroupConfig {
        offsets_retention_ms: 3_600_000,
        ..GroupConfig::default()
    });
    let mut joiner = Joiner::new("g").protocols(&[("range", b"?")]);
    joiner.session_ms = 1_800_000;
    let (members, generation) = shard.stable(&[joiner]);
    shard.commit("g", &members[0].member_id, generation, "t", 1);
    advance_alive(&mut shard, &members, generation, 2 * 3_600_000);
    assert_eq!(shard.committed("g", "t"), 1);
}

#[test]
fn a_retention_time_of_the_clients_own_is_followed() {
    let mut shard = Shard::new();
    let mut request = commit_request("g", "", -1, "t", 1);
    request.retention_time_ms = 3_600_000;
    assert_eq!(shard.commit_request(4, &request)[0].2, ErrorCode::None);
    shard.restart();
    shard.advance(3_600_000 - 1);
    assert_eq!(shard.committed("g", "t"), 1);
    shard.advance(CHECK_MS);
    assert_eq!(shard.committed("g", "t"), -1);
}

#[test]
fn a_group_that_has_a_pending_member_is_not_expired_under_it() {
    let mut shard = Shard::new();
    shard.advance(CHECK_MS - 1);
    let pending = shard.id_for(&Joiner::new("g"));
    shard.advance(1);
    let ticket = shard.join(&pending);
    assert_eq!(shard.joined(ticket), None, "it joined, and waits");
}
