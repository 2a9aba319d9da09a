//! Tasks of a topology: which there are, what a member has of them, and their stored forms.
//!
//! A task is a subtopology and a partition number: it reads that partition of each of the subtopology's source topics. It is
//! *active* at one member, and may be *standby* (its state is kept up to date, KIP-441) or *warm-up* at others.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::Str;
use milena_protocol::messages::streams_group_heartbeat_request::TaskIds as OwnedTasks;
use milena_protocol::stored::streams_group_current_member_assignment_value::TaskIds as StoredTasks;
use milena_protocol::stored::streams_group_target_assignment_member_value::TaskIds as StoredTargetTasks;
use milena_protocol::stored::{
    StreamsGroupCurrentMemberAssignmentValue, StreamsGroupTargetAssignmentMemberValue,
};

/// Partition numbers by subtopology. A subtopology without any is not in it.
pub(super) type Tasks = BTreeMap<Str, BTreeSet<i32>>;

/// The same, each with the member epoch in which it was assigned (KIP-1251).
pub(super) type TasksSince = BTreeMap<Str, BTreeMap<i32, i32>>;

/// What a member is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Target {
    pub(super) active: Tasks,
    pub(super) standby: Tasks,
    pub(super) warmup: Tasks,
}

/// What a member has, or is giving up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub(super) active: TasksSince,
    pub(super) standby: Tasks,
    pub(super) warmup: Tasks,
}

/// What a member says that it has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Owned {
    pub(super) active: Tasks,
    pub(super) standby: Tasks,
    pub(super) warmup: Tasks,
}

pub(super) fn contains(tasks: &Tasks, subtopology: &str, partition: i32) -> bool {
    tasks
        .get(subtopology)
        .is_some_and(|partitions| partitions.contains(&partition))
}

pub(super) fn contains_since(tasks: &TasksSince, subtopology: &str, partition: i32) -> bool {
    tasks
        .get(subtopology)
        .is_some_and(|partitions| partitions.contains_key(&partition))
}

/// Each task, in order.
pub(super) fn each(tasks: &Tasks) -> impl Iterator<Item = (&Str, i32)> {
    tasks.iter().flat_map(|(subtopology, partitions)| {
        partitions.iter().map(move |partition| (subtopology, *partition))
    })
}

/// Each task, in order, with the epoch since which it is assigned.
pub(super) fn each_since(tasks: &TasksSince) -> impl Iterator<Item = (&Str, i32, i32)> {
    tasks.iter().flat_map(|(subtopology, partitions)| {
        partitions
            .iter()
            .map(move |(partition, since)| (subtopology, *partition, *since))
    })
}

/// Without the epochs.
pub(super) fn without_epochs(tasks: &TasksSince) -> Tasks {
    tasks
        .iter()
        .map(|(subtopology, partitions)| (subtopology.clone(), partitions.keys().copied().collect()))
        .collect()
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Standby and warm-up tasks.
    pub(super) fn passive(&self) -> impl Iterator<Item = (&Str, i32)> {
        each(&self.standby).chain(each(&self.warmup))
    }
}

impl Owned {
    /// Whether the member still has one of these, in the role in which it is to give it up.
    pub(super) fn has_any(&self, held: &Held) -> bool {
        each_since(&held.active)
            .any(|(subtopology, partition, _)| contains(&self.active, subtopology, partition))
            || each(&held.standby)
                .any(|(subtopology, partition)| contains(&self.standby, subtopology, partition))
            || each(&held.warmup)
                .any(|(subtopology, partition)| contains(&self.warmup, subtopology, partition))
    }

    /// Whether it has exactly these.
    pub(super) fn is_all_of(&self, held: &Held) -> bool {
        self.active == without_epochs(&held.active)
            && self.standby == held.standby
            && self.warmup == held.warmup
    }

    /// Whether it has nothing but these.
    pub(super) fn is_within(&self, held: &Held) -> bool {
        each(&self.active)
            .all(|(subtopology, partition)| contains_since(&held.active, subtopology, partition))
            && each(&self.standby)
                .all(|(subtopology, partition)| contains(&held.standby, subtopology, partition))
            && each(&self.warmup)
                .all(|(subtopology, partition)| contains(&held.warmup, subtopology, partition))
    }
}

/// Only to be compared: it shares the request's buffer.
pub(super) fn owned_tasks(ids: &[OwnedTasks]) -> Tasks {
    let mut tasks = Tasks::new();
    for of_subtopology in ids.iter().filter(|ids| !ids.partitions.is_empty()) {
        let partitions = tasks.entry(of_subtopology.subtopology_id.clone()).or_default();
        partitions.extend(of_subtopology.partitions.iter().copied());
    }
    tasks
}

// --- stored forms -----------------------------------------------------------------------------

fn stored(tasks: &Tasks) -> Vec<StoredTasks> {
    let of_subtopology = |(subtopology, partitions): (&Str, &BTreeSet<i32>)| StoredTasks {
        subtopology_id: subtopology.clone(),
        partitions: partitions.iter().copied().collect(),
        ..StoredTasks::default()
    };
    tasks.iter().map(of_subtopology).collect()
}

fn stored_since(tasks: &TasksSince) -> Vec<StoredTasks> {
    let of_subtopology = |(subtopology, partitions): (&Str, &BTreeMap<i32, i32>)| StoredTasks {
        subtopology_id: subtopology.clone(),
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..StoredTasks::default()
    };
    tasks.iter().map(of_subtopology).collect()
}

fn loaded(stored: Vec<StoredTasks>) -> Tasks {
    stored
        .into_iter()
        .filter(|tasks| !tasks.partitions.is_empty())
        .map(|tasks| (tasks.subtopology_id, tasks.partitions.into_iter().collect()))
        .collect()
}

fn loaded_since(stored: Vec<StoredTasks>, epoch: i32) -> TasksSince {
    let of_subtopology = |tasks: StoredTasks| {
        let epochs = tasks.assignment_epochs.unwrap_or_default();
        let known = epochs.len() == tasks.partitions.len();
        let since = |index: usize| epochs.get(index).copied().filter(|_| known).unwrap_or(epoch);
        let partitions = tasks.partitions.into_iter().enumerate();
        let partitions = partitions
            .map(|(index, partition)| (partition, since(index)))
            .collect();
        (tasks.subtopology_id, partitions)
    };
    stored
        .into_iter()
        .filter(|tasks| !tasks.partitions.is_empty())
        .map(of_subtopology)
        .collect()
}

/// What a member has, and what it is giving up.
pub(super) fn store_held(
    value: &mut StreamsGroupCurrentMemberAssignmentValue,
    assigned: &Held,
    revoking: &Held,
) {
    value.active_tasks = stored_since(&assigned.active);
    value.standby_tasks = stored(&assigned.standby);
    value.warmup_tasks = stored(&assigned.warmup);
    value.active_tasks_pending_revocation = stored_since(&revoking.active);
    value.standby_tasks_pending_revocation = stored(&revoking.standby);
    value.warmup_tasks_pending_revocation = stored(&revoking.warmup);
}

pub(super) fn load_held(value: StreamsGroupCurrentMemberAssignmentValue) -> (Held, Held) {
    let epoch = value.member_epoch;
    let assigned = Held {
        active: loaded_since(value.active_tasks, epoch),
        standby: loaded(value.standby_tasks),
        warmup: loaded(value.warmup_tasks),
    };
    let revoking = Held {
        active: loaded_since(value.active_tasks_pending_revocation, epoch),
        standby: loaded(value.standby_tasks_pending_revocation),
        warmup: loaded(value.warmup_tasks_pending_revocation),
    };
    (assigned, revoking)
}

impl Target {
    pub(super) fn stored(&self) -> StreamsGroupTargetAssignmentMemberValue {
        let stored = |tasks: &Tasks| {
            let of_subtopology = |(subtopology, partitions): (&Str, &BTreeSet<i32>)| StoredTargetTasks {
                subtopology_id: subtopology.clone(),
                partitions: partitions.iter().copied().collect(),
                ..StoredTargetTasks::default()
            };
            tasks.iter().map(of_subtopology).collect()
        };
        StreamsGroupTargetAssignmentMemberValue {
            active_tasks: stored(&self.active),
            standby_tasks: stored(&self.standby),
            warmup_tasks: stored(&self.warmup),
            ..StreamsGroupTargetAssignmentMemberValue::default()
        }
    }

    pub(super) fn load(value: StreamsGroupTargetAssignmentMemberValue) -> Self {
        let loaded = |stored: Vec<StoredTargetTasks>| {
            let tasks = stored.into_iter();
            tasks
                .map(|tasks| (tasks.subtopology_id, tasks.partitions.into_iter().collect()))
                .collect()
        };
        Self {
            active: loaded(value.active_tasks),
            standby: loaded(value.standby_tasks),
            warmup: loaded(value.warmup_tasks),
        }
    }
}
