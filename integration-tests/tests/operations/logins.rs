//! Logins: hashes as RabbitMQ exports them, changed passwords, and many that are wrong.

use std::net::IpAddr;

use broker::auth::{Credentials, PasswordHash};
use integration_tests::id;
use integration_tests::process::Launch;
use integration_tests::raw::{Handshake, Raw};
use integration_tests::wire::Bytes;

use crate::node::{Node, PASSWORD};

const REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the \
                       broker logfile.";
const SOCKETS: usize = 200;
const ROUNDS: usize = 3;

/// A login by a client that wants to be told when it is refused.
fn told(user: &str, password: &str) -> Vec<u8> {
    let capability = Bytes::new().field("authentication_failure_close", b't').octet(1).done();
    let properties = Bytes::new().field("capabilities", b'F').table(capability).done();
    Handshake { properties, ..Handshake::plain(user, password) }.start_ok()
}

#[track_caller]
fn expect_refusal(raw: &mut Raw) {
    raw.expect_connection_close(403, REFUSED, (0, 0));
}

#[test]
fn the_password_of_a_moment_ago_is_refused() {
    let node = Node::start();
    node.add_user("ann");
    node.open("ann", "/").close();
    node.broker.auth.set_credentials("ann", Credentials::Password("other")).unwrap();
    let mut raw = Raw::connect(node.address);
    raw.start();
    raw.method(0, id::CONNECTION_START_OK, told("ann", PASSWORD));
    expect_refusal(&mut raw);
    let hash = "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbINYwX2cDWb4DHnc=";
    let hash = PasswordHash::from_definition(Some("rabbit_password_hashing_sha512"), hash).unwrap();
    node.broker.auth.set_credentials("ann", Credentials::Hash(hash)).unwrap();
    let mut raw = Raw::connect(node.address);
    raw.login("ann", "test12");
    raw.open("/");
    let here = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    assert!(node.broker.auth.authenticate("ann", "test12", here).is_ok());
}

/// Whoever guesses passwords over many sockets fills neither the log nor the broker, and others can still log in.
#[test]
fn many_wrong_logins_are_refused_and_leave_few_lines() {
    let broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).start();
    for _ in 0..ROUNDS {
        let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::connect(broker.address())).collect();
        for raw in &mut sockets {
            raw.start();
            raw.method(0, id::CONNECTION_START_OK, told("guest", "wrong"));
        }
        for mut raw in sockets {
            expect_refusal(&mut raw);
        }
    }
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    let log = broker.terminate().stderr;
    let lines = log.lines().count();
    assert!((1..=100).contains(&lines), "{lines} lines for {} logins", SOCKETS * ROUNDS);
    assert!(log.contains("login refused"), "{log}");
    assert!(log.contains("the next ones are only counted"), "{log}");
}
