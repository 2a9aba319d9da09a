//! Metrics of clients: subscribed to, pushed with every compression, and read again.

use bytes::Bytes;
use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::{
    ApiVersionsRequest, FetchRequest, GetTelemetrySubscriptionsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, PushTelemetryRequest, fetch_request,
};
use milena_protocol::records::{self, Compression, Record};
use milena_protocol::{ErrorCode, Uuid};

use crate::harness::{Client, TestBroker, error, text};

const CLIENT_METRICS: i8 = 16;
const TOPIC: &str = "__client_metrics";
/// The shortest interval there is.
const INTERVAL_MS: &str = "100";

/// Field 1 of `MetricsData`, which holds nothing that the broker looks at.
fn otlp(content: &str) -> Vec<u8> {
    let mut bytes = vec![0x0a, u8::try_from(content.len()).unwrap()];
    bytes.extend(content.as_bytes());
    bytes
}

async fn subscribe(client: &mut Client, name: &str, configs: &[(&str, &str)]) -> ErrorCode {
    let config = |(name, value): &(&str, &str)| AlterableConfig {
        name: text(name),
        value: Some(text(value)),
        ..AlterableConfig::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: CLIENT_METRICS,
            resource_name: text(name),
            configs: configs.iter().map(config).collect(),
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    error(client.call(&request, 1).await.responses[0].error_code)
}

/// A client that has told what software it is, as those that push have.
async fn told(broker: &TestBroker, software: &str) -> Client {
    let mut client = broker.connect().await;
    let request = ApiVersionsRequest {
        client_software_name: text(software),
        client_software_version: text("1.0"),
        ..ApiVersionsRequest::default()
    };
    client.call(&request, 3).await;
    client
}

async fn push(client: &mut Client, request: PushTelemetryRequest) -> ErrorCode {
    error(client.call(&request, 0).await.error_code)
}

async fn kept(client: &mut Client, count: usize) -> Vec<Record> {
    let request = FetchRequest {
        min_bytes: 1,
        max_wait_ms: 100,
        max_bytes: 1 << 20,
        topics: vec![fetch_request::FetchTopic {
            topic: text(TOPIC),
            partitions: vec![fetch_request::FetchPartition {
                partition_max_bytes: 1 << 20,
                ..fetch_request::FetchPartition::default()
            }],
            ..fetch_request::FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    loop {
        let response = client.call(&request, 12).await;
        let bytes = response.responses[0].partitions[0].records.clone();
        let bytes = bytes.map_or_else(Bytes::new, |records| records.into_bytes().unwrap());
        let batches: Vec<_> = records::batches(&bytes).map(|batch| batch.unwrap()).collect();
        let found: Vec<Record> = batches
            .iter()
            .flat_map(|batch| batch.records(1 << 20).unwrap())
            .map(|record| record.unwrap())
            .collect();
        if found.len() >= count {
            return found;
        }
    }
}

#[tokio::test]
async fn what_clients_push_with_any_compression_is_read_from_a_topic() {
    let broker = TestBroker::start().await;
    let mut admin = broker.connect().await;
    let configs = [
        ("interval.ms", INTERVAL_MS),
        ("metrics", "producer."),
        ("match", "client_software_name=pusher"),
    ];
    assert_eq!(subscribe(&mut admin, "s", &configs).await, ErrorCode::None);
    let listed = admin.call(&ListConfigResourcesRequest::default(), 0).await;
    assert_eq!(listed.config_resources[0].resource_name, "s");

    let mut other = told(&broker, "other").await;
    let given = other.call(&GetTelemetrySubscriptionsRequest::default(), 0).await;
    assert!(given.requested_metrics.is_empty(), "it does not fit");

    for codec in Compression::ALL {
        let mut client = told(&broker, "pusher").await;
        let given = client.call(&GetTelemetrySubscriptionsRequest::default(), 0).await;
        assert_eq!(given.requested_metrics, ["producer."]);
        assert_eq!(given.accepted_compression_types, [4, 3, 1, 2]);
        let name = format!("{codec:?}");
        let metrics = match codec {
            Compression::None => Bytes::from(otlp(&name)),
            codec => records::compress(codec, None, &otlp(&name)).unwrap(),
        };
        let good = PushTelemetryRequest {
            client_instance_id: given.client_instance_id,
            subscription_id: given.subscription_id,
            compression_type: i8::try_from(codec.id()).unwrap(),
            metrics,
            ..PushTelemetryRequest::default()
        };
        assert_eq!(push(&mut client, good.clone()).await, ErrorCode::None, "{name}");
        assert_eq!(
            push(&mut client, good).await,
            ErrorCode::ThrottlingQuotaExceeded,
            "{name}"
        );
    }
    let records = kept(&mut admin, Compression::ALL.len()).await;
    for (record, codec) in records.iter().zip(Compression::ALL) {
        assert_eq!(record.value.as_deref(), Some(&otlp(&format!("{codec:?}"))[..]));
        let software = record
            .headers
            .iter()
            .find(|header| header.key == "client_software_name");
        assert_eq!(software.unwrap().value.as_deref(), Some(&b"pusher"[..]));
    }
}

#[tokio::test]
async fn what_is_no_push_is_refused_and_not_kept() {
    let broker = TestBroker::with(&[("telemetry.max.bytes", "1000")]).await;
    let mut admin = broker.connect().await;
    assert_eq!(
        subscribe(&mut admin, "s", &[("metrics", "*")]).await,
        ErrorCode::None
    );
    let unnamed = PushTelemetryRequest::default();
    assert_eq!(push(&mut admin, unnamed).await, ErrorCode::InvalidRequest);
    // What a megabyte of nothing takes in zstd is little, and 9 MiB are too much all the same.
    let bomb = records::compress(Compression::Zstd, None, &vec![0; 9 << 20]).unwrap();
    assert!(bomb.len() < 1_000);
    for (metrics, compression_type, expected) in [
        (Bytes::from_static(b"nonsense"), 0, ErrorCode::InvalidRecord),
        (Bytes::from_static(b"nonsense"), 4, ErrorCode::InvalidRecord),
        (Bytes::from(vec![0; 1_001]), 0, ErrorCode::TelemetryTooLarge),
        (bomb, 4, ErrorCode::TelemetryTooLarge),
        (Bytes::from(otlp("x")), 9, ErrorCode::UnsupportedCompressionType),
    ] {
        let mut client = broker.connect().await;
        let given = client.call(&GetTelemetrySubscriptionsRequest::default(), 0).await;
        assert_ne!(given.client_instance_id, Uuid::default());
        let request = PushTelemetryRequest {
            client_instance_id: given.client_instance_id,
            subscription_id: given.subscription_id,
            compression_type,
            metrics,
            ..PushTelemetryRequest::default()
        };
        assert_eq!(push(&mut client, request).await, expected);
    }
}
