//! One member of a classic group.

use bytes::Bytes;
use milena_protocol::Str;
use milena_protocol::messages::describe_groups_response::DescribedGroupMember;
use milena_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use milena_protocol::messages::join_group_response::JoinGroupResponseMember;
use milena_protocol::stored::group_metadata_value::MemberMetadata;

use crate::Ticket;

/// A JoinGroup that waits: its reply's form depends on the version of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parked {
    pub(crate) ticket: Ticket,
    pub(crate) version: i16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: Str,
    pub(crate) metadata: Bytes,
}

impl Protocol {
    /// What it takes in memory, so that many small ones count too.
    pub(crate) fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.metadata.len()
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// Set for static members (KIP-345).
    pub(crate) instance_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In the member's order of preference.
    pub(crate) protocols: Vec<Protocol>,
    /// Opaque, from the leader; empty when it gave none.
    pub(crate) assignment: Bytes,
    /// It has not been part of a generation yet, so it is expired even while its JoinGroup waits.
    pub(crate) is_new: bool,
    pub(crate) awaiting_join: Option<Parked>,
    pub(crate) awaiting_sync: Option<Ticket>,
}

impl Member {
    pub(crate) fn load(stored: MemberMetadata, protocol: Str) -> Self {
        let rebalance_timeout_ms = if stored.rebalance_timeout == -1 {
            stored.session_timeout
        } else {
            stored.rebalance_timeout
        };
        Self {
            id: stored.member_id,
            instance_id: stored.group_instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            rebalance_timeout_ms,
            session_timeout_ms: stored.session_timeout,
            protocols: vec![Protocol {
                name: protocol,
                metadata: stored.subscription,
            }],
            assignment: stored.assignment,
            is_new: false,
            awaiting_join: None,
            awaiting_sync: None,
        }
    }

    pub(crate) fn stored(&self, protocol: Option<&Str>) -> MemberMetadata {
        MemberMetadata {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout: self.rebalance_timeout_ms,
            session_timeout: self.session_timeout_ms,
            subscription: protocol.map(|name| self.metadata(name)).unwrap_or_default(),
            assignment: self.assignment.clone(),
            ..MemberMetadata::default()
        }
    }

    /// The names of its protocols in order of preference, each once, so that a name sent twice
    /// does not count as two members' support.
    pub(crate) fn protocol_names(&self) -> Vec<&Str> {
        let mut names: Vec<&Str> = Vec::with_capacity(self.protocols.len());
        let mut seen = std::collections::HashSet::with_capacity(self.protocols.len());
        for protocol in &self.protocols {
            if seen.insert(&protocol.name) {
                names.push(&protocol.name);
            }
        }
        names
    }

    pub(crate) fn metadata_bytes(&self) -> usize {
        self.protocols.iter().map(Protocol::size_bytes).sum()
    }

    /// Its metadata for a protocol; empty if it does not support it.
    pub(crate) fn metadata(&self, protocol: &Str) -> Bytes {
        let found = self.protocols.iter().find(|own| own.name == *protocol);
        found.map(|own| own.metadata.clone()).unwrap_or_default()
    }

    /// A member that waits for the others needs no heartbeat, unless it is new: nothing else
    /// would notice that its client has gone.
    pub(crate) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(crate) fn join_response_member(&self, protocol: Option<&Str>) -> JoinGroupResponseMember {
        JoinGroupResponseMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            metadata: protocol.map(|name| self.metadata(name)).unwrap_or_default(),
            ..JoinGroupResponseMember::default()
        }
    }

    pub(crate) fn describe(&self, protocol: Option<&Str>) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: protocol.map(|name| self.metadata(name)).unwrap_or_default(),
            member_assignment: self.assignment.clone(),
            ..DescribedGroupMember::default()
        }
    }
}

impl From<&JoinGroupRequestProtocol> for Protocol {
    fn from(request: &JoinGroupRequestProtocol) -> Self {
        Self {
            name: request.name.detached(),
            metadata: detached_bytes(&request.metadata),
        }
    }
}

/// A copy of its own, as [`Str::detached`] makes of strings. What a request carries are slices of
/// the buffer it arrived in; what a group keeps for days must not keep the whole buffer alive.
pub(crate) fn detached_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
