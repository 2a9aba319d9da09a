//! The assignor `simple`: every partition goes to as many members as there are for it, and every member gets about
//! as many partitions as any other.
//!
//! With no more members than partitions that is one member each. Members keep what they have where the balance
//! lets them. Members who all subscribe to the same are balanced over all topics together, others topic by topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use milena_protocol::{Str, Uuid};

use crate::modern::TopicPartitions;

/// What the assignor knows of a member.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber<'a> {
    pub(crate) id: &'a Str,
    /// Topics that exist.
    pub(crate) topics: BTreeSet<Uuid>,
    /// What it was to have so far.
    pub(crate) target: Option<&'a TopicPartitions>,
}

type Partition = (Uuid, i32);

/// `assignable`: the partitions that may be assigned at all.
pub(crate) fn simple(
    subscribers: &[Subscriber<'_>],
    assignable: &TopicPartitions,
) -> BTreeMap<Str, TopicPartitions> {
    let mut shares = vec![TopicPartitions::new(); subscribers.len()];
    let is_alike = subscribers
        .windows(2)
        .all(|pair| matches!(pair, [one, other] if one.topics == other.topics));
    let all: BTreeSet<Uuid> = subscribers
        .iter()
        .flat_map(|member| &member.topics)
        .copied()
        .collect();
    let rounds: Vec<BTreeSet<Uuid>> = match is_alike {
        true => vec![all],
        false => all.into_iter().map(|topic| BTreeSet::from([topic])).collect(),
    };
    for topics in rounds {
        let partitions: BTreeSet<Partition> = assignable
            .iter()
            .filter(|(topic, _)| topics.contains(*topic))
            .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
            .collect();
        let members: Vec<usize> = (0..subscribers.len())
            .filter(|index| !subscribers[*index].topics.is_disjoint(&topics))
            .collect();
        let before = members
            .iter()
            .map(|index| had(&subscribers[*index], &partitions))
            .collect();
        for (index, share) in members.into_iter().zip(share_out(&partitions, before)) {
            for (topic, partition) in share {
                shares[index].entry(topic).or_default().insert(partition);
            }
        }
    }
    let ids = subscribers.iter().map(|member| member.id.clone());
    ids.zip(shares).collect()
}

/// What of the partitions the member was to have already.
fn had(subscriber: &Subscriber<'_>, partitions: &BTreeSet<Partition>) -> BTreeSet<Partition> {
    let target = subscriber.target.into_iter().flatten();
    target
        .flat_map(|(topic, had)| had.iter().map(|partition| (*topic, *partition)))
        .filter(|partition| partitions.contains(partition))
        .collect()
}

/// Shares partitions out to members, of whom `shares` says what they have.
fn share_out(
    partitions: &BTreeSet<Partition>,
    mut shares: Vec<BTreeSet<Partition>>,
) -> Vec<BTreeSet<Partition>> {
    if partitions.is_empty() || shares.is_empty() {
        return shares;
    }
    let count = shares.len();
    let sharing = count.div_ceil(partitions.len());
    let total = sharing * partitions.len();
    // The quotas add up to `total`.
    let quota = |index: usize| (total * (index + 1)).div_ceil(count) - (total * index).div_ceil(count);

    let mut holders: BTreeMap<Partition, usize> =
        partitions.iter().map(|partition| (*partition, 0)).collect();
    for (index, share) in shares.iter_mut().enumerate() {
        let mut room = quota(index);
        share.retain(|partition| {
            let held = holders.entry(*partition).or_default();
            let keeps = room > 0 && *held < sharing;
            room -= usize::from(keeps);
            *held += usize::from(keeps);
            keeps
        });
    }
    let mut unfilled: VecDeque<usize> = (0..count)
        .filter(|index| shares[*index].len() < quota(*index))
        .collect();
    for (partition, mut held) in holders {
        let mut tries = unfilled.len();
        while held < sharing && tries > 0 {
            let Some(index) = unfilled.pop_front() else {
                break;
            };
            tries -= 1;
            // Who has it already cannot take it twice: a small imbalance is accepted then.
            held += usize::from(shares[index].insert(partition));
            if shares[index].len() < quota(index) {
                unfilled.push_back(index);
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: u8) -> Uuid {
        Uuid::from_bytes([number; 16])
    }

    fn assignable(counts: &[(u8, i32)]) -> TopicPartitions {
        counts
            .iter()
            .map(|(number, count)| (topic(*number), (0..*count).collect()))
            .collect()
    }

    fn assign(
        members: &[(&'static str, &[u8])],
        assignable: &TopicPartitions,
        before: &BTreeMap<Str, TopicPartitions>,
    ) -> BTreeMap<Str, TopicPartitions> {
        let ids: Vec<Str> = members.iter().map(|(id, _)| Str::from(*id)).collect();
        let subscribers: Vec<Subscriber<'_>> = members
            .iter()
            .zip(&ids)
            .map(|((_, topics), id)| Subscriber {
                id,
                topics: topics.iter().map(|number| topic(*number)).collect(),
                target: before.get(id),
            })
            .collect();
        simple(&subscribers, assignable)
    }

    fn sizes(target: &BTreeMap<Str, TopicPartitions>) -> Vec<usize> {
        let size = |partitions: &TopicPartitions| partitions.values().map(BTreeSet::len).sum();
        target.values().map(size).collect()
    }

    fn everything(target: &BTreeMap<Str, TopicPartitions>) -> TopicPartitions {
        let mut all = TopicPartitions::new();
        for (topic, partitions) in target.values().flatten() {
            all.entry(*topic).or_default().extend(partitions);
        }
        all
    }

    #[test]
    fn partitions_are_spread_evenly_and_each_has_someone() {
        let none = BTreeMap::new();
        for (members, partitions) in [(1, 3), (3, 3), (3, 7), (5, 3), (7, 3), (4, 1), (10, 4)] {
            let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
            let members: Vec<(&str, &[u8])> =
                names[..members].iter().map(|name| (*name, &[1u8][..])).collect();
            let may = assignable(&[(1, partitions)]);
            let target = assign(&members, &may, &none);
            let sizes = sizes(&target);
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*least > 0 && most - least <= 1, "{members:?}: {sizes:?}");
            assert_eq!(everything(&target), may);
        }
    }

    #[test]
    fn members_keep_what_they_have_when_others_come_and_go() {
        let may = assignable(&[(1, 6)]);
        let alone = assign(&[("a", &[1])], &may, &BTreeMap::new());
        let two = assign(&[("a", &[1]), ("b", &[1])], &may, &alone);
        assert_eq!(sizes(&two), [3, 3]);
        let kept = |from: &BTreeMap<Str, TopicPartitions>, to: &BTreeMap<Str, TopicPartitions>, id: &str| {
            let (from, to) = (&from[id][&topic(1)], &to[id][&topic(1)]);
            from.intersection(to).count()
        };
        assert_eq!(kept(&alone, &two, "a"), 3);
        let three = assign(&[("a", &[1]), ("b", &[1]), ("c", &[1])], &may, &two);
        assert_eq!(sizes(&three), [2, 2, 2]);
        assert_eq!((kept(&two, &three, "a"), kept(&two, &three, "b")), (2, 2));
        assert_eq!(assign(&[("a", &[1]), ("b", &[1])], &may, &two), two);
    }

    #[test]
    fn different_subscriptions_are_balanced_topic_by_topic() {
        let may = assignable(&[(1, 4), (2, 4)]);
        let target = assign(
            &[("a", &[1]), ("b", &[2]), ("c", &[1, 2])],
            &may,
            &BTreeMap::new(),
        );
        assert_eq!(sizes(&target), [2, 2, 4]);
        assert_eq!(everything(&target), may);
        assert!(!target["a"].contains_key(&topic(2)));
    }

    #[test]
    fn what_may_not_be_assigned_is_taken_away() {
        let before = assign(&[("a", &[1])], &assignable(&[(1, 4)]), &BTreeMap::new());
        let after = assign(&[("a", &[1])], &assignable(&[(1, 2)]), &before);
        assert_eq!(everything(&after), assignable(&[(1, 2)]));
        let nothing = assign(&[("a", &[1])], &TopicPartitions::new(), &before);
        assert_eq!(sizes(&nothing), [0]);
        assert_eq!(assign(&[], &assignable(&[(1, 2)]), &before), BTreeMap::new());
    }
}
