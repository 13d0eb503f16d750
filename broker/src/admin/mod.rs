//! What operators ask of a running broker, as an HTTP API. One router, served on the control socket.
//!
//! # Layout
//! - `socket`: the control socket in the data directory
//! - `status`: how the broker is
//! - `backup`: a copy of its data
//! - `tracing`: the firehose
//! - `answer`: errors as JSON
//!
//! Paths under `/api/warren` are Warren's own. RabbitMQ's are free for its management API.

mod answer;
mod backup;
mod socket;
mod status;
mod tracing;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::{get, post, put};

use crate::broker::Broker;

pub use socket::ControlSocket;

/// What every handler knows.
#[derive(Clone)]
struct Context {
    broker: Arc<Broker>,
    started: Instant,
}

/// Every path with what answers it. `started` is when the process did.
fn router(broker: Arc<Broker>, started: Instant) -> Router {
    Router::new()
        .route("/api/warren/status", get(status::get))
        .route("/api/warren/backup", post(backup::post))
        .route("/api/warren/tracing/{vhost}", put(tracing::put).delete(tracing::delete))
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .with_state(Context { broker, started })
}
