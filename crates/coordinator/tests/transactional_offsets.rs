//! Offsets that are part of a transaction: who may give them, when they take effect, which one wins.

mod support;

use milena_coordinator::Reply;
use milena_protocol::ErrorCode;
use milena_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use milena_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use milena_protocol::messages::{OffsetDeleteRequest, TxnOffsetCommitRequest};
use support::{Joiner, Shard, text};

const NOBODY: (&str, i32) = ("", -1);

/// Gives an offset of partition 0 of `t` in group `g` to a producer's transaction.
fn give(shard: &mut Shard, producer_id: i64, (member, generation): (&str, i32), offset: i64) -> ErrorCode {
    let ticket = shard.ticket();
    let request = TxnOffsetCommitRequest {
        transactional_id: text("tx"),
        group_id: text("g"),
        producer_id,
        producer_epoch: 0,
        generation_id: generation,
        member_id: text(member),
        topics: vec![TxnOffsetCommitRequestTopic {
            name: text("t"),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..TxnOffsetCommitRequestPartition::default()
            }],
            ..TxnOffsetCommitRequestTopic::default()
        }],
        ..TxnOffsetCommitRequest::default()
    };
    let effects = shard
        .groups
        .commit_transactional_offsets(shard.now_ms, ticket, &request);
    shard.apply(effects);
    match shard.reply(ticket) {
        Some(Reply::TxnOffsetCommit(response)) => {
            ErrorCode::from_code(response.topics[0].partitions[0].error_code)
        }
        other => panic!("not a TxnOffsetCommit reply: {other:?}"),
    }
}

fn end(shard: &mut Shard, producer_id: i64, commit: bool) {
    let effects = shard.groups.end_transaction(producer_id, commit);
    shard.apply(effects);
}

/// Deletes the offset of partition 0 of `t` in group `g`.
fn delete(shard: &mut Shard) {
    let ticket = shard.ticket();
    let request = OffsetDeleteRequest {
        group_id: text("g"),
        topics: vec![OffsetDeleteRequestTopic {
            name: text("t"),
            partitions: vec![OffsetDeleteRequestPartition::default()],
            ..OffsetDeleteRequestTopic::default()
        }],
        ..OffsetDeleteRequest::default()
    };
    let effects = shard.groups.delete_offsets(ticket, &request);
    shard.apply(effects);
    match shard.reply(ticket) {
        Some(Reply::OffsetDelete(response)) => {
            assert_eq!(response.error_code, 0);
            assert_eq!(response.topics[0].partitions[0].error_code, 0);
        }
        other => panic!("not an OffsetDelete reply: {other:?}"),
    }
}

fn fetch_stable(shard: &Shard) -> Result<i64, ErrorCode> {
    let request = OffsetFetchRequestGroup {
        group_id: text("g"),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: text("t"),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        }]),
        ..OffsetFetchRequestGroup::default()
    };
    let fetched = shard.groups.fetch_offsets(&request, true);
    let partition = &fetched.topics[0].partitions[0];
    match ErrorCode::from_code(partition.error_code) {
        ErrorCode::None => Ok(partition.committed_offset),
        error => Err(error),
    }
}

#[test]
fn an_offset_of_a_transaction_takes_effect_when_that_is_committed_also_over_a_restart() {
    let mut shard = Shard::new();
    assert_eq!(give(&mut shard, 1, NOBODY, 5), ErrorCode::None);
    shard.restart();
    assert_eq!(shard.committed("g", "t"), -1);
    assert_eq!(fetch_stable(&shard), Err(ErrorCode::UnstableOffsetCommit));
    end(&mut shard, 1, true);
    assert_eq!(fetch_stable(&shard), Ok(5));
    shard.restart();
    assert_eq!(shard.committed("g", "t"), 5);
    assert_eq!(shard.facts.len(), 1, "nothing pending is left");
}

#[test]
fn an_offset_of_a_transaction_that_is_aborted_leaves_no_trace() {
    let mut shard = Shard::new();
    shard.commit("g", "", -1, "t", 3);
    give(&mut shard, 1, NOBODY, 5);
    end(&mut shard, 1, false);
    assert_eq!(fetch_stable(&shard), Ok(3));
    assert_eq!(shard.facts.len(), 1);
}

#[test]
fn a_plain_commit_wins_over_what_was_pending_before_it() {
    let mut shard = Shard::new();
    give(&mut shard, 1, NOBODY, 5);
    assert_eq!(shard.commit("g", "", -1, "t", 9), ErrorCode::None);
    assert_eq!(fetch_stable(&shard), Err(ErrorCode::UnstableOffsetCommit));
    shard.restart();
    end(&mut shard, 1, true);
    assert_eq!(shard.committed("g", "t"), 9, "within the same millisecond too");
    assert_eq!(fetch_stable(&shard), Ok(9));
    give(&mut shard, 2, NOBODY, 4);
    end(&mut shard, 2, true);
    assert_eq!(shard.committed("g", "t"), 4, "what comes after it counts");
}

#[test]
fn an_offset_that_is_deleted_does_not_come_back_with_the_transactions_that_had_it_pending() {
    for is_committed in [false, true] {
        let mut shard = Shard::new();
        if is_committed {
            shard.commit("g", "", -1, "t", 3);
        }
        give(&mut shard, 1, NOBODY, 5);
        give(&mut shard, 2, NOBODY, 6);
        delete(&mut shard);
        assert!(shard.facts.is_empty(), "{:?}", shard.facts);
        assert_eq!(fetch_stable(&shard), Ok(-1));
        give(&mut shard, 2, NOBODY, 8);
        end(&mut shard, 1, true);
        assert_eq!(shard.committed("g", "t"), -1);
        end(&mut shard, 2, true);
        assert_eq!(shard.committed("g", "t"), 8, "what came after it counts");
    }
}

#[test]
fn of_two_transactions_the_one_whose_offset_came_last_wins_in_whatever_order_they_end() {
    for set_back_ms in [0, 60_000] {
        for first in [1, 2] {
            let mut shard = Shard::new();
            give(&mut shard, 1, NOBODY, 5);
            shard.now_ms -= set_back_ms;
            give(&mut shard, 2, NOBODY, 8);
            shard.restart();
            end(&mut shard, first, true);
            end(&mut shard, 3 - first, true);
            assert_eq!(shard.committed("g", "t"), 8, "{first} ends first");
            assert_eq!(shard.facts.len(), 1, "nothing pending is left");
        }
    }
}

#[test]
fn a_clock_that_is_set_back_loses_no_offset_of_a_transaction() {
    let mut shard = Shard::new();
    give(&mut shard, 1, NOBODY, 5);
    end(&mut shard, 1, true);
    shard.now_ms -= 60_000;
    give(&mut shard, 1, NOBODY, 6);
    end(&mut shard, 1, true);
    assert_eq!(shard.committed("g", "t"), 6);
}

#[test]
fn a_member_gives_offsets_in_its_generation_only_and_older_clients_do_not_say_who_they_are() {
    let mut shard = Shard::new();
    let (members, generation) = shard.stable(&[Joiner::new("g")]);
    let id = members[0].member_id.to_string();
    assert_eq!(give(&mut shard, 1, (&id, generation), 1), ErrorCode::None);
    assert_eq!(give(&mut shard, 1, NOBODY, 2), ErrorCode::None);
    let refused = [
        ((&*id, generation - 1), ErrorCode::IllegalGeneration),
        ((&*id, -1), ErrorCode::IllegalGeneration),
        (("stranger", generation), ErrorCode::UnknownMemberId),
    ];
    for (who, error) in refused {
        assert_eq!(give(&mut shard, 1, who, 3), error, "{who:?}");
    }
    end(&mut shard, 1, true);
    assert_eq!(shard.committed("g", "t"), 2);
}

#[test]
fn a_group_without_members_takes_offsets_of_whoever_names_no_generation() {
    let mut shard = Shard::new();
    shard.commit("g", "", -1, "t", 1);
    assert_eq!(give(&mut shard, 1, ("somebody", -1), 2), ErrorCode::None);
    assert_eq!(
        give(&mut shard, 1, ("somebody", 3), 2),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_generation_of_a_group_that_is_unknown_is_refused() {
    let mut shard = Shard::new();
    assert_eq!(give(&mut shard, 1, ("m", 1), 2), ErrorCode::IllegalGeneration);
    assert!(shard.facts.is_empty());
}
