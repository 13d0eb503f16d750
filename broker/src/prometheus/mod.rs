//! The Prometheus endpoint: RabbitMQ's metrics under RabbitMQ's names, so that its dashboards work as they are, and our own
//! under `warren_`.
//!
//! Nothing is counted for it alone: a scrape reads what there is for the management API and the store, each thing under its own
//! lock for a moment.
//!
//! # Layout
//! - `scrape`: which page is asked for, and what is on it; `text`: the format, in pieces
//! - `node`: the node as a whole; `families`: what there is of queues, connections and channels; `objects`: each of them, and
//!   exchanges; `own`: what only Warren has

mod families;
mod node;
mod objects;
mod own;
mod scrape;
mod text;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::broker::Broker;
use scrape::View;

/// Connections at one time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// A request's head must be there within this time, and a connection may idle as long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// A connection ends after this time, whatever it is doing: one that reads slowly costs a thread.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What a request's head may have.
const HEADER_MAX_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// After a failed accept: trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pieces that wait for a slow reader.
const PIECES: usize = 2;
/// Pages that are written at one time.
const SCRAPES_MAX: usize = 4;

type Answer = Response<Either<Full<Bytes>, Pieces>>;

/// What every connection knows.
struct Endpoint {
    broker: Arc<Broker>,
    started: Instant,
    scrapes: Arc<Semaphore>,
}

/// Accepts and serves until the task is dropped. `started` is when the process did.
///
/// # Errors
///
/// When the listener cannot be given to the runtime.
pub async fn serve(broker: Arc<Broker>, listener: std::net::TcpListener, started: Instant) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let endpoint = Arc::new(Endpoint { broker, started, scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)) });
    // Dropped with this task, and all its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((socket, _)) => {
                let endpoint = Arc::clone(&endpoint);
                connections.spawn(async move {
                    let _place = place;
                    // A client that does not end is ended.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, converse(endpoint, socket)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection to the Prometheus endpoint");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(endpoint: Arc<Endpoint>, socket: TcpStream) {
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        async move { Ok::<_, Infallible>(answer(&endpoint, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the Prometheus endpoint ended");
    }
}

async fn answer(endpoint: &Endpoint, request: &Request<Incoming>) -> Answer {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let uri = request.uri();
    let view = match View::find(uri.path(), uri.query().unwrap_or_default()) {
        Ok(Some(view)) => view,
        Ok(None) => return text(StatusCode::NOT_FOUND, "there is nothing at this path; try /metrics\n".to_owned()),
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    if request.method() == Method::HEAD {
        return page(Either::Left(Full::default()));
    }
    let Ok(turn) = Arc::clone(&endpoint.scrapes).acquire_owned().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, String::new());
    };
    let (sender, pieces) = mpsc::channel(PIECES);
    let whole = Arc::new(AtomicBool::new(false));
    let (broker, started, written) = (Arc::clone(&endpoint.broker), endpoint.started, Arc::clone(&whole));
    let runtime = tokio::runtime::Handle::current();
    let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
    // Not on the runtime's threads: many queues take their time. Nor is one of these there for a client that does not read.
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut send = |piece| {
            let sent = runtime.block_on(tokio::time::timeout_at(deadline, sender.send(piece)));
            matches!(sent, Ok(Ok(())))
        };
        written.store(scrape::write(&broker, started, &view, &mut send), Ordering::Release);
    });
    page(Either::Right(Pieces { pieces, whole }))
}

fn page(body: Either<Full<Bytes>, Pieces>) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    answer
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// A page as it is written, piece by piece.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    /// Set when the last one has been sent: a page that was cut off must not look like a short one.
    whole: Arc<AtomicBool>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.whole.load(Ordering::Acquire) => None,
            None => Some(Err("the page was not written to its end")),
        })
    }
}
