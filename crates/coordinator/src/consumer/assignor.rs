//! The server-side assignors: who is to have which partitions. Both are functions of the members' subscriptions,
//! the topics and, so that little moves, the target before.
//!
//! All replicas of a partition lie in one rack here (one broker), so that racks make no difference.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use milena_protocol::{Str, Uuid};

use crate::modern::TopicPartitions;

/// What an assignor knows of a member.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber<'a> {
    pub(crate) id: &'a Str,
    pub(crate) instance_id: Option<&'a Str>,
    /// Topics that exist.
    pub(crate) topics: BTreeSet<Uuid>,
    /// What it was to have so far.
    pub(crate) target: Option<&'a TopicPartitions>,
}

type Targets = BTreeMap<Str, TopicPartitions>;

/// `uniform`: everybody gets the same number of partitions, give or take one, as far as subscriptions allow; members
/// keep what they have. `partitions` gives the count of a topic.
pub(crate) fn uniform(subscribers: &[Subscriber<'_>], partitions: impl Fn(&Uuid) -> i32) -> Targets {
    let Some(first) = subscribers.first() else {
        return Targets::new();
    };
    let shares = if subscribers.iter().all(|member| member.topics == first.topics) {
        share_alike(subscribers, &first.topics, partitions)
    } else {
        share_by_subscription(subscribers, partitions)
    };
    named(subscribers, shares)
}

/// `range`: of each topic, everybody gets consecutive partitions, in the order of instance ids and member ids, so
/// that the same partitions of topics with the same subscribers meet at one member.
pub(crate) fn range(subscribers: &[Subscriber<'_>], partitions: impl Fn(&Uuid) -> i32) -> Targets {
    let mut order: Vec<usize> = (0..subscribers.len()).collect();
    order.sort_by_key(|index| {
        let member = &subscribers[*index];
        (member.instance_id.is_none(), member.instance_id, member.id)
    });
    let mut by_topic: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for index in order {
        for topic in &subscribers[index].topics {
            by_topic.entry(*topic).or_default().push(index);
        }
    }
    let mut shares = vec![TopicPartitions::new(); subscribers.len()];
    for (topic, members) in by_topic {
        let count = usize::try_from(partitions(&topic)).unwrap_or(0);
        let (each, extra) = (count / members.len(), count % members.len());
        let mut next = 0;
        for (place, index) in members.into_iter().enumerate() {
            let end = next + each + usize::from(place < extra);
            let of_member: BTreeSet<i32> = (next..end)
                .filter_map(|partition| i32::try_from(partition).ok())
                .collect();
            if !of_member.is_empty() {
                shares[index].insert(topic, of_member);
            }
            next = end;
        }
    }
    named(subscribers, shares)
}

fn named(subscribers: &[Subscriber<'_>], shares: Vec<TopicPartitions>) -> Targets {
    let ids = subscribers.iter().map(|member| member.id.clone());
    ids.zip(shares).collect()
}

/// Everybody subscribes to the same topics: each gets its quota, and those who have more keep one more.
fn share_alike(
    subscribers: &[Subscriber<'_>],
    topics: &BTreeSet<Uuid>,
    partitions: impl Fn(&Uuid) -> i32,
) -> Vec<TopicPartitions> {
    let counts: BTreeMap<Uuid, i32> = topics
        .iter()
        .map(|topic| (*topic, partitions(topic).max(0)))
        .collect();
    let total: usize = counts
        .values()
        .filter_map(|count| usize::try_from(*count).ok())
        .sum();
    let quota = total / subscribers.len();
    let mut extra = total % subscribers.len();
    let mut free: BTreeSet<(Uuid, i32)> = counts
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)))
        .collect();
    let mut shares = vec![TopicPartitions::new(); subscribers.len()];
    let mut sizes = vec![0usize; subscribers.len()];
    for (index, member) in subscribers.iter().enumerate() {
        for (topic, had) in member.target.into_iter().flatten() {
            for partition in had {
                let has_more = sizes[index] == quota && extra > 0;
                if (sizes[index] < quota || has_more) && free.remove(&(*topic, *partition)) {
                    sizes[index] += 1;
                    extra -= usize::from(has_more);
                    shares[index].entry(*topic).or_default().insert(*partition);
                }
            }
        }
    }
    let mut rest = free.into_iter();
    for (index, share) in shares.iter_mut().enumerate() {
        if sizes[index] > quota {
            continue;
        }
        let mut missing = quota - sizes[index];
        if extra > 0 {
            missing += 1;
            extra -= 1;
        }
        for (topic, partition) in rest.by_ref().take(missing) {
            share.entry(topic).or_default().insert(partition);
        }
    }
    shares
}

/// Members subscribe to different topics: what is free goes to who has least, and then partitions move from who has
/// more to who has less until no single move makes it more even.
fn share_by_subscription(
    subscribers: &[Subscriber<'_>],
    partitions: impl Fn(&Uuid) -> i32,
) -> Vec<TopicPartitions> {
    let mut by_topic: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (index, member) in subscribers.iter().enumerate() {
        for topic in &member.topics {
            by_topic.entry(*topic).or_default().push(index);
        }
    }
    let mut owners: HashMap<(Uuid, i32), usize> = HashMap::new();
    let mut sizes = vec![0usize; subscribers.len()];
    for (index, member) in subscribers.iter().enumerate() {
        for (topic, had) in member.target.into_iter().flatten() {
            let count = if member.topics.contains(topic) {
                partitions(topic)
            } else {
                0
            };
            for partition in had.range(0..count.max(0)) {
                if let std::collections::hash_map::Entry::Vacant(free) = owners.entry((*topic, *partition)) {
                    free.insert(index);
                    sizes[index] += 1;
                }
            }
        }
    }
    // Topics with few subscribers leave the least choice.
    let mut order: Vec<(&Uuid, &Vec<usize>)> = by_topic.iter().collect();
    order.sort_by_key(|(topic, members)| (members.len(), **topic));
    for (topic, members) in &order {
        for partition in 0..partitions(topic) {
            if owners.contains_key(&(**topic, partition)) {
                continue;
            }
            if let Some(least) = members
                .iter()
                .copied()
                .min_by_key(|index| (sizes[*index], *index))
            {
                owners.insert((**topic, partition), least);
                sizes[least] += 1;
            }
        }
    }
    // Every move brings two sizes closer together, so that this ends.
    let mut moved = true;
    while moved {
        moved = false;
        for (topic, members) in &order {
            for partition in 0..partitions(topic) {
                let Some(owner) = owners.get_mut(&(**topic, partition)) else {
                    continue;
                };
                let least = members
                    .iter()
                    .copied()
                    .min_by_key(|index| (sizes[*index], *index));
                if let Some(least) = least.filter(|least| sizes[*least] + 1 < sizes[*owner]) {
                    sizes[*owner] -= 1;
                    sizes[least] += 1;
                    *owner = least;
                    moved = true;
                }
            }
        }
    }
    let mut shares = vec![TopicPartitions::new(); subscribers.len()];
    for ((topic, partition), owner) in owners {
        shares[owner].entry(topic).or_default().insert(partition);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: u8) -> Uuid {
        Uuid::from_bytes([number; 16])
    }

    fn id(number: usize) -> Str {
        Str::from(format!("m{number:04}"))
    }

    fn sizes(targets: &Targets) -> Vec<usize> {
        targets
            .values()
            .map(|target| target.values().map(BTreeSet::len).sum())
            .collect()
    }

    fn assign(subscriptions: &[&[u8]], counts: &[i32], before: &Targets) -> Targets {
        let ids: Vec<Str> = (0..subscriptions.len()).map(id).collect();
        let subscribers: Vec<Subscriber<'_>> = subscriptions
            .iter()
            .zip(&ids)
            .map(|(topics, id)| Subscriber {
                id,
                instance_id: None,
                topics: topics.iter().map(|number| topic(*number)).collect(),
                target: before.get(id),
            })
            .collect();
        let targets = uniform(&subscribers, |id| counts[usize::from(id.as_bytes()[0])]);
        let mut owned = BTreeSet::new();
        for (member, target) in subscribers.iter().zip(targets.values()) {
            for (topic, partitions) in target {
                assert!(member.topics.contains(topic), "only what is subscribed to");
                for partition in partitions {
                    assert!(owned.insert((*topic, *partition)), "one owner");
                }
            }
        }
        let wanted: BTreeSet<u8> = subscriptions.iter().copied().flatten().copied().collect();
        let all: i32 = wanted.iter().map(|number| counts[usize::from(*number)]).sum();
        assert_eq!(owned.len(), all as usize, "everything is assigned");
        targets
    }

    fn moved(before: &Targets, after: &Targets) -> usize {
        let kept = |member: &Str, topic: &Uuid, partition: &i32| {
            let had = before.get(member).and_then(|target| target.get(topic));
            had.is_some_and(|had| had.contains(partition))
        };
        let all = after.iter().flat_map(|(member, target)| {
            target.iter().flat_map(move |(topic, partitions)| {
                partitions.iter().map(move |partition| (member, topic, partition))
            })
        });
        all.filter(|(member, topic, partition)| !kept(member, topic, partition))
            .count()
    }

    #[test]
    fn members_who_subscribe_alike_get_the_same_number_and_keep_what_they_have() {
        let counts = [7, 6];
        let one = assign(&[&[0, 1]], &counts, &Targets::new());
        assert_eq!(sizes(&one), [13]);
        let three = assign(&[&[0, 1], &[0, 1], &[0, 1]], &counts, &one);
        assert_eq!(sizes(&three), [5, 4, 4]);
        assert_eq!(moved(&one, &three), 8);
        let two = assign(&[&[0, 1], &[0, 1]], &counts, &three);
        assert_eq!(sizes(&two), [7, 6]);
        assert_eq!(moved(&three, &two), 4);
        assert_eq!(assign(&[&[0, 1], &[0, 1]], &counts, &two), two);
        let many = assign(&[&[0u8] as &[u8]; 9], &counts, &Targets::new());
        assert_eq!(sizes(&many).iter().sum::<usize>(), 7);
        assert!(sizes(&many).iter().all(|size| *size <= 1));
    }

    #[test]
    fn different_subscriptions_are_balanced_as_far_as_they_allow() {
        let counts = [6, 3, 0];
        let first = assign(&[&[0], &[0, 1]], &counts, &Targets::new());
        assert_eq!(sizes(&first), [5, 4]);
        let second = assign(&[&[0], &[0, 1], &[1, 2]], &counts, &first);
        // No single move makes it more even.
        assert_eq!(sizes(&second), [4, 3, 2]);
        let alone = assign(&[&[0], &[1]], &counts, &second);
        assert_eq!(sizes(&alone), [6, 3]);
    }

    #[test]
    fn range_gives_consecutive_partitions_and_static_members_come_first() {
        let (a, b, instance) = (id(1), id(2), Str::from("i"));
        let member = |id, instance_id| Subscriber {
            id,
            instance_id,
            topics: [topic(0), topic(1)].into(),
            target: None,
        };
        let targets = range(&[member(&a, None), member(&b, Some(&instance))], |id| {
            i32::from(id.as_bytes()[0]) + 3
        });
        assert_eq!(
            targets[&b],
            [(topic(0), [0, 1].into()), (topic(1), [0, 1].into())].into()
        );
        assert_eq!(
            targets[&a],
            [(topic(0), [2].into()), (topic(1), [2, 3].into())].into()
        );
    }
}
