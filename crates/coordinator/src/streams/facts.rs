//! What is stored of a streams group, in Kafka's formats; the keys are in [`crate::facts`].

use bytes::Bytes;
use milena_protocol::Str;
use milena_protocol::stored::streams_group_metadata_value::LastAssignmentConfig;
use milena_protocol::stored::{
    StreamsGroupCurrentMemberAssignmentValue, StreamsGroupMemberMetadataValue, StreamsGroupMetadataValue,
    StreamsGroupTargetAssignmentMemberValue, StreamsGroupTargetAssignmentMetadataValue,
};

use super::StreamsGroup;
use super::member::{Member, Said};
use super::tasks::Target;
use super::topology::Topology;
use crate::Effects;
use crate::facts::{self, LoadError, Part, PartsOf};

/// The only version of each of the values.
const VERSION: i16 = 0;
/// The one setting among those that an assignment follows.
const STANDBY_REPLICAS: &str = "num.standby.replicas";

impl StreamsGroup {
    /// Takes one of the stored facts, in any order. [`Self::loaded`] must follow the last.
    pub(crate) fn load(&mut self, part: Part, key: &Bytes, value: &Bytes) -> Result<(), LoadError> {
        match part {
            Part::Group => {
                let value: StreamsGroupMetadataValue = facts::decode(key, value)?;
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
                self.validated_topology_epoch = value.validated_topology_epoch;
                let configs = value.last_assignment_configs.unwrap_or_default();
                let replicas = configs.iter().find(|config| *config.key == *STANDBY_REPLICAS);
                self.standby_replicas = replicas.and_then(|config| config.value.parse().ok());
            }
            Part::Assignment => {
                let value: StreamsGroupTargetAssignmentMetadataValue = facts::decode(key, value)?;
                self.assignment_epoch = value.assignment_epoch;
                self.assigned_at_ms = value.assignment_timestamp;
            }
            Part::Topology => self.topology = Some(Topology::load(key, value)?),
            Part::Member(id) => {
                let value: StreamsGroupMemberMetadataValue = facts::decode(key, value)?;
                self.member_to_load(id).said = Said::load(value);
            }
            Part::Current(id) => {
                let value: StreamsGroupCurrentMemberAssignmentValue = facts::decode(key, value)?;
                self.member_to_load(id).load_current(value);
            }
            Part::Target(id) => {
                let value: StreamsGroupTargetAssignmentMemberValue = facts::decode(key, value)?;
                self.target.insert(id, Target::load(value));
            }
            Part::States | Part::Regex(_) => return Err(LoadError::UnknownKey(key.clone())),
        }
        Ok(())
    }

    fn member_to_load(&mut self, id: Str) -> &mut Member {
        self.members.entry(id.clone()).or_insert_with(|| Member::new(id))
    }

    /// Everything stored has been taken.
    pub(crate) fn loaded(&mut self) {
        for member in std::mem::take(&mut self.members).into_values() {
            self.put_member(member);
        }
    }

    pub(super) fn store_group(&self, effects: &mut Effects) {
        let configs = self.standby_replicas.map(|replicas| LastAssignmentConfig {
            key: Str::from_static(STANDBY_REPLICAS),
            value: Str::from(replicas.to_string()),
            ..LastAssignmentConfig::default()
        });
        let value = StreamsGroupMetadataValue {
            epoch: self.epoch,
            metadata_hash: self.metadata_hash,
            validated_topology_epoch: self.validated_topology_epoch,
            last_assignment_configs: Some(configs.into_iter().collect()),
            ..StreamsGroupMetadataValue::default()
        };
        effects.put(self.key(&Part::Group), facts::encode(&value, VERSION));
    }

    pub(super) fn store_assignment(&self, effects: &mut Effects) {
        let value = StreamsGroupTargetAssignmentMetadataValue {
            assignment_epoch: self.assignment_epoch,
            assignment_timestamp: self.assigned_at_ms,
            ..StreamsGroupTargetAssignmentMetadataValue::default()
        };
        effects.put(self.key(&Part::Assignment), facts::encode(&value, VERSION));
    }

    pub(super) fn store_topology(&self, effects: &mut Effects) {
        if let Some(topology) = &self.topology {
            effects.put(self.key(&Part::Topology), topology.stored());
        }
    }

    pub(super) fn store_member(&self, effects: &mut Effects, member: &Member) {
        let key = self.key(&Part::Member(member.id.clone()));
        effects.put(key, facts::encode(&member.said.stored(), VERSION));
    }

    pub(super) fn store_current(&self, effects: &mut Effects, member: &Member) {
        let key = self.key(&Part::Current(member.id.clone()));
        effects.put(key, facts::encode(&member.current(), VERSION));
    }

    pub(super) fn store_target(&self, effects: &mut Effects, member_id: &Str, target: &Target) {
        let key = self.key(&Part::Target(member_id.clone()));
        effects.put(key, facts::encode(&target.stored(), VERSION));
    }

    pub(super) fn forget_member(&self, effects: &mut Effects, member_id: &Str) {
        effects.remove(self.key(&Part::Current(member_id.clone())));
        effects.remove(self.key(&Part::Target(member_id.clone())));
        effects.remove(self.key(&Part::Member(member_id.clone())));
    }

    /// Removes everything that is stored.
    pub(crate) fn forget(&self, effects: &mut Effects) {
        for member in self.members.keys() {
            self.forget_member(effects, member);
        }
        effects.remove(self.key(&Part::Assignment));
        effects.remove(self.key(&Part::Topology));
        effects.remove(self.key(&Part::Group));
    }

    fn key(&self, part: &Part) -> Bytes {
        facts::part_key(PartsOf::Streams, &self.id, part)
    }
}
