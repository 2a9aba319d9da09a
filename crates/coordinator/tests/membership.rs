//! Rebalancing, heartbeats and leaving: the rules of classic groups for dynamic members.

mod support;

use milena_coordinator::{GroupConfig, limits};
use milena_protocol::ErrorCode;
use support::{Joiner, REBALANCE_MS, SESSION_MS, Shard, subscription, text};

fn two_members(shard: &mut Shard) -> (Joiner, Joiner, i32) {
    let (members, generation) = shard.stable(&[Joiner::new("g"), Joiner::new("g")]);
    (members[0].clone(), members[1].clone(), generation)
}

#[test]
fn a_member_that_joins_makes_the_others_join_again() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let third = shard.id_for(&Joiner::new("g"));
    let third_ticket = shard.join(&third);
    assert_eq!(shard.state("g"), "PreparingRebalance");
    for member in [&leader, &follower] {
        assert_eq!(
            shard.heartbeat("g", &member.member_id, generation),
            ErrorCode::RebalanceInProgress
        );
    }
    let tickets = [shard.join(&leader), third_ticket];
    assert!(shard.joined(tickets[0]).is_none(), "not everybody has joined");
    let last = shard.join(&follower);
    let (members, next) = shard.finish(&[leader, third, follower], &[tickets[0], tickets[1], last]);
    assert_eq!((members.len(), next), (3, generation + 1));
}

#[test]
fn members_who_do_not_join_again_in_time_are_out() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let ticket = shard.join(&leader);
    for _ in 0..6 {
        // Its session lives: what it lacks is the join.
        assert_eq!(
            shard.heartbeat("g", &follower.member_id, generation),
            ErrorCode::RebalanceInProgress
        );
        shard.advance(i64::from(REBALANCE_MS) / 6);
    }
    let response = shard.joined(ticket).unwrap();
    assert_eq!(
        (response.generation_id, response.members.len()),
        (generation + 1, 1)
    );
    assert_eq!(
        shard.heartbeat("g", &follower.member_id, generation),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_leader_that_does_not_join_again_is_succeeded_by_a_member_that_did() {
    let mut shard = Shard::new();
    let (_, follower, _) = two_members(&mut shard);
    let changed = follower.clone().protocols(&[("range", b"changed")]);
    let ticket = shard.join(&changed);
    shard.advance(i64::from(REBALANCE_MS));
    let response = shard.joined(ticket).unwrap();
    assert_eq!(response.leader, follower.member_id);
    assert_eq!(response.members.len(), 1);
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_the_current_generation() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let response = shard.join_now(&follower);
    assert_eq!((response.error_code, response.generation_id), (0, generation));
    assert_eq!(response.leader, leader.member_id);
    assert!(response.members.is_empty());
    assert_eq!(shard.state("g"), "Stable");
    let ticket = shard.sync("g", &follower.member_id, generation, &[]);
    assert_eq!(
        &shard.synced(ticket).unwrap().assignment[..],
        follower.member_id.as_bytes()
    );
}

#[test]
fn the_leader_can_always_start_a_rebalance_and_a_follower_when_its_metadata_changed() {
    let mut shard = Shard::new();
    let (leader, _, _) = two_members(&mut shard);
    shard.join(&leader);
    assert_eq!(shard.state("g"), "PreparingRebalance");

    let mut shard = Shard::new();
    let (_, follower, _) = two_members(&mut shard);
    shard.join(&follower.protocols(&[("range", b"other")]));
    assert_eq!(shard.state("g"), "PreparingRebalance");
}

#[test]
fn a_member_that_missed_its_join_reply_gets_it_again() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let tickets = [shard.join(&leader), shard.join(&follower)];
    assert!(tickets.iter().all(|ticket| shard.joined(*ticket).is_some()));
    assert_eq!(shard.state("g"), "CompletingRebalance");
    let again = shard.join_now(&leader);
    assert_eq!((again.generation_id, again.members.len()), (generation + 1, 2));
    let again = shard.join_now(&follower);
    assert_eq!((again.generation_id, again.members.len()), (generation + 1, 0));
}

#[test]
fn a_join_that_its_client_repeated_is_answered_and_the_new_one_counts() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let first = shard.join(&leader);
    let second = shard.join(&leader);
    assert_eq!(
        shard.joined(first).unwrap().error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    shard.join(&follower);
    assert_eq!(shard.joined(second).unwrap().generation_id, generation + 1);
}

#[test]
fn a_follower_waits_for_the_leaders_assignment_and_members_it_left_out_get_an_empty_one() {
    let mut shard = Shard::new();
    let (leader, follower, _) = two_members(&mut shard);
    let tickets = [shard.join(&leader), shard.join(&follower)];
    let generation = shard.joined(tickets[0]).unwrap().generation_id;
    let waiting = shard.sync("g", &follower.member_id, generation, &[]);
    assert_eq!(shard.synced(waiting), None);
    let led = shard.sync(
        "g",
        &leader.member_id,
        generation,
        &[(&leader.member_id, "mine"), (&text("stranger"), "x")],
    );
    assert_eq!(&shard.synced(led).unwrap().assignment[..], b"mine");
    let response = shard.synced(waiting).unwrap();
    assert_eq!((response.error_code, response.assignment.len()), (0, 0));
    assert_eq!(response.protocol_name, Some(text("range")));
    assert_eq!(response.protocol_type, Some(text("consumer")));
}

#[test]
fn members_who_joined_and_never_sync_are_out_and_the_others_rebalance() {
    let mut shard = Shard::new();
    let (leader, follower, _) = two_members(&mut shard);
    let tickets = [shard.join(&leader), shard.join(&follower)];
    let generation = shard.joined(tickets[1]).unwrap().generation_id;
    let waiting = shard.sync("g", &follower.member_id, generation, &[]);
    for _ in 0..6 {
        shard.heartbeat("g", &leader.member_id, generation);
        shard.advance(i64::from(REBALANCE_MS) / 6);
    }
    // The leader never synced: the follower is told to join again, and finds itself alone.
    assert_eq!(
        shard.synced(waiting).unwrap().error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    let response = shard.join_now(&follower);
    assert_eq!(
        (response.generation_id, response.members.len()),
        (generation + 1, 1)
    );
}

#[test]
fn a_sync_is_refused_from_strangers_old_generations_and_other_protocols() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let error = |shard: &mut Shard, ticket| shard.synced(ticket).unwrap().error_code;
    let ticket = shard.sync("g", &text("stranger"), generation, &[]);
    assert_eq!(error(&mut shard, ticket), ErrorCode::UnknownMemberId.code());
    let ticket = shard.sync("g", &leader.member_id, generation - 1, &[]);
    assert_eq!(error(&mut shard, ticket), ErrorCode::IllegalGeneration.code());
    shard.join(&leader);
    let ticket = shard.sync("g", &follower.member_id, generation, &[]);
    assert_eq!(error(&mut shard, ticket), ErrorCode::RebalanceInProgress.code());
}

#[test]
fn a_heartbeat_is_refused_from_strangers_and_old_generations() {
    let mut shard = Shard::new();
    let (leader, _, generation) = two_members(&mut shard);
    assert_eq!(
        shard.heartbeat("g", &leader.member_id, generation),
        ErrorCode::None
    );
    assert_eq!(
        shard.heartbeat("g", &text("stranger"), generation),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        shard.heartbeat("g", &leader.member_id, generation - 1),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        shard.heartbeat("g", &leader.member_id, generation + 1),
        ErrorCode::IllegalGeneration
    );
}

#[test]
fn a_member_without_heartbeats_is_out_at_the_end_of_its_session() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    shard.advance(i64::from(SESSION_MS) - 1);
    assert_eq!(
        shard.heartbeat("g", &leader.member_id, generation),
        ErrorCode::None
    );
    shard.advance(1);
    assert_eq!(shard.state("g"), "PreparingRebalance");
    assert_eq!(shard.member_ids("g"), vec![leader.member_id.clone()]);
    assert_eq!(
        shard.heartbeat("g", &follower.member_id, generation),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(shard.join_now(&leader).generation_id, generation + 1);
}

#[test]
fn when_all_sessions_end_the_group_is_empty_and_its_generation_moves_on() {
    let mut shard = Shard::new();
    let (_, _, generation) = two_members(&mut shard);
    shard.advance(i64::from(SESSION_MS + REBALANCE_MS));
    assert_eq!(shard.state("g"), "Empty");
    let (_, next) = shard.stable(&[Joiner::new("g")]);
    assert_eq!(next, generation + 2);
}

#[test]
fn a_pending_member_holds_the_rebalance_open_until_it_joins_or_its_session_ends() {
    let mut shard = Shard::new();
    let (leader, follower, _) = two_members(&mut shard);
    shard.id_for(&Joiner::new("g"));
    let tickets = [shard.join(&leader), shard.join(&follower)];
    assert_eq!(shard.joined(tickets[0]), None);
    shard.advance(i64::from(SESSION_MS));
    assert_eq!(shard.joined(tickets[0]).unwrap().members.len(), 2);
}

#[test]
fn beyond_the_limit_the_oldest_pending_member_is_forgotten() {
    let mut shard = Shard::new();
    let joiner = Joiner::new("g");
    let oldest = shard.id_for(&joiner);
    let second = shard.id_for(&joiner);
    for _ in 0..limits::MAX_PENDING_MEMBERS_PER_GROUP - 1 {
        shard.id_for(&joiner);
    }
    assert_eq!(
        shard.join_now(&oldest).error_code,
        ErrorCode::UnknownMemberId.code()
    );
    let ticket = shard.join(&second);
    assert_eq!(shard.joined(ticket), None, "it joined, and waits");
}

#[test]
fn a_new_member_whose_join_waits_for_ever_is_told_to_start_afresh() {
    let mut shard = Shard::new();
    let mut patient = Joiner::new("g");
    (patient.rebalance_ms, patient.session_ms) = (1_800_000, 1_800_000);
    shard.stable(&[patient]);
    let new = shard.id_for(&Joiner::new("g"));
    let ticket = shard.join(&new);
    shard.advance(limits::NEW_MEMBER_JOIN_TIMEOUT_MS - 1);
    assert_eq!(shard.joined(ticket), None);
    shard.advance(1);
    let response = shard.joined(ticket).unwrap();
    assert_eq!(
        (response.error_code, &*response.member_id),
        (ErrorCode::UnknownMemberId.code(), "")
    );
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut shard = Shard::with(GroupConfig {
        max_group_size: 2,
        ..GroupConfig::default()
    });
    let (leader, follower, _) = two_members(&mut shard);
    let response = shard.join_now(&Joiner::new("g"));
    assert_eq!(response.error_code, ErrorCode::GroupMaxSizeReached.code());
    assert_eq!(&*response.member_id, "");
    let tickets = [shard.join(&leader), shard.join(&follower)];
    shard.finish(&[leader, follower], &tickets);
}

#[test]
fn when_the_limit_is_lowered_the_last_to_join_again_is_turned_away_and_holds_nobody_up() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    shard.config.max_group_size = 1;
    let (now_ms, config) = (shard.now_ms, shard.config.clone());
    shard.groups.update_config(now_ms, config);
    let stays = shard.join(&leader);
    assert_eq!(
        shard.join_now(&follower).error_code,
        ErrorCode::GroupMaxSizeReached.code()
    );
    assert_eq!(shard.joined(stays).unwrap().generation_id, generation + 1);
}

#[test]
fn a_member_with_more_metadata_than_the_limit_is_refused() {
    let mut shard = Shard::new();
    let large = vec![0; limits::MAX_MEMBER_PROTOCOLS_BYTES];
    let response = shard.join_now(&Joiner::new("g").protocols(&[("range", &large)]));
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(shard.groups.group_count(), 0);
}

#[test]
fn names_that_could_not_be_stored_are_refused_and_long_client_ids_are_cut() {
    let mut shard = Shard::new();
    let long = "x".repeat(limits::MAX_NAME_BYTES + 1);
    assert_eq!(
        shard.join_now(&Joiner::new(&long)).error_code,
        ErrorCode::InvalidGroupId.code()
    );
    assert_eq!(shard.commit(&long, "", -1, "t", 1), ErrorCode::InvalidGroupId);
    let instance = shard.join_now(&Joiner::new("g").instance(&long));
    assert_eq!(instance.error_code, ErrorCode::InvalidRequest.code());
    let protocol = shard.join_now(&Joiner::new("g").protocols(&[(&long, b"")]));
    assert_eq!(protocol.error_code, ErrorCode::InvalidRequest.code());
    let (members, _) = shard.stable(&[Joiner::new("g").instance(&"\u{e4}".repeat(10_000))]);
    assert!(members[0].member_id.len() <= limits::MAX_MEMBER_ID_PREFIX_BYTES + 37);
    shard.restart();
    assert_eq!(shard.state("g"), "Stable");
}

#[test]
fn an_assignment_that_is_too_large_ends_its_generation() {
    let mut shard = Shard::new();
    let (leader, follower, _) = two_members(&mut shard);
    let tickets = [shard.join(&leader), shard.join(&follower)];
    let generation = shard.joined(tickets[0]).unwrap().generation_id;
    let waiting = shard.sync("g", &follower.member_id, generation, &[]);
    let large = "x".repeat(limits::MAX_GROUP_METADATA_BYTES / 2 + 1);
    let given = [(&leader.member_id, &*large), (&follower.member_id, &*large)];
    let led = shard.sync("g", &leader.member_id, generation, &given);
    for ticket in [waiting, led] {
        assert_eq!(
            shard.synced(ticket).unwrap().error_code,
            ErrorCode::UnknownServerError.code()
        );
    }
    assert_eq!(shard.state("g"), "PreparingRebalance");
}

#[test]
fn a_member_that_leaves_starts_a_rebalance_at_once() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = two_members(&mut shard);
    let left = shard.leave("g", 5, &[(&leader.member_id, None), ("stranger", None)]);
    assert_eq!(left.error_code, 0);
    let errors: Vec<i16> = left.members.iter().map(|member| member.error_code).collect();
    assert_eq!(errors, [0, ErrorCode::UnknownMemberId.code()]);
    assert_eq!(
        shard.heartbeat("g", &follower.member_id, generation),
        ErrorCode::RebalanceInProgress
    );
    let response = shard.join_now(&follower);
    assert_eq!(
        (response.generation_id, &response.leader),
        (generation + 1, &follower.member_id)
    );
    assert_eq!(shard.leave("g", 0, &[(&follower.member_id, None)]).error_code, 0);
    assert_eq!(shard.state("g"), "Empty");
}

#[test]
fn whoever_leaves_while_its_request_waits_is_answered() {
    let mut shard = Shard::new();
    let (leader, follower, _) = two_members(&mut shard);
    let tickets = [shard.join(&leader), shard.join(&follower)];
    let generation = shard.joined(tickets[0]).unwrap().generation_id;
    let waiting = shard.sync("g", &follower.member_id, generation, &[]);
    shard.leave("g", 5, &[(&follower.member_id, None)]);
    assert_eq!(
        shard.synced(waiting).unwrap().error_code,
        ErrorCode::UnknownMemberId.code()
    );

    let joining = shard.id_for(&Joiner::new("g"));
    let waiting = shard.join(&joining);
    shard.leave("g", 5, &[(&joining.member_id, None)]);
    assert_eq!(
        shard.joined(waiting).unwrap().error_code,
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn a_pending_member_can_leave() {
    let mut shard = Shard::new();
    let pending = shard.id_for(&Joiner::new("g"));
    assert_eq!(
        shard.leave("g", 5, &[(&pending.member_id, None)]).members[0].error_code,
        0
    );
    assert_eq!(
        shard.join_now(&pending).error_code,
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn the_longest_rebalance_timeout_of_the_members_counts() {
    let mut shard = Shard::new();
    let mut slow = Joiner::new("g");
    (slow.rebalance_ms, slow.session_ms) = (60_000, 60_000);
    let (members, _) = shard.stable(&[slow, Joiner::new("g")]);
    let quick = members
        .iter()
        .find(|member| member.rebalance_ms == REBALANCE_MS)
        .unwrap();
    let ticket = shard.join(&quick.clone().protocols(&[("range", &subscription(&["u"]))]));
    shard.advance(59_999);
    assert_eq!(shard.joined(ticket), None);
    shard.advance(1);
    assert_eq!(shard.joined(ticket).unwrap().error_code, 0);
}

#[test]
fn unloading_answers_everybody_who_waits() {
    let mut shard = Shard::new();
    let (leader, follower, _) = two_members(&mut shard);
    let join = shard.join(&leader);
    shard.join(&Joiner::new("h").version(3));
    shard.join(&follower);
    let generation = shard.joined(join).unwrap().generation_id;
    let sync = shard.sync("g", &follower.member_id, generation, &[]);
    shard.restart();
    assert_eq!(
        shard.synced(sync).unwrap().error_code,
        ErrorCode::NotCoordinator.code()
    );
}
