//! A broker in this process, and a client that speaks raw frames.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milena_broker::config::{BrokerConfig, Properties};
use milena_broker::{BoundListener, Broker, Clock, Engines, LogLevels, Loggers, Server, SystemClock};
use milena_log::{LogStore, MemoryLogStore};
use milena_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use milena_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use milena_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use milena_protocol::{ErrorCode, Message, Reader, Request, Str, Uuid, frame};
use milena_state::memory::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct TestBroker {
    server: Option<Server>,
    facts: Arc<MemoryStore>,
    logs: Arc<dyn LogStore>,
    settings: Vec<(String, String)>,
}

impl TestBroker {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// On another engine than the usual one.
    pub(crate) async fn on(logs: Arc<dyn LogStore>) -> Self {
        Self::new(&[], logs).await
    }

    /// With settings beside the defaults.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::new(settings, Arc::new(MemoryLogStore::default())).await
    }

    pub(crate) async fn new(settings: &[(&str, &str)], logs: Arc<dyn LogStore>) -> Self {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut broker = Self {
            server: None,
            facts: Arc::new(MemoryStore::new()),
            logs,
            settings,
        };
        broker.serve().await;
        broker
    }

    async fn serve(&mut self) {
        let mut properties = Properties::new();
        properties.insert("listeners".to_owned(), "PLAINTEXT://127.0.0.1:0".to_owned());
        properties.insert("group.initial.rebalance.delay.ms".to_owned(), "0".to_owned());
        properties.extend(self.settings.iter().cloned());
        let config = BrokerConfig::new(properties).unwrap();
        let engines = Engines {
            logs: self.logs.clone(),
            facts: self.facts.clone(),
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let broker = Broker::start(config, engines, clock).await.unwrap();
        broker.set_loggers(Loggers::new(LogLevels::default(), |_| Ok(())));
        self.server = Some(Server::start(broker).await.unwrap());
    }

    /// Stops the broker in order and starts it on the same facts and logs.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.facts = Arc::new(self.facts.reopen());
        self.serve().await;
    }

    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().shutdown().await.unwrap();
    }

    pub(crate) fn listeners(&self) -> Vec<BoundListener> {
        self.server.as_ref().unwrap().listeners()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners()[0].address
    }

    pub(crate) async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    /// Creates a topic and gives its id.
    pub(crate) async fn topic(&self, name: &str, partitions: i32) -> Uuid {
        self.topic_with(name, partitions, &[]).await
    }

    pub(crate) async fn topic_with(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let mut client = self.connect().await;
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: Str::from((*name).to_owned()),
                value: Some(Str::from((*value).to_owned())),
                ..CreatableTopicConfig::default()
            })
            .collect();
        let topic = CreatableTopic {
            name: Str::from(name.to_owned()),
            num_partitions: partitions,
            replication_factor: 1,
            configs,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        let response = client.call(&request, 7).await;
        assert_eq!(
            error(response.topics[0].error_code),
            ErrorCode::None,
            "{:?}",
            response.topics[0].error_message
        );
        response.topics[0].topic_id
    }

    pub(crate) async fn delete_topic(&self, name: &str) {
        let request = DeleteTopicsRequest {
            topic_names: vec![Str::from(name.to_owned())],
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        };
        let response = self.connect().await.call(&request, 5).await;
        assert_eq!(error(response.responses[0].error_code), ErrorCode::None);
    }

    /// The leader epoch that clients are told.
    pub(crate) async fn leader_epoch(&self, topic: &str) -> i32 {
        let asked = MetadataRequestTopic {
            name: Some(Str::from(topic.to_owned())),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![asked]),
            ..MetadataRequest::default()
        };
        self.connect().await.call(&request, 12).await.topics[0].partitions[0].leader_epoch
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    /// A client on a connection that somebody else has made.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            next_correlation_id: 0,
        }
    }

    /// Sends a request and gives its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frames =
            frame::encode_request(request, version, correlation_id, Some(Str::from("test"))).unwrap();
        for chunk in frames {
            self.stream.write_all(&chunk).await.unwrap();
        }
        correlation_id
    }

    /// The next frame without its length, `None` when the broker has closed the connection.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0_u8; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut frame = BytesMut::zeroed(usize::try_from(i32::from_be_bytes(length)).unwrap());
        self.stream.read_exact(&mut frame).await.unwrap();
        Some(frame.freeze())
    }

    pub(crate) async fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let bytes = self
            .frame()
            .await
            .unwrap_or_else(|| panic!("connection closed on {} v{version}", R::NAME));
        decode_response::<R>(bytes, version, correlation_id)
    }

    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let correlation_id = self.send(request, version).await;
        self.receive::<R>(version, correlation_id).await
    }

    pub(crate) async fn is_closed(&mut self) -> bool {
        self.frame().await.is_none()
    }
}

/// The answer in a frame without its length.
pub(crate) fn decode_response<R: Request>(frame: Bytes, version: i16, correlation_id: i32) -> R::Response {
    let mut reader = Reader::new(frame);
    let header = frame::decode_response_header(&mut reader, R::KEY, version).unwrap();
    assert_eq!(header.correlation_id, correlation_id);
    let response = R::Response::decode(&mut reader, version).unwrap();
    assert_eq!(reader.remaining(), 0, "bytes after the answer");
    response
}

pub(crate) fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

pub(crate) fn text(value: &str) -> Str {
    Str::from(value.to_owned())
}
