//! Consumer groups (KIP-848) as their members see them, and after a restart from what was stored.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_coordinator::{
    Client, ConsumerGroupConfig, Effects, GroupConfig, Groups, Reply, Ticket, TopicImage, TopicInfo,
};
use milena_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use milena_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, OffsetCommitRequest, SyncGroupRequest, SyncGroupResponse,
};
use milena_protocol::{ErrorCode, Str, Uuid};

const GROUP: &str = "g";
const REBALANCE_MS: i32 = 60_000;

fn text(value: &str) -> Str {
    Str::from(value.to_owned())
}

fn topic_id(name: &str) -> Uuid {
    let mut bytes = [7; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

/// A shard that is driven as the broker drives it.
struct Bench {
    groups: Groups,
    rows: BTreeMap<Bytes, Bytes>,
    topics: TopicImage,
    config: ConsumerGroupConfig,
    now_ms: i64,
    tickets: u64,
}

/// What a member knows of itself.
#[derive(Debug, Clone, Default)]
struct Member {
    id: Str,
    instance: Option<Str>,
    epoch: i32,
    owned: BTreeSet<(Uuid, i32)>,
}

impl Member {
    fn new(id: &str) -> Self {
        Self {
            id: text(id),
            ..Self::default()
        }
    }

    fn partitions(&self) -> Vec<i32> {
        self.owned.iter().map(|(_, partition)| *partition).collect()
    }
}

impl Bench {
    fn new() -> Self {
        let mut groups = Groups::new(GroupConfig::default(), || Uuid::ZERO);
        groups.load(0, []).unwrap();
        Self {
            groups,
            rows: BTreeMap::new(),
            topics: TopicImage::default(),
            config: ConsumerGroupConfig {
                assignment_interval_ms: 0,
                ..ConsumerGroupConfig::default()
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
        self.groups = Groups::new(GroupConfig::default(), || Uuid::ZERO);
        self.groups.load(self.now_ms, self.rows.clone()).unwrap();
        self.groups.check_invariants();
    }

    fn ask(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        self.tickets += 1;
        let client = client();
        self.groups.see_topics(&Arc::new(self.topics.clone()));
        let ticket = Ticket(self.tickets);
        let effects = self
            .groups
            .consumer_heartbeat(self.now_ms, ticket, 1, &client, &self.config, request);
        self.store(&effects);
        let mut answers = effects
            .replies
            .into_iter()
            .filter(|(answered, _)| *answered == ticket);
        match answers.next() {
            Some((_, Reply::ConsumerGroupHeartbeat(response))) => response,
            other => panic!("{other:?}"),
        }
    }

    fn try_join(&mut self, member: &mut Member, topics: &[&str], pattern: Option<&str>) -> ErrorCode {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: text(GROUP),
            member_id: member.id.clone(),
            instance_id: member.instance.clone(),
            member_epoch: 0,
            rebalance_timeout_ms: REBALANCE_MS,
            subscribed_topic_names: Some(topics.iter().map(|name| text(name)).collect()),
            subscribed_topic_regex: pattern.map(text),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let response = self.ask(&request);
        hear(member, &response)
    }

    fn join(&mut self, id: &str, topics: &[&str]) -> Member {
        let mut member = Member::new(id);
        assert_eq!(self.try_join(&mut member, topics, None), ErrorCode::None);
        member
    }

    fn join_static(&mut self, id: &str, instance: &str, topics: &[&str]) -> Member {
        let mut member = Member::new(id);
        member.instance = Some(text(instance));
        assert_eq!(self.try_join(&mut member, topics, None), ErrorCode::None);
        member
    }

    fn request(&self, member: &Member, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &member.owned {
            owned.entry(*topic).or_default().push(*partition);
        }
        let owned = owned.into_iter().map(|(topic_id, partitions)| TopicPartitions {
            topic_id,
            partitions,
            ..TopicPartitions::default()
        });
        ConsumerGroupHeartbeatRequest {
            group_id: text(GROUP),
            member_id: member.id.clone(),
            instance_id: member.instance.clone(),
            member_epoch: epoch,
            topic_partitions: Some(owned.collect()),
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }

    /// One heartbeat with everything that the member has.
    fn beat(&mut self, member: &mut Member) -> ErrorCode {
        let request = self.request(member, member.epoch);
        let response = self.ask(&request);
        hear(member, &response)
    }

    fn leave(&mut self, member: &Member, epoch: i32) -> ErrorCode {
        let request = self.request(member, epoch);
        error(&self.ask(&request))
    }

    /// Heartbeats in turns until nothing changes.
    fn settle(&mut self, members: &mut [&mut Member]) {
        for _ in 0..10 {
            let before: Vec<Member> = members.iter().map(|member| (**member).clone()).collect();
            for member in members.iter_mut() {
                assert_eq!(self.beat(member), ErrorCode::None);
            }
            let same = before
                .iter()
                .zip(members.iter())
                .all(|(before, now)| before.epoch == now.epoch && before.owned == now.owned);
            if same {
                return;
            }
        }
        panic!("the group does not come to rest");
    }

    /// JoinGroup with a cooperative subscription that owns what is given.
    fn ask_join(&mut self, member_id: &str, topic: &str, owned: &[i32]) -> Option<JoinGroupResponse> {
        let mut metadata = vec![0, 1, 0, 0, 0, 1, 0, topic.len() as u8];
        metadata.extend(topic.as_bytes());
        metadata.extend((-1_i32).to_be_bytes());
        metadata.extend([0, 0, 0, 1, 0, topic.len() as u8]);
        metadata.extend(topic.as_bytes());
        metadata.extend((owned.len() as i32).to_be_bytes());
        for partition in owned {
            metadata.extend(partition.to_be_bytes());
        }
        let request = JoinGroupRequest {
            group_id: text(GROUP),
            member_id: text(member_id),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: text("consumer"),
            protocols: vec![JoinGroupRequestProtocol {
                name: text("range"),
                metadata: metadata.into(),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        };
        self.groups.see_topics(&Arc::new(self.topics.clone()));
        self.tickets += 1;
        let (ticket, client) = (Ticket(self.tickets), client());
        let effects = self
            .groups
            .join(self.now_ms, ticket, 5, &client, &self.config, &request);
        self.store(&effects);
        match effects.replies.into_iter().next() {
            Some((_, Reply::JoinGroup(response))) => Some(response),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// A JoinGroup that is answered at once.
    fn join_classic(&mut self, member_id: &str, topic: &str, owned: &[i32]) -> JoinGroupResponse {
        self.ask_join(member_id, topic, owned).unwrap()
    }

    fn sync(&mut self, joined: &JoinGroupResponse) -> SyncGroupResponse {
        let request = SyncGroupRequest {
            group_id: text(GROUP),
            member_id: joined.member_id.clone(),
            generation_id: joined.generation_id,
            ..SyncGroupRequest::default()
        };
        self.tickets += 1;
        let effects = self.groups.sync(self.now_ms, Ticket(self.tickets), &request);
        self.store(&effects);
        match effects.replies.into_iter().next() {
            Some((_, Reply::SyncGroup(response))) => response,
            other => panic!("{other:?}"),
        }
    }

    fn beat_classic(&mut self, joined: &JoinGroupResponse) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: text(GROUP),
            member_id: joined.member_id.clone(),
            generation_id: joined.generation_id,
            ..HeartbeatRequest::default()
        };
        self.tickets += 1;
        let effects = self.groups.heartbeat(self.now_ms, Ticket(self.tickets), &request);
        self.store(&effects);
        match effects.replies.into_iter().next() {
            Some((_, Reply::Heartbeat(response))) => ErrorCode::from_code(response.error_code),
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, member_id: &str, epoch: i32, topic: &str, partition: i32) -> ErrorCode {
        let request = OffsetCommitRequest {
            group_id: text(GROUP),
            member_id: text(member_id),
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
        };
        self.groups.see_topics(&Arc::new(self.topics.clone()));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let effects = self.groups.commit_offsets(self.now_ms, ticket, 9, &request);
        self.store(&effects);
        match effects.replies.into_iter().next() {
            Some((_, Reply::OffsetCommit(response))) => {
                ErrorCode::from_code(response.topics[0].partitions[0].error_code)
            }
            other => panic!("{other:?}"),
        }
    }

    fn group_type(&self) -> String {
        self.groups.list(&[], &[])[0].group_type.to_string()
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let effects = self.groups.tick(self.now_ms);
        self.store(&effects);
    }

    fn state(&self) -> String {
        let listed = self.groups.list(&[], &[]);
        listed
            .first()
            .map(|group| group.group_state.to_string())
            .unwrap_or_default()
    }
}

fn client() -> Client {
    Client {
        client_id: text("client"),
        client_host: text("/127.0.0.1"),
    }
}

/// The partitions of an assignment of one topic.
fn assigned(response: &SyncGroupResponse) -> Vec<i32> {
    assert_eq!(response.error_code, 0);
    let bytes = &response.assignment;
    let topics = i32::from_be_bytes(bytes[2..6].try_into().unwrap());
    if topics == 0 {
        return Vec::new();
    }
    let name = usize::from(bytes[7]);
    let count = i32::from_be_bytes(bytes[8 + name..12 + name].try_into().unwrap()) as usize;
    let partitions = bytes[12 + name..].chunks(4).take(count);
    partitions
        .map(|chunk| i32::from_be_bytes(chunk.try_into().unwrap()))
        .collect()
}

fn error(response: &ConsumerGroupHeartbeatResponse) -> ErrorCode {
    ErrorCode::from_code(response.error_code)
}

fn hear(member: &mut Member, response: &ConsumerGroupHeartbeatResponse) -> ErrorCode {
    if response.error_code == 0 {
        member.epoch = response.member_epoch;
        if let Some(assignment) = &response.assignment {
            let topics = assignment.topic_partitions.iter();
            member.owned = topics
                .flat_map(|topic| {
                    topic
                        .partitions
                        .iter()
                        .map(|partition| (topic.topic_id, *partition))
                })
                .collect();
        }
    }
    error(response)
}

#[test]
fn a_partition_moves_only_after_it_was_given_up() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join("a", &["t"]);
    assert_eq!(a.partitions(), [0, 1, 2, 3]);
    assert_eq!(bench.state(), "Stable");
    let mut b = bench.join("b", &["t"]);
    assert_eq!(b.partitions(), [0; 0]);
    let before = a.clone();
    assert_eq!(bench.beat(&mut a), ErrorCode::None);
    assert_eq!(
        (a.partitions().len(), a.epoch),
        (2, before.epoch),
        "told to give up, in its old epoch"
    );
    assert_eq!(bench.beat(&mut b), ErrorCode::None);
    assert_eq!(b.partitions(), [0; 0], "nothing is free before it is given up");
    assert_eq!(bench.state(), "Reconciling");
    bench.restart();
    assert_eq!(bench.beat(&mut a), ErrorCode::None);
    assert!(a.epoch > before.epoch);
    assert_eq!(bench.beat(&mut b), ErrorCode::None);
    assert_eq!((a.partitions().len(), b.partitions().len()), (2, 2));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(bench.leave(&a, -1), ErrorCode::None);
    bench.settle(&mut [&mut b]);
    assert_eq!(b.partitions(), [0, 1, 2, 3]);
    assert_eq!(bench.leave(&b, -1), ErrorCode::None);
    assert_eq!(bench.state(), "Empty");
    assert_eq!(bench.beat(&mut b), ErrorCode::UnknownMemberId);
}

#[test]
fn a_lost_reply_is_made_good_and_a_wrong_epoch_is_fenced() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join("a", &["t"]);
    bench.topic("t", 6);
    let old = a.clone();
    assert_eq!(bench.beat(&mut a), ErrorCode::None);
    assert!(a.epoch > old.epoch && a.partitions().len() == 6);
    let mut again = old.clone();
    assert_eq!(
        bench.beat(&mut again),
        ErrorCode::None,
        "the epoch before is accepted"
    );
    assert_eq!(again.epoch, a.epoch);
    let mut zombie = old.clone();
    zombie.owned.insert((topic_id("t"), 77));
    assert_eq!(bench.beat(&mut zombie), ErrorCode::FencedMemberEpoch);
    let mut ahead = a.clone();
    ahead.epoch += 1;
    assert_eq!(bench.beat(&mut ahead), ErrorCode::FencedMemberEpoch);
}

#[test]
fn sessions_and_revocations_have_an_end() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join("a", &["t"]);
    let mut b = bench.join("b", &["t"]);
    assert_eq!(bench.beat(&mut a), ErrorCode::None);
    // It goes on with heartbeats, but does not give up what it was told to.
    let mut stubborn = a.clone();
    stubborn.owned = (0..4).map(|partition| (topic_id("t"), partition)).collect();
    for _ in 0..3 {
        bench.pass(i64::from(REBALANCE_MS) / 3 - 1);
        let kept = stubborn.owned.clone();
        assert_eq!(bench.beat(&mut stubborn), ErrorCode::None);
        stubborn.owned = kept;
        assert_eq!(bench.beat(&mut b), ErrorCode::None);
    }
    bench.pass(10);
    assert_eq!(bench.beat(&mut stubborn), ErrorCode::UnknownMemberId);
    bench.settle(&mut [&mut b]);
    assert_eq!(b.partitions().len(), 4);
    bench.pass(45_001);
    assert_eq!(bench.beat(&mut b), ErrorCode::UnknownMemberId);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join_static("a", "i", &["t"]);
    let mut b = bench.join("b", &["t"]);
    bench.settle(&mut [&mut a, &mut b]);
    let had = a.owned.clone();
    let mut other = Member::new("c");
    other.instance = Some(text("i"));
    assert_eq!(
        bench.try_join(&mut other, &["t"], None),
        ErrorCode::UnreleasedInstanceId
    );
    assert_eq!(bench.leave(&a, -2), ErrorCode::None);
    bench.restart();
    bench.settle(&mut [&mut b]);
    assert_eq!(bench.try_join(&mut other, &["t"], None), ErrorCode::None);
    assert_eq!(other.owned, had);
    assert_eq!(bench.beat(&mut a), ErrorCode::FencedInstanceId);
    bench.settle(&mut [&mut other, &mut b]);
    assert_eq!(other.owned, had);
}

#[test]
fn a_heartbeat_that_comes_after_the_leave_of_a_static_member_changes_nothing() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join_static("a", "i", &["t"]);
    let mut b = bench.join("b", &["t"]);
    bench.settle(&mut [&mut a, &mut b]);
    assert_eq!(bench.leave(&a, -2), ErrorCode::None);
    // With its instance, and as a client sends it that names this only when it says everything.
    let mut late = a.clone();
    assert_eq!(bench.beat(&mut late), ErrorCode::FencedMemberEpoch);
    late.instance = None;
    assert_eq!(bench.beat(&mut late), ErrorCode::FencedMemberEpoch);
    let mut twin = Member::new("c");
    twin.instance = Some(text("i"));
    assert_eq!(bench.try_join(&mut twin, &["t"], None), ErrorCode::None);
    assert_eq!((&twin.owned, twin.epoch), (&a.owned, a.epoch));
    assert_eq!(bench.beat(&mut late), ErrorCode::UnknownMemberId);
    let (had, epoch) = (b.owned.clone(), b.epoch);
    bench.settle(&mut [&mut twin, &mut b]);
    assert_eq!((b.owned, b.epoch), (had, epoch), "nobody else is bothered");
}

#[test]
fn a_static_member_that_does_not_come_back_is_gone_after_its_session() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join_static("a", "i", &["t"]);
    bench.pass(30_000);
    assert_eq!(bench.leave(&a, -2), ErrorCode::None);
    // Neither the leave nor what is refused keeps the session.
    assert_eq!(bench.beat(&mut a), ErrorCode::FencedMemberEpoch);
    bench.pass(15_001);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_fenced_member_joins_again_with_its_id_from_any_epoch() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join("a", &["t"]);
    let mut b = bench.join("b", &["t"]);
    bench.settle(&mut [&mut a, &mut b]);
    let (had, epoch) = (a.owned.clone(), a.epoch);
    let mut ahead = a.clone();
    ahead.epoch += 1;
    assert_eq!(bench.beat(&mut ahead), ErrorCode::FencedMemberEpoch);
    assert_eq!(bench.try_join(&mut a, &["t"], None), ErrorCode::None);
    assert_eq!((a.owned, a.epoch), (had, epoch));
}

#[test]
fn a_commit_of_an_older_epoch_is_for_what_the_member_has_had_since() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = bench.join_static("a", "i", &["t"]);
    let first = a.epoch;
    let mut b = bench.join("b", &["t"]);
    assert_eq!(bench.beat(&mut a), ErrorCode::None);
    // What it is to give up is still its own.
    assert_eq!(a.partitions().len(), 2);
    for partition in 0..4 {
        assert_eq!(bench.commit("a", first, "t", partition), ErrorCode::None);
    }
    bench.settle(&mut [&mut a, &mut b]);
    let (kept, lost) = (a.partitions()[0], b.partitions()[0]);
    assert!(a.epoch > first);
    assert_eq!(bench.commit("a", first, "t", kept), ErrorCode::None);
    assert_eq!(
        bench.commit("a", first - 1, "t", kept),
        ErrorCode::StaleMemberEpoch
    );
    assert_eq!(bench.commit("a", first, "t", lost), ErrorCode::StaleMemberEpoch);
    assert_eq!(
        bench.commit("a", a.epoch + 1, "t", kept),
        ErrorCode::StaleMemberEpoch
    );
    // A static member that is away commits nothing; who comes back has what it had from the beginning.
    assert_eq!(bench.leave(&a, -2), ErrorCode::None);
    assert_eq!(bench.commit("a", a.epoch, "t", kept), ErrorCode::StaleMemberEpoch);
    bench.restart();
    let mut twin = Member::new("c");
    twin.instance = Some(text("i"));
    assert_eq!(bench.try_join(&mut twin, &["t"], None), ErrorCode::None);
    assert_eq!(bench.commit("a", a.epoch, "t", kept), ErrorCode::UnknownMemberId);
    assert_eq!(bench.commit("c", first - 1, "t", kept), ErrorCode::None);
}

#[test]
fn a_classic_member_commits_with_an_older_generation_what_it_has_had_since() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    let mut a = bench.join("a", &[]);
    let id = bench.join_classic("", "t", &[]).member_id.to_string();
    let first = bench.join_classic(&id, "t", &[]);
    assert_eq!(assigned(&bench.sync(&first)).len(), 2);
    bench.topic("t", 4);
    bench.settle(&mut [&mut a]);
    assert_eq!(bench.beat_classic(&first), ErrorCode::RebalanceInProgress);
    let second = bench.join_classic(&id, "t", &[0, 1]);
    assert!(second.generation_id > first.generation_id);
    assert_eq!(assigned(&bench.sync(&second)).len(), 4);
    assert_eq!(bench.commit(&id, second.generation_id, "t", 3), ErrorCode::None);
    assert_eq!(bench.commit(&id, first.generation_id, "t", 0), ErrorCode::None);
    assert_eq!(
        bench.commit(&id, first.generation_id, "t", 3),
        ErrorCode::IllegalGeneration
    );
}

#[test]
fn a_pattern_follows_the_topics() {
    let mut bench = Bench::new();
    bench.topic("a1", 1);
    bench.topic("b1", 1);
    let mut a = Member::new("a");
    assert_eq!(bench.try_join(&mut a, &[], Some("a.*")), ErrorCode::None);
    assert_eq!(a.owned, [(topic_id("a1"), 0)].into());
    bench.topic("a2", 2);
    bench.settle(&mut [&mut a]);
    assert_eq!(a.owned.len(), 3);
    bench.restart();
    let epoch = a.epoch;
    bench.settle(&mut [&mut a]);
    assert_eq!(a.epoch, epoch, "a restart changes nothing");
    bench.topics.remove("a1");
    bench.settle(&mut [&mut a]);
    assert_eq!(a.owned.len(), 2);
    let mut wrong = Member::new("w");
    assert_eq!(
        bench.try_join(&mut wrong, &[], Some("(")),
        ErrorCode::InvalidRegularExpression
    );
}

#[test]
fn what_is_stored_goes_with_the_group() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut a = Member::new("a");
    assert_eq!(bench.try_join(&mut a, &["t"], Some("x.*")), ErrorCode::None);
    assert_eq!(bench.leave(&a, -1), ErrorCode::None);
    let effects = bench.groups.delete_group(Ticket(99), &text(GROUP));
    bench.store(&effects);
    assert_eq!(bench.rows, BTreeMap::new());
}

#[test]
fn assignments_are_not_computed_more_often_than_the_interval() {
    let mut bench = Bench::new();
    bench.config.assignment_interval_ms = 1_000;
    bench.topic("t", 4);
    let mut a = bench.join("a", &["t"]);
    let mut b = bench.join("b", &["t"]);
    let epoch = a.epoch;
    assert_eq!(bench.beat(&mut a), ErrorCode::None);
    assert_eq!((a.epoch, a.partitions().len()), (epoch, 4));
    assert_eq!(bench.state(), "Assigning");
    bench.pass(1_000);
    bench.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.partitions().len(), b.partitions().len()), (2, 2));
}

#[test]
fn members_of_both_protocols_share_a_group_until_one_kind_is_left() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let asked = bench.join_classic("", "t", &[]);
    assert_eq!(asked.error_code, ErrorCode::MemberIdRequired.code());
    let mut a = bench.join("a", &["t"]);
    assert_eq!(a.partitions().len(), 4);
    // One by one: told to wait, then to come again when the other has given up its share.
    let id = asked.member_id.to_string();
    let joined = bench.join_classic(&id, "t", &[]);
    assert_eq!(
        (joined.error_code, joined.protocol_name.as_deref()),
        (0, Some("range"))
    );
    assert_eq!(assigned(&bench.sync(&joined)), [0; 0]);
    assert_eq!(
        bench.beat_classic(&joined),
        ErrorCode::None,
        "it waits for the other"
    );
    bench.settle(&mut [&mut a]);
    assert_eq!(a.partitions().len(), 2);
    assert_eq!(bench.beat_classic(&joined), ErrorCode::RebalanceInProgress);
    bench.restart();
    let joined = bench.join_classic(&id, "t", &[]);
    let own = assigned(&bench.sync(&joined));
    assert_eq!(own.len(), 2);
    assert_eq!(bench.beat_classic(&joined), ErrorCode::None);
    assert_eq!(
        (bench.state().as_str(), bench.group_type().as_str()),
        ("Stable", "consumer")
    );
    // The last of the new protocol goes: the group is a classic one, in which the other goes on.
    assert_eq!(bench.leave(&a, -1), ErrorCode::None);
    assert_eq!(bench.group_type(), "classic");
    assert_eq!(bench.beat_classic(&joined), ErrorCode::RebalanceInProgress);
    assert!(bench.rows.keys().all(|key| key.starts_with(b"group/")));
    let joined = bench.join_classic(&id, "t", &own);
    assert_eq!(
        (joined.error_code, joined.leader.clone()),
        (0, joined.member_id.clone())
    );
    // And back: who was in the classic group joins again.
    let waiting = bench.sync(&joined);
    assert_eq!(waiting.error_code, 0);
    let mut a = bench.join("a", &["t"]);
    assert_eq!(bench.group_type(), "consumer");
    assert!(bench.rows.keys().all(|key| key.starts_with(b"consumer-group/")));
    let joined = bench.join_classic(&id, "t", &[]);
    bench.settle(&mut [&mut a]);
    let joined = match bench.beat_classic(&joined) {
        ErrorCode::None => joined,
        _ => bench.join_classic(&id, "t", &[]),
    };
    assert_eq!(assigned(&bench.sync(&joined)).len() + a.partitions().len(), 4);
    // A classic member that does not come again in time is gone.
    bench.topic("t", 8);
    bench.settle(&mut [&mut a]);
    assert_eq!(bench.beat_classic(&joined), ErrorCode::RebalanceInProgress);
    for _ in 0..13 {
        bench.pass(5_000);
        bench.beat_classic(&joined);
        bench.beat(&mut a);
    }
    assert_eq!(bench.beat_classic(&joined), ErrorCode::UnknownMemberId);
    bench.settle(&mut [&mut a]);
    assert_eq!(a.partitions().len(), 8);
}

#[test]
fn a_policy_may_forbid_the_change() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    bench.config.upgrade = false;
    let asked = bench.join_classic("", "t", &[]);
    let id = asked.member_id.to_string();
    let request = |bench: &mut Bench| {
        let mut member = Member::new("a");
        bench.try_join(&mut member, &["t"], None)
    };
    assert!(bench.ask_join(&id, "t", &[]).is_none(), "it waits for others");
    assert_eq!(request(&mut bench), ErrorCode::GroupIdNotFound);
    bench.config.upgrade = true;
    assert_eq!(request(&mut bench), ErrorCode::None);
}
