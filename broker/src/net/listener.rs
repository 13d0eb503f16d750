//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::descriptors::{self, Descriptors};
use super::door::{self, Door};
use crate::broker::Broker;
use crate::config::ListenAddress;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept that nothing else can be done about: trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the configured addresses. An address that is only a default is left out when the machine does not know its
/// family.
///
/// # Errors
///
/// The address that could not be bound, with the reason.
pub fn bind(addresses: &[ListenAddress]) -> Result<Vec<std::net::TcpListener>, (String, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        let named = |error| (address.to_string(), error);
        for resolved in address.resolve().map_err(named)? {
            match listen(resolved) {
                Ok(listener) => listeners.push(listener),
                Err(error) if address.is_default() && is_missing_family(&error) => {
                    tracing::debug!(%address, %error, "this machine has no such address family");
                }
                Err(error) => return Err(named(error)),
            }
        }
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Each family has its own socket, so that binding both never conflicts.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn is_missing_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Accepts and serves until the task is dropped.
///
/// # Errors
///
/// When the listener cannot be given to the runtime.
pub async fn accept(broker: Arc<Broker>, listener: std::net::TcpListener, door: Door) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut descriptors = Descriptors::new();
    loop {
        match listener.accept().await {
            // Closed at once.
            Ok((socket, _)) if !descriptors.admit(&socket) => drop(socket),
            Ok((socket, peer)) => {
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "the socket went away at once");
                    continue;
                }
                let peer = door::canonical(peer);
                tokio::spawn(door::serve(Arc::clone(&broker), door.clone(), socket, peer));
            }
            Err(error) if descriptors::is_shortage(&error) => {
                if !descriptors.refuse_one(&listener).await {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
