//! The metadata of a `consumer` group's members, as far as the coordinator reads it: which topics a member of a
//! classic group subscribes to, so that their offsets do not expire under it; and all of it where members of both
//! protocols are in one group (KIP-848).
//!
//! Metadata that is not in this form is no error of a classic group: its topics are then unknown.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use milena_protocol::Str;

/// The protocol type of consumers; groups of other types (such as Kafka Connect's) keep something
/// else in their metadata.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Partitions by the names of topics.
pub(crate) type NamedPartitions = BTreeMap<Str, Vec<i32>>;

/// A Subscription of the consumer protocol, versions 0 to 3; a later one begins with version 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    pub(crate) version: i16,
    pub(crate) topics: Vec<Str>,
    /// From version 1 on (KIP-429); members of version 0 have given up everything when they join.
    pub(crate) owned: NamedPartitions,
    /// From version 3 on (KIP-881).
    pub(crate) rack: Option<Str>,
}

impl Subscription {
    pub(crate) fn read(metadata: &[u8]) -> Option<Self> {
        let mut fields = Fields(metadata);
        let version = fields.i16()?;
        if version < 0 {
            return None;
        }
        let count = fields.count(2)?;
        let mut subscription = Self {
            version,
            topics: (0..count).map(|_| fields.string()).collect::<Option<_>>()?,
            ..Self::default()
        };
        fields.skip_bytes()?;
        if version >= 1 {
            subscription.owned = fields.partitions()?;
        }
        if version >= 2 {
            fields.take(4)?;
        }
        if version >= 3 {
            subscription.rack = fields.nullable_string()?;
        }
        Some(subscription)
    }
}

/// The topics of a Subscription: every version starts with them.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<Str>> {
    let mut fields = Fields(metadata);
    if fields.i16()? < 0 {
        return None;
    }
    let count = fields.count(2)?;
    (0..count).map(|_| fields.string()).collect()
}

/// The partitions of an Assignment of the consumer protocol; none where there are no bytes.
pub(crate) fn read_assignment(assignment: &[u8]) -> Option<NamedPartitions> {
    if assignment.is_empty() {
        return Some(NamedPartitions::new());
    }
    let mut fields = Fields(assignment);
    if fields.i16()? < 0 {
        return None;
    }
    fields.partitions()
}

/// An Assignment, without user data.
pub(crate) fn write_assignment(version: i16, partitions: &NamedPartitions) -> Bytes {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut out = BytesMut::new();
    out.put_i16(version);
    out.put_i32(count(partitions.len()));
    for (topic, partitions) in partitions {
        out.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
        out.put_slice(topic.as_bytes());
        out.put_i32(count(partitions.len()));
        for partition in partitions {
            out.put_i32(*partition);
        }
    }
    out.put_i32(-1);
    out.freeze()
}

/// What is left to be read; each read gives `None` when the bytes are not there.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        let (bytes, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*bytes))
    }

    fn i32(&mut self) -> Option<i32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*bytes))
    }

    /// Of elements that take at least so many bytes each: a count that the bytes cannot hold is not believed.
    fn count(&mut self, least_bytes: usize) -> Option<usize> {
        let count = usize::try_from(self.i32()?).ok()?;
        (count <= self.0.len() / least_bytes).then_some(count)
    }

    fn string(&mut self) -> Option<Str> {
        let length = usize::try_from(self.i16()?).ok()?;
        let name = std::str::from_utf8(self.take(length)?).ok()?;
        Some(Str::from(name.to_owned()))
    }

    fn nullable_string(&mut self) -> Option<Option<Str>> {
        match self.0.first_chunk::<2>()? {
            [0xff, 0xff] => self.take(2).map(|_| None),
            _ => self.string().map(Some),
        }
    }

    /// Nullable bytes, which are not looked at.
    fn skip_bytes(&mut self) -> Option<()> {
        let length = self.i32()?;
        let length = usize::try_from(length.max(0)).ok()?;
        self.take(length).map(|_| ())
    }

    fn partitions(&mut self) -> Option<NamedPartitions> {
        let mut topics = NamedPartitions::new();
        for _ in 0..self.count(6)? {
            let topic = self.string()?;
            let count = self.count(4)?;
            let partitions: Vec<i32> = (0..count).map(|_| self.i32()).collect::<Option<_>>()?;
            topics.entry(topic).or_default().extend(partitions);
        }
        Some(topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(version: i16, count: i32, names: &[&str]) -> Vec<u8> {
        let mut out = version.to_be_bytes().to_vec();
        out.extend(count.to_be_bytes());
        for name in names {
            out.extend((name.len() as i16).to_be_bytes());
            out.extend(name.as_bytes());
        }
        out
    }

    #[test]
    fn topics_are_read_from_every_version_of_a_subscription() {
        for version in 0..4 {
            let mut metadata = bytes(version, 2, &["a", "ml-events"]);
            metadata.extend([0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
            let topics = subscribed_topics(&metadata).unwrap();
            assert_eq!(topics, vec![Str::from("a"), Str::from("ml-events")]);
        }
    }

    #[test]
    fn metadata_in_another_form_gives_no_topics() {
        assert_eq!(subscribed_topics(b""), None);
        assert_eq!(subscribed_topics(b"\0"), None);
        assert_eq!(subscribed_topics(&bytes(0, i32::MAX, &["a"])), None);
        assert_eq!(subscribed_topics(&bytes(0, -1, &[])), None);
        assert_eq!(subscribed_topics(&bytes(0, 2, &["a"])), None);
        assert_eq!(subscribed_topics(&bytes(-1, 1, &["a"])), None);
        let mut cut = bytes(0, 1, &["abc"]);
        cut.pop();
        assert_eq!(subscribed_topics(&cut), None);
    }

    #[test]
    fn everything_of_a_subscription_is_read() {
        let mut metadata = bytes(3, 1, &["t"]);
        metadata.extend([0, 0, 0, 2, 9, 9]);
        metadata.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 5]);
        metadata.extend([0, 0, 0, 7, 0, 1, b'r']);
        let read = Subscription::read(&metadata).unwrap();
        assert_eq!(read.topics, [Str::from("t")]);
        assert_eq!(read.owned, [(Str::from("t"), vec![4, 5])].into());
        assert_eq!((read.version, read.rack), (3, Some(Str::from("r"))));
        for cut in 0..metadata.len() {
            assert_eq!(Subscription::read(&metadata[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let partitions: NamedPartitions = [(Str::from("t"), vec![0, 3]), (Str::from("u"), vec![])].into();
        let written = write_assignment(1, &partitions);
        assert_eq!(read_assignment(&written), Some(partitions));
        assert_eq!(read_assignment(b""), Some(NamedPartitions::new()));
        assert_eq!(read_assignment(b"assigned"), None);
    }
}
