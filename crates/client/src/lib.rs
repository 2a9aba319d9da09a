//! A thin request client: connects, learns which versions the broker speaks, sends a request and
//! waits for its answer. For the tools and for tests; producers and consumers use a full client.
//!
//! It promises to send each request in the highest version that both sides know, and to give a
//! sentence for everything that goes wrong. Retries, batching and group membership are others' work.

mod connection;
mod error;

use std::collections::HashMap;
use std::time::Duration;

use milena_protocol::messages::metadata_request::MetadataRequestTopic;
use milena_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse};
use milena_protocol::{ErrorCode, Request, Str};

pub use connection::{Connection, Options};
pub use error::ClientError;

/// Kinds of coordinators (KIP-98).
pub const GROUP_COORDINATOR: i8 = 0;
pub const TRANSACTION_COORDINATOR: i8 = 1;

/// How long a coordinator may take to be found.
const COORDINATOR_PATIENCE: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A cluster: a bootstrap connection, and one more for every broker that is asked.
#[derive(Debug)]
pub struct Client {
    options: Options,
    bootstrap: Connection,
    brokers: HashMap<i32, Connection>,
    addresses: HashMap<i32, (Str, i32)>,
}

impl Client {
    /// Connects to the first of the comma-separated `host:port`s that answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn connect(bootstrap_servers: &str, options: Options) -> Result<Self, ClientError> {
        let mut last = ClientError::Address(bootstrap_servers.to_owned());
        for server in bootstrap_servers
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty())
        {
            match Connection::open(server, &options).await {
                Ok(bootstrap) => {
                    return Ok(Self {
                        options,
                        bootstrap,
                        brokers: HashMap::new(),
                        addresses: HashMap::new(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends to any broker.
    ///
    /// # Errors
    /// When the connection fails or the broker does not know the API.
    pub async fn send<R: Request>(&mut self, request: R) -> Result<R::Response, ClientError> {
        self.bootstrap.send(request).await
    }

    /// The versions that the bootstrap broker answered with.
    #[must_use]
    pub fn bootstrap(&mut self) -> &mut Connection {
        &mut self.bootstrap
    }

    /// Metadata of these topics, or of all; remembers the brokers' addresses.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn metadata(&mut self, topics: Option<&[Str]>) -> Result<MetadataResponse, ClientError> {
        let topics = topics.map(|names| {
            names
                .iter()
                .map(|name| MetadataRequestTopic {
                    name: Some(name.clone()),
                    ..MetadataRequestTopic::default()
                })
                .collect()
        });
        let request = MetadataRequest {
            topics,
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response = self.bootstrap.send(request).await?;
        self.addresses = response
            .brokers
            .iter()
            .map(|one| (one.node_id, (one.host.clone(), one.port)))
            .collect();
        Ok(response)
    }

    /// Sends to one broker of the cluster, in the highest version that both sides know.
    ///
    /// # Errors
    /// When the broker is unknown or the connection fails.
    pub async fn send_to<R: Request>(
        &mut self,
        node_id: i32,
        request: R,
    ) -> Result<R::Response, ClientError> {
        let version = self.version_of::<R>(node_id).await?;
        self.send_version_to(node_id, &request, version).await
    }

    /// The highest version that one broker and this client know.
    ///
    /// # Errors
    /// When the broker is unknown, cannot be reached, or does not know the API.
    pub async fn version_of<R: Request>(&mut self, node_id: i32) -> Result<i16, ClientError> {
        self.broker(node_id).await?.version_for::<R>()
    }

    /// Sends to one broker in this version.
    ///
    /// # Errors
    /// When the broker is unknown or the connection fails.
    pub async fn send_version_to<R: Request>(
        &mut self,
        node_id: i32,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        let result = self.broker(node_id).await?.send_version(request, version).await;
        if result.as_ref().is_err_and(ClientError::is_connection) {
            self.brokers.remove(&node_id);
        }
        result
    }

    async fn broker(&mut self, node_id: i32) -> Result<&mut Connection, ClientError> {
        if !self.brokers.contains_key(&node_id) {
            if !self.addresses.contains_key(&node_id) {
                self.metadata(Some(&[])).await?;
            }
            let (host, port) = self
                .addresses
                .get(&node_id)
                .ok_or(ClientError::UnknownBroker(node_id))?;
            let connection = Connection::open(&format!("{}:{port}", bracketed(host)), &self.options).await?;
            self.brokers.insert(node_id, connection);
        }
        self.brokers
            .get_mut(&node_id)
            .ok_or(ClientError::UnknownBroker(node_id))
    }

    /// The broker that coordinates a group, waited for while it loads.
    ///
    /// # Errors
    /// The broker's error, or when the connection fails.
    pub async fn coordinator(&mut self, key: &str, key_type: i8) -> Result<i32, ClientError> {
        let deadline = tokio::time::Instant::now() + COORDINATOR_PATIENCE;
        loop {
            let key = Str::from(key.to_owned());
            let version = self.bootstrap.version_for::<FindCoordinatorRequest>()?;
            let request = match version {
                4.. => FindCoordinatorRequest {
                    key_type,
                    coordinator_keys: vec![key],
                    ..Default::default()
                },
                1.. => FindCoordinatorRequest {
                    key_type,
                    key,
                    ..Default::default()
                },
                _ => FindCoordinatorRequest {
                    key,
                    ..Default::default()
                },
            };
            let response = self.bootstrap.send(request).await?;
            let (code, node_id, host, port) = match response.coordinators.into_iter().next() {
                Some(found) => (found.error_code, found.node_id, found.host, found.port),
                None => (
                    response.error_code,
                    response.node_id,
                    response.host,
                    response.port,
                ),
            };
            let code = ErrorCode::from_code(code);
            if code == ErrorCode::None {
                self.addresses.insert(node_id, (host, port));
                return Ok(node_id);
            }
            if !code.is_retriable() || tokio::time::Instant::now() >= deadline {
                return Err(ClientError::Broker(code, None));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
