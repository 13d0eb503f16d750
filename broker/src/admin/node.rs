//! Warren's own requests about the node: what `rabbitmqctl` can do and RabbitMQ's management API cannot.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::answer::{Answer, Refusal, Reply};
use crate::broker::Alarm;
use crate::config::Watermark;
use crate::model::ConnectionId;
use crate::model::log_control::filter_for;

/// `PUT` and `DELETE /api/warren/alarms/{memory,disk}`: an operator's own alarm, whatever is measured.
pub(super) async fn alarm(State(context): State<Context>, Path(alarm): Path<String>, method: Method) -> Answer {
    let alarm = match alarm.as_str() {
        "memory" => Alarm::Memory,
        "disk" => Alarm::Disk,
        _ => return Err(Refusal::not_found()),
    };
    let on = match method {
        Method::PUT => true,
        Method::DELETE => false,
        _ => return Err(Refusal::method_not_allowed()),
    };
    if context.broker.force_alarm(alarm, on) {
        tracing::warn!(?alarm, on, "an operator has changed an alarm");
    }
    Ok(Reply::Done)
}

/// `GET` and `PUT /api/warren/settings/{name}`: settings that change while the broker runs, until it is restarted.
pub(super) async fn setting(
    State(context): State<Context>,
    Path(name): Path<String>,
    method: Method,
    body: Option<Json<Value>>,
) -> Answer {
    let broker = &context.broker;
    let value = body.map(|Json(value)| value);
    let wrong = |what: &str| Refusal::bad_request(format!("{name} must be {what}"));
    match (name.as_str(), method, value) {
        ("loopback_users", Method::GET, _) => Ok(Reply::Value(json!(broker.auth.loopback_users()))),
        ("loopback_users", Method::PUT, Some(value)) => {
            let users = serde_json::from_value(value).map_err(|_| wrong("a list of names"))?;
            broker.auth.set_loopback_users(users);
            Ok(Reply::Done)
        }
        ("disk_free_limit", Method::PUT, Some(value)) => {
            let bytes = value.as_u64().ok_or_else(|| wrong("a number of bytes"))?;
            broker.store.set_disk_free_limit(bytes);
            Ok(Reply::Done)
        }
        ("disk_free_limit_relative", Method::PUT, Some(value)) => {
            let fraction = value.as_f64().filter(|fraction| (0.0..=1_000.0).contains(fraction));
            let fraction = fraction.ok_or_else(|| wrong("a share of the memory, not negative"))?;
            broker.store.set_disk_free_limit((broker.total_memory() as f64 * fraction) as u64);
            Ok(Reply::Done)
        }
        ("channel_max", Method::PUT, Some(value)) => {
            let channels = serde_json::from_value(value).map_err(|_| wrong("a number of channels up to 65535"))?;
            broker.set_channel_max(channels);
            Ok(Reply::Done)
        }
        ("memory_watermark", Method::PUT, Some(value)) => {
            let fraction = value.as_f64().filter(|fraction| (0.0..=1.0).contains(fraction));
            let fraction = fraction.ok_or_else(|| wrong("from 0 to 1"))?;
            broker.set_memory_watermark(Watermark::Fraction(fraction));
            Ok(Reply::Done)
        }
        ("memory_watermark_absolute", Method::PUT, Some(value)) => {
            let bytes = value.as_u64().ok_or_else(|| wrong("a number of bytes"))?;
            broker.set_memory_watermark(Watermark::Bytes(bytes));
            Ok(Reply::Done)
        }
        _ => Err(Refusal::not_found()),
    }
}

/// What the log is to have: a level as RabbitMQ names it, or a filter by module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevel {
    level: String,
}

/// `GET` and `PUT /api/warren/log-level`: until the broker is restarted or reads its configuration again.
pub(super) async fn log_level(State(context): State<Context>, method: Method, body: Option<Json<LogLevel>>) -> Answer {
    let log = &context.broker.log;
    match (method, body) {
        (Method::GET, _) => Ok(Reply::Value(json!({"level": log.filter()}))),
        (Method::PUT, Some(Json(LogLevel { level }))) => {
            let filter = filter_for(&level).unwrap_or(&level);
            log.set(filter).map_err(Refusal::bad_request)?;
            tracing::warn!(filter, "an operator has changed what is logged");
            Ok(Reply::Done)
        }
        (Method::PUT, None) => Err(Refusal::bad_request("a level is needed")),
        _ => Err(Refusal::method_not_allowed()),
    }
}

/// `GET /api/warren/application`: whether clients are served; `PUT` and `DELETE` have it so or not.
pub(super) async fn application(State(context): State<Context>, method: Method) -> Answer {
    let application = &context.broker.application;
    let serve = match method {
        Method::GET => return Ok(Reply::Value(json!({"running": application.is_running()}))),
        Method::PUT => true,
        Method::DELETE => false,
        _ => return Err(Refusal::method_not_allowed()),
    };
    match application.order(serve).await {
        Ok(()) => Ok(Reply::Done),
        Err(reason) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

/// `POST /api/warren/reload`: the configuration file and the certificates are read again, as on SIGHUP. Answers with what
/// waits for a restart.
pub(super) async fn reload(State(context): State<Context>) -> Answer {
    let outcome = tokio::task::spawn_blocking(move || context.broker.application.reload()).await;
    match outcome {
        Ok(Ok(waiting)) => Ok(Reply::Value(json!({"waiting": waiting}))),
        Ok(Err(reason)) => Err(Refusal::bad_request(reason)),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

/// Which connections are to be closed, and why. Without a selection all of them are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Close {
    reason: String,
    id: Option<u64>,
    vhost: Option<String>,
    user: Option<String>,
    /// So many at most.
    limit: Option<usize>,
}

/// `POST /api/warren/connections/close`
pub(super) async fn close_connections(State(context): State<Context>, Json(close): Json<Close>) -> Answer {
    let broker = &context.broker;
    let chosen = broker.connections().into_iter().filter(|info| {
        close.id.is_none_or(|id| info.id == ConnectionId(id))
            && close.vhost.as_ref().is_none_or(|vhost| **vhost == *info.vhost)
            && close.user.as_ref().is_none_or(|user| **user == *info.user)
    });
    let chosen = chosen.take(close.limit.unwrap_or(usize::MAX));
    let closed = chosen.filter(|info| broker.close_connection(info.id, &close.reason)).count();
    Ok(Reply::Value(json!({"closed": closed})))
}

/// A user's name and password.
#[derive(Deserialize)]
pub(super) struct Login {
    user: String,
    password: String,
}

/// `POST /api/warren/authenticate`: whether that is the password.
pub(super) async fn authenticate(State(context): State<Context>, Json(login): Json<Login>) -> Answer {
    let here = std::net::Ipv4Addr::LOCALHOST.into();
    match context.broker.auth.authenticate(&login.user, &login.password, here) {
        Ok(_) => Ok(Reply::Done),
        Err(_) => Err(Refusal::login_failed()),
    }
}
