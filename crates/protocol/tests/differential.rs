//! Another implementation of the same definitions, the `kafka-protocol` crate, must agree with ours:
//! what one writes the other reads, and writes again as the same bytes. What that crate does not know
//! is compared with Java's clients in `golden.rs`.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};
use milena_protocol::testing::Sampler;
use milena_protocol::{Message, Reader, Writer, messages as ours};

/// Different samples of each message in each version.
const SAMPLES: u64 = 60;

/// What that crate does not have. Whatever else it lacks fails the test that names this.
const UNKNOWN_THERE: [&str; 4] = [
    "StreamsGroupDescribeRequest",
    "StreamsGroupDescribeResponse",
    "StreamsGroupHeartbeatRequest",
    "StreamsGroupHeartbeatResponse",
];

/// The versions that both have.
fn versions<O: Message, T: TheirMessage>() -> std::ops::RangeInclusive<i16> {
    *O::VERSIONS.start().max(&T::VERSIONS.min)..=*O::VERSIONS.end().min(&T::VERSIONS.max)
}

fn written<O: Message>(message: &O, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}", O::NAME));
    writer.finish_contiguous()
}

fn written_there<T: Encodable>(message: &T, name: &str, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("{name} v{version} there: {error}"));
    out.freeze()
}

fn samples_agree<O: Message, T: TheirMessage + Decodable + Encodable + std::fmt::Debug>() {
    let name = O::NAME;
    let versions = versions::<O, T>();
    assert!(!versions.is_empty(), "{name} has no version in common");
    for version in versions {
        for seed in 0..SAMPLES {
            let sample = O::sample(&mut Sampler::new(seed), version);
            let bytes = written(&sample, version);
            let mut rest = bytes.clone();
            let there = T::decode(&mut rest, version)
                .unwrap_or_else(|error| panic!("{name} v{version} seed {seed}: {error}\n{sample:?}"));
            assert!(rest.is_empty(), "{name} v{version} seed {seed}: {rest:?} left");
            let back = written_there(&there, name, version);
            assert_eq!(
                back, bytes,
                "{name} v{version} seed {seed}\n{sample:?}\n{there:?}"
            );
            let read = O::decode(&mut Reader::new(back), version)
                .unwrap_or_else(|error| panic!("{name} v{version} seed {seed}: {error}\n{there:?}"));
            assert_eq!(read, sample, "{name} v{version} seed {seed}");
        }
    }
}

/// An untouched message says the same in both, and reads back as untouched.
fn defaults_agree<O: Message, T: TheirMessage + Default + Encodable>() {
    let name = O::NAME;
    for version in versions::<O, T>() {
        let there = written_there(&T::default(), name, version);
        assert_eq!(written(&O::default(), version), there, "{name} v{version}");
    }
}

macro_rules! for_each_known {
    ($call:ident) => {
        for_each_known! { $call:
            RequestHeader,
            ResponseHeader,
            ProduceRequest,
            ProduceResponse,
            FetchRequest,
            FetchResponse,
            ListOffsetsRequest,
            ListOffsetsResponse,
            MetadataRequest,
            MetadataResponse,
            OffsetCommitRequest,
            OffsetCommitResponse,
            OffsetFetchRequest,
            OffsetFetchResponse,
            FindCoordinatorRequest,
            FindCoordinatorResponse,
            JoinGroupRequest,
            JoinGroupResponse,
            HeartbeatRequest,
            HeartbeatResponse,
            LeaveGroupRequest,
            LeaveGroupResponse,
            SyncGroupRequest,
            SyncGroupResponse,
            DescribeGroupsRequest,
            DescribeGroupsResponse,
            ListGroupsRequest,
            ListGroupsResponse,
            SaslHandshakeRequest,
            SaslHandshakeResponse,
            ApiVersionsRequest,
            ApiVersionsResponse,
            CreateTopicsRequest,
            CreateTopicsResponse,
            DeleteTopicsRequest,
            DeleteTopicsResponse,
            DeleteRecordsRequest,
            DeleteRecordsResponse,
            InitProducerIdRequest,
            InitProducerIdResponse,
            OffsetForLeaderEpochRequest,
            OffsetForLeaderEpochResponse,
            AddPartitionsToTxnRequest,
            AddPartitionsToTxnResponse,
            AddOffsetsToTxnRequest,
            AddOffsetsToTxnResponse,
            EndTxnRequest,
            EndTxnResponse,
            WriteTxnMarkersRequest,
            WriteTxnMarkersResponse,
            TxnOffsetCommitRequest,
            TxnOffsetCommitResponse,
            DescribeAclsRequest,
            DescribeAclsResponse,
            CreateAclsRequest,
            CreateAclsResponse,
            DeleteAclsRequest,
            DeleteAclsResponse,
            DescribeConfigsRequest,
            DescribeConfigsResponse,
            AlterConfigsRequest,
            AlterConfigsResponse,
            AlterReplicaLogDirsRequest,
            AlterReplicaLogDirsResponse,
            DescribeLogDirsRequest,
            DescribeLogDirsResponse,
            SaslAuthenticateRequest,
            SaslAuthenticateResponse,
            CreatePartitionsRequest,
            CreatePartitionsResponse,
            CreateDelegationTokenRequest,
            CreateDelegationTokenResponse,
            RenewDelegationTokenRequest,
            RenewDelegationTokenResponse,
            ExpireDelegationTokenRequest,
            ExpireDelegationTokenResponse,
            DescribeDelegationTokenRequest,
            DescribeDelegationTokenResponse,
            DeleteGroupsRequest,
            DeleteGroupsResponse,
            ElectLeadersRequest,
            ElectLeadersResponse,
            IncrementalAlterConfigsRequest,
            IncrementalAlterConfigsResponse,
            AlterPartitionReassignmentsRequest,
            AlterPartitionReassignmentsResponse,
            ListPartitionReassignmentsRequest,
            ListPartitionReassignmentsResponse,
            OffsetDeleteRequest,
            OffsetDeleteResponse,
            DescribeClientQuotasRequest,
            DescribeClientQuotasResponse,
            AlterClientQuotasRequest,
            AlterClientQuotasResponse,
            DescribeUserScramCredentialsRequest,
            DescribeUserScramCredentialsResponse,
            AlterUserScramCredentialsRequest,
            AlterUserScramCredentialsResponse,
            DescribeQuorumRequest,
            DescribeQuorumResponse,
            UpdateFeaturesRequest,
            UpdateFeaturesResponse,
            DescribeClusterRequest,
            DescribeClusterResponse,
            DescribeProducersRequest,
            DescribeProducersResponse,
            UnregisterBrokerRequest,
            UnregisterBrokerResponse,
            DescribeTransactionsRequest,
            DescribeTransactionsResponse,
            ListTransactionsRequest,
            ListTransactionsResponse,
            ConsumerGroupHeartbeatRequest,
            ConsumerGroupHeartbeatResponse,
            ConsumerGroupDescribeRequest,
            ConsumerGroupDescribeResponse,
            GetTelemetrySubscriptionsRequest,
            GetTelemetrySubscriptionsResponse,
            PushTelemetryRequest,
            PushTelemetryResponse,
            ListConfigResourcesRequest,
            ListConfigResourcesResponse,
            DescribeTopicPartitionsRequest,
            DescribeTopicPartitionsResponse,
            ShareGroupHeartbeatRequest,
            ShareGroupHeartbeatResponse,
            ShareGroupDescribeRequest,
            ShareGroupDescribeResponse,
            ShareFetchRequest,
            ShareFetchResponse,
            ShareAcknowledgeRequest,
            ShareAcknowledgeResponse,
            AddRaftVoterRequest,
            AddRaftVoterResponse,
            RemoveRaftVoterRequest,
            RemoveRaftVoterResponse,
            InitializeShareGroupStateRequest,
            InitializeShareGroupStateResponse,
            ReadShareGroupStateRequest,
            ReadShareGroupStateResponse,
            WriteShareGroupStateRequest,
            WriteShareGroupStateResponse,
            DeleteShareGroupStateRequest,
            DeleteShareGroupStateResponse,
            ReadShareGroupStateSummaryRequest,
            ReadShareGroupStateSummaryResponse,
            DescribeShareGroupOffsetsRequest,
            DescribeShareGroupOffsetsResponse,
            AlterShareGroupOffsetsRequest,
            AlterShareGroupOffsetsResponse,
            DeleteShareGroupOffsetsRequest,
            DeleteShareGroupOffsetsResponse,
        }
    };
    ($call:ident: $($name:ident,)*) => { $($call!($name);)* };
}

#[test]
fn every_message_that_both_know_is_read_there_and_written_again_as_the_same_bytes() {
    macro_rules! each {
        ($name:ident) => {
            samples_agree::<ours::$name, theirs::$name>();
        };
    }
    for_each_known!(each);
}

#[test]
fn every_message_that_both_know_has_the_same_defaults() {
    macro_rules! each {
        ($name:ident) => {
            defaults_agree::<ours::$name, theirs::$name>();
        };
    }
    for_each_known!(each);
}

#[test]
fn no_message_is_left_out() {
    let mut compared: BTreeSet<&str> = UNKNOWN_THERE.into();
    macro_rules! each {
        ($name:ident) => {
            assert!(compared.insert(stringify!($name)));
        };
    }
    for_each_known!(each);
    let mut known = BTreeSet::new();
    macro_rules! each_of_ours {
        ($message:ty) => {
            known.insert(<$message>::NAME);
        };
    }
    milena_protocol::for_each_message!(each_of_ours);
    assert_eq!(compared, known);
}
