//! What happens between accept and the first octet of AMQP: a proxy's header, TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{connection, proxy};
use crate::broker::Broker;
use crate::model::peer::Peer;
use crate::tls::Tls;

/// How clients come in at a listener.
#[derive(Clone)]
pub enum Door {
    /// As they are.
    Plain,
    /// Over TLS.
    Tls(Arc<Tls>),
}

/// Serves one client until it is gone. Everything before AMQP has the time that the handshake has.
pub(super) async fn serve(broker: Arc<Broker>, door: Door, mut socket: TcpStream, peer: SocketAddr) {
    let local = socket.local_addr().ok().map(canonical);
    let mut addresses = local.map(|local| (peer, local));
    let mut ip = peer.ip();
    let listeners = &broker.settings.listeners;
    let limit = listeners.handshake_timeout;
    if listeners.proxies.iter().any(|network| network.contains(ip)) {
        match timed(limit, proxy::read(&mut socket)).await {
            Ok(Some((client, here))) => {
                addresses = Some((canonical(client), canonical(here)));
                ip = client.ip().to_canonical();
            }
            Ok(None) => {}
            Err(error) => return tracing::info!(%peer, %error, "a proxy did not say for whom it speaks"),
        }
    }
    let peer = Peer { ip, addresses, tls: None };
    match door {
        Door::Plain => connection::serve(broker, socket, peer).await,
        // In a box of its own: the task of a plain connection must not have the size of one over TLS.
        Door::Tls(tls) => Box::pin(serve_encrypted(broker, tls, socket, peer)).await,
    }
}

async fn serve_encrypted(broker: Arc<Broker>, tls: Arc<Tls>, socket: TcpStream, mut peer: Peer) {
    let ip = peer.ip;
    match timed(broker.settings.listeners.handshake_timeout, tls.accept_amqp(socket)).await {
        Ok((stream, agreed)) => {
            peer.tls = Some(Arc::new(agreed));
            connection::serve(broker, stream, peer).await;
        }
        // A health check that only connects is nothing to write home about.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!(%ip, "closed before the TLS handshake");
        }
        Err(error) => tracing::info!(%ip, %error, "no TLS handshake"),
    }
}

/// Serves one client on a Unix socket, which counts as one on the loopback.
pub(super) async fn serve_local(broker: Arc<Broker>, socket: UnixStream) {
    let peer = Peer::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    connection::serve(broker, socket, peer).await;
}

async fn timed<T>(limit: std::time::Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, what).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")))
}

/// An IPv4 client on an IPv6 socket is an IPv4 client.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
