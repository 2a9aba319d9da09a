//! The assignor by itself.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::Str;

use super::assignor::{Subscriber, Work, assign};
use super::tasks::{Target, each};

struct Member {
    id: Str,
    process: Str,
}

fn members(processes: &[(&'static str, usize)]) -> Vec<Member> {
    let members = processes.iter().flat_map(|(process, count)| {
        (0..*count).map(move |index| Member {
            id: Str::from(format!("{process}-{index}")),
            process: Str::from(*process),
        })
    });
    members.collect()
}

fn run(
    members: &[Member],
    work: &[(&'static str, i32, bool)],
    before: &BTreeMap<Str, Target>,
    replicas: usize,
) -> BTreeMap<Str, Target> {
    let ids: Vec<Str> = work.iter().map(|(id, _, _)| Str::from(*id)).collect();
    let work: Vec<Work<'_>> = work
        .iter()
        .zip(&ids)
        .map(|((_, tasks, is_stateful), subtopology)| Work {
            subtopology,
            tasks: *tasks,
            is_stateful: *is_stateful,
        })
        .collect();
    let subscribers: Vec<Subscriber<'_>> = members
        .iter()
        .map(|member| Subscriber {
            id: &member.id,
            process_id: &member.process,
            target: before.get(&member.id),
        })
        .collect();
    let targets = assign(&subscribers, &work, replicas);
    check(members, &work, &targets, replicas);
    targets
}

/// Each task is active once, and never twice in one process; replicas are as many as there are processes for.
fn check(members: &[Member], work: &[Work<'_>], targets: &BTreeMap<Str, Target>, replicas: usize) {
    let mut active = BTreeSet::new();
    let mut in_process = BTreeSet::new();
    let mut standbys: BTreeMap<(Str, i32), usize> = BTreeMap::new();
    for member in members {
        let target = &targets[&member.id];
        for (subtopology, partition) in each(&target.active) {
            assert!(active.insert((subtopology.clone(), partition)), "active twice");
        }
        for (subtopology, partition) in each(&target.standby) {
            *standbys.entry((subtopology.clone(), partition)).or_default() += 1;
        }
        for (subtopology, partition) in each(&target.active).chain(each(&target.standby)) {
            let task = (member.process.clone(), subtopology.clone(), partition);
            assert!(in_process.insert(task), "twice in one process");
        }
    }
    let processes: BTreeSet<&Str> = members.iter().map(|member| &member.process).collect();
    for one in work {
        for partition in 0..one.tasks {
            let task = (one.subtopology.clone(), partition);
            assert!(active.contains(&task), "{task:?} is nowhere");
            let wanted = replicas.min(processes.len() - 1) * usize::from(one.is_stateful);
            assert_eq!(standbys.get(&task).copied().unwrap_or(0), wanted, "{task:?}");
        }
    }
}

fn counts(targets: &BTreeMap<Str, Target>) -> Vec<usize> {
    targets
        .values()
        .map(|target| each(&target.active).count())
        .collect()
}

fn moved(before: &BTreeMap<Str, Target>, after: &BTreeMap<Str, Target>) -> usize {
    let of = |targets: &BTreeMap<Str, Target>, id: &Str| -> BTreeSet<(Str, i32)> {
        let target = targets
            .get(id)
            .into_iter()
            .flat_map(|target| each(&target.active));
        target.map(|(id, partition)| (id.clone(), partition)).collect()
    };
    after
        .keys()
        .map(|id| of(after, id).difference(&of(before, id)).count())
        .sum()
}

#[test]
fn tasks_are_shared_alike_by_threads_and_by_processes() {
    let three = members(&[("p1", 1), ("p2", 2)]);
    let targets = run(&three, &[("0", 6, false), ("1", 3, true)], &BTreeMap::new(), 0);
    assert_eq!(counts(&targets), [3, 3, 3]);
}

#[test]
fn a_member_that_comes_takes_no_more_than_its_share_and_one_that_goes_gives_only_its_own() {
    let work = [("0", 6, true), ("1", 6, false)];
    let two = members(&[("p1", 1), ("p2", 1)]);
    let before = run(&two, &work, &BTreeMap::new(), 0);
    let three = members(&[("p1", 1), ("p2", 1), ("p3", 1)]);
    let after = run(&three, &work, &before, 0);
    assert_eq!(counts(&after), [4, 4, 4]);
    assert_eq!(moved(&before, &after), 4);
    let again = run(&two, &work, &after, 0);
    assert_eq!(counts(&again), [6, 6]);
    assert_eq!(moved(&after, &again), 4);
}

#[test]
fn a_standby_becomes_active_where_the_active_one_went_away() {
    let tasks = |partitions: &[i32]| BTreeMap::from([(Str::from("0"), partitions.iter().copied().collect())]);
    let had = |active: &[i32], standby: &[i32]| Target {
        active: tasks(active),
        standby: tasks(standby),
        ..Target::default()
    };
    let before = BTreeMap::from([
        (Str::from("p1-0"), had(&[0], &[2])),
        (Str::from("p2-0"), had(&[1], &[3])),
    ]);
    let after = run(&members(&[("p1", 1), ("p2", 1)]), &[("0", 4, true)], &before, 1);
    assert_eq!(after["p1-0"], had(&[0, 2], &[1, 3]));
    assert_eq!(after["p2-0"], had(&[1, 3], &[0, 2]));
}

#[test]
fn what_is_assigned_stays_when_nothing_changes() {
    for (processes, replicas) in [(vec![("p1", 3)], 0), (vec![("p1", 2), ("p2", 1), ("p3", 4)], 2)] {
        let all = members(&processes);
        let work = [("a", 7, true), ("b", 5, false), ("c", 11, true)];
        let first = run(&all, &work, &BTreeMap::new(), replicas);
        let second = run(&all, &work, &first, replicas);
        assert_eq!(moved(&first, &second), 0, "{processes:?}");
    }
}

#[test]
fn fewer_tasks_than_members_leave_some_idle() {
    let targets = run(&members(&[("p1", 4)]), &[("0", 2, true)], &BTreeMap::new(), 2);
    let mut counts = counts(&targets);
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 1, 1]);
    assert!(assign(&[], &[], 1).is_empty());
}
