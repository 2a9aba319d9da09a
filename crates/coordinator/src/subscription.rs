//! The one thing that the coordinator reads of the members' opaque metadata: which topics a member
//! of a `consumer` group subscribes to, so that their offsets do not expire under it.
//!
//! Only version 0 of the consumer protocol's Subscription is read; every later version starts
//! with it. Metadata that is not in this form is no error: the group's topics are then unknown.

use milena_protocol::Str;

/// The protocol type of consumers; groups of other types (such as Kafka Connect's) keep something
/// else in their metadata.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// The topics of a Subscription: version (int16), array of strings, user data.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<Str>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    // A topic takes two bytes at least: a count that the bytes cannot hold is not believed.
    if count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let name = std::str::from_utf8(after.get(..length)?).ok()?;
        topics.push(Str::from(name.to_owned()));
        rest = after.get(length..)?;
    }
    Some(topics)
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
}
