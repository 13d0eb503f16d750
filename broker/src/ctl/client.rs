//! One HTTP request to the broker: over its control socket, or over TCP to one elsewhere.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::failure::{Failure, TEMPORARY};
use super::named;
use super::remote::Remote;
use crate::config::control;

/// No answer is longer.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Where the broker is.
#[derive(Debug)]
pub(super) enum Peer {
    /// On this machine, with that data directory.
    Local(PathBuf),
    /// At that address.
    Remote(Remote),
}

/// Who is asked, and for how long.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: Peer,
    /// However long it takes, without one.
    pub(super) timeout: Option<Duration>,
    /// The file with the certificates that a broker elsewhere is known by.
    pub(super) trusted: Option<PathBuf>,
}

impl Client {
    /// Sends a JSON value, if there is one, and waits for the answer.
    pub(super) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
        let body = body.map(|value| Bytes::from(value.to_string()));
        runtime.block_on(async {
            let exchange = self.exchange(method, path, body);
            match self.timeout {
                None => exchange.await,
                Some(timeout) => tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                    let text = format!("the broker has not answered within {} s", timeout.as_secs_f64());
                    Err(Failure::new(TEMPORARY, text))
                }),
            }
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(body.unwrap_or_default());
        match &self.peer {
            Peer::Local(data_dir) => {
                let request = request.uri(path).header(HOST, "localhost").body(body).map_err(anyhow::Error::from)?;
                send(connect(data_dir).await?, request).await
            }
            Peer::Remote(remote) => {
                let request = request.uri(format!("{}{path}", remote.prefix)).header(HOST, remote.authority());
                let request = request.header(AUTHORIZATION, remote.authorization());
                let request = request.body(body).map_err(anyhow::Error::from)?;
                let address = (remote.host.as_str(), remote.port);
                let stream = TcpStream::connect(address).await;
                let stream = stream.with_context(|| format!("cannot reach {}", remote.authority()))?;
                if !remote.tls {
                    return send(stream, request).await;
                }
                let trusted = self.trusted.as_deref().ok_or_else(|| Failure::usage("--cacert is needed for TLS"))?;
                let connector = TlsConnector::from(Arc::new(trusting(trusted)?));
                let name = ServerName::try_from(remote.host.clone()).map_err(anyhow::Error::from)?;
                let stream = connector.connect(name, stream).await;
                send(stream.with_context(|| format!("TLS with {}", remote.authority()))?, request).await
            }
        }
    }
}

fn trusting(file: &Path) -> anyhow::Result<ClientConfig> {
    let named = || format!("{}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(named)? {
        roots.add(certificate.with_context(named)?).with_context(named)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Value, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(anyhow::Error::from)?;
    let connection = tokio::spawn(connection);
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
    let value = match serde_json::from_slice(&body) {
        Ok(value) => value,
        Err(_) if body.is_empty() || !status.is_success() => Value::Null,
        Err(error) => return Err(anyhow::Error::from(error).context("the answer of the broker is not JSON").into()),
    };
    if status.is_success() {
        return Ok(value);
    }
    let code = value.get("exit_code").and_then(Value::as_u64).and_then(|code| u8::try_from(code).ok());
    let text = match value.get("reason").and_then(Value::as_str) {
        Some(reason) => reason.to_owned(),
        None => format!("the broker answered with status {status}"),
    };
    Err(Failure::answered(status.as_u16(), code, text))
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
