//! A member as it sees itself: what it believes, and what it uses.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use milena_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use milena_protocol::{Str, Uuid};

pub(crate) const GROUP: &str = "g";
pub(crate) const REBALANCE_MS: i32 = 5_000;

/// Where a member of the classic protocol stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Classic {
    Out,
    /// Its JoinGroup waits.
    Joining,
    /// It may sync; the leader with what it gives to whom.
    Joined {
        given: BTreeMap<Str, BTreeMap<Str, Vec<i32>>>,
    },
    Syncing,
    In,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) number: u64,
    /// `None`: it uses the consumer protocol.
    pub(crate) classic: Option<Classic>,
    pub(crate) id: Str,
    pub(crate) instance: Option<Str>,
    /// Or generation.
    pub(crate) epoch: i32,
    /// The epoch before; 0 until there was one.
    pub(crate) previous_epoch: i32,
    pub(crate) topics: Vec<Str>,
    pub(crate) pattern: Option<Str>,
    /// What it reads from.
    pub(crate) used: BTreeSet<(Uuid, i32)>,
    /// What it was given last.
    pub(crate) given: BTreeSet<(Uuid, i32)>,
    /// It does nothing until then.
    pub(crate) paused_until_ms: i64,
    /// A static member whose instance is another's by now.
    pub(crate) is_dead: bool,
    /// It has something to tell with its next heartbeat.
    pub(crate) tells_all: bool,
}

impl Client {
    /// Gives up what it was told to give up.
    pub(crate) fn revoke(&mut self) {
        let given = &self.given;
        let before = self.used.len();
        self.used.retain(|partition| given.contains(partition));
        self.tells_all |= self.used.len() < before;
    }

    /// Forgets everything and will join anew.
    pub(crate) fn abandon(&mut self) {
        self.used.clear();
        self.given.clear();
        self.previous_epoch = self.previous_epoch.max(self.epoch);
        self.epoch = 0;
        self.tells_all = true;
    }

    pub(crate) fn heartbeat(&self, says_all: bool) -> ConsumerGroupHeartbeatRequest {
        let joins = self.epoch == 0;
        let all = joins || says_all;
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.used {
            owned.entry(*topic).or_default().push(*partition);
        }
        let owned = owned.into_iter().map(|(topic_id, partitions)| TopicPartitions {
            topic_id,
            partitions,
            ..TopicPartitions::default()
        });
        ConsumerGroupHeartbeatRequest {
            group_id: Str::from(GROUP),
            member_id: self.id.clone(),
            instance_id: self.instance.clone(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if all { REBALANCE_MS } else { -1 },
            subscribed_topic_names: all.then(|| self.topics.clone()),
            // Who says nothing keeps the pattern of the static member in whose place it comes, in Kafka too.
            subscribed_topic_regex: all.then(|| self.pattern.clone().unwrap_or_default()),
            topic_partitions: all.then(|| owned.collect()),
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }

    /// Takes what is new at once; what is gone waits for [`Self::revoke`].
    pub(crate) fn hear(&mut self, response: &ConsumerGroupHeartbeatResponse) {
        if self.epoch > 0 && self.epoch != response.member_epoch {
            self.previous_epoch = self.epoch;
        }
        self.epoch = response.member_epoch;
        if let Some(assignment) = &response.assignment {
            let topics = assignment.topic_partitions.iter();
            self.given = topics
                .flat_map(|topic| {
                    topic
                        .partitions
                        .iter()
                        .map(|partition| (topic.topic_id, *partition))
                })
                .collect();
            let takes = self.used.is_subset(&self.given);
            if takes {
                self.tells_all |= self.used != self.given;
                self.used = self.given.clone();
            }
        }
    }
}
