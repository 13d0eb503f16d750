//! A plain HTTP client: one request per connection, sent as it stands.

use integration_tests::DEADLINE;
use integration_tests::process::{Broker, Launch};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::os::unix::net::UnixStream;

/// `guest:guest` in base64.
pub(crate) const GUEST: &str = "Z3Vlc3Q6Z3Vlc3Q=";

pub(crate) struct Server {
    pub(crate) broker: Broker,
    api: Api,
}

/// Where the management API of a broker is, of whichever.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
}

impl Deref for Server {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// Starts a broker with the management API on a free port.
#[track_caller]
pub(crate) fn start() -> Server {
    start_with("")
}

/// The same with more lines in the section of the API.
#[track_caller]
pub(crate) fn start_with(settings: &str) -> Server {
    let launch = Launch::new(env!("CARGO_BIN_EXE_warren-under-test"));
    let broker = launch.config(&format!("[management]\nlisten = '127.0.0.1:0'\n{settings}")).start();
    let socket = broker.launch().home().join("data/control.sock");
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    let request = "GET /api/overview HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let overview: Value = serde_json::from_str(body).expect("JSON");
    let listeners = overview["listeners"].as_array().expect("listeners");
    let http = listeners.iter().find(|listener| listener["protocol"] == "http").expect("an HTTP listener");
    let port = http["port"].as_u64().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")));
    Server { broker, api: Api { address } }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Api {
    pub(crate) fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    }

    /// As guest.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_as(Some(GUEST), method, path, body)
    }

    #[track_caller]
    pub(crate) fn ask_as(&self, credentials: Option<&str>, method: &str, path: &str, body: &str) -> Answer {
        let login = credentials.map(|text| format!("Authorization: Basic {text}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{login}"
        );
        self.raw(&format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    }

    /// Sends a request as it stands.
    #[track_caller]
    pub(crate) fn raw(&self, request: &str) -> Answer {
        let mut stream = self.open();
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Answer { status, head: head.to_lowercase(), body }
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16, method: &str, path: &str, body: &str) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.body
    }
}
