//! One HTTP request over the control socket.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::failure::{Failure, UNAVAILABLE};
use super::named;
use crate::config::control;

/// No answer is longer.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Asks for what is at a path.
pub(super) fn get(data_dir: &Path, path: &str) -> Result<Value, Failure> {
    call(data_dir, Method::GET, path, None)
}

/// Sends a JSON value, if there is one, and waits for the answer, however long that takes.
pub(super) fn call(data_dir: &Path, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let body = body.map(|value| Bytes::from(value.to_string()));
    runtime.block_on(exchange(data_dir, method, path, body))
}

async fn exchange(data_dir: &Path, method: Method, path: &str, body: Option<Bytes>) -> Result<Value, Failure> {
    let stream = connect(data_dir).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(anyhow::Error::from)?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body.unwrap_or_default())).map_err(anyhow::Error::from)?;
    let answer = sender.send_request(request).await.context("the broker went away before it answered")?;
    let outcome = read(answer).await;
    connection.abort();
    outcome
}

async fn connect(data_dir: &Path) -> anyhow::Result<UnixStream> {
    let path = data_dir.join(control::NAME);
    let attempt = match control::reachable(&path) {
        Ok(reachable) => UnixStream::connect(&reachable.path).await,
        Err(error) => Err(error),
    };
    attempt.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no broker runs on data directory {} (--data-dir says which)", named(data_dir))
        }
        _ => anyhow::anyhow!("cannot reach the broker on data directory {}: {error}", named(data_dir)),
    })
}

async fn read(answer: Response<Incoming>) -> Result<Value, Failure> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer of the broker broke off: {error}"))?.to_bytes();
    let value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).context("the answer of the broker is not JSON")?
    };
    if status.is_success() {
        return Ok(value);
    }
    let code = value.get("exit_code").and_then(Value::as_u64).and_then(|code| u8::try_from(code).ok());
    let text = match value.get("reason").and_then(Value::as_str) {
        Some(reason) => reason.to_owned(),
        None => format!("the broker answered with status {status}"),
    };
    Err(Failure::new(code.unwrap_or(UNAVAILABLE), text))
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut text = String::new();
    for octet in name.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            text.push(char::from(octet));
        } else {
            text.push_str(&format!("%{octet:02X}"));
        }
    }
    text
}
