//! The topics of this broker: an image in memory that handlers read, and one writer that changes
//! it (see `writer`).
//!
//! Promises:
//! - what the image shows is stored: facts are committed first, logs are opened next, and only then
//!   is the image changed, so a topic that a client sees can be used at once;
//! - a crash between any two of these steps is repaired at the next start: a topic without logs
//!   gets them, a log without a topic is a stray and is set aside with a line in the log;
//! - a reader never waits for the disk: the image's lock is held only to look or to swap.
//!
//! Left to others: what a request may ask (the handlers' validation), which configs exist and what
//! they mean (`config`, `settings`), and records (`partitions`).

mod facts;
mod names;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use milena_coordinator::{TopicImage, TopicInfo};
use milena_log::LogStore;
use milena_protocol::{Str, Uuid};
use milena_state::StateStore;

use crate::partitions::Partition;
use crate::settings::Settings;

pub(crate) use names::{CLUSTER_METADATA_TOPIC, is_internal, validate as validate_name};
pub(crate) use writer::{NewTopic, already_exists, collides, new_id};

/// Configs that were set, by name.
pub(crate) type Overrides = BTreeMap<String, String>;

/// A topic as it is now; a change makes a new one.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
    /// By index.
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// The topic's own configs, as they were set.
    pub(crate) overrides: Arc<Overrides>,
    /// Of every partition: how often the broker has started since the topic was created. Kafka
    /// bumps a partition's leader epoch when its leader restarts, and so clients notice.
    pub(crate) leader_epoch: i32,
    created_at_start: i64,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.partitions.get(index))
    }

    pub(crate) fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

#[derive(Debug, Default)]
struct Image {
    by_name: BTreeMap<Str, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    /// Names that could collide, unified.
    by_unified_name: HashMap<String, Str>,
    /// The same for the groups' coordinator.
    of_groups: Arc<TopicImage>,
}

impl Image {
    fn put(&mut self, topic: Arc<Topic>) {
        if let Some(unified) = names::unified(&topic.name) {
            self.by_unified_name.insert(unified, topic.name.clone());
        }
        Arc::make_mut(&mut self.of_groups).put(TopicInfo {
            id: topic.id,
            name: topic.name.clone(),
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            is_internal: topic.is_internal(),
        });
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Topic>> {
        let topic = self.by_name.remove(name)?;
        self.by_id.remove(&topic.id);
        Arc::make_mut(&mut self.of_groups).remove(name);
        if let Some(unified) = names::unified(name) {
            self.by_unified_name.remove(&unified);
        }
        Some(topic)
    }
}

#[derive(Debug)]
pub(crate) struct Topics {
    image: RwLock<Image>,
    writer: tokio::sync::Mutex<writer::Writer>,
    facts: Arc<dyn StateStore>,
    logs: Arc<dyn LogStore>,
    settings: Arc<Settings>,
    /// The broker's count of starts, this one included.
    starts: i64,
}

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().by_name.get(name).cloned()
    }

    pub(crate) fn get_by_id(&self, id: &Uuid) -> Option<Arc<Topic>> {
        self.read().by_id.get(id).cloned()
    }

    /// Every topic, in the order of names.
    pub(crate) fn list(&self) -> Vec<Arc<Topic>> {
        self.read().by_name.values().cloned().collect()
    }

    /// The topics as they are now, as the groups' coordinator looks at them.
    pub(crate) fn image(&self) -> Arc<TopicImage> {
        self.read().of_groups.clone()
    }

    /// At most `limit` topics from `first` on, in the order of names.
    pub(crate) fn list_from(&self, first: &str, limit: usize) -> Vec<Arc<Topic>> {
        let image = self.read();
        let from = (std::ops::Bound::Included(first), std::ops::Bound::Unbounded);
        image
            .by_name
            .range::<str, _>(from)
            .map(|(_, topic)| topic)
            .take(limit)
            .cloned()
            .collect()
    }

    /// An existing topic that a topic of this name would collide with, if there is one.
    pub(crate) fn colliding(&self, name: &str) -> Option<Str> {
        names::unified(name).and_then(|unified| self.read().by_unified_name.get(&unified).cloned())
    }

    /// How often the broker has started, this time included.
    pub(crate) fn starts(&self) -> i64 {
        self.starts
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn read(&self) -> RwLockReadGuard<'_, Image> {
        self.image.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Image> {
        self.image.write().unwrap_or_else(PoisonError::into_inner)
    }
}
