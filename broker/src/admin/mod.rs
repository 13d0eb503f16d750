//! What operators ask of a running broker, as an HTTP API: RabbitMQ's management API below `/api`, and Warren's own requests
//! below `/api/warren`. The control socket has both; `management.listen` has RabbitMQ's, for users who log in.
//!
//! # Layout
//! - `socket`: the control socket in the data directory; `listen`: TCP, with limits for slow and large requests
//! - `api`: a request from login to answer, and which resource it is about; `request`: what is known of it
//! - `login`: HTTP Basic; `answer`: answers and errors as JSON; `list`: pages, columns and order of lists; `json`: arguments; `statistics`: counters and rates
//! - one file per kind of resource: `overview`, `health`, `vhosts`, `users`, `permissions`, `policies`, `exchanges`, `queues` (with `get`),
//!   `bindings`, `connections`, `channels` (with consumers), `definitions` (with `import`), `features`, `tracing`
//! - `page`: the read-only page at `/`, with `page.html`
//! - Warren's own: `environment`, `status`, `backup`, `node` (alarms, limits, connections, whether clients are served)

mod answer;
mod api;
mod backup;
mod bindings;
mod channels;
mod connections;
mod definitions;
mod environment;
mod exchanges;
mod features;
mod get;
mod health;
mod import;
mod json;
mod list;
mod listen;
mod login;
mod node;
mod overview;
mod page;
mod permissions;
mod policies;
mod queues;
mod request;
mod socket;
mod statistics;
mod status;
mod tracing;
mod users;
mod vhosts;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::{any, get, post};

use crate::broker::Broker;

pub use import::at_start as definitions_at_start;
pub use listen::serve;
pub use socket::ControlSocket;

/// What every handler knows.
#[derive(Clone)]
struct Context {
    broker: Arc<Broker>,
    started: Instant,
}

/// Every path of the control socket. `started` is when the process did.
fn local_router(broker: Arc<Broker>, started: Instant) -> Router {
    Router::new()
        .route("/api/warren/status", get(status::get))
        .route("/api/warren/backup", post(backup::post))
        .route("/api/warren/alarms/{alarm}", any(node::alarm))
        .route("/api/warren/settings/{name}", any(node::setting))
        .route("/api/warren/log-level", any(node::log_level))
        .route("/api/warren/application", any(node::application))
        .route("/api/warren/reload", post(node::reload))
        .route("/api/warren/connections/close", post(node::close_connections))
        .route("/api/warren/authenticate", post(node::authenticate))
        .fallback(api::local)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .with_state(Context { broker, started })
}
