//! The scenes: for every reply code one way to it, or several.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use integration_tests::id;
use integration_tests::wire::{BODY, Bytes, HEADER, NO_PROPERTIES, header};

use super::Play;

/// A name, which begins with the code, and what is played.
pub(super) type Scene = (&'static str, fn(&mut Play<'_>));

pub(super) const ALL: &[Scene] = &[
    ("312-no-route", no_route),
    ("320-closed-by-an-operator", closed_by_an_operator),
    ("403-reserved-name", |play| declare(play, "amq.golden", 0, &[])),
    ("403-default-exchange", |play| {
        play.method(
            1,
            id::QUEUE_BIND,
            Bytes::new().short(0).shortstr("q").shortstr("").shortstr("k").octet(0).table([]),
        );
        play.listen();
    }),
    ("404-queue", |play| declare(play, "nowhere", 1, &[])),
    ("404-exchange", |play| publish(play, "nowhere", 0)),
    ("405-exclusive", exclusive),
    ("406-inequivalent-queue", |play| {
        play.raw.declare(1, "golden", 2);
        declare(play, "golden", 0, &[]);
    }),
    ("406-inequivalent-exchange", |play| {
        play.raw.exchange(1, "golden", "direct", 0);
        let arguments = Bytes::new().short(0).shortstr("golden").shortstr("fanout").octet(0).table([]);
        play.method(1, id::EXCHANGE_DECLARE, arguments);
        play.listen();
    }),
    ("406-invalid-argument", |play| {
        let arguments = Bytes::new().field("x-message-ttl", b'S').longstr("soon").done();
        declare(play, "golden", 0, &arguments);
    }),
    ("406-unknown-delivery-tag", |play| {
        play.method(1, id::BASIC_ACK, Bytes::new().longlong(7).octet(0));
        play.listen();
    }),
    ("501-unknown-frame-type", |play| {
        play.send(4, 1, b"abc");
        play.listen();
    }),
    ("503-close-ok-out-of-place", |play| {
        play.method(1, id::CHANNEL_CLOSE_OK, []);
        play.listen();
    }),
    ("406-unknown-exchange-type", |play| {
        let arguments = Bytes::new().short(0).shortstr("golden").shortstr("nothing").octet(0).table([]);
        play.method(1, id::EXCHANGE_DECLARE, arguments);
        play.listen();
    }),
    ("504-channel-is-not-open", |play| {
        play.method(2, id::BASIC_QOS, Bytes::new().long(0).short(1).octet(0));
        play.listen();
    }),
    ("504-channel-is-open", |play| {
        play.method(1, id::CHANNEL_OPEN, Bytes::new().shortstr(""));
        play.listen();
    }),
    ("505-header-without-method", |play| {
        play.send(HEADER, 1, &header(1, NO_PROPERTIES));
        play.listen();
    }),
    ("505-method-instead-of-header", |play| {
        play.method(1, id::BASIC_PUBLISH, Bytes::new().short(0).shortstr("").shortstr("q").octet(0));
        play.method(1, id::BASIC_QOS, Bytes::new().long(0).short(1).octet(0));
        play.listen();
    }),
    ("530-consumer-tag-twice", |play| {
        play.raw.declare(1, "golden", 4);
        play.raw.consume(1, "golden", "twice", 0);
        play.method(
            1,
            id::BASIC_CONSUME,
            Bytes::new().short(0).shortstr("golden").shortstr("twice").octet(0).table([]),
        );
        play.listen();
    }),
    ("540-immediate", |play| publish(play, "", 2)),
    ("540-recover-without-requeue", |play| {
        play.method(1, id::BASIC_RECOVER, [0]);
        play.listen();
    }),
    ("541-queue-master-locator", |play| {
        let arguments = Bytes::new().field("x-queue-master-locator", b'S').longstr("nobody").done();
        declare(play, "golden", 2, &arguments);
    }),
];

fn declare(play: &mut Play<'_>, queue: &str, bits: u8, arguments: &[u8]) {
    play.method(1, id::QUEUE_DECLARE, Bytes::new().short(0).shortstr(queue).octet(bits).table(arguments));
    play.listen();
}

fn publish(play: &mut Play<'_>, exchange: &str, bits: u8) {
    play.method(1, id::BASIC_PUBLISH, Bytes::new().short(0).shortstr(exchange).shortstr("nowhere").octet(bits));
    play.send(HEADER, 1, &header(4, NO_PROPERTIES));
    play.send(BODY, 1, b"body");
    play.listen();
}

fn no_route(play: &mut Play<'_>) {
    publish(play, "amq.direct", 1);
}

fn exclusive(play: &mut Play<'_>) {
    let mut owner = play.server.channel();
    owner.declare(1, "golden", 4);
    declare(play, "golden", 0, &[]);
    owner.fence(1);
}

fn closed_by_an_operator(play: &mut Play<'_>) {
    let socket = play.raw.writer();
    let (own, theirs) = (socket.local_addr().expect("an address"), socket.peer_addr().expect("an address"));
    let path = format!("/api/connections/{own}%20-%3E%20{theirs}");
    // The node names a connection a moment after it is open.
    while !delete(play, &path) {
        std::thread::yield_now();
    }
    play.listen();
}

/// Asks the control socket of our broker, or the management interface of the peer.
fn delete(play: &Play<'_>, path: &str) -> bool {
    let request = format!(
        "DELETE {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nconnection: close\r\n\r\n"
    );
    let mut answer = String::new();
    if let Some(broker) = play.server.broker() {
        let mut stream = UnixStream::connect(broker.launch().home().join("data/control.sock")).expect("a socket");
        stream.write_all(request.as_bytes()).expect("written");
        stream.read_to_string(&mut answer).expect("an answer");
    } else {
        let mut address = play.server.address();
        address.set_port(address.port() + 10_000);
        let mut stream = TcpStream::connect(address).expect("a management interface");
        stream.write_all(request.as_bytes()).expect("written");
        stream.read_to_string(&mut answer).expect("an answer");
    }
    answer.split(' ').nth(1) == Some("204")
}
