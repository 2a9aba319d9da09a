//! What a handler knows of the request beside its body.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use milena_coordinator::Client;
use milena_protocol::{ApiKey, Str};
use tokio::time::Instant;

/// One accepted connection, shared by all its requests.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// Name of the listener that accepted it, such as `PLAINTEXT`.
    pub(crate) listener: Arc<str>,
    pub(crate) peer: SocketAddr,
    /// The peer as group descriptions show it: `/127.0.0.1`.
    pub(crate) client_host: Str,
    /// The broker's end of the connection.
    pub(crate) local: SocketAddr,
    /// The client's software and its version, if it has told (ApiVersions, KIP-511).
    pub(crate) software: OnceLock<(String, String)>,
    pub(crate) mute: Mute,
}

/// Until when a connection is not read from, because its client is above a quota.
#[derive(Debug)]
pub(crate) struct Mute {
    opened: Instant,
    /// Since the connection was opened.
    until_ms: AtomicU64,
}

impl Mute {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            until_ms: AtomicU64::new(0),
        }
    }

    /// From now on, for so many milliseconds.
    pub(crate) fn for_ms(&self, throttle_ms: i32) {
        let Some(throttle_ms) = u64::try_from(throttle_ms).ok().filter(|ms| *ms > 0) else {
            return;
        };
        let now_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.until_ms
            .fetch_max(now_ms.saturating_add(throttle_ms), Ordering::Relaxed);
    }

    /// When the connection may be read from again, if not now.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.until_ms.load(Ordering::Relaxed) {
            0 => None,
            until_ms => {
                let until = self.opened + Duration::from_millis(until_ms);
                (until > Instant::now()).then_some(until)
            }
        }
    }
}

impl ConnectionInfo {
    pub(crate) fn new(listener: Arc<str>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            listener,
            peer,
            client_host: Str::from(format!("/{}", peer.ip().to_canonical())),
            local,
            software: OnceLock::new(),
            mute: Mute::new(),
        }
    }

    /// Whether the client runs on another machine, as far as addresses tell.
    pub(crate) fn is_remote(&self) -> bool {
        let peer = self.peer.ip().to_canonical();
        !peer.is_loopback() && peer != self.local.ip().to_canonical()
    }
}

/// One request's header, and where it came from. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) connection: Arc<ConnectionInfo>,
    pub(crate) api_key: ApiKey,
    pub(crate) api_version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<Str>,
    /// Of the whole request.
    pub(crate) request_bytes: usize,
}

impl RequestContext {
    /// As groups know their members.
    pub(crate) fn client(&self) -> Client {
        Client {
            client_id: self.client_id.clone().unwrap_or_default(),
            client_host: self.connection.client_host.clone(),
        }
    }
}
