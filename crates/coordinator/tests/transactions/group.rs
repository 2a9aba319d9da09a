//! The groups' offsets: the coordinator's own, and beside them what they must be, worked out from the
//! order in which they were given.

use std::collections::BTreeMap;

use bytes::Bytes;
use milena_coordinator::{Effects, GroupConfig, Groups, Ticket};
use milena_protocol::Uuid;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use milena_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest};

use super::mutant::Mutant;
use super::world::{name, put, topic};

const NONE: i64 = -1;

/// An offset, and how many were given or deleted before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    order: u64,
    offset: i64,
}

const NEVER: Given = Given {
    order: 0,
    offset: NONE,
};

/// One group for each transactional id, with one partition.
pub(crate) struct Offsets {
    mutant: Mutant,
    groups: Groups,
    facts: BTreeMap<Bytes, Bytes>,
    order: u64,
    latest_ms: i64,
    committed: Vec<Given>,
    /// By group and producer id.
    pending: BTreeMap<(usize, i64), Given>,
    /// By group, what transactions committed, in that order; also what something newer had replaced.
    pub(crate) effective: Vec<Vec<i64>>,
}

impl Offsets {
    pub(crate) fn new(mutant: Mutant, groups: usize, now_ms: i64) -> Self {
        let mut offsets = Self {
            mutant,
            groups: Groups::new(GroupConfig::default(), || Uuid::ZERO),
            facts: BTreeMap::new(),
            order: 0,
            latest_ms: 0,
            committed: vec![NEVER; groups],
            pending: BTreeMap::new(),
            effective: vec![Vec::new(); groups],
        };
        offsets.load(now_ms);
        offsets
    }

    pub(crate) fn load(&mut self, now_ms: i64) {
        let rows: Vec<_> = self.facts.clone().into_iter().collect();
        self.groups.load(now_ms, rows).unwrap();
    }

    fn next(&mut self, offset: i64) -> Given {
        self.order += 1;
        Given {
            order: self.order,
            offset,
        }
    }

    fn store(&mut self, effects: Effects) {
        put(&mut self.facts, effects.facts);
    }

    pub(crate) fn give(&mut self, now_ms: i64, group: usize, producer: (i64, i16), offset: i64) {
        let given = self.next(offset);
        self.pending.insert((group, producer.0), given);
        if self.mutant == Mutant::ClockDecides && now_ms < self.latest_ms {
            return;
        }
        self.latest_ms = now_ms;
        self.give_again(now_ms, group, producer, offset);
    }

    fn give_again(&mut self, now_ms: i64, group: usize, producer: (i64, i16), offset: i64) {
        let request = TxnOffsetCommitRequest {
            transactional_id: name(group),
            group_id: name(group),
            producer_id: producer.0,
            producer_epoch: producer.1,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: topic(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let effects = self
            .groups
            .commit_transactional_offsets(now_ms, Ticket(0), &request);
        self.store(effects);
    }

    /// Somebody commits beside all transactions.
    pub(crate) fn commit(&mut self, now_ms: i64, group: usize, offset: i64) {
        self.committed[group] = self.next(offset);
        let request = OffsetCommitRequest {
            group_id: name(group),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: topic(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            retention_time_ms: -1,
            ..OffsetCommitRequest::default()
        };
        let effects = self.groups.commit_offsets(now_ms, Ticket(0), 9, &request);
        self.store(effects);
        if self.mutant == Mutant::PlainCommitLoses {
            let pending: Vec<_> = self.pending.iter().map(|(key, given)| (*key, *given)).collect();
            for ((at, producer_id), given) in pending {
                self.give_again(now_ms, at, (producer_id, 0), given.offset);
            }
        }
        self.check(group);
    }

    /// Somebody deletes the offset.
    pub(crate) fn delete(&mut self, group: usize) {
        self.committed[group] = self.next(NONE);
        let request = OffsetDeleteRequest {
            group_id: name(group),
            topics: vec![OffsetDeleteRequestTopic {
                name: topic(),
                partitions: vec![OffsetDeleteRequestPartition::default()],
                ..OffsetDeleteRequestTopic::default()
            }],
            ..OffsetDeleteRequest::default()
        };
        let effects = self.groups.delete_offsets(Ticket(0), &request);
        self.store(effects);
        self.check(group);
    }

    pub(crate) fn end(&mut self, producer_id: i64, commit: bool) {
        let effects = self.groups.end_transaction(producer_id, commit);
        self.store(effects);
        for group in 0..self.committed.len() {
            if let Some(given) = self.pending.remove(&(group, producer_id))
                && commit
            {
                self.effective[group].push(given.offset);
                if given.order > self.committed[group].order {
                    self.committed[group] = given;
                }
            }
            self.check(group);
        }
    }

    /// The newest wins.
    fn check(&self, group: usize) {
        let request = OffsetFetchRequestGroup {
            group_id: name(group),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        };
        let fetched = self.groups.fetch_offsets(&request, false);
        let committed = fetched
            .topics
            .first()
            .map_or(NONE, |topic: &_| topic.partitions[0].committed_offset);
        assert_eq!(
            committed, self.committed[group].offset,
            "the offset of group {group} is not the newest"
        );
    }

    /// Whatever a transaction had pending has ended with it.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.facts.keys().any(|key| key.starts_with(b"pending/"))
    }
}
