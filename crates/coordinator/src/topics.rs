//! The topics as groups see them: a value that the driver replaces when topics come, go or grow.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use milena_protocol::{Str, Uuid};

/// A topic that groups may subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub id: Uuid,
    pub name: Str,
    /// How many partitions it has, from 0 on.
    pub partitions: i32,
    /// Internal topics are left out where a pattern is matched.
    pub is_internal: bool,
}

/// All topics at one moment. Its version tells two moments apart.
#[derive(Debug, Clone, Default)]
pub struct TopicImage {
    version: u64,
    by_name: BTreeMap<Str, Arc<TopicInfo>>,
    by_id: HashMap<Uuid, Arc<TopicInfo>>,
    /// The rack of the brokers that hold the partitions (`broker.rack`): one broker, one rack.
    rack: Option<Str>,
}

impl TopicImage {
    #[must_use]
    pub fn new(rack: Option<Str>) -> Self {
        Self {
            rack,
            ..Self::default()
        }
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<TopicInfo>> {
        self.by_name.get(name)
    }

    #[must_use]
    pub fn get_by_id(&self, id: &Uuid) -> Option<&Arc<TopicInfo>> {
        self.by_id.get(id)
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicInfo>> {
        self.by_name.values()
    }

    #[must_use]
    pub fn rack(&self) -> Option<&Str> {
        self.rack.as_ref()
    }

    /// Adds a topic, or takes the place of the one of its name.
    pub fn put(&mut self, topic: TopicInfo) {
        self.version += 1;
        let topic = Arc::new(topic);
        if let Some(old) = self.by_name.insert(topic.name.clone(), topic.clone()) {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(topic.id, topic);
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(old) = self.by_name.remove(name) {
            self.version += 1;
            self.by_id.remove(&old.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u8, name: &'static str, partitions: i32) -> TopicInfo {
        TopicInfo {
            id: Uuid::from_bytes([id; 16]),
            name: Str::from(name),
            partitions,
            is_internal: false,
        }
    }

    #[test]
    fn a_topic_made_again_is_found_by_its_new_id_only() {
        let mut image = TopicImage::default();
        image.put(topic(1, "a", 1));
        let before = image.version();
        image.put(topic(2, "a", 3));
        assert!(image.version() > before);
        assert_eq!(image.get_by_id(&Uuid::from_bytes([1; 16])), None);
        assert_eq!(image.get_by_id(&Uuid::from_bytes([2; 16])).unwrap().partitions, 3);
        image.remove("a");
        assert!(image.get("a").is_none() && image.iter().next().is_none());
    }
}
