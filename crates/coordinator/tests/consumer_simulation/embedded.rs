//! The consumer protocol that classic members embed, version 0, as a client writes and reads it.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use milena_protocol::Str;

fn put_name(out: &mut BytesMut, name: &str) {
    out.put_i16(name.len() as i16);
    out.put_slice(name.as_bytes());
}

pub(crate) fn subscription(topics: &[Str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        put_name(&mut out, topic);
    }
    out.put_i32(-1);
    out.freeze()
}

pub(crate) fn assignment(partitions: &BTreeMap<Str, Vec<i32>>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(partitions.len() as i32);
    for (topic, partitions) in partitions {
        put_name(&mut out, topic);
        out.put_i32(partitions.len() as i32);
        for partition in partitions {
            out.put_i32(*partition);
        }
    }
    out.put_i32(-1);
    out.freeze()
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn i16(&mut self) -> i16 {
        let (bytes, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        i16::from_be_bytes(*bytes)
    }

    fn i32(&mut self) -> i32 {
        let (bytes, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        i32::from_be_bytes(*bytes)
    }

    fn name(&mut self) -> Str {
        let length = self.i16() as usize;
        let (name, rest) = self.0.split_at(length);
        self.0 = rest;
        Str::from(String::from_utf8(name.to_vec()).unwrap())
    }
}

pub(crate) fn read_topics(subscription: &[u8]) -> Vec<Str> {
    let mut fields = Fields(subscription);
    fields.i16();
    (0..fields.i32()).map(|_| fields.name()).collect()
}

pub(crate) fn read_assignment(assignment: &[u8]) -> Vec<(Str, i32)> {
    if assignment.is_empty() {
        return Vec::new();
    }
    let mut fields = Fields(assignment);
    fields.i16();
    let mut all = Vec::new();
    for _ in 0..fields.i32() {
        let topic = fields.name();
        for _ in 0..fields.i32() {
            all.push((topic.clone(), fields.i32()));
        }
    }
    all
}
