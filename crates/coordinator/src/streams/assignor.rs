//! The assignor of streams groups (`sticky`): who is to have which tasks, from the processes that the members belong to
//! and the target before, so that little moves.
//!
//! Active tasks stay where they were, go to who had them as standby, or else to the process with the least load;
//! standby tasks likewise, never to a process that has the task already. Kafka 4.3.1's assignor gives no warm-up tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use milena_protocol::Str;

use super::tasks::{Target, Tasks, each};

/// What the assignor knows of a member.
#[derive(Debug, Clone)]
pub(super) struct Subscriber<'a> {
    pub(super) id: &'a Str,
    pub(super) process_id: &'a Str,
    /// What it was to have so far.
    pub(super) target: Option<&'a Target>,
}

/// A subtopology and how many tasks it has.
#[derive(Debug, Clone)]
pub(super) struct Work<'a> {
    pub(super) subtopology: &'a Str,
    pub(super) tasks: i32,
    /// It keeps state, so that standby tasks have something to do.
    pub(super) is_stateful: bool,
}

/// A subtopology by its place in the list, and a partition.
type Task = (usize, i32);

#[derive(Debug, Default)]
struct Process {
    members: BTreeSet<(usize, usize)>,
    tasks: BTreeSet<Task>,
    count: usize,
}

impl Process {
    /// Tasks for each member, in steps that tell any two apart.
    fn load(&self) -> u128 {
        ((self.count as u128) << 64) / (self.members.len().max(1) as u128)
    }
}

/// How many tasks one member is to have: the rest is shared anew each time that somebody has its share.
#[derive(Debug)]
struct Share {
    tasks: usize,
    members: usize,
    each: usize,
}

impl Share {
    fn new(tasks: usize, members: usize) -> Self {
        let mut share = Self {
            tasks,
            members,
            each: 0,
        };
        share.divide();
        share
    }

    fn divide(&mut self) {
        self.each = match self.members {
            0 => 0,
            members => self.tasks.div_ceil(members),
        };
    }

    fn taken(&mut self, count: usize) {
        if count == self.each {
            self.members = self.members.saturating_sub(1);
            self.tasks = self.tasks.saturating_sub(count);
            self.divide();
        }
    }
}

#[derive(Debug)]
struct Assignor {
    /// The process of each member.
    process_of: Vec<usize>,
    count_of: Vec<usize>,
    processes: Vec<Process>,
    by_load: BTreeSet<(u128, usize)>,
    active: Vec<BTreeSet<Task>>,
    standby: Vec<BTreeSet<Task>>,
    active_share: Share,
    share: Share,
    had_active: HashMap<Task, usize>,
    had_standby: HashMap<Task, Vec<usize>>,
}

/// Every member's target.
pub(super) fn assign(
    subscribers: &[Subscriber<'_>],
    work: &[Work<'_>],
    standby_replicas: usize,
) -> BTreeMap<Str, Target> {
    let mut assignor = Assignor::new(subscribers, work, standby_replicas);
    if !subscribers.is_empty() {
        assignor.assign_active(work);
        if standby_replicas > 0 {
            assignor.assign_standby(work, standby_replicas);
        }
    }
    let named = |tasks: &BTreeSet<Task>| {
        let mut named = Tasks::new();
        for (subtopology, partition) in tasks {
            let id = work[*subtopology].subtopology;
            named.entry(id.clone()).or_default().insert(*partition);
        }
        named
    };
    let targets = subscribers.iter().enumerate().map(|(member, subscriber)| {
        let target = Target {
            active: named(&assignor.active[member]),
            standby: named(&assignor.standby[member]),
            warmup: Tasks::new(),
        };
        (subscriber.id.clone(), target)
    });
    targets.collect()
}

fn all_tasks(work: &[Work<'_>], only_stateful: bool) -> Vec<Task> {
    let wanted = work
        .iter()
        .enumerate()
        .filter(|(_, one)| one.is_stateful || !only_stateful);
    wanted
        .flat_map(|(index, one)| (0..one.tasks).map(move |partition| (index, partition)))
        .collect()
}

impl Assignor {
    fn new(subscribers: &[Subscriber<'_>], work: &[Work<'_>], standby_replicas: usize) -> Self {
        let actives = all_tasks(work, false).len();
        let standbys = all_tasks(work, true).len() * standby_replicas;
        let members = subscribers.len();
        let mut assignor = Self {
            process_of: Vec::with_capacity(members),
            count_of: vec![0; members],
            processes: Vec::new(),
            by_load: BTreeSet::new(),
            active: vec![BTreeSet::new(); members],
            standby: vec![BTreeSet::new(); members],
            active_share: Share::new(actives, members),
            share: Share::new(actives + standbys, members),
            had_active: HashMap::new(),
            had_standby: HashMap::new(),
        };
        let places: HashMap<&str, usize> = work
            .iter()
            .enumerate()
            .map(|(index, one)| (&**one.subtopology, index))
            .collect();
        let mut processes: HashMap<&str, usize> = HashMap::new();
        for (member, subscriber) in subscribers.iter().enumerate() {
            let next = assignor.processes.len();
            let process = *processes.entry(subscriber.process_id).or_insert(next);
            if process == next {
                assignor.processes.push(Process::default());
            }
            assignor.processes[process].members.insert((0, member));
            assignor.process_of.push(process);
            let Some(target) = subscriber.target else {
                continue;
            };
            let place = |(subtopology, partition): (&Str, i32)| {
                places.get(&**subtopology).map(|index| (*index, partition))
            };
            for task in each(&target.active).filter_map(place) {
                assignor.had_active.insert(task, member);
            }
            for task in each(&target.standby).filter_map(place) {
                assignor.had_standby.entry(task).or_default().push(member);
            }
        }
        let loads = assignor.processes.iter().enumerate();
        assignor.by_load = loads.map(|(index, process)| (process.load(), index)).collect();
        assignor
    }

    fn give(&mut self, member: usize, task: Task, is_active: bool) {
        let index = self.process_of[member];
        let process = &mut self.processes[index];
        self.by_load.remove(&(process.load(), index));
        let count = self.count_of[member];
        process.members.remove(&(count, member));
        process.members.insert((count + 1, member));
        process.tasks.insert(task);
        process.count += 1;
        self.by_load.insert((process.load(), index));
        self.count_of[member] = count + 1;
        let of_member = match is_active {
            true => &mut self.active[member],
            false => &mut self.standby[member],
        };
        of_member.insert(task);
        if is_active {
            self.active_share.taken(count + 1);
        }
        self.share.taken(count + 1);
    }

    fn has_room_for_active(&self, member: usize) -> bool {
        self.count_of[member] < self.active_share.each
    }

    fn has_room(&self, member: usize) -> bool {
        self.count_of[member] < self.share.each
    }

    fn process_has(&self, member: usize, task: &Task) -> bool {
        self.processes[self.process_of[member]].tasks.contains(task)
    }

    /// Among those who had the task as standby, the one with the least to do.
    fn least_loaded(&self, members: Option<&Vec<usize>>, without: Option<&Task>) -> Option<usize> {
        let members = members?.iter().copied();
        members
            .filter(|member| without.is_none_or(|task| !self.process_has(*member, task)))
            .min_by_key(|member| {
                let process = &self.processes[self.process_of[*member]];
                (process.load(), self.count_of[*member])
            })
    }

    fn assign_active(&mut self, work: &[Work<'_>]) {
        let mut tasks = all_tasks(work, false);
        // The same partitions of different subtopologies were given together, and stay so.
        tasks.sort_unstable_by_key(|(subtopology, partition)| (*partition, *subtopology));
        tasks.retain(|task| match self.had_active.get(task).copied() {
            Some(member) if self.has_room_for_active(member) => {
                self.give(member, *task, true);
                false
            }
            _ => true,
        });
        tasks.retain(|task| match self.least_loaded(self.had_standby.get(task), None) {
            Some(member) if self.has_room_for_active(member) => {
                self.give(member, *task, true);
                false
            }
            _ => true,
        });
        tasks.sort_unstable();
        for task in tasks {
            let least = self.by_load.first().map(|(_, process)| *process);
            let member = least.and_then(|process| self.processes[process].members.first());
            if let Some((_, member)) = member.copied() {
                self.give(member, task, true);
            }
        }
    }

    fn assign_standby(&mut self, work: &[Work<'_>], replicas: usize) {
        let mut tasks = all_tasks(work, true);
        tasks.sort_unstable_by_key(|(subtopology, partition)| {
            (std::cmp::Reverse(*partition), std::cmp::Reverse(*subtopology))
        });
        let mut rest = Vec::new();
        for task in tasks {
            for replica in 0..replicas {
                let had_active = self.had_active.get(&task).copied();
                let had_active =
                    had_active.filter(|member| !self.process_has(*member, &task) && self.has_room(*member));
                let before = had_active.or_else(|| {
                    let had = self.least_loaded(self.had_standby.get(&task), Some(&task));
                    had.filter(|member| self.has_room(*member))
                });
                match before {
                    Some(member) => self.give(member, task, false),
                    None => {
                        rest.push((task, replicas - replica));
                        break;
                    }
                }
            }
        }
        rest.sort_unstable_by_key(|(task, _)| std::cmp::Reverse(*task));
        for (task, replicas) in rest {
            for _ in 0..replicas {
                let mut by_load = self.by_load.iter().map(|(_, process)| &self.processes[*process]);
                let process = by_load.find(|process| !process.tasks.contains(&task));
                let member = process.and_then(|process| process.members.first());
                // With fewer processes than replicas, some replicas are not there.
                let Some((_, member)) = member.copied() else {
                    break;
                };
                self.give(member, task, false);
            }
        }
    }
}
