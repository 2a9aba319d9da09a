//! Listeners and connections.
//!
//! [`Server::start`] binds every listener, tells the broker its advertised endpoints (a listener
//! on port 0 advertises the port it got) and accepts, and follows the setting from then on (`acceptors`); [`Server::shutdown`] stops accepting, lets
//! every connection answer what it has taken, and returns.
//!
//! Promises: one task per connection; nothing is allocated for what a peer only announces; what a
//! peer can make the broker log is limited; an `accept` that fails (descriptors used up) is
//! survived. Left to others: what requests mean (`dispatch`), TLS and SASL (issue of their own).

mod acceptors;
mod connection;
mod framing;
mod listener;
mod log_limit;
mod memory;
mod quotas;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use milena_protocol::Str;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::broker::{Broker, StartError};
use crate::config::{self, Listener};
use crate::context::ConnectionInfo;
use acceptors::Acceptors;
use connection::{Connection, End};
pub(crate) use log_limit::LogLimit;
use memory::RequestMemory;
use quotas::{ConnectionLimits, ConnectionQuotas, Place};

/// How long connections may take to answer what they have taken when the broker stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Pause after an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of the descriptors that the process may have, connections leave this part to files: one of
/// this many.
const DESCRIPTORS_FOR_FILES: usize = 4;

/// A listener as it is bound and as clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundListener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// What clients that came by this listener are told to connect to.
    pub advertised: Endpoint,
}

/// An address that clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Str,
    pub port: u16,
}

/// Limits that hold for every connection.
#[derive(Debug)]
struct Limits {
    max_frame_bytes: usize,
    max_idle: Duration,
    /// -1: the system's.
    send_buffer_bytes: i32,
    receive_buffer_bytes: i32,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    broker: Arc<Broker>,
    limits: Limits,
    request_slots: Semaphore,
    request_memory: RequestMemory,
    log_limit: LogLimit,
}

/// The running listeners.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    acceptors: JoinHandle<JoinSet<JoinSet<()>>>,
}

impl Server {
    /// Binds and serves.
    ///
    /// # Errors
    /// A listener's address that cannot be bound.
    pub async fn start(broker: Arc<Broker>) -> Result<Self, StartError> {
        let config = broker.topics.settings().current();
        let shared = Arc::new(shared(&broker));
        let limits = ConnectionLimits::new(&config, connections_for_descriptors()).await;
        let quotas = ConnectionQuotas::new(limits);
        let acceptors = Acceptors::start(&config, shared, quotas).await?;
        Ok(Self {
            broker,
            acceptors: tokio::spawn(acceptors.run()),
        })
    }

    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The listeners that are open now; those of the start in the order of the setting.
    #[must_use]
    pub fn listeners(&self) -> Vec<BoundListener> {
        self.broker.bound_listeners()
    }

    /// Stops accepting, answers what has been taken, and stops the broker.
    ///
    /// # Errors
    /// A log or the fact store that cannot be closed cleanly.
    pub async fn shutdown(self) -> Result<(), StartError> {
        self.broker.stop.stop();
        self.broker.groups.close().await;
        self.broker.transactions.close().await;
        self.broker.share.close().await;
        let drained = tokio::time::timeout(DRAIN_LIMIT, async {
            let Ok(mut acceptors) = self.acceptors.await else {
                return;
            };
            while let Some(connections) = acceptors.join_next().await {
                if let Ok(mut connections) = connections {
                    while connections.join_next().await.is_some() {}
                }
            }
        })
        .await;
        if drained.is_err() {
            warn!(
                "connections did not finish within {} s: they are cut",
                DRAIN_LIMIT.as_secs()
            );
        }
        self.broker.close().await
    }
}

/// Says what is wrong with the addresses that clients will be told. On a thread of its own, because
/// names may take seconds to resolve and nobody has to wait for that.
fn diagnose(pairs: Vec<(Listener, u16)>) {
    let work = move || {
        let resolve = |host: &str| match (host, 0).to_socket_addrs() {
            Ok(addresses) => addresses.map(|address| address.ip()).collect(),
            Err(_) => Vec::new(),
        };
        for (listener, port) in pairs {
            for sentence in config::diagnose(&listener, port, &resolve) {
                warn!("{sentence}");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("diagnose".to_owned())
        .spawn(work)
    {
        warn!("cannot check the advertised addresses: {error}");
    }
}

fn shared(broker: &Arc<Broker>) -> Shared {
    let config = &broker.config;
    Shared {
        broker: broker.clone(),
        limits: Limits {
            max_frame_bytes: usize::try_from(config.socket_request_max_bytes).unwrap_or(0),
            max_idle: connection::idle_limit(config.connections_max_idle_ms),
            send_buffer_bytes: config.socket_send_buffer_bytes,
            receive_buffer_bytes: config.socket_receive_buffer_bytes,
        },
        request_slots: Semaphore::new(usize::try_from(config.queued_max_requests).unwrap_or(1).max(1)),
        request_memory: RequestMemory::new(config.queued_max_request_bytes),
        log_limit: LogLimit::new(),
    }
}

/// A stranger's connections must not take the descriptors that logs need.
fn connections_for_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    limit - limit / DESCRIPTORS_FOR_FILES
}

/// Accepts until the broker stops; gives back the connections that are still open.
async fn accept(
    listener: BoundListener,
    socket: TcpListener,
    shared: Arc<Shared>,
    quotas: Arc<ConnectionQuotas>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let stopped = shared.broker.stop.stopped();
    tokio::pin!(stopped);
    let mut settings = shared.broker.topics.settings().current();
    let mut was_full = false;
    loop {
        let current = shared.broker.topics.settings().current();
        if !Arc::ptr_eq(&settings, &current) {
            quotas.set_limits(ConnectionLimits::new(&current, connections_for_descriptors()).await);
            settings = current;
        }
        let is_full = quotas.is_full();
        if is_full
            && !was_full
            && let Some(left_out) = shared.log_limit.admit()
        {
            let max = quotas.max();
            warn!(
                "{max} connections are open, which is the limit: new ones wait{}",
                suffix(left_out)
            );
        }
        was_full = is_full;
        let accepted = tokio::select! {
            () = stopped.as_mut() => return connections,
            // Tasks that ended leave the set at once: it is as large as what is open.
            Some(_) = connections.join_next() => continue,
            accepted = async {
                let slot = quotas.slot().await;
                (slot, socket.accept().await)
            } => accepted,
        };
        match accepted {
            (slot, Ok((stream, peer))) => match quotas.enter(peer.ip(), slot) {
                Ok(place) => {
                    let broker = &shared.broker;
                    if let Some(held) = broker.quotas.connected(peer.ip(), broker.clock.now_ms()) {
                        connections.spawn(hold(stream, place, held));
                    } else if let Some(connection) = open(stream, peer, &listener, &shared) {
                        connections.spawn(serve(
                            connection,
                            place,
                            shared.clone(),
                            listener.name.clone(),
                            peer,
                        ));
                    }
                }
                Err(limit) => {
                    if let Some(left_out) = shared.log_limit.admit() {
                        let ip = peer.ip().to_canonical();
                        info!(
                            "rejected connection from {ip}: it has {limit} already{}",
                            suffix(left_out)
                        );
                    }
                }
            },
            (_, Err(error)) => {
                if let Some(left_out) = shared.log_limit.admit() {
                    warn!(
                        "cannot accept connections on {}: {error}{}",
                        listener.address,
                        suffix(left_out)
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn open(
    stream: TcpStream,
    peer: SocketAddr,
    listener: &BoundListener,
    shared: &Arc<Shared>,
) -> Option<Connection> {
    // A peer that is gone already shows at the first read; so does nothing else that matters.
    let local = stream.local_addr().ok()?;
    let configured = stream
        .set_nodelay(true)
        .and_then(|()| listener::set_buffers(&stream, &shared.limits));
    if let Err(error) = configured {
        debug!("cannot configure the connection from {peer}: {error}");
        return None;
    }
    let info = ConnectionInfo::new(listener.name.clone(), peer, local);
    Some(Connection::new(stream, Arc::new(info), shared.clone()))
}

/// A connection that is too many for its address's quota: it is not served, and closed after a while, so that making more is
/// no use (KIP-612).
async fn hold(stream: TcpStream, place: Place, held: Duration) {
    tokio::time::sleep(held).await;
    drop((stream, place));
}

async fn serve(
    connection: Connection,
    _place: Place,
    shared: Arc<Shared>,
    listener: Arc<str>,
    peer: SocketAddr,
) {
    let info = connection.info();
    let end = connection.run().await;
    shared.broker.share.disconnected(&info);
    match end {
        End::Quiet => {}
        End::Idle => debug!("closed the idle connection from {peer} on {listener}"),
        End::Failed(error) => debug!("connection from {peer} on {listener} failed: {error}"),
        End::Refused(why) => {
            if let Some(left_out) = shared.log_limit.admit() {
                warn!(
                    "closed the connection from {peer} on {listener}: {why}{}",
                    suffix(left_out)
                );
            }
        }
    }
}

fn suffix(left_out: u64) -> String {
    if left_out == 0 {
        String::new()
    } else {
        format!(" ({left_out} lines like this were left out)")
    }
}
