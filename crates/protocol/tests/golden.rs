//! What Kafka 4.3.1's own clients write, in the highest version of every message: it is read whole,
//! written again as the same bytes, and holds the values that Java was given.

#![allow(clippy::expect_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use milena_protocol::messages::{
    ListOffsetsRequest, ProduceRequest, StreamsGroupHeartbeatRequest, WriteTxnMarkersRequest,
};
use milena_protocol::{Message, Reader, Uuid, Writer};

const MESSAGES: &str = include_str!("golden/messages.txt");

/// APIs that controllers answer, or that brokers without a controller have no use for.
const NOT_FOR_BROKERS: [&str; 12] = [
    "AllocateProducerIds",
    "AlterPartition",
    "AssignReplicasToDirs",
    "BeginQuorumEpoch",
    "BrokerHeartbeat",
    "BrokerRegistration",
    "ControllerRegistration",
    "EndQuorumEpoch",
    "Envelope",
    "FetchSnapshot",
    "UpdateRaftVoter",
    "Vote",
];

/// Java's bytes by the name of the message, with their version.
fn golden() -> BTreeMap<&'static str, (i16, Bytes)> {
    let line = |line: &'static str| {
        let mut parts = line.split(' ');
        let name = parts.next().expect("a name");
        let version = parts.next().expect("a version").parse().expect("a number");
        let hex = parts.next().unwrap_or_default();
        let bytes = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hexadecimal"))
            .collect();
        (name, (version, bytes))
    };
    MESSAGES.lines().map(line).collect()
}

fn read<M: Message>() -> M {
    let (version, bytes) = golden().remove(M::NAME).expect("listed");
    M::decode(&mut Reader::new(bytes), version).expect("a message")
}

/// What Java was told to write into a number of this name.
fn number_for(name: &str) -> i64 {
    let sum = name
        .bytes()
        .fold(0i32, |sum, one| sum.wrapping_mul(31).wrapping_add(i32::from(one)));
    i64::from(sum & i32::MAX)
}

fn uuid_for(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(number_for(name) << 16).to_be_bytes());
    bytes[8..].copy_from_slice(&number_for(name).to_be_bytes());
    Uuid::from_bytes(bytes)
}

fn same_bytes<M: Message>(golden: &mut BTreeMap<&str, (i16, Bytes)>) {
    let name = M::NAME;
    if matches!(name, "RequestHeader" | "ResponseHeader") {
        return; // No API of its own.
    }
    let (version, bytes) = golden
        .remove(name)
        .unwrap_or_else(|| panic!("Java knows no {name}"));
    assert_eq!(version, *M::VERSIONS.end(), "{name}'s highest version");
    let mut reader = Reader::new(bytes.clone());
    let message =
        M::decode(&mut reader, version).unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
    assert_eq!(reader.remaining(), 0, "{name} v{version}: {message:?}");
    let unknown = format!("{message:?}").matches("TaggedFields([(").count();
    assert_eq!(
        unknown, 0,
        "{name} v{version} has tags that are not known: {message:?}"
    );
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .expect("was read in this version");
    assert_eq!(
        writer.finish_contiguous(),
        bytes,
        "{name} v{version}: {message:?}"
    );
}

#[test]
fn what_javas_clients_write_is_read_whole_and_written_again_as_the_same_bytes() {
    let mut golden = golden();
    macro_rules! each {
        ($message:ty) => {
            same_bytes::<$message>(&mut golden);
        };
    }
    milena_protocol::for_each_message!(each);
    let requests_left: Vec<&str> = golden
        .into_keys()
        .filter_map(|name| name.strip_suffix("Request"))
        .collect();
    assert_eq!(requests_left, NOT_FOR_BROKERS);
}

#[test]
fn fields_hold_what_java_wrote_into_them() {
    let offsets: ListOffsetsRequest = read();
    assert_eq!(i64::from(offsets.replica_id), number_for("replica_id"));
    assert_eq!(offsets.topics.len(), 2);
    assert_eq!(&*offsets.topics[1].name, "name");
    let partition = &offsets.topics[1].partitions[0];
    assert_eq!(partition.timestamp, number_for("timestamp") << 16);
    assert_eq!(i64::from(offsets.timeout_ms), number_for("timeout_ms"));

    let heartbeat: StreamsGroupHeartbeatRequest = read();
    assert_eq!(&*heartbeat.group_id, "group_id");
    assert_eq!(&*heartbeat.member_id, "member_id");
    assert_eq!(i64::from(heartbeat.member_epoch), number_for("member_epoch"));
    assert_eq!(heartbeat.process_id.as_deref(), Some("process_id"));
    let endpoint = heartbeat.user_endpoint.as_ref().expect("set");
    assert_eq!((&*endpoint.host, endpoint.port), ("host", 65000));
    let topology = heartbeat.topology.as_ref().expect("set");
    assert_eq!(i64::from(topology.epoch), number_for("epoch"));
    assert_eq!(topology.subtopologies.len(), 2);

    let produce: ProduceRequest = read();
    assert_eq!(produce.transactional_id.as_deref(), Some("transactional_id"));
    assert_eq!(produce.topic_data[0].topic_id, uuid_for("topic_id"));
    let partition = &produce.topic_data[0].partition_data[1];
    assert_eq!(partition.records.as_deref(), Some(&b"records"[..]));

    let markers: WriteTxnMarkersRequest = read();
    assert_eq!(markers.markers[0].producer_id, number_for("producer_id") << 16);
    assert!(markers.markers[1].transaction_result);
}
