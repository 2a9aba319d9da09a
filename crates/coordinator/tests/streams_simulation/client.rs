//! A member as it sees itself: what it believes, and what it uses.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::Str;
use milena_protocol::messages::streams_group_heartbeat_request::{
    Subtopology, TaskIds, TopicInfo as InternalTopic, Topology,
};
use milena_protocol::messages::{
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, streams_group_heartbeat_response,
};

pub(crate) const GROUP: &str = "g";
pub(crate) const REBALANCE_MS: i32 = 5_000;
pub(crate) const SOURCE: &str = "lines";
pub(crate) const REPARTITION: &str = "g-words-repartition";
pub(crate) const CHANGELOG: &str = "g-counts-changelog";

pub(crate) type Tasks = BTreeSet<(Str, i32)>;

/// One subtopology that reads the source and writes what another one counts.
pub(crate) fn topology(epoch: i32) -> Topology {
    let internal = |name: &'static str| InternalTopic {
        name: Str::from(name),
        ..InternalTopic::default()
    };
    let reader = Subtopology {
        subtopology_id: Str::from("0"),
        source_topics: vec![Str::from(SOURCE)],
        repartition_sink_topics: vec![Str::from(REPARTITION)],
        ..Subtopology::default()
    };
    let counter = Subtopology {
        subtopology_id: Str::from("1"),
        repartition_source_topics: vec![internal(REPARTITION)],
        state_changelog_topics: vec![internal(CHANGELOG)],
        ..Subtopology::default()
    };
    Topology {
        epoch,
        subtopologies: vec![reader, counter],
        ..Topology::default()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: Str,
    pub(crate) process: Str,
    pub(crate) topology_epoch: i32,
    pub(crate) epoch: i32,
    /// What it works on, and what it keeps ready.
    pub(crate) active: Tasks,
    pub(crate) standby: Tasks,
    /// What it was given last.
    pub(crate) given_active: Tasks,
    pub(crate) given_standby: Tasks,
    /// It does nothing until then.
    pub(crate) paused_until_ms: i64,
    /// It has something to tell with its next heartbeat.
    pub(crate) tells: bool,
}

fn ids(tasks: &Tasks) -> Vec<TaskIds> {
    let mut by_subtopology: BTreeMap<&Str, Vec<i32>> = BTreeMap::new();
    for (subtopology, partition) in tasks {
        by_subtopology.entry(subtopology).or_default().push(*partition);
    }
    let ids = by_subtopology
        .into_iter()
        .map(|(subtopology, partitions)| TaskIds {
            subtopology_id: subtopology.clone(),
            partitions,
            ..TaskIds::default()
        });
    ids.collect()
}

fn heard(ids: &[streams_group_heartbeat_response::TaskIds]) -> Tasks {
    ids.iter()
        .flat_map(|ids| {
            ids.partitions
                .iter()
                .map(|partition| (ids.subtopology_id.clone(), *partition))
        })
        .collect()
}

impl Client {
    /// Gives up what it was told to give up, then takes what is new, and only then says so, as Kafka's client does: what
    /// it says that it does not have, it is not about to take.
    pub(crate) fn follow(&mut self) {
        if self.active == self.given_active && self.standby == self.given_standby {
            return;
        }
        self.active = self.given_active.clone();
        self.standby = self.given_standby.clone();
        self.tells = true;
    }

    /// Forgets everything and will join anew.
    pub(crate) fn abandon(&mut self) {
        self.active.clear();
        self.standby.clear();
        self.given_active.clear();
        self.given_standby.clear();
        self.epoch = 0;
        self.tells = true;
    }

    pub(crate) fn heartbeat(&self) -> StreamsGroupHeartbeatRequest {
        let joins = self.epoch == 0;
        let tells = joins || self.tells;
        let tasks = |tasks: &Tasks| tells.then(|| if joins { Vec::new() } else { ids(tasks) });
        StreamsGroupHeartbeatRequest {
            group_id: Str::from(GROUP),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { REBALANCE_MS } else { -1 },
            topology: joins.then(|| topology(self.topology_epoch)),
            active_tasks: tasks(&self.active),
            standby_tasks: tasks(&self.standby),
            warmup_tasks: tells.then(Vec::new),
            process_id: joins.then(|| self.process.clone()),
            ..StreamsGroupHeartbeatRequest::default()
        }
    }

    pub(crate) fn hear(&mut self, response: &StreamsGroupHeartbeatResponse) {
        self.epoch = response.member_epoch;
        if let (Some(active), Some(standby)) = (&response.active_tasks, &response.standby_tasks) {
            self.given_active = heard(active);
            self.given_standby = heard(standby);
        }
    }
}
