//! The management API on TCP: a client that is slow, or sends too much, costs a place among few for a short time only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Context, api};
use crate::broker::Broker;
use crate::tls::Tls;

/// What a request's head may have.
const HEADER_MAX_BYTES: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// After a failed accept: trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves until the task is dropped. `started` is when the process did.
///
/// # Errors
///
/// When the listener cannot be given to the runtime.
pub async fn serve(
    broker: Arc<Broker>,
    listener: std::net::TcpListener,
    tls: Option<Arc<Tls>>,
    started: Instant,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let limits = &broker.settings.management;
    // Further ones wait to be accepted.
    let places = Arc::new(Semaphore::new(limits.connections));
    // From the first octet a request's head must be there within this time, and a connection may idle as long.
    let header_timeout = limits.header_timeout;
    let context = Context { broker, started };
    // Dropped with this task, and all its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let (context, tls) = (context.clone(), tls.clone());
                connections.spawn(async move {
                    let _place = place;
                    let Some(tls) = tls else {
                        return converse(context, socket, peer, header_timeout).await;
                    };
                    match tokio::time::timeout(header_timeout, tls.accept_http(socket)).await {
                        Ok(Ok(socket)) => converse(context, socket, peer, header_timeout).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake with the management API"),
                        Err(_) => tracing::debug!(%peer, "no TLS handshake with the management API in time"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection to the management API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    context: Context,
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: SocketAddr,
    header_timeout: Duration,
) {
    let ip: IpAddr = peer.ip().to_canonical();
    let router: Router =
        Router::new().fallback(move |state, request| api::remote(state, request, ip)).with_state(context);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADER_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection to the management API ended");
    }
}
