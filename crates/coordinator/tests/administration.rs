//! Describing, listing and deleting groups, and what a restart of the broker leaves of them.

mod support;

use milena_coordinator::{GroupConfig, Groups, Reply};
use milena_protocol::{ErrorCode, Str};
use support::{Joiner, SESSION_MS, Shard, counting_suffix, subscription, text};

fn delete(shard: &mut Shard, group: &str) -> ErrorCode {
    let ticket = shard.ticket();
    let effects = shard.groups.delete_group(ticket, &text(group));
    shard.apply(effects);
    match shard.reply(ticket) {
        Some(Reply::DeleteGroup(error)) => error,
        other => panic!("no DeleteGroup reply: {other:?}"),
    }
}

#[test]
fn a_stable_group_is_described_with_its_members_metadata_and_assignments() {
    let mut shard = Shard::new();
    let (members, _) = shard.stable(&[Joiner::new("g").instance("a"), Joiner::new("g")]);
    let described = shard.groups.describe(&text("g"), 6);
    assert_eq!((described.error_code, described.error_message), (0, None));
    assert_eq!(
        (
            &*described.group_state,
            &*described.protocol_type,
            &*described.protocol_data
        ),
        ("Stable", "consumer", "range")
    );
    assert_eq!(described.members.len(), 2);
    for member in &described.members {
        assert_eq!(
            (&*member.client_id, &*member.client_host),
            ("client", "/127.0.0.1")
        );
        assert_eq!(member.member_metadata, subscription(&["t"]));
        assert_eq!(&member.member_assignment[..], member.member_id.as_bytes());
    }
    shard.join(&members[0]);
    let described = shard.groups.describe(&text("g"), 6);
    assert_eq!(
        (&*described.group_state, &*described.protocol_data),
        ("PreparingRebalance", "")
    );
    assert!(
        described
            .members
            .iter()
            .all(|member| member.member_metadata.is_empty())
    );
}

#[test]
fn an_unknown_group_is_dead_and_from_version_6_on_not_found() {
    let shard = Shard::new();
    for version in 0..=5 {
        let described = shard.groups.describe(&text("g"), version);
        assert_eq!((described.error_code, &*described.group_state), (0, "Dead"));
    }
    let described = shard.groups.describe(&text("g"), 6);
    assert_eq!(
        (described.error_code, &*described.group_state),
        (ErrorCode::GroupIdNotFound.code(), "Dead")
    );
    assert_eq!(described.error_message, Some(text("Group g not found.")));
}

#[test]
fn groups_are_listed_by_state_and_type_whatever_the_case() {
    let mut shard = Shard::new();
    shard.stable(&[Joiner::new("stable")]);
    shard.commit("empty", "", -1, "t", 1);
    let names = |states: &[&str], types: &[&str]| -> Vec<String> {
        let texts = |values: &[&str]| values.iter().map(|value| text(value)).collect::<Vec<Str>>();
        let listed = shard.groups.list(&texts(states), &texts(types));
        assert!(listed.iter().all(|group| &*group.group_type == "classic"));
        listed
            .iter()
            .map(|group| format!("{} {} {}", group.group_id, group.group_state, group.protocol_type))
            .collect()
    };
    assert_eq!(names(&[], &[]), ["empty Empty ", "stable Stable consumer"]);
    assert_eq!(names(&["STABLE", "dead"], &[]), ["stable Stable consumer"]);
    assert_eq!(names(&[" empty "], &["Classic"]), ["empty Empty "]);
    assert!(names(&[], &["consumer"]).is_empty());
    assert!(names(&["nonsense"], &[]).is_empty());
}

#[test]
fn a_group_is_deleted_with_its_offsets_once_nobody_is_in_it() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g")]);
    shard.commit("g", &members[0].member_id, generation, "t", 1);
    assert_eq!(delete(&mut shard, "g"), ErrorCode::NonEmptyGroup);
    shard.leave("g", 5, &[(&members[0].member_id, None)]);
    shard.commit("h", "", -1, "t", 2);
    assert_eq!(delete(&mut shard, "g"), ErrorCode::None);
    assert_eq!(delete(&mut shard, "g"), ErrorCode::GroupIdNotFound);
    shard.restart();
    assert_eq!((shard.committed("g", "t"), shard.committed("h", "t")), (-1, 2));
    assert_eq!(shard.groups.group_count(), 1);
}

#[test]
fn a_pending_member_of_a_deleted_group_is_unknown() {
    let mut shard = Shard::new();
    let pending = shard.id_for(&Joiner::new("g"));
    assert_eq!(delete(&mut shard, "g"), ErrorCode::None);
    assert_eq!(
        shard.join_now(&pending).error_code,
        ErrorCode::UnknownMemberId.code()
    );
    shard.advance(i64::from(SESSION_MS));
}

#[test]
fn members_go_on_after_a_restart_of_the_broker_without_a_rebalance() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g"), Joiner::new("g").instance("a")]);
    shard.commit("g", &members[0].member_id, generation, "t", 7);
    let before = shard.groups.describe(&text("g"), 6);
    shard.restart();
    assert_eq!(shard.groups.describe(&text("g"), 6), before);
    for member in &members {
        let instance = member.instance_id.as_deref();
        assert_eq!(
            shard.heartbeat_as("g", &member.member_id, instance, generation),
            ErrorCode::None
        );
        let ticket = shard.sync_as("g", &member.member_id, instance, generation, &[]);
        assert_eq!(
            &shard.synced(ticket).unwrap().assignment[..],
            member.member_id.as_bytes()
        );
    }
    assert_eq!(shard.committed("g", "t"), 7);
    assert_eq!(
        shard.commit("g", &members[1].member_id, generation, "t", 8),
        ErrorCode::None
    );
    shard.advance(i64::from(SESSION_MS) - 1);
    let kept = members
        .iter()
        .find(|member| member.instance_id.is_none())
        .unwrap();
    assert_eq!(shard.heartbeat("g", &kept.member_id, generation), ErrorCode::None);
    shard.advance(1);
    assert_eq!(
        shard.state("g"),
        "PreparingRebalance",
        "sessions are counted again"
    );
}

#[test]
fn a_group_that_was_given_its_first_id_is_known_after_a_restart() {
    let mut shard = Shard::new();
    shard.id_for(&Joiner::new("g"));
    shard.restart();
    assert_eq!(shard.state("g"), "Empty");
}

#[test]
fn a_group_that_is_too_large_when_loaded_rebalances() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g"), Joiner::new("g")]);
    shard.config.max_group_size = 1;
    shard.restart();
    assert_eq!(shard.state("g"), "PreparingRebalance");
    assert_eq!(
        shard.heartbeat("g", &members[0].member_id, generation),
        ErrorCode::RebalanceInProgress
    );
}

#[test]
fn facts_that_cannot_be_read_stop_the_shard_from_loading() {
    let mut groups = Groups::new(GroupConfig::default(), counting_suffix());
    for (key, value) in [("group/g", "x"), ("offset/g/t/0", "\0\0"), ("nonsense", "")] {
        let row = (
            bytes::Bytes::from_static(key.as_bytes()),
            bytes::Bytes::from_static(value.as_bytes()),
        );
        let error = groups.load(0, [row]).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}
