//! What the groups whose assignment the broker computes have in common (KIP-848, KIP-932, KIP-1071), and
//! nothing else: the partitions that a member holds, and what tells that a group's topics have changed.
//!
//! Epochs, as everywhere in these protocols: the *group epoch* is bumped when members, subscriptions or topics
//! change; the *assignment epoch* is the group epoch that the target assignment was computed for; a
//! *member epoch* is the assignment epoch that the member has reached. Sessions are [`crate::step::Step`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use milena_protocol::{ErrorCode, Str, Uuid};

use crate::topics::TopicImage;

/// Partitions by topic. A topic without any is not in it.
pub(crate) type TopicPartitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// A member epoch by which a member leaves.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// A member epoch by which a static member leaves for a while (KIP-345).
pub(crate) const LEAVE_STATIC_EPOCH: i32 = -2;

/// A number that differs when one of the topics has come, gone, grown or been made again: what a group stores
/// to see after a restart whether it must assign anew. Zero when it subscribes to nothing that exists.
pub(crate) fn metadata_hash<'a>(topics: &TopicImage, names: impl IntoIterator<Item = &'a Str>) -> i64 {
    let mut combined = 0u64;
    for topic in names.into_iter().filter_map(|name| topics.get(name)) {
        let mut hasher = DefaultHasher::new();
        (topic.id.as_bytes(), &*topic.name, topic.partitions).hash(&mut hasher);
        topics.rack().map(|rack| &**rack).hash(&mut hasher);
        // The order of names does not matter.
        combined = combined.wrapping_add(hasher.finish() | 1);
    }
    i64::from_ne_bytes(combined.to_ne_bytes())
}

/// Why a request is refused: Kafka's code, and its sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: ErrorCode,
    pub(crate) message: Str,
}

impl Refusal {
    pub(crate) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: Str::from(message.into()),
        }
    }
}
