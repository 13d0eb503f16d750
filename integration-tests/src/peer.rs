//! Preparing a RabbitMQ node for a test through its management interface.

use crate::DEADLINE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A RabbitMQ node that listens for AMQP at `address` and for management 10,000 ports higher.
#[derive(Clone, Copy)]
pub struct Peer {
    address: SocketAddr,
}

/// `guest:guest` in base64.
const CREDENTIALS: &str = "Z3Vlc3Q6Z3Vlc3Q=";

impl Peer {
    /// The node `WARREN_TEST_PEER` names, if it is set.
    #[track_caller]
    pub fn from_env() -> Option<Self> {
        let text = std::env::var("WARREN_TEST_PEER").ok()?;
        match text.parse() {
            Ok(address) => Some(Self { address }),
            Err(error) => panic!("WARREN_TEST_PEER={text}: {error}"),
        }
    }

    /// Where it speaks AMQP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Creates a virtual host in which guest may do everything.
    #[track_caller]
    pub fn add_vhost(&self, vhost: &str) {
        self.request("PUT", &format!("/api/vhosts/{vhost}"), "{}");
        self.set_permission("guest", vhost, [".*", ".*", ".*"]);
    }

    /// Deletes a virtual host with all that is in it.
    pub fn delete_vhost(&self, vhost: &str) {
        self.request("DELETE", &format!("/api/vhosts/{vhost}"), "");
    }

    /// Turns the firehose of a virtual host on or off.
    #[track_caller]
    pub fn set_tracing(&self, vhost: &str, tracing: bool) {
        self.request("PUT", &format!("/api/vhosts/{vhost}"), &format!(r#"{{"tracing":{tracing}}}"#));
    }

    /// Creates a user.
    #[track_caller]
    pub fn add_user(&self, user: &str, password: &str, tags: &str) {
        let body = format!(r#"{{"password":"{password}","tags":"{tags}"}}"#);
        self.request("PUT", &format!("/api/users/{user}"), &body);
    }

    /// Deletes a user.
    pub fn delete_user(&self, user: &str) {
        self.request("DELETE", &format!("/api/users/{user}"), "");
    }

    /// Sets configure, write and read of a user in a virtual host.
    #[track_caller]
    pub fn set_permission(&self, user: &str, vhost: &str, patterns: [&str; 3]) {
        let [configure, write, read] = patterns.map(|pattern| pattern.replace('\\', "\\\\"));
        let body = format!(r#"{{"configure":"{configure}","write":"{write}","read":"{read}"}}"#);
        self.request("PUT", &format!("/api/permissions/{vhost}/{user}"), &body);
    }

    #[track_caller]
    fn request(&self, method: &str, path: &str, body: &str) {
        let mut address = self.address;
        address.set_port(address.port() + 10_000);
        let answer = exchange(address, method, path, body);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let missing = method == "DELETE" && status == "404";
        assert!(status.starts_with('2') || missing, "{method} {path} {body}: {answer}");
    }
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("no management interface");
    stream.set_read_timeout(Some(DEADLINE)).expect("cannot set a timeout");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {CREDENTIALS}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("cannot write to the management interface");
    let mut answer = String::new();
    // The node may reset the connection behind its answer; what came before that is what counts.
    let _ = stream.read_to_string(&mut answer);
    answer
}
