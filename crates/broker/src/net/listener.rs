//! Binding a listener, and what clients are told of it.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{Endpoint, Limits};
use crate::broker::StartError;
use crate::config::{BrokerConfig, Listener};

/// Binds the listener's address; an empty host means every address of the machine.
pub(super) async fn bind(listener: &Listener, config: &BrokerConfig) -> Result<TcpListener, StartError> {
    let failed = |error| StartError::Listen {
        address: address_of(listener),
        error,
    };
    let backlog = config.socket_listen_backlog_size;
    let Some(host) = listener.host.as_deref() else {
        // Both families with one socket; a machine without IPv6 has the other.
        let any = bind_address(SocketAddr::from(([0_u16; 8], listener.port)), backlog)
            .or_else(|_| bind_address(SocketAddr::from(([0_u8; 4], listener.port)), backlog));
        return any.map_err(failed);
    };
    let addresses = tokio::net::lookup_host((host, listener.port))
        .await
        .map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match bind_address(address, backlog) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn bind_address(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted broker takes its port back while old connections linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`; -1 leaves the system's.
pub(super) fn set_buffers(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if let Ok(bytes) = usize::try_from(limits.send_buffer_bytes) {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Ok(bytes) = usize::try_from(limits.receive_buffer_bytes) {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

/// The listener as `listeners` writes it.
pub(super) fn address_of(listener: &Listener) -> String {
    format!(
        "{}://{}:{}",
        listener.name,
        listener.host.as_deref().unwrap_or_default(),
        listener.port
    )
}

/// What clients of the listener are told. Where that is port 0, it is the bound port.
pub(super) fn advertised(listener: &Listener, bound: SocketAddr) -> Endpoint {
    let port = if listener.advertised_port == 0 {
        bound.port()
    } else {
        listener.advertised_port
    };
    Endpoint {
        host: listener.advertised_host.clone().into(),
        port,
    }
}
