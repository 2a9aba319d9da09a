//! One member of a streams group, and its stored forms.

use std::collections::BTreeMap;

use milena_protocol::Str;
use milena_protocol::messages::StreamsGroupHeartbeatRequest;
use milena_protocol::stored::streams_group_member_metadata_value::{Endpoint as StoredEndpoint, KeyValue};
use milena_protocol::stored::{StreamsGroupCurrentMemberAssignmentValue, StreamsGroupMemberMetadataValue};

use super::tasks::{Held, load_held, store_held};
use crate::Client;

/// Where a member is on its way to the target. The numbers are those that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum MemberState {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable = 0,
    /// It was told to give up tasks and has not said that it has.
    UnrevokedTasks = 1,
    /// It waits for tasks that others have, or that its own process has in another role.
    UnreleasedTasks = 2,
}

/// Where others can ask for the state that a member has (KIP-535).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: Str,
    pub(super) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Member {
    pub(super) id: Str,
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    pub(super) said: Said,
    pub(super) assigned: Held,
    pub(super) revoking: Held,
}

/// What a member said of itself, which is stored apart from what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) rack_id: Option<Str>,
    pub(super) client_id: Str,
    pub(super) client_host: Str,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topology_epoch: i32,
    /// The same for all members of one process: a task is there once in a process.
    pub(super) process_id: Str,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) client_tags: BTreeMap<Str, Str>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            rack_id: None,
            client_id: Str::default(),
            client_host: Str::default(),
            rebalance_timeout_ms: -1,
            topology_epoch: -1,
            process_id: Str::default(),
            endpoint: None,
            client_tags: BTreeMap::new(),
        }
    }
}

impl Member {
    pub(super) fn new(id: Str) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    /// Goes to an epoch; the one before it is still accepted from the member, whose reply may be lost.
    pub(super) fn reach(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    pub(super) fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == assignment_epoch
    }

    pub(super) fn current(&self) -> StreamsGroupCurrentMemberAssignmentValue {
        let mut value = StreamsGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state as i8,
            ..StreamsGroupCurrentMemberAssignmentValue::default()
        };
        store_held(&mut value, &self.assigned, &self.revoking);
        value
    }

    pub(super) fn load_current(&mut self, value: StreamsGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = match value.state {
            1 => MemberState::UnrevokedTasks,
            2 => MemberState::UnreleasedTasks,
            _ => MemberState::Stable,
        };
        (self.assigned, self.revoking) = load_held(value);
    }
}

impl Said {
    /// What the request says; what it leaves out stays.
    pub(super) fn take_over(&mut self, client: &Client, request: &StreamsGroupHeartbeatRequest) {
        if let Some(rack) = &request.rack_id {
            self.rack_id = Some(rack.detached());
        }
        if request.rebalance_timeout_ms != -1 {
            self.rebalance_timeout_ms = request.rebalance_timeout_ms;
        }
        if let Some(topology) = &request.topology {
            self.topology_epoch = topology.epoch;
        }
        if let Some(process) = &request.process_id {
            self.process_id = process.detached();
        }
        if let Some(endpoint) = &request.user_endpoint {
            self.endpoint = Some(Endpoint {
                host: endpoint.host.detached(),
                port: endpoint.port,
            });
        }
        if let Some(tags) = &request.client_tags {
            let tags = tags.iter();
            self.client_tags = tags
                .map(|tag| (tag.key.detached(), tag.value.detached()))
                .collect();
        }
        if self.client_id != client.client_id {
            self.client_id = client.client_id.detached();
        }
        if self.client_host != client.client_host {
            self.client_host = client.client_host.detached();
        }
    }

    /// What it takes in memory, so that many small names count too.
    pub(super) fn bytes(&self) -> usize {
        let tags = self.client_tags.iter();
        let tags: usize = tags
            .map(|(key, value)| 2 * size_of::<Str>() + key.len() + value.len())
            .sum();
        let endpoint = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.host.len());
        size_of::<Member>() + tags + endpoint + self.process_id.len()
    }

    pub(super) fn stored(&self) -> StreamsGroupMemberMetadataValue {
        let tags = self.client_tags.iter().map(|(key, value)| KeyValue {
            key: key.clone(),
            value: value.clone(),
            ..KeyValue::default()
        });
        let endpoint = self.endpoint.as_ref().map(|endpoint| StoredEndpoint {
            host: endpoint.host.clone(),
            port: endpoint.port,
            ..StoredEndpoint::default()
        });
        StreamsGroupMemberMetadataValue {
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            topology_epoch: self.topology_epoch,
            process_id: self.process_id.clone(),
            user_endpoint: endpoint,
            client_tags: tags.collect(),
            ..StreamsGroupMemberMetadataValue::default()
        }
    }

    pub(super) fn load(value: StreamsGroupMemberMetadataValue) -> Self {
        let tags = value.client_tags.into_iter();
        Self {
            rack_id: value.rack_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            topology_epoch: value.topology_epoch,
            process_id: value.process_id,
            endpoint: value.user_endpoint.map(|endpoint| Endpoint {
                host: endpoint.host,
                port: endpoint.port,
            }),
            client_tags: tags.map(|tag| (tag.key, tag.value)).collect(),
        }
    }
}
