//! How a member gets from what it has to its target (KIP-848): what the target takes away is given up first, and
//! what others have not given up yet is not given to it.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::Uuid;

use super::member::{Assigned, Member, MemberState};
use crate::modern::TopicPartitions;

/// What a member is to reach.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) epoch: i32,
    pub(super) partitions: &'a TopicPartitions,
    /// What the member subscribes to by now: the target may be older.
    pub(super) subscribed: &'a BTreeSet<Uuid>,
}

impl Target<'_> {
    fn of(&self, topic: &Uuid) -> Option<&BTreeSet<i32>> {
        let subscribed = self.subscribed.contains(topic);
        self.partitions.get(topic).filter(|_| subscribed)
    }
}

/// Whether it has partitions of topics that it does not subscribe to any more.
fn has_more(member: &Member, target: &Target<'_>) -> bool {
    !member
        .assigned
        .keys()
        .all(|topic| target.subscribed.contains(topic))
}

/// The member after its next step. `is_free` tells whether nobody holds a partition. `owned` is what the member
/// says that it has, if it says it.
pub(super) fn reconcile(
    member: &Member,
    target: &Target<'_>,
    owned: Option<&TopicPartitions>,
    is_free: impl Fn(&Uuid, i32) -> bool,
) -> Member {
    let epoch = match member.state {
        MemberState::Stable if member.epoch == target.epoch && !has_more(member, target) => {
            return member.clone();
        }
        MemberState::UnrevokedPartitions => {
            if still_owns(owned, &member.revoking) {
                return member.clone();
            }
            // It has given up what it had to, and may go on from the epoch that asked for it.
            target.epoch.min(member.epoch.saturating_add(1))
        }
        MemberState::Stable | MemberState::UnreleasedPartitions => member.epoch,
    };
    next_assignment(member, epoch, target, owned, is_free)
}

fn next_assignment(
    member: &Member,
    epoch: i32,
    target: &Target<'_>,
    owned: Option<&TopicPartitions>,
    is_free: impl Fn(&Uuid, i32) -> bool,
) -> Member {
    let mut assigned = Assigned::new();
    let mut revoking = Assigned::new();
    let mut waits = false;
    for (topic, partitions) in &member.assigned {
        let wanted = target.of(topic);
        for (partition, since) in partitions {
            let kept = wanted.is_some_and(|wanted| wanted.contains(partition));
            let to = if kept { &mut assigned } else { &mut revoking };
            to.entry(*topic).or_default().insert(*partition, *since);
        }
    }
    let mut next = member.clone();
    if still_owns(owned, &revoking) {
        next.state = MemberState::UnrevokedPartitions;
        next.reach(epoch);
        next.assigned = assigned;
        next.revoking = revoking;
        return next;
    }
    let wanted = target.subscribed.iter();
    for (topic, wanted) in wanted.filter_map(|topic| Some((topic, target.of(topic)?))) {
        for partition in wanted {
            let has = assigned
                .get(topic)
                .is_some_and(|partitions| partitions.contains_key(partition));
            if has {
                continue;
            }
            if is_free(topic, *partition) {
                assigned
                    .entry(*topic)
                    .or_default()
                    .insert(*partition, target.epoch);
            } else {
                waits = true;
            }
        }
    }
    next.state = match waits {
        true => MemberState::UnreleasedPartitions,
        false => MemberState::Stable,
    };
    next.reach(target.epoch);
    next.assigned = assigned;
    next.revoking = Assigned::new();
    next
}

/// Whether the member may still use one of the partitions; it is believed to until it says what it has.
fn still_owns(owned: Option<&TopicPartitions>, revoking: &Assigned) -> bool {
    if revoking.is_empty() {
        return false;
    }
    let Some(owned) = owned else {
        return true;
    };
    owned.iter().any(|(topic, partitions)| {
        revoking.get(topic).is_some_and(|revoking| {
            partitions
                .iter()
                .any(|partition| revoking.contains_key(partition))
        })
    })
}

/// Whether everything in `owned` is among what is assigned.
pub(super) fn is_subset(owned: Option<&TopicPartitions>, assigned: &Assigned) -> bool {
    owned.is_some_and(|owned| {
        owned.iter().all(|(topic, partitions)| {
            assigned.get(topic).is_some_and(|assigned| {
                partitions
                    .iter()
                    .all(|partition| assigned.contains_key(partition))
            })
        })
    })
}

/// Without the epochs since which the partitions are assigned.
pub(super) fn partitions_of(assigned: &Assigned) -> TopicPartitions {
    assigned
        .iter()
        .map(|(topic, partitions)| (*topic, partitions.keys().copied().collect::<BTreeSet<i32>>()))
        .collect::<BTreeMap<_, _>>()
}
