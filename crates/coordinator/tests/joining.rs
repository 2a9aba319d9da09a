//! Joining: who may, what protocol is chosen, and how long the first rebalance waits.

mod support;

use milena_coordinator::GroupConfig;
use milena_protocol::{ErrorCode, Str};
use support::{DELAY_MS, Joiner, REBALANCE_MS, SESSION_MS, Shard, text};

#[test]
fn a_new_member_is_given_an_id_first_and_joins_with_it_from_version_4_on() {
    let mut shard = Shard::new();
    for version in 4..=9 {
        let response = shard.join_now(&Joiner::new("g").version(version));
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired.code());
        assert!(
            response.member_id.starts_with("client-"),
            "{}",
            response.member_id
        );
        assert_eq!(response.generation_id, -1);
    }
}

#[test]
fn a_client_that_knows_only_one_step_joins_with_it() {
    for version in 0..4 {
        let mut shard = Shard::new();
        let ticket = shard.join(&Joiner::new("g").version(version));
        assert_eq!(shard.joined(ticket), None);
        shard.advance(DELAY_MS);
        let response = shard.joined(ticket).unwrap();
        assert_eq!((response.error_code, response.generation_id), (0, 1));
        assert_eq!(response.leader, response.member_id);
        assert_eq!(response.members.len(), 1);
    }
}

#[test]
fn version_0_uses_the_session_timeout_as_its_rebalance_timeout() {
    let mut shard = Shard::new();
    let (members, _) = shard.stable(&[Joiner::new("g").version(0), Joiner::new("g").version(0)]);
    shard.join(&members[0]);
    assert_eq!(shard.state("g"), "PreparingRebalance");
    shard.advance(i64::from(SESSION_MS) - 1);
    assert_eq!(shard.state("g"), "PreparingRebalance");
    shard.advance(1);
    assert_eq!(shard.state("g"), "CompletingRebalance");
}

#[test]
fn a_refused_join_is_answered_in_a_form_that_old_versions_can_hold() {
    let mut shard = Shard::new();
    shard.stable(&[Joiner::new("g")]);
    let stranger = Joiner::new("g").member(&text("stranger"));
    assert_eq!(
        shard.join_now(&stranger.clone().version(6)).protocol_name,
        Some(Str::default())
    );
    assert_eq!(shard.join_now(&stranger.version(7)).protocol_name, None);
}

#[test]
fn an_empty_group_id_is_invalid_for_every_membership_request() {
    let mut shard = Shard::new();
    let id = text("m");
    assert_eq!(
        shard.join_now(&Joiner::new("")).error_code,
        ErrorCode::InvalidGroupId.code()
    );
    assert_eq!(shard.heartbeat("", &id, 1), ErrorCode::InvalidGroupId);
    let ticket = shard.sync("", &id, 1, &[]);
    assert_eq!(
        shard.synced(ticket).unwrap().error_code,
        ErrorCode::InvalidGroupId.code()
    );
    assert_eq!(
        shard.leave("", 5, &[("m", None)]).error_code,
        ErrorCode::InvalidGroupId.code()
    );
}

#[test]
fn session_timeouts_outside_the_brokers_bounds_are_refused() {
    let mut shard = Shard::new();
    for session_ms in [5_999, 1_800_001, -1] {
        let mut joiner = Joiner::new("g");
        joiner.session_ms = session_ms;
        assert_eq!(
            shard.join_now(&joiner).error_code,
            ErrorCode::InvalidSessionTimeout.code()
        );
    }
    assert_eq!(shard.groups.group_count(), 0, "a refused join creates no group");
}

#[test]
fn a_member_of_an_unknown_group_is_unknown() {
    let mut shard = Shard::new();
    let id = text("m");
    assert_eq!(
        shard.join_now(&Joiner::new("g").member(&id)).error_code,
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(shard.heartbeat("g", &id, 1), ErrorCode::UnknownMemberId);
    let ticket = shard.sync("g", &id, 1, &[]);
    assert_eq!(
        shard.synced(ticket).unwrap().error_code,
        ErrorCode::UnknownMemberId.code()
    );
    let left = shard.leave("g", 5, &[("m", None)]);
    assert_eq!(
        (left.error_code, left.members[0].error_code),
        (0, ErrorCode::UnknownMemberId.code())
    );
    assert_eq!(
        shard.leave("g", 2, &[("m", None)]).error_code,
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn a_member_without_a_protocol_that_the_others_support_is_refused() {
    let mut shard = Shard::new();
    let none = Joiner::new("g").protocols(&[]);
    assert_eq!(
        shard.join_now(&none).error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let mut untyped = Joiner::new("g");
    untyped.protocol_type = Str::default();
    assert_eq!(
        shard.join_now(&untyped).error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
    shard.stable(&[Joiner::new("g"), Joiner::new("g")]);
    let other = Joiner::new("g").protocols(&[("sticky", b"")]);
    assert_eq!(
        shard.join_now(&other).error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let mut connect = Joiner::new("g");
    connect.protocol_type = text("connect");
    assert_eq!(
        shard.join_now(&connect).error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
}

#[test]
fn the_protocol_that_all_support_and_most_prefer_is_chosen() {
    let mut shard = Shard::new();
    let a = Joiner::new("g")
        .version(3)
        .protocols(&[("x", b"ax"), ("y", b"ay"), ("only-a", b"")]);
    let b = Joiner::new("g")
        .version(3)
        .protocols(&[("y", b"by"), ("x", b"bx")]);
    let c = Joiner::new("g")
        .version(3)
        .protocols(&[("y", b"cy"), ("x", b"cx")]);
    let tickets = [shard.join(&a), shard.join(&b), shard.join(&c)];
    shard.advance(i64::from(REBALANCE_MS));
    let replies: Vec<_> = tickets
        .iter()
        .map(|ticket| shard.joined(*ticket).unwrap())
        .collect();
    assert!(replies.iter().all(|reply| reply.protocol_name == Some(text("y"))));
    let leader = replies
        .iter()
        .find(|reply| reply.leader == reply.member_id)
        .unwrap();
    let mut metadata: Vec<&[u8]> = leader.members.iter().map(|member| &member.metadata[..]).collect();
    metadata.sort_unstable();
    assert_eq!(
        metadata,
        [b"ay", b"by", b"cy"],
        "the metadata of the chosen protocol, untouched"
    );
    assert_eq!(
        replies.iter().filter(|reply| reply.members.is_empty()).count(),
        2,
        "followers are told nothing"
    );
}

#[test]
fn a_protocol_that_one_member_names_twice_does_not_count_twice() {
    let mut shard = Shard::new();
    let twice = Joiner::new("g")
        .version(3)
        .protocols(&[("x", b"1"), ("x", b"2"), ("y", b"")]);
    let y = Joiner::new("g").version(3).protocols(&[("y", b"")]);
    let tickets = [shard.join(&twice), shard.join(&y)];
    shard.advance(i64::from(REBALANCE_MS));
    for ticket in tickets {
        assert_eq!(shard.joined(ticket).unwrap().protocol_name, Some(text("y")));
    }
}

#[test]
fn the_initial_rebalance_waits_longer_while_members_keep_coming() {
    let mut shard = Shard::new();
    let first = shard.join(&Joiner::new("g").version(3));
    shard.advance(DELAY_MS - 1);
    let second = shard.join(&Joiner::new("g").version(3));
    shard.advance(1);
    assert_eq!(shard.joined(first), None, "somebody came, so it waits once more");
    shard.advance(DELAY_MS);
    assert_eq!(shard.joined(first).unwrap().generation_id, 1);
    assert_eq!(shard.joined(second).unwrap().generation_id, 1);
}

#[test]
fn the_initial_rebalance_never_waits_longer_than_the_rebalance_timeout() {
    let mut shard = Shard::new();
    let mut joiner = Joiner::new("g").version(3);
    joiner.rebalance_ms = 10_000;
    let first = shard.join(&joiner);
    for _ in 0..10 {
        shard.advance(1_000);
        shard.join(&joiner);
    }
    // Slices of 3, 3, 3 and then 1 second.
    assert_eq!(shard.joined(first).unwrap().error_code, 0);
}

#[test]
fn without_an_initial_delay_the_first_member_is_answered_at_once() {
    let mut shard = Shard::with(GroupConfig {
        initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    });
    let ticket = shard.join(&Joiner::new("g").version(3));
    assert_eq!(shard.groups.next_deadline_ms(), Some(shard.now_ms));
    shard.advance(0);
    assert_eq!(shard.joined(ticket).unwrap().generation_id, 1);
}
