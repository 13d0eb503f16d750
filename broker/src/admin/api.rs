//! A request of the management API, from login to answer.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use storage::{Durable, Lsn};
use tokio::sync::Notify;

use super::answer::{Answer, Refusal};
use super::request::{Ask, Operator, decode, parse_query};
use super::{
    Context, bindings, channels, connections, definitions, environment, exchanges, features, health, login, overview,
    page, permissions, policies, queues, tracing, users, vhosts,
};
use crate::model::events::acting_as;

/// Definitions of large brokers have some tens of megabytes.
const BODY_MAX_BYTES: usize = 64 << 20;
/// What a path may be asked with; which of these a certain path takes it says when it is asked.
const METHODS: HeaderValue = HeaderValue::from_static("HEAD, GET, PUT, POST, DELETE, OPTIONS");

/// A request on the control socket.
pub(super) async fn local(State(context): State<Context>, request: Request<Body>) -> Response {
    answer(context, Operator::Local, request).await.unwrap_or_else(Refusal::into_local_response)
}

/// A request over TCP: whoever sends it must log in before anything of the body is read.
pub(super) async fn remote(State(context): State<Context>, request: Request<Body>, peer: IpAddr) -> Response {
    let mut response = match (request.method(), request.uri().path()) {
        // A browser asks this of itself before it lets another site ask. No site is allowed to, and no login is needed to hear it.
        (&Method::OPTIONS, _) => [(ALLOW, METHODS)].into_response(),
        (method, "/") => {
            let method = method.clone();
            match login::log_in(&context.broker, request.headers(), peer).await {
                Ok(_) => page::get(&method),
                // The browser asks again until it is right.
                Err(_) => Refusal::no_credentials().into_response(),
            }
        }
        _ => match login::log_in(&context.broker, request.headers(), peer).await {
            Ok(operator) => answer(context, operator, request).await.unwrap_or_else(IntoResponse::into_response),
            Err(refusal) => refusal.into_response(),
        },
    };
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding, origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn answer(context: Context, operator: Operator, request: Request<Body>) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path");
    let path = head.uri.path().strip_prefix("/api/").ok_or_else(unknown)?;
    // Split before escapes are taken apart: a name may have slashes in it.
    let segments: Option<Vec<String>> = path.trim_end_matches('/').split('/').map(decode).collect();
    let segments = segments.ok_or_else(|| Refusal::bad_request("a path that is not UTF-8"))?;
    let store = Arc::clone(&context.broker.store);
    let slow = Arc::clone(&context.broker);
    let ask = Ask {
        context,
        operator,
        method: if head.method == Method::HEAD { Method::GET } else { head.method.clone() },
        query: parse_query(head.uri.query().unwrap_or_default()),
        body: Bytes::new(),
        lsn: Cell::new(Lsn(0)),
    };
    ask.need_management()?;
    let time = ask.broker().settings.management.body_timeout;
    let ask = Ask { body: read(body, time).await?, ..ask };
    let started = Instant::now();
    // Large lists take their time: the tasks of connections must not wait for it.
    let work = tokio::task::spawn_blocking(move || {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let answer = match &ask.operator {
            Operator::Local => dispatch(&ask, &segments),
            Operator::User(user) => acting_as(&user.name, || dispatch(&ask, &segments)),
        };
        (answer, ask.lsn.get())
    });
    let outcome = work.await;
    slow.slow_requests.note(started.elapsed(), format_args!("{} {}", head.method, head.uri.path()));
    let (answer, lsn) = outcome.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    if lsn > Lsn(0) {
        let waiter = Arc::new(Waiter::default());
        store.notify_at(lsn, Arc::clone(&waiter) as _);
        // If the store fails, the broker ends, and this task with it.
        waiter.0.notified().await;
    }
    answer.map(IntoResponse::into_response)
}

#[derive(Default)]
struct Waiter(Notify);

impl Durable for Waiter {
    fn durable(&self) {
        self.0.notify_one();
    }
}

async fn read(body: Body, time: Duration) -> Result<Bytes, Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format_args!("the body has more than {BODY_MAX_BYTES} bytes"));
    // What is announced as too large is not read at all.
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(time, Limited::new(body, BODY_MAX_BYTES).collect()).await;
    let collected =
        collected.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Refusal::bad_request(error)),
    }
}

/// Which resource it is about.
fn dispatch(ask: &Ask, segments: &[&str]) -> Answer {
    let Some((first, rest)) = segments.split_first() else {
        return Err(Refusal::not_found());
    };
    match (*first, rest) {
        ("vhosts", [vhost, "permissions"]) => permissions::of_vhost(ask, vhost),
        ("vhosts", [vhost, "topic-permissions"]) => permissions::topics_of_vhost(ask, vhost),
        ("vhosts", [vhost, "connections"]) => connections::in_vhost(ask, vhost),
        ("vhosts", [vhost, "channels"]) => channels::in_vhost(ask, vhost),
        ("vhosts", rest) => vhosts::answer(ask, rest),
        ("vhost-limits", rest) => vhosts::limits(ask, rest),
        ("users", [user, "permissions"]) => permissions::of_user(ask, user),
        ("users", [user, "topic-permissions"]) => permissions::topics_of_user(ask, user),
        ("users", rest) => users::answer(ask, rest),
        ("warren", ["users", user, "add"]) => users::add(ask, user),
        ("warren", ["users", user, "credentials"]) => users::change_credentials(ask, user),
        ("warren", ["users", user, "tags"]) => users::set_tags(ask, user),
        ("warren", ["environment"]) => environment::answer(ask),
        ("warren", ["tracing", vhost]) => tracing::answer(ask, vhost),
        ("user-limits", rest) => users::limits(ask, rest),
        ("permissions", rest) => permissions::answer(ask, rest),
        ("topic-permissions", rest) => permissions::topics(ask, rest),
        ("policies", rest) => policies::policies(ask, rest),
        ("operator-policies", rest) => policies::operator_policies(ask, rest),
        ("parameters", rest) => policies::parameters(ask, rest),
        ("global-parameters", rest) => policies::global_parameters(ask, rest),
        ("feature-flags", rest) => features::flags(ask, rest),
        ("deprecated-features", rest) => features::deprecated(ask, rest),
        ("auth", rest) => users::logins(ask, rest),
        ("rebalance", ["queues"]) => overview::rebalance(ask),
        ("all-configuration", []) => definitions::answer(ask, &[]),
        ("exchanges", [vhost, exchange, "bindings", "source"]) => bindings::from(ask, vhost, exchange),
        ("exchanges", [vhost, exchange, "bindings", "destination"]) => bindings::to_exchange(ask, vhost, exchange),
        ("exchanges", rest) => exchanges::answer(ask, rest),
        ("queues", [vhost, queue, "bindings"]) => bindings::to_queue(ask, vhost, queue),
        ("queues", rest) => queues::answer(ask, rest),
        ("bindings", rest) => bindings::answer(ask, rest),
        ("connections", rest) => connections::answer(ask, rest),
        ("channels", rest) => channels::answer(ask, rest),
        ("consumers", rest) => channels::consumers(ask, rest),
        ("definitions", rest) => definitions::answer(ask, rest),
        ("aliveness-test", [vhost]) => health::aliveness(ask, vhost),
        ("health", ["checks", rest @ ..]) => health::check(ask, rest),
        (first, rest) => overview::answer(ask, first, rest),
    }
}
