//! Order, back-pressure, limits and the end of connections.

use std::sync::Arc;
use std::time::Duration;

use milena_broker::config::{BrokerConfig, Properties};
use milena_broker::{Broker, Engines, Server, SystemClock};
use milena_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use milena_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use milena_protocol::messages::{
    ApiVersionsRequest, FetchRequest, IncrementalAlterConfigsRequest, MetadataRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, TestBroker, text};

const PATIENCE: Duration = Duration::from_secs(30);

async fn ends(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

fn waiting_fetch() -> FetchRequest {
    let partition = FetchPartition {
        partition: 0,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: text("t"),
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    FetchRequest {
        max_wait_ms: 600_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut sent = Vec::new();
    for _ in 0..200 {
        sent.push((true, client.send(&MetadataRequest::default(), 9).await));
        sent.push((false, client.send(&ApiVersionsRequest::default(), 2).await));
    }
    for (is_metadata, correlation_id) in sent {
        if is_metadata {
            client.receive::<MetadataRequest>(9, correlation_id).await;
        } else {
            client.receive::<ApiVersionsRequest>(2, correlation_id).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_not_served_without_end_and_gets_everything_later() {
    let broker = TestBroker::start().await;
    for index in 0..20 {
        broker.topic(&format!("topic-{index}"), 100).await;
    }
    let mut client = broker.connect().await;
    let mut sent = Vec::new();
    // About 50 KiB each: far more than the socket and the broker hold for one connection.
    for _ in 0..300 {
        sent.push(
            client
                .send(
                    &MetadataRequest {
                        topics: None,
                        ..MetadataRequest::default()
                    },
                    9,
                )
                .await,
        );
    }
    for correlation_id in sent {
        let response = client.receive::<MetadataRequest>(9, correlation_id).await;
        assert_eq!(response.topics.len(), 20);
    }
}

#[tokio::test]
async fn a_stopping_broker_answers_a_waiting_fetch_and_closes() {
    let mut broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let waiting = client.send(&waiting_fetch(), 11).await;
    // A request behind the waiting one: it has been taken, so it is answered, too.
    let behind = client.send(&ApiVersionsRequest::default(), 2).await;
    let mut other = broker.connect().await;
    other.call(&MetadataRequest::default(), 9).await;
    let stopping = tokio::time::timeout(PATIENCE, broker.stop());
    let answered = async {
        // What the broker had not read when it stopped it need not answer.
        if let Some(frame) = client.frame().await {
            assert_eq!(frame[..4], waiting.to_be_bytes());
            if let Some(frame) = client.frame().await {
                assert_eq!(frame[..4], behind.to_be_bytes());
                assert!(client.is_closed().await);
            }
        }
        assert!(other.is_closed().await);
    };
    let (stopped, ()) = tokio::join!(stopping, answered);
    stopped.expect("the broker stops long before the fetch's time is over");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_connection() {
    let broker = TestBroker::with(&[("max.connections", "1")]).await;
    let first = TcpStream::connect(broker.address()).await.unwrap();
    // The backlog takes it; the broker does not.
    let mut second = TcpStream::connect(broker.address()).await.unwrap();
    let mut request = vec![0, 0, 0, 10];
    request.extend([0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    second.write_all(&request).await.unwrap();
    drop(first);
    let mut length = [0; 4];
    tokio::time::timeout(PATIENCE, second.read_exact(&mut length))
        .await
        .unwrap()
        .unwrap();
    assert!(i32::from_be_bytes(length) > 0);
}

#[tokio::test]
async fn a_connection_too_many_from_one_address_is_closed() {
    let broker = TestBroker::with(&[("max.connections.per.ip", "2")]).await;
    let first = TcpStream::connect(broker.address()).await.unwrap();
    let _second = TcpStream::connect(broker.address()).await.unwrap();
    let mut third = TcpStream::connect(broker.address()).await.unwrap();
    assert!(ends(&mut third).await);
    drop(first);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let broker = TestBroker::with(&[("connections.max.idle.ms", "50")]).await;
    let mut idle = TcpStream::connect(broker.address()).await.unwrap();
    assert!(ends(&mut idle).await);
}

#[tokio::test]
async fn a_connection_that_waits_for_an_answer_is_not_idle() {
    let broker = TestBroker::with(&[("connections.max.idle.ms", "50")]).await;
    broker.topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut fetch = waiting_fetch();
    fetch.max_wait_ms = 500;
    client.call(&fetch, 11).await;
}

#[tokio::test]
async fn each_listener_tells_its_clients_its_own_advertised_address() {
    let settings = [
        (
            "listeners",
            "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        ),
        (
            "advertised.listeners",
            "INSIDE://inside.example:0,OUTSIDE://outside.example:9999",
        ),
        (
            "listener.security.protocol.map",
            "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ),
        ("controller.listener.names", "CONTROLLER"),
        ("inter.broker.listener.name", "INSIDE"),
    ];
    let settings: Properties = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let engines = Engines {
        logs: Arc::new(milena_log::MemoryLogStore::default()),
        facts: Arc::new(milena_state::memory::MemoryStore::new()),
    };
    let config = BrokerConfig::new(settings).unwrap();
    let broker = Broker::start(config, engines, Arc::new(SystemClock))
        .await
        .unwrap();
    let server = Server::start(broker).await.unwrap();
    let listeners = server.listeners();
    let [inside, outside] = &listeners[..] else {
        panic!("{listeners:?}")
    };
    for (listener, host, port) in [
        (inside, "inside.example", inside.address.port()),
        (outside, "outside.example", 9999),
    ] {
        let stream = TcpStream::connect(listener.address).await.unwrap();
        let response = Client::over(stream).call(&MetadataRequest::default(), 9).await;
        assert_eq!(&*response.brokers[0].host, host);
        assert_eq!(response.brokers[0].port, i32::from(port));
    }
    server.shutdown().await.unwrap();
}

/// Sets `listeners` of the running broker.
async fn set_listeners(client: &mut Client, listeners: &str) -> i16 {
    let config = |name: &str, value: &str| AlterableConfig {
        name: text(name),
        value: Some(text(value)),
        ..AlterableConfig::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: text("1"),
            configs: vec![
                config("listeners", listeners),
                config(
                    "listener.security.protocol.map",
                    "PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT",
                ),
            ],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    client.call(&request, 1).await.responses[0].error_code
}

#[tokio::test]
async fn listeners_open_and_close_while_the_broker_runs() {
    let broker = TestBroker::with(&[]).await;
    let mut client = broker.connect().await;
    let first = "PLAINTEXT://127.0.0.1:0";
    assert_eq!(
        set_listeners(&mut client, &format!("{first},EXTRA://127.0.0.1:0")).await,
        0
    );
    let extra = loop {
        let open = broker.listeners();
        if let Some(extra) = open.iter().find(|listener| &*listener.name == "EXTRA") {
            break extra.address;
        }
        tokio::task::yield_now().await;
    };
    let mut by_extra = Client::over(TcpStream::connect(extra).await.unwrap());
    let told = by_extra.call(&MetadataRequest::default(), 12).await;
    assert_eq!(
        told.brokers[0].port,
        i32::from(extra.port()),
        "it tells its own address"
    );
    assert_ne!(
        set_listeners(&mut client, "EXTRA://127.0.0.1:0,OTHER://127.0.0.1:0").await,
        0
    );
    assert_eq!(set_listeners(&mut client, first).await, 0);
    assert!(by_extra.is_closed().await);
    assert_eq!(broker.listeners().len(), 1);
    let told = client.call(&MetadataRequest::default(), 12).await;
    assert_eq!(told.brokers.len(), 1, "the first listener has not noticed");
}
