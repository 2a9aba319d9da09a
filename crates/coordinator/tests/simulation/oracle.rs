//! What must hold whatever happens, checked on every reply that leaves the coordinator. It keeps
//! its own books from requests and replies, and believes the coordinator nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use milena_coordinator::Reply;
use milena_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse};
use milena_protocol::stored::GroupMetadataValue;
use milena_protocol::{ErrorCode, Message, Reader, Str};

use crate::consumer::Request;

/// A generation, across deletions of the group, which start its count again.
type Generation = (u32, i32);

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// How often the group was deleted.
    incarnation: u32,
    /// The generation that the facts hold.
    stored: i32,
    /// The latest generation that a JoinGroup was told by this coordinator, since it started.
    announced: Option<i32>,
    /// The instance of each static member id that was ever given out.
    instances: HashMap<Str, Str>,
    /// Member ids whose instance has been taken over.
    fenced: BTreeSet<Str>,
    /// The leader's assignment of each generation that became stable.
    given: BTreeMap<Generation, HashMap<Str, Bytes>>,
    /// Who was given each partition.
    owners: BTreeMap<(Generation, u8), Str>,
    /// What was accepted and stored.
    pub(crate) committed: BTreeMap<i32, i64>,
}

impl Oracle {
    /// Static members keep their place under a new id: who they are is their instance.
    fn identity(&self, member_id: &Str) -> Str {
        self.instances.get(member_id).unwrap_or(member_id).clone()
    }

    pub(crate) fn current_generation(&self) -> i32 {
        self.announced.unwrap_or(self.stored)
    }

    /// A JoinGroup was taken: a process that starts as an instance takes it over.
    pub(crate) fn taken(&mut self, request: &Request) {
        let Request::Join(JoinGroupRequest {
            member_id,
            group_instance_id: Some(instance),
            ..
        }) = request
        else {
            return;
        };
        if member_id.is_empty() {
            let theirs = self.instances.iter().filter(|(_, one)| *one == instance);
            self.fenced.extend(theirs.map(|(id, _)| id.clone()));
        }
    }

    /// Facts were stored. `sync` is the leader's request, if that is what caused them.
    pub(crate) fn stored(&mut self, value: Option<&Bytes>, sync: Option<&SyncGroupRequest>) {
        let Some(value) = value else {
            self.incarnation += 1;
            (self.stored, self.announced) = (0, None);
            return;
        };
        let group = GroupMetadataValue::decode(&mut Reader::new(value.slice(2..)), 3).unwrap();
        assert!(
            group.generation >= self.stored,
            "generation {} is stored after {}",
            group.generation,
            self.stored
        );
        self.stored = group.generation;
        if let Some(request) = sync {
            let given = request
                .assignments
                .iter()
                .map(|one| (self.identity(&one.member_id), one.assignment.clone()));
            self.given
                .insert((self.incarnation, group.generation), given.collect());
        } else if group.members.is_empty() {
            self.announced = self.announced.map(|announced| announced.max(group.generation));
        }
    }

    /// A coordinator started on the facts. Who took over an instance since they were stored is
    /// as unknown to it as what was announced since; nobody was given an assignment by that.
    pub(crate) fn restarted(&mut self, members: &[Str]) {
        self.announced = None;
        self.fenced.retain(|id| !members.contains(id));
    }

    /// A reply leaves; `members` is who was in the group before the step that gave it.
    pub(crate) fn replied(&mut self, request: &Request, reply: &Reply, members: &[Str]) {
        match (request, reply) {
            (Request::Join(request), Reply::JoinGroup(response)) if response.error_code == 0 => {
                self.joined(request, response);
            }
            (Request::Sync(request), Reply::SyncGroup(response)) if response.error_code == 0 => {
                self.synced(request, response);
            }
            (Request::Commit(request), Reply::OffsetCommit(response)) => {
                let partition = &request.topics[0].partitions[0];
                let error = ErrorCode::from_code(response.topics[0].partitions[0].error_code);
                if error != ErrorCode::None {
                    return;
                }
                let (id, generation) = (&request.member_id, request.generation_id_or_member_epoch);
                assert!(
                    members.contains(id),
                    "a commit of {id} was accepted, which is no member"
                );
                assert!(
                    !self.fenced.contains(id),
                    "a commit of {id} was accepted, which is fenced"
                );
                assert_eq!(
                    generation,
                    self.current_generation(),
                    "a commit of another generation was accepted"
                );
                self.committed
                    .insert(partition.partition_index, partition.committed_offset);
            }
            _ => {}
        }
    }

    fn joined(&mut self, request: &JoinGroupRequest, response: &JoinGroupResponse) {
        let generation = response.generation_id;
        assert!(
            generation >= self.stored,
            "JoinGroup tells generation {generation}, stored is {}",
            self.stored
        );
        if let Some(announced) = self.announced {
            assert!(
                generation >= announced,
                "JoinGroup tells generation {generation} after {announced}"
            );
        }
        self.announced = Some(generation);
        if let Some(instance) = &request.group_instance_id {
            self.instances
                .insert(response.member_id.clone(), instance.clone());
        }
        let members: BTreeSet<&Str> = response.members.iter().map(|member| &member.member_id).collect();
        assert_eq!(members.len(), response.members.len(), "a member is told twice");
        for member in &response.members {
            if let Some(instance) = &member.group_instance_id {
                self.instances.insert(member.member_id.clone(), instance.clone());
            }
        }
    }

    fn synced(&mut self, request: &SyncGroupRequest, response: &SyncGroupResponse) {
        let generation = (self.incarnation, request.generation_id);
        assert_eq!(
            request.generation_id, self.stored,
            "an assignment was told that is not stored"
        );
        let who = self.identity(&request.member_id);
        let given = self
            .given
            .get(&generation)
            .expect("an assignment that no leader gave");
        let expected = given.get(&who).cloned().unwrap_or_default();
        assert_eq!(
            response.assignment, expected,
            "{who} was told an assignment that is not its own"
        );
        for partition in response.assignment.iter() {
            let owner = self
                .owners
                .entry((generation, *partition))
                .or_insert_with(|| who.clone());
            assert_eq!(
                *owner, who,
                "partition {partition} has two owners in generation {generation:?}"
            );
        }
    }
}
