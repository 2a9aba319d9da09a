//! Random content for messages, for tests (feature `testing`).

use bytes::Bytes;

use crate::{Str, TaggedFields, Uuid};

/// A small deterministic source of field values: the same seed gives the same message.
#[derive(Debug, Clone)]
pub struct Sampler {
    state: u64,
    depth: u32,
}

macro_rules! numbers {
    ($($name:ident)*) => { $(
        pub fn $name(&mut self) -> $name {
            match self.below(4) {
                0 => 0,
                1 => 1,
                2 => $name::MAX,
                _ => self.bits() as $name,
            }
        }
    )* };
}

impl Sampler {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            depth: 0,
        }
    }

    /// SplitMix64.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound.max(1) as u64) as usize
    }

    numbers! { i8 i16 u16 i32 u32 i64 }

    pub fn f64(&mut self) -> f64 {
        self.i32() as f64 / 8.0
    }

    pub fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Whether a nullable field is null this time.
    pub fn null(&mut self) -> bool {
        self.below(4) == 0
    }

    pub fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bits().to_be_bytes());
        bytes[8..].copy_from_slice(&self.bits().to_be_bytes());
        Uuid::from_bytes(bytes)
    }

    pub fn string(&mut self) -> Str {
        let text: String = (0..self.below(12))
            .map(|_| ['a', 'Z', '-', '.', '0', 'é', '語'][self.below(7)])
            .collect();
        Str::from(text)
    }

    pub fn bytes(&mut self) -> Bytes {
        let length = if self.below(16) == 0 { 3000 } else { self.below(20) };
        (0..length).map(|_| self.bits() as u8).collect()
    }

    pub fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        self.depth += 1;
        let most = if self.depth > 2 { 2 } else { 4 };
        let count = self.below(most);
        let elements = (0..count).map(|_| element(self)).collect();
        self.depth -= 1;
        elements
    }

    /// Unknown tagged fields, with tags that no release uses.
    pub fn tagged_fields(&mut self) -> TaggedFields {
        let count = if self.below(4) == 0 { self.below(3) } else { 0 };
        TaggedFields((0..count).map(|i| (10_000 + i as u32, self.bytes())).collect())
    }
}
