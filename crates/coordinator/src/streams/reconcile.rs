//! How a member gets from what it has to its target (KIP-1071): what the target takes away is given up first, and no
//! task is given that another member has not given up, or that the member's own process has in another role.

use milena_protocol::Str;

use super::member::{Member, MemberState};
use super::tasks::{Held, Owned, Target, Tasks, contains, each, each_since};

/// The member after its next step towards the target of an assignment epoch. `owned` is what it says that it has, if it
/// says it. `is_active` tells whether any member has a task as its active one, `is_in_process` whether the member's
/// process has it in any role.
pub(super) fn reconcile(
    member: &Member,
    target_epoch: i32,
    target: &Target,
    owned: Option<&Owned>,
    is_active: impl Fn(&Str, i32) -> bool,
    is_in_process: impl Fn(&Str, i32) -> bool,
) -> Member {
    let epoch = match member.state {
        MemberState::Stable if member.epoch == target_epoch => return member.clone(),
        MemberState::UnrevokedTasks => {
            if owned.is_none_or(|owned| owned.has_any(&member.revoking)) {
                return member.clone();
            }
            // It has given up what it had to, and may go on from the epoch that asked for it.
            target_epoch.min(member.epoch.saturating_add(1))
        }
        MemberState::Stable | MemberState::UnreleasedTasks => member.epoch,
    };
    let (kept, revoking) = split(&member.assigned, target);
    let mut next = member.clone();
    if !revoking.is_empty() && owned.is_none_or(|owned| owned.has_any(&revoking)) {
        next.state = MemberState::UnrevokedTasks;
        next.reach(epoch);
        next.assigned = kept;
        next.revoking = revoking;
        return next;
    }
    let mut assigned = kept;
    let mut waits = false;
    for (subtopology, partition) in each(&target.active) {
        let of_subtopology = assigned.active.get(subtopology);
        if of_subtopology.is_some_and(|partitions| partitions.contains_key(&partition)) {
            continue;
        }
        if is_active(subtopology, partition) || is_in_process(subtopology, partition) {
            waits = true;
        } else {
            let partitions = assigned.active.entry(subtopology.clone()).or_default();
            partitions.insert(partition, target_epoch);
        }
    }
    waits |= take(&mut assigned.standby, &target.standby, &is_in_process);
    waits |= take(&mut assigned.warmup, &target.warmup, &is_in_process);
    next.state = match waits {
        true => MemberState::UnreleasedTasks,
        false => MemberState::Stable,
    };
    next.reach(target_epoch);
    next.assigned = assigned;
    next.revoking = Held::default();
    next
}

/// What stays, and what is to be given up.
fn split(held: &Held, target: &Target) -> (Held, Held) {
    let (mut kept, mut revoking) = (Held::default(), Held::default());
    for (subtopology, partition, since) in each_since(&held.active) {
        let to = match contains(&target.active, subtopology, partition) {
            true => &mut kept,
            false => &mut revoking,
        };
        let partitions = to.active.entry(subtopology.clone()).or_default();
        partitions.insert(partition, since);
    }
    let split_passive = |held: &Tasks, target: &Tasks, kept: &mut Tasks, revoking: &mut Tasks| {
        for (subtopology, partition) in each(held) {
            let to = match contains(target, subtopology, partition) {
                true => &mut *kept,
                false => &mut *revoking,
            };
            to.entry(subtopology.clone()).or_default().insert(partition);
        }
    };
    split_passive(
        &held.standby,
        &target.standby,
        &mut kept.standby,
        &mut revoking.standby,
    );
    split_passive(
        &held.warmup,
        &target.warmup,
        &mut kept.warmup,
        &mut revoking.warmup,
    );
    (kept, revoking)
}

/// Gives what is free, and tells whether something was not.
fn take(assigned: &mut Tasks, target: &Tasks, is_in_process: impl Fn(&Str, i32) -> bool) -> bool {
    let mut waits = false;
    for (subtopology, partition) in each(target) {
        if contains(assigned, subtopology, partition) {
            continue;
        }
        if is_in_process(subtopology, partition) {
            waits = true;
        } else {
            assigned.entry(subtopology.clone()).or_default().insert(partition);
        }
    }
    waits
}
