//! The newest offset of each key in the part of a log that is to be compacted.
//!
//! Promises: bounded by `log.cleaner.dedupe.buffer.size`, and no larger than the part can need. Keys
//! are kept as keyed 128-bit hashes, which nobody outside can make collide. Pages that no key falls
//! into are never touched, so they cost no memory.

use std::hash::{BuildHasher, RandomState};

/// Hash and offset, as in Kafka's map.
const ENTRY_BYTES: u64 = 24;
/// A table that is quite full is slow, one that is entirely full never says that a key is not in it.
const LOAD_FACTORS: (f64, f64) = (0.01, 0.99);

/// Two halves of the hash, and the offset plus one; zero where there is nothing.
type Entry = [u64; 3];

#[derive(Debug)]
pub(crate) struct OffsetMap {
    entries: Vec<Entry>,
    most: usize,
    len: usize,
    latest: i64,
    hashers: [RandomState; 2],
}

impl OffsetMap {
    /// A map for the records of the offsets from `first` on and below `end`.
    pub(crate) fn new(first: i64, end: i64, memory_bytes: u64, load_factor: f64) -> Self {
        let (least, largest) = LOAD_FACTORS;
        let load_factor = if load_factor.is_nan() {
            largest
        } else {
            load_factor.clamp(least, largest)
        };
        let slots = (memory_bytes / ENTRY_BYTES).max(2);
        let most = ((slots as f64 * load_factor) as u64).clamp(1, slots - 1);
        let needed = u64::try_from(end.saturating_sub(first)).unwrap_or(0).min(most);
        let slots = ((needed as f64 / load_factor) as u64 + 2).min(slots);
        Self {
            entries: vec![[0; 3]; usize::try_from(slots).unwrap_or(2)],
            most: usize::try_from(most).unwrap_or(1),
            len: 0,
            latest: first.saturating_sub(1),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// The last offset that the map knows of: what is above it stays as it is.
    pub(crate) fn latest(&self) -> i64 {
        self.latest
    }

    pub(crate) fn reached(&mut self, offset: i64) {
        self.latest = self.latest.max(offset);
    }

    pub(crate) fn keys(&self) -> usize {
        self.len
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers[0].hash_one(key), self.hashers[1].hash_one(key))
    }

    /// Where the key is, or where it would be.
    fn slot(&self, high: u64, low: u64) -> usize {
        let slots = self.entries.len();
        let mut at = ((u128::from(high) * slots as u128) >> 64) as usize;
        loop {
            let entry = &self.entries[at];
            if entry[2] == 0 || (entry[0] == high && entry[1] == low) {
                return at;
            }
            at = (at + 1) % slots;
        }
    }

    /// Notes that the key's newest record so far is at `offset`. False when there is no room.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let (high, low) = self.hash(key);
        let at = self.slot(high, low);
        if self.entries[at][2] == 0 {
            // One slot stays free, so that every search ends.
            if self.len >= self.most || self.len + 1 >= self.entries.len() {
                return false;
            }
            self.len += 1;
        }
        self.entries[at] = [high, low, (offset as u64).wrapping_add(1)];
        self.reached(offset);
        true
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        if self.len == 0 {
            return None;
        }
        let (high, low) = self.hash(key);
        match self.entries[self.slot(high, low)][2] {
            0 => None,
            next => Some((next - 1) as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_each_key_is_found() {
        let mut map = OffsetMap::new(0, 1000, 1 << 20, 0.9);
        for offset in 0..1000 {
            assert!(map.put(format!("key-{}", offset % 100).as_bytes(), offset));
        }
        assert_eq!((map.keys(), map.latest()), (100, 999));
        for key in 0..100 {
            assert_eq!(map.get(format!("key-{key}").as_bytes()), Some(900 + key));
        }
        assert_eq!(map.get(b"other"), None);
    }

    #[test]
    fn a_full_map_takes_known_keys_only() {
        let mut map = OffsetMap::new(10, 1_000_000, 24 * 10, 0.5);
        let taken = (10i64..100)
            .take_while(|offset| map.put(&offset.to_be_bytes(), *offset))
            .count();
        assert_eq!(taken, 5);
        assert_eq!(map.latest(), 14, "what did not fit was not reached");
        assert!(map.put(&10i64.to_be_bytes(), 50));
        assert_eq!(map.get(&10i64.to_be_bytes()), Some(50));
    }

    #[test]
    fn a_map_is_as_large_as_its_records_need_and_never_larger_than_allowed() {
        let bytes = |end, memory| OffsetMap::new(0, end, memory, 0.9).entries.len() as u64 * ENTRY_BYTES;
        assert!(bytes(1000, 128 << 20) < 32 * 1024);
        assert!(bytes(i64::MAX, 1 << 20) <= 1 << 20);
        for end in 0i64..50 {
            let mut map = OffsetMap::new(0, end, 1 << 20, 0.99);
            assert!((0..end).all(|offset| map.put(&offset.to_be_bytes(), offset)));
        }
        assert!(OffsetMap::new(0, 5, 0, 0.9).put(b"key", 0), "it always gets on");
    }
}
