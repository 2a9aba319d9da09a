//! The facts of groups and transactions: keys that a person can read, values in Kafka's stored formats.
//!
//! | key | value |
//! | --- | --- |
//! | `group/<group>` | GroupMetadataValue: generation, protocol, leader, members, assignments |
//! | `offset/<group>/<topic>/<partition>` | OffsetCommitValue |
//! | `pending/<group>/<producer id>/<topic>/<partition>` | OffsetCommitValue of a transaction that is open |
//! | `transaction/<transactional id>` | TransactionLogValue |
//! | `consumer-group/<group>` | ConsumerGroupMetadataValue: epoch, hash of the topics |
//! | `consumer-group/<group>/assignment` | ConsumerGroupTargetAssignmentMetadataValue |
//! | `consumer-group/<group>/member/<member>` | ConsumerGroupMemberMetadataValue |
//! | `consumer-group/<group>/target/<member>` | ConsumerGroupTargetAssignmentMemberValue |
//! | `consumer-group/<group>/current/<member>` | ConsumerGroupCurrentMemberAssignmentValue |
//! | `consumer-group/<group>/regex/<pattern>` | ConsumerGroupRegularExpressionValue |
//! | `streams-group/<group>` | StreamsGroupMetadataValue: epoch, hash of the topics, validated topology |
//! | `streams-group/<group>/assignment` | StreamsGroupTargetAssignmentMetadataValue |
//! | `streams-group/<group>/topology` | StreamsGroupTopologyValue |
//! | `streams-group/<group>/member/<member>` | StreamsGroupMemberMetadataValue |
//! | `streams-group/<group>/target/<member>` | StreamsGroupTargetAssignmentMemberValue |
//! | `streams-group/<group>/current/<member>` | StreamsGroupCurrentMemberAssignmentValue |
//! | `share-state/<group>/<topic id>/<partition>` | ShareSnapshotValue |
//! | `share-group/<group>` | ShareGroupMetadataValue: epoch, hash of the topics |
//! | `share-group/<group>/assignment` | ShareGroupTargetAssignmentMetadataValue |
//! | `share-group/<group>/states` | ShareGroupStatePartitionMetadataValue |
//! | `share-group/<group>/member/<member>` | ShareGroupMemberMetadataValue |
//! | `share-group/<group>/target/<member>` | ShareGroupTargetAssignmentMemberValue |
//! | `share-group/<group>/current/<member>` | ShareGroupCurrentMemberAssignmentValue |
//!
//! In names, `/` is written `%2F` and `%` is written `%25`, so a key has one reading only and
//! `offset/<group>/` is the prefix of exactly that group's offsets. A value starts with its
//! version as two bytes, as in the records of `__consumer_offsets`.

use bytes::{BufMut, Bytes, BytesMut};
use milena_protocol::stored::{GroupMetadataValue, OffsetCommitValue, TransactionLogValue};
use milena_protocol::{Message, Reader, Str, Writer};

use crate::share_partitions::SharePartitionKey;

/// The version of GroupMetadataValue that is written (as Kafka: 4 has no use yet).
const GROUP_METADATA_VERSION: i16 = 3;
/// The version of OffsetCommitValue that holds a leader epoch and a topic id.
const OFFSET_COMMIT_VERSION: i16 = 4;
/// The only version of OffsetCommitValue that holds an explicit expiry (OffsetCommit v2 to v4).
const OFFSET_COMMIT_VERSION_WITH_EXPIRY: i16 = 1;
/// The version of TransactionLogValue that knows of KIP-890.
const TRANSACTION_VERSION: i16 = 1;

#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    #[error("the fact {0:?} has no key that this version knows: was it written by a newer one?")]
    UnknownKey(Bytes),
    #[error("the fact {key:?} cannot be read: {reason}")]
    BadValue { key: Bytes, reason: String },
}

/// A fact's key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Group {
        group: Str,
    },
    Offset {
        group: Str,
        topic: Str,
        partition: i32,
    },
    Pending {
        group: Str,
        producer_id: i64,
        topic: Str,
        partition: i32,
    },
    Transaction {
        transactional_id: Str,
    },
    Part {
        of: PartsOf,
        group: Str,
        part: Part,
    },
    ShareState(SharePartitionKey),
}

/// A group that is stored in several facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartsOf {
    Consumer,
    Streams,
    Share,
}

impl PartsOf {
    const ALL: [Self; 3] = [Self::Consumer, Self::Streams, Self::Share];

    fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer-group",
            Self::Streams => "streams-group",
            Self::Share => "share-group",
        }
    }
}

/// One of these facts. The table above says which of them a type of group has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Group,
    Assignment,
    Topology,
    States,
    Member(Str),
    Target(Str),
    Current(Str),
    Regex(Str),
}

pub(crate) fn group_key(group: &str) -> Bytes {
    let mut key = String::with_capacity(6 + group.len());
    key.push_str("group/");
    push_name(&mut key, group);
    Bytes::from(key)
}

pub(crate) fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut key = String::with_capacity(16 + group.len() + topic.len());
    key.push_str("offset/");
    push_name(&mut key, group);
    key.push('/');
    push_name(&mut key, topic);
    key.push('/');
    key.push_str(&partition.to_string());
    Bytes::from(key)
}

/// An offset that is committed when its producer's transaction is.
pub(crate) fn pending_key(group: &str, producer_id: i64, topic: &str, partition: i32) -> Bytes {
    let mut key = String::with_capacity(24 + group.len() + topic.len());
    key.push_str("pending/");
    push_name(&mut key, group);
    key.push_str(&format!("/{producer_id}/"));
    push_name(&mut key, topic);
    key.push_str(&format!("/{partition}"));
    Bytes::from(key)
}

pub(crate) fn transaction_key(transactional_id: &str) -> Bytes {
    let mut key = String::with_capacity(12 + transactional_id.len());
    key.push_str("transaction/");
    push_name(&mut key, transactional_id);
    Bytes::from(key)
}

pub(crate) fn part_key(of: PartsOf, group: &str, part: &Part) -> Bytes {
    let mut key = String::with_capacity(64 + group.len());
    key.push_str(of.name());
    key.push('/');
    push_name(&mut key, group);
    let (kind, name) = match part {
        Part::Group => return Bytes::from(key),
        Part::Assignment => ("/assignment", None),
        Part::Topology => ("/topology", None),
        Part::States => ("/states", None),
        Part::Member(name) => ("/member/", Some(name)),
        Part::Target(name) => ("/target/", Some(name)),
        Part::Current(name) => ("/current/", Some(name)),
        Part::Regex(name) => ("/regex/", Some(name)),
    };
    key.push_str(kind);
    if let Some(name) = name {
        push_name(&mut key, name);
    }
    Bytes::from(key)
}

fn parse_part<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Part> {
    let Some(kind) = parts.next() else {
        return Some(Part::Group);
    };
    match kind {
        "assignment" => return Some(Part::Assignment),
        "topology" => return Some(Part::Topology),
        "states" => return Some(Part::States),
        _ => {}
    }
    let name = parse_name(parts.next()?)?;
    match kind {
        "member" => Some(Part::Member(name)),
        "target" => Some(Part::Target(name)),
        "current" => Some(Part::Current(name)),
        "regex" => Some(Part::Regex(name)),
        _ => None,
    }
}

/// What a share group has of a partition.
pub(crate) fn share_state_key(of: &SharePartitionKey) -> Bytes {
    let mut key = String::with_capacity(64 + of.group.len());
    key.push_str("share-state/");
    push_name(&mut key, &of.group);
    key.push_str(&format!("/{}/{}", of.topic_id, of.partition));
    Bytes::from(key)
}

pub(crate) fn parse_key(key: &Bytes) -> Result<Key, LoadError> {
    try_parse_key(key).ok_or_else(|| LoadError::UnknownKey(key.clone()))
}

fn try_parse_key(key: &[u8]) -> Option<Key> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let kind = parts.next()?;
    if let Some(of) = PartsOf::ALL.into_iter().find(|of| of.name() == kind) {
        let group = parse_name(parts.next()?)?;
        let part = parse_part(&mut parts)?;
        return parts.next().is_none().then_some(Key::Part { of, group, part });
    }
    let parsed = match kind {
        "group" => Key::Group {
            group: parse_name(parts.next()?)?,
        },
        "offset" => Key::Offset {
            group: parse_name(parts.next()?)?,
            topic: parse_name(parts.next()?)?,
            partition: parts.next()?.parse().ok()?,
        },
        "pending" => Key::Pending {
            group: parse_name(parts.next()?)?,
            producer_id: parts.next()?.parse().ok()?,
            topic: parse_name(parts.next()?)?,
            partition: parts.next()?.parse().ok()?,
        },
        "transaction" => Key::Transaction {
            transactional_id: parse_name(parts.next()?)?,
        },
        "share-state" => Key::ShareState(SharePartitionKey {
            group: parse_name(parts.next()?)?,
            topic_id: parts.next()?.parse().ok()?,
            partition: parts.next()?.parse().ok()?,
        }),
        _ => return None,
    };
    parts.next().is_none().then_some(parsed)
}

fn push_name(key: &mut String, name: &str) {
    for character in name.chars() {
        match character {
            '/' => key.push_str("%2F"),
            '%' => key.push_str("%25"),
            other => key.push(other),
        }
    }
}

fn parse_name(escaped: &str) -> Option<Str> {
    let mut name = String::with_capacity(escaped.len());
    let mut pieces = escaped.split('%');
    name.push_str(pieces.next()?);
    for piece in pieces {
        if let Some(rest) = piece.strip_prefix("2F") {
            name.push('/');
            name.push_str(rest);
        } else {
            name.push('%');
            name.push_str(piece.strip_prefix("25")?);
        }
    }
    Some(Str::from(name))
}

pub(crate) fn encode_group(value: &GroupMetadataValue) -> Bytes {
    encode(value, GROUP_METADATA_VERSION)
}

pub(crate) fn encode_offset(value: &OffsetCommitValue) -> Bytes {
    let version = if value.expire_timestamp == -1 {
        OFFSET_COMMIT_VERSION
    } else {
        OFFSET_COMMIT_VERSION_WITH_EXPIRY
    };
    encode(value, version)
}

pub(crate) fn encode_transaction(value: &TransactionLogValue) -> Bytes {
    encode(value, TRANSACTION_VERSION)
}

#[allow(clippy::expect_used)]
pub(crate) fn encode<M: Message>(value: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    // Encoding fails only for a field that the version cannot hold, and the versions above are
    // chosen so that they hold what is set: peers cannot reach it.
    value
        .encode(&mut writer, version)
        .expect("a stored value fits its own version");
    let body = writer.finish_contiguous();
    let mut out = BytesMut::with_capacity(2 + body.len());
    out.put_i16(version);
    out.put_slice(&body);
    out.freeze()
}

pub(crate) fn decode<M: Message>(key: &Bytes, value: &Bytes) -> Result<M, LoadError> {
    let bad = |reason: String| LoadError::BadValue {
        key: key.clone(),
        reason,
    };
    let Some((version, _)) = value.split_first_chunk::<2>() else {
        return Err(bad("it is shorter than its version".to_owned()));
    };
    let version = i16::from_be_bytes(*version);
    if !M::VERSIONS.contains(&version) {
        return Err(bad(format!("version {version} of {} is unknown", M::NAME)));
    }
    let mut reader = Reader::new(value.slice(2..));
    M::decode(&mut reader, version).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_group_id_are_read_back() {
        for group in ["", "g", "a/b", "100%", "%2F", "a%2Fb/%25", "ümläut \u{1f600}"] {
            assert_eq!(
                parse_key(&group_key(group)).unwrap(),
                Key::Group {
                    group: Str::from(group.to_owned())
                }
            );
            let offset = parse_key(&offset_key(group, "t.o-p_ic", 17)).unwrap();
            let expected = Key::Offset {
                group: Str::from(group.to_owned()),
                topic: Str::from("t.o-p_ic"),
                partition: 17,
            };
            assert_eq!(offset, expected);
            let pending = parse_key(&pending_key(group, 4_000, "t.o-p_ic", 17)).unwrap();
            let expected = Key::Pending {
                group: Str::from(group.to_owned()),
                producer_id: 4_000,
                topic: Str::from("t.o-p_ic"),
                partition: 17,
            };
            assert_eq!(pending, expected);
            let transaction = parse_key(&transaction_key(group)).unwrap();
            let transactional_id = Str::from(group.to_owned());
            assert_eq!(transaction, Key::Transaction { transactional_id });
            let name = Str::from("a/%/.*".to_owned());
            let parts = [
                Part::Group,
                Part::Assignment,
                Part::Topology,
                Part::States,
                Part::Member(name.clone()),
                Part::Target(name.clone()),
                Part::Current(name.clone()),
                Part::Regex(name.clone()),
            ];
            for of in PartsOf::ALL {
                for part in parts.clone() {
                    let key = parse_key(&part_key(of, group, &part)).unwrap();
                    let group = Str::from(group.to_owned());
                    assert_eq!(key, Key::Part { of, group, part });
                }
            }
        }
    }

    #[test]
    fn a_group_id_with_a_slash_cannot_take_the_place_of_another_groups_offsets() {
        assert_ne!(offset_key("a/b", "c", 1), offset_key("a", "b/c", 1));
        assert!(!offset_key("a/b", "c", 1).starts_with(b"offset/a/"));
    }

    #[test]
    fn strange_keys_and_values_are_named_and_not_believed() {
        for key in [
            "",
            "group",
            "groups/a",
            "group/a/b",
            "offset/a/b",
            "offset/a/b/x",
            "group/%2",
            "group/%zz",
        ] {
            let error = parse_key(&Bytes::from_static(key.as_bytes())).unwrap_err();
            assert!(matches!(error, LoadError::UnknownKey(_)), "{key}");
        }
        let key = Bytes::from_static(b"group/a");
        for value in [&b""[..], b"\0", b"\0\x63", b"\0\x03", b"\xff\xff"] {
            let error = decode::<GroupMetadataValue>(&key, &Bytes::copy_from_slice(value)).unwrap_err();
            assert!(matches!(error, LoadError::BadValue { .. }));
        }
    }

    #[test]
    fn an_offset_with_an_explicit_expiry_keeps_it() {
        let value = OffsetCommitValue {
            offset: 5,
            expire_timestamp: 77,
            ..OffsetCommitValue::default()
        };
        let key = offset_key("g", "t", 0);
        let read: OffsetCommitValue = decode(&key, &encode_offset(&value)).unwrap();
        assert_eq!((read.offset, read.expire_timestamp), (5, 77));
    }
}
