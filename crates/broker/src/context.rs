//! What a handler knows of the request beside its body.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use milena_protocol::{ApiKey, Str};

/// One accepted connection, shared by all its requests.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// Name of the listener that accepted it, such as `PLAINTEXT`.
    pub(crate) listener: Arc<str>,
    pub(crate) peer: SocketAddr,
    /// The broker's end of the connection.
    pub(crate) local: SocketAddr,
    /// The client's software and its version, if it has told (ApiVersions, KIP-511).
    pub(crate) software: OnceLock<(String, String)>,
}

impl ConnectionInfo {
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
}

impl RequestContext {
    /// The peer as group descriptions show it: `/127.0.0.1`.
    pub(crate) fn client_host(&self) -> String {
        format!("/{}", self.connection.peer.ip().to_canonical())
    }
}
