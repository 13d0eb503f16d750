//! From the first octet to connection.open-ok: protocol header, SASL, tuning, virtual hosts.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Handshake, Raw, Tune};
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::{self, Bytes, Reader};
use std::collections::BTreeMap;

#[test]
fn a_wrong_protocol_header_is_answered_with_the_right_one() {
    let server = server();
    let headers: [&[u8; 8]; 9] = [
        b"AMQP\0\0\x09\x00",
        b"AMQP\0\0\x0a\x01",
        b"AMQP\0\x01\0\0",
        b"AMQP\x02\x01\0\0",
        b"AMQP\x01\x01\x08\0",
        b"AMQP\0\0\x08\0",
        b"GET / HT",
        b"\x16\x03\x01\x02\0\x01\0\x01",
        b"garbage!",
    ];
    for header in headers {
        let mut raw = server.connect();
        raw.send(header);
        let answer = raw.read_bytes(8).expect("eight octets");
        assert_eq!(&answer[..4], b"AMQP", "{header:?}");
        if !server.is_peer() {
            // RabbitMQ points some of them to AMQP 1.0, which Warren does not have.
            assert_eq!(&answer[4..], [0, 0, 9, 1], "{header:?}");
        }
        raw.expect_end();
    }
}

#[test]
fn the_old_header_of_0_9_is_good_enough() {
    let server = server();
    let mut raw = server.connect();
    raw.send(b"AMQP\x01\x01\0\x09");
    raw.expect(0, id::CONNECTION_START);
}

#[test]
fn start_says_what_the_server_can_do() {
    let server = server();
    let arguments = server.connect().start();
    let mut reader = Reader::new(&arguments);
    assert_eq!((reader.octet(), reader.octet()), (0, 9));
    let properties = table_of_strings(reader.longstr());
    // RabbitMQ's order is that of an internal table.
    let mut mechanisms: Vec<_> = reader.longstr().split(|octet| *octet == b' ').collect();
    if server.is_peer() {
        mechanisms.sort_by_key(|mechanism| (mechanism != b"PLAIN", *mechanism));
    }
    assert_eq!(mechanisms, [&b"PLAIN"[..], b"AMQPLAIN", b"ANONYMOUS"]);
    assert_eq!(reader.longstr(), b"en_US");
    assert!(reader.rest().is_empty());
    let names: Vec<_> = properties.keys().map(String::as_str).collect();
    for name in ["capabilities", "cluster_name", "copyright", "information", "platform", "product", "version"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!(properties["product"], b"RabbitMQ");
    let mut capabilities = Reader::new(&properties["capabilities"]);
    let mut seen = Vec::new();
    while !capabilities.rest().is_empty() {
        let name = capabilities.shortstr();
        let value = (capabilities.octet(), capabilities.octet());
        assert_eq!(value, (b't', 1), "{name}");
        seen.push(name);
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "consumer_priorities",
            "direct_reply_to",
            "exchange_exchange_bindings",
            "per_consumer_qos",
            "publisher_confirms",
        ]
    );
}

#[test]
fn tune_offers_the_defaults() {
    let server = server();
    let mut raw = server.connect();
    let tune = raw.handshake(&Handshake::plain("guest", "guest"));
    let expected = Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    assert_eq!(tune, expected);
    let answer = {
        raw.send_open(server.vhost());
        raw.expect(0, id::CONNECTION_OPEN_OK)
    };
    assert_eq!(Reader::new(&answer).shortstr(), "");
}

#[test]
fn every_offered_mechanism_works() {
    let server = server();
    let amqplain = |login: &str, password: &str| {
        Bytes::new().field("LOGIN", b'S').longstr(login).field("PASSWORD", b'S').longstr(password).done()
    };
    for (mechanism, response) in [
        ("PLAIN", b"\0guest\0guest".to_vec()),
        ("AMQPLAIN", amqplain("guest", "guest")),
        ("ANONYMOUS", Vec::new()),
        ("ANONYMOUS", b"anything".to_vec()),
    ] {
        let mut raw = server.connect();
        let mut handshake = Handshake::plain("", "");
        handshake.mechanism = mechanism.to_owned();
        handshake.response = response;
        raw.handshake(&handshake);
        raw.open(server.vhost());
        raw.open_channel(1);
        assert_works(&mut raw, 1);
    }
    for (mechanism, response) in [
        ("PLAIN", b"\0guest\0wrong".to_vec()),
        ("PLAIN", b"\0nobody\0guest".to_vec()),
        ("AMQPLAIN", amqplain("guest", "wrong")),
    ] {
        let mut raw = start_ok(&server, mechanism, &response);
        raw.expect_connection_close(403, &refused(mechanism), (0, 0));
    }
}

#[test]
fn an_empty_password_is_never_right() {
    let server = server();
    let mut raw = start_ok(&server, "PLAIN", b"\0guest\0");
    raw.expect_connection_close(403, &refused("PLAIN"), (0, 0));
}

#[test]
fn a_client_that_cannot_be_told_is_dropped() {
    let server = server();
    let mut raw = server.connect();
    raw.start();
    let mut handshake = Handshake::plain("guest", "wrong");
    handshake.properties.clear();
    raw.method(0, id::CONNECTION_START_OK, handshake.start_ok());
    raw.expect_end();
}

#[test]
fn malformed_credentials_end_the_connection() {
    let server = server();
    for (mechanism, response) in [
        ("PLAIN", &b"guest guest"[..]),
        ("PLAIN", b"\0guest"),
        ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest"),
        ("AMQPLAIN", b"\x05LOGINS\xff\xff\xff\xffguest"),
        ("NO-SUCH-MECHANISM", b""),
    ] {
        let mut raw = start_ok(&server, mechanism, response);
        // RabbitMQ says nothing here; an explanation before the end does no harm.
        if let Some(frame) = raw.next_frame() {
            assert!(!server.is_peer());
            assert_eq!(frame.id(), Some(id::CONNECTION_CLOSE));
            raw.try_send(wire::method(0, id::CONNECTION_CLOSE_OK, []));
            raw.expect_end();
        }
    }
}

#[test]
fn tune_ok_must_keep_to_the_offer() {
    let server = server();
    let cases = [
        (0, 131_072, "a client without channel limit"),
        (2048, 131_072, "more channels than offered"),
        (2047, 0, "frames without limit"),
        (2047, 131_073, "larger frames than offered"),
        (2047, 4095, "frames below the minimum"),
    ];
    for (channel_max, frame_max, why) in cases {
        let mut raw = server.connect();
        raw.start();
        let handshake = Handshake::plain("guest", "guest");
        raw.method(0, id::CONNECTION_START_OK, handshake.start_ok());
        raw.tune();
        raw.tune_ok(channel_max, frame_max, 0);
        raw.send_open(server.vhost());
        if server.is_peer() {
            // It drops the connection after three seconds without a word.
            continue;
        }
        let close = raw.connection_close();
        assert_eq!(close.code, 530, "{why}: {close:?}");
        raw.expect_end();
    }
}

#[test]
fn frames_can_be_as_small_as_4096() {
    let server = server();
    let mut raw = server.connect();
    let mut handshake = Handshake::plain("guest", "guest");
    // RabbitMQ 4.1 and later want 8192.
    handshake.frame_max = Some(if server.is_peer() { 8192 } else { 4096 });
    handshake.channel_max = Some(1);
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw.open_channel(1);
    assert_works(&mut raw, 1);
}

#[test]
fn a_missing_virtual_host_is_named() {
    let server = server();
    let vhost = unique("missing");
    let mut raw = server.connect();
    raw.login("guest", "guest");
    raw.send_open(&vhost);
    let text = format!("NOT_ALLOWED - vhost {vhost} not found");
    raw.expect_connection_close(530, &text, id::CONNECTION_OPEN);
    raw.expect_end();
}

#[test]
fn a_user_without_permission_record_cannot_open() {
    let stranger = user("", None);
    let server = Server::with_users(launch(), std::slice::from_ref(&stranger));
    let mut raw = server.connect();
    raw.login(&stranger.name, &stranger.password);
    raw.send_open(server.vhost());
    let text = format!("NOT_ALLOWED - access to vhost '{}' refused for user '{}'", server.vhost(), stranger.name);
    raw.expect_connection_close(530, &text, id::CONNECTION_OPEN);
}

#[test]
fn a_channel_method_before_open_is_unexpected() {
    let server = server();
    let mut raw = server.connect();
    raw.login("guest", "guest");
    raw.method(1, id::CHANNEL_OPEN, [0]);
    raw.expect_connection_close(505, "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>", (0, 0));
}

#[test]
fn the_secret_can_be_updated_at_any_time() {
    let server = server();
    let mut raw = server.channel();
    let arguments = Bytes::new().longstr("a new secret").shortstr("because");
    raw.call(0, id::CONNECTION_UPDATE_SECRET, arguments, id::CONNECTION_UPDATE_SECRET_OK);
    assert_works(&mut raw, 1);
}

/// Sends start-ok with all the capabilities.
fn start_ok(server: &Server, mechanism: &str, response: &[u8]) -> Raw {
    let mut raw = server.connect();
    raw.start();
    let mut handshake = Handshake::plain("", "");
    handshake.mechanism = mechanism.to_owned();
    handshake.response = response.to_vec();
    raw.method(0, id::CONNECTION_START_OK, handshake.start_ok());
    raw
}

fn refused(mechanism: &str) -> String {
    format!(
        "ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    )
}

/// The entries of a table that holds strings and tables only.
pub(crate) fn table_of_strings(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let mut entries = BTreeMap::new();
    while !reader.rest().is_empty() {
        let name = reader.shortstr();
        let tag = reader.octet();
        assert!(tag == b'S' || tag == b'F', "{name} has the tag {tag}");
        entries.insert(name, reader.longstr().to_vec());
    }
    entries
}
