//! Static members (KIP-345): an instance keeps its place over restarts of its process.

mod support;

use milena_protocol::ErrorCode;
use support::{Joiner, REBALANCE_MS, SESSION_MS, Shard};

fn statics(shard: &mut Shard, version: i16) -> (Joiner, Joiner, i32) {
    let joiner = |instance| Joiner::new("g").version(version).instance(instance);
    let (members, generation) = shard.stable(&[joiner("a"), joiner("b")]);
    (members[0].clone(), members[1].clone(), generation)
}

fn restarted(member: &Joiner) -> Joiner {
    Joiner {
        member_id: milena_protocol::Str::default(),
        ..member.clone()
    }
}

fn instance(member: &Joiner) -> Option<&str> {
    member.instance_id.as_deref()
}

#[test]
fn a_static_member_joins_in_one_step_and_its_id_names_its_instance() {
    let mut shard = Shard::new();
    let (leader, _, _) = statics(&mut shard, 9);
    let name = format!("{}-", instance(&leader).unwrap());
    assert!(leader.member_id.starts_with(&name), "{}", leader.member_id);
}

#[test]
fn a_follower_that_restarts_gets_its_assignment_back_without_a_rebalance() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = statics(&mut shard, 5);
    let response = shard.join_now(&restarted(&follower));
    assert_eq!((response.error_code, response.generation_id), (0, generation));
    assert_ne!(response.member_id, follower.member_id);
    assert_eq!(response.leader, leader.member_id);
    assert_eq!(shard.state("g"), "Stable");
    let ticket = shard.sync_as("g", &response.member_id, instance(&follower), generation, &[]);
    assert_eq!(
        &shard.synced(ticket).unwrap().assignment[..],
        follower.member_id.as_bytes()
    );
    assert_eq!(
        shard.heartbeat("g", &leader.member_id, generation),
        ErrorCode::None
    );
}

#[test]
fn a_leader_that_restarts_is_told_to_skip_the_assignment_or_not_that_it_leads() {
    let mut shard = Shard::new();
    let (leader, _, generation) = statics(&mut shard, 8);
    let response = shard.join_now(&restarted(&leader));
    assert_eq!(response.generation_id, generation);
    assert_eq!(
        response.leader, leader.member_id,
        "the id it had: it must not assign anew"
    );
    assert!(!response.skip_assignment && response.members.is_empty());

    let mut shard = Shard::new();
    let (leader, _, generation) = statics(&mut shard, 9);
    let response = shard.join_now(&restarted(&leader));
    assert_eq!(response.generation_id, generation);
    assert_eq!(response.leader, response.member_id);
    assert!(response.skip_assignment);
    assert_eq!(response.members.len(), 2);
}

#[test]
fn the_old_process_of_an_instance_is_fenced_in_everything_it_does() {
    let mut shard = Shard::new();
    let (_, old, generation) = statics(&mut shard, 9);
    shard.join_now(&restarted(&old));
    let fenced = ErrorCode::FencedInstanceId;
    let id = &old.member_id;
    assert_eq!(shard.heartbeat_as("g", id, instance(&old), generation), fenced);
    assert_eq!(shard.join_now(&old).error_code, fenced.code());
    let ticket = shard.sync_as("g", id, instance(&old), generation, &[]);
    assert_eq!(shard.synced(ticket).unwrap().error_code, fenced.code());
    let left = shard.leave("g", 5, &[(id, instance(&old))]);
    assert_eq!(left.members[0].error_code, fenced.code());
    let mut commit = support::commit_request("g", id, generation, "t", 1);
    commit.group_instance_id = old.instance_id.clone();
    assert_eq!(shard.commit_request(9, &commit)[0].2, fenced);
    // Without its instance id it is just a member that is not there.
    assert_eq!(shard.heartbeat("g", id, generation), ErrorCode::UnknownMemberId);
}

#[test]
fn requests_of_the_old_process_that_wait_are_fenced() {
    let mut shard = Shard::new();
    let (leader, old, _) = statics(&mut shard, 9);
    let join = shard.join(&leader);
    assert_eq!(shard.joined(join), None);
    shard.join(&restarted(&leader));
    assert_eq!(
        shard.joined(join).unwrap().error_code,
        ErrorCode::FencedInstanceId.code()
    );
    let ticket = shard.join(&old);
    let generation = shard.joined(ticket).unwrap().generation_id;
    let sync = shard.sync_as("g", &old.member_id, instance(&old), generation, &[]);
    shard.join(&restarted(&old));
    assert_eq!(
        shard.synced(sync).unwrap().error_code,
        ErrorCode::FencedInstanceId.code()
    );
    // Its id may already be in the assignment that the leader computes.
    assert_eq!(shard.state("g"), "PreparingRebalance");
}

#[test]
fn a_restart_that_changes_the_chosen_protocol_rebalances() {
    let mut shard = Shard::new();
    let (_, follower, _) = statics(&mut shard, 9);
    let changed = restarted(&follower).protocols(&[("range", b"x"), ("other", b"y")]);
    assert_eq!(shard.join_now(&changed).error_code, 0, "range still suits both");

    let both = |instance| {
        Joiner::new("h")
            .instance(instance)
            .protocols(&[("x", b""), ("y", b"")])
    };
    let (members, _) = shard.stable(&[both("a"), both("b")]);
    let changed = restarted(&members[1]).protocols(&[("y", b"")]);
    let ticket = shard.join(&changed);
    assert_eq!(shard.joined(ticket), None);
    assert_eq!(shard.state("h"), "PreparingRebalance");
}

#[test]
fn a_static_member_stays_while_it_restarts_and_is_out_when_its_session_ends() {
    let mut shard = Shard::new();
    let (leader, follower, generation) = statics(&mut shard, 9);
    let ticket = shard.join(&leader);
    for _ in 0..6 {
        shard.heartbeat_as("g", &follower.member_id, instance(&follower), generation);
        shard.advance(i64::from(REBALANCE_MS) / 6);
    }
    let response = shard.joined(ticket).unwrap();
    assert_eq!(
        response.members.len(),
        2,
        "it did not join again, and is a member all the same"
    );
    shard.sync_as("g", &leader.member_id, instance(&leader), generation + 1, &[]);
    for _ in 0..2 {
        shard.advance(i64::from(SESSION_MS) - 1);
        shard.heartbeat_as("g", &leader.member_id, instance(&leader), generation + 1);
    }
    assert_eq!(shard.member_ids("g"), vec![leader.member_id]);
}

#[test]
fn a_rebalance_that_no_static_member_joins_waits_until_they_are_gone() {
    let mut shard = Shard::new();
    let mut long = Joiner::new("g").instance("a");
    long.session_ms = 600_000;
    let (members, _) = shard.stable(&[long, Joiner::new("g").instance("b")]);
    let short = members
        .iter()
        .find(|member| member.session_ms == SESSION_MS)
        .unwrap()
        .clone();
    shard.leave("g", 5, &[(&short.member_id, instance(&short))]);
    shard.advance(i64::from(REBALANCE_MS) * 3);
    assert_eq!(shard.state("g"), "PreparingRebalance");
    shard.advance(600_000);
    assert_eq!(shard.state("g"), "Empty");
}

#[test]
fn an_instance_with_a_rebalance_timeout_of_zero_does_not_keep_the_coordinator_busy() {
    let mut shard = Shard::new();
    let mut zero = Joiner::new("g").instance("a");
    zero.rebalance_ms = 0;
    let ticket = shard.join(&zero);
    shard.advance(3_000);
    let id = shard.joined(ticket).unwrap().member_id;
    shard.sync_as("g", &id, Some("a"), 1, &[]);
    let mut other = Joiner::new("g").version(3);
    other.rebalance_ms = -5;
    shard.join(&other);
    shard.advance(0);
    assert!(shard.groups.next_deadline_ms().unwrap() > shard.now_ms);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance_id_alone() {
    let mut shard = Shard::new();
    let (leader, follower, _) = statics(&mut shard, 9);
    let left = shard.leave(
        "g",
        5,
        &[("", instance(&follower)), ("", Some("nobody")), ("", None)],
    );
    let errors: Vec<i16> = left.members.iter().map(|member| member.error_code).collect();
    assert_eq!(
        errors,
        [
            0,
            ErrorCode::UnknownMemberId.code(),
            ErrorCode::UnknownMemberId.code()
        ]
    );
    assert_eq!(shard.member_ids("g"), vec![leader.member_id]);
}

#[test]
fn an_unknown_instance_is_an_unknown_member() {
    let mut shard = Shard::new();
    let (leader, _, generation) = statics(&mut shard, 9);
    let error = shard.heartbeat_as("g", &leader.member_id, Some("nobody"), generation);
    assert_eq!(error, ErrorCode::UnknownMemberId);
}
