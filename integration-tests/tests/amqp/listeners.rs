//! Other ways in than TCP as it is: through a proxy that says for whom it speaks, and on a Unix socket. And many who knock.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::support::*;
use integration_tests::process::Broker;
use integration_tests::raw::{Handshake, PROTOCOL_HEADER, Raw};
use integration_tests::{DEADLINE, id};

const WARREN_ONLY: &str = "it is about Warren's own configuration";

/// Connects as a proxy that speaks for this address.
fn through(broker: &Broker, header: &[u8]) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.send(header);
    raw
}

/// The reply code of a refused login, or `None` when it succeeds.
fn log_in(mut raw: Raw, user: &str, password: &str) -> Option<u16> {
    raw.start();
    raw.method(0, id::CONNECTION_START_OK, Handshake::plain(user, password).start_ok());
    let frame = raw.read();
    if frame.id() == Some(id::CONNECTION_TUNE) { None } else { Some(403) }
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker =
        launch().config("[listeners]\nproxy_protocol = [\"127.0.0.0/8\"]\nhandshake_timeout_ms = 500\n").start();
    let v2 = |source: [u8; 4]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend(source);
        header.extend([127, 0, 0, 1, 0x30, 0x39, 0x16, 0x28]);
        header
    };
    // The guest may come from this machine only.
    assert_eq!(log_in(through(&broker, b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 5672\r\n"), "guest", "guest"), None);
    assert_eq!(log_in(through(&broker, b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 5672\r\n"), "guest", "guest"), Some(403));
    broker.wait_for_log(&["192.0.2.7", "can only connect via localhost"]);
    assert_eq!(log_in(through(&broker, &v2([127, 0, 0, 1])), "guest", "guest"), None);
    assert_eq!(log_in(through(&broker, &v2([192, 0, 2, 8])), "guest", "guest"), Some(403));
    assert_eq!(log_in(through(&broker, b"PROXY UNKNOWN\r\n"), "guest", "guest"), None);
    // No header, a broken one, none in time.
    for opening in [PROTOCOL_HEADER, b"PROXY TCP9 whatever\r\n", b"PROXY"] {
        let mut raw = through(&broker, opening);
        raw.expect_end();
    }
    let broker = broker.restart();
    assert_eq!(log_in(through(&broker, b"PROXY UNKNOWN\r\n"), "guest", "guest"), None);
}

#[test]
fn nobody_else_speaks_for_others() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch().config("[listeners]\nproxy_protocol = [\"192.0.2.0/24\"]\n").start();
    let mut raw = through(&broker, b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 5672\r\n");
    assert_eq!(raw.read_bytes(8).as_deref(), Some(PROTOCOL_HEADER));
    raw.expect_end();
    assert_eq!(log_in(Raw::connect(broker.address()), "guest", "guest"), None);
}

#[test]
fn a_unix_socket_is_a_way_in_for_this_machine() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch();
    let path = launch.home().join("amqp.sock");
    let config = format!("[listeners]\nunix = \"{}\"\nunix_mode = \"660\"\n", path.display());
    let broker = launch.config(&config).start();
    assert!(broker.ready_line().contains("unix:"), "{}", broker.ready_line());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let tuned = || {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(PROTOCOL_HEADER).unwrap();
        let start = frame(&mut socket);
        assert_eq!(start[..4], [0, 10, 0, 10], "connection.start");
        let mut arguments = vec![0, 10, 0, 11];
        arguments.extend(Handshake::plain("guest", "guest").start_ok());
        let mut octets = vec![1, 0, 0];
        octets.extend(u32::try_from(arguments.len()).unwrap().to_be_bytes());
        octets.extend(arguments);
        octets.push(0xce);
        socket.write_all(&octets).unwrap();
        frame(&mut socket)[..4] == [0, 10, 0, 30]
    };
    assert!(tuned());
    // One that was left behind is taken away, one that is in use is not.
    let data = launch_again(&config);
    crate::configuration::assert_refused(&data, &["listeners.unix", "somebody listens there"]);
    let broker = integration_tests::process::Launch::start(broker.kill9());
    assert!(tuned());
    drop(broker);
}

fn launch_again(config: &str) -> integration_tests::process::Finished {
    launch().config(config).run()
}

/// The payload of the next frame.
fn frame(socket: &mut UnixStream) -> Vec<u8> {
    let mut head = [0; 7];
    socket.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head[3..7].try_into().unwrap());
    let mut payload = vec![0; length as usize + 1];
    socket.read_exact(&mut payload).unwrap();
    payload
}

/// Many guess passwords at the same time, for as many logins as `WARREN_LOGINS` says.
#[test]
fn guessing_passwords_costs_the_guesser() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const SOCKETS: usize = 200;
    let logins: usize = std::env::var("WARREN_LOGINS").ok().and_then(|text| text.parse().ok()).unwrap_or(2 * SOCKETS);
    let broker = launch().start();
    let address = broker.address();
    std::thread::scope(|scope| {
        for guesser in 0..SOCKETS {
            scope.spawn(move || {
                for _ in 0..logins / SOCKETS {
                    let user = if guesser % 2 == 0 { "guest" } else { "nobody" };
                    assert_eq!(log_in(Raw::connect(address), user, "wrong"), Some(403));
                }
            });
        }
        // Whoever knows the password gets in meanwhile.
        for _ in 0..10 {
            assert_eq!(log_in(Raw::connect(address), "guest", "guest"), None);
        }
    });
    let lines = broker.log().lines().filter(|line| line.contains("login refused")).count();
    let windows = logins / SOCKETS / 8 + 2;
    assert!((1..=20 * windows).contains(&lines), "{lines} lines for {logins} logins");
}
