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

use super::named;
use crate::config::control;

/// No answer is longer.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Asks for what is at a path.
pub(super) fn get(data_dir: &Path, path: &str) -> anyhow::Result<Value> {
    call(data_dir, Method::GET, path, Bytes::new())
}

/// Sends a JSON value to a path and waits for the answer, however long that takes.
pub(super) fn post(data_dir: &Path, path: &str, body: &Value) -> anyhow::Result<Value> {
    call(data_dir, Method::POST, path, body.to_string().into())
}

fn call(data_dir: &Path, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = connect(data_dir).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await.context("the broker went away before it answered")?;
        let outcome = read(answer).await;
        connection.abort();
        outcome
    })
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

async fn read(answer: Response<Incoming>) -> anyhow::Result<Value> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer of the broker broke off: {error}"))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).context("the answer of the broker is not JSON")?;
    if status.is_success() {
        return Ok(value);
    }
    match value.get("reason").and_then(Value::as_str) {
        Some(reason) => anyhow::bail!("{reason}"),
        None => anyhow::bail!("the broker answered with status {status}"),
    }
}
