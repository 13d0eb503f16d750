//! Tables that are too deep or lie about their lengths.

use super::*;
use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Handshake;
use integration_tests::unique;
use integration_tests::wire::{self, BODY, Bytes, HEADER, NO_PROPERTIES, nested_tables};

#[test]
fn deep_tables_before_login() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let (server, mut bystander) = victim("");
    for depth in [300, 500, 5_000, DEEP] {
        let mut raw = server.connect();
        raw.start();
        let mut handshake = Handshake::plain("guest", "guest");
        handshake.properties = nested_tables(depth);
        raw.try_send(wire::method(0, id::CONNECTION_START_OK, handshake.start_ok()));
        assert_ended(&mut raw, "deep client properties");
        assert_works(&mut bystander, 1);
    }
    // The AMQPLAIN response is a table too.
    let mut raw = server.connect();
    raw.start();
    let mut handshake = Handshake::plain("", "");
    handshake.mechanism = "AMQPLAIN".to_owned();
    handshake.response = nested_tables(500);
    raw.method(0, id::CONNECTION_START_OK, handshake.start_ok());
    match raw.next_frame() {
        Some(frame) => assert_eq!(frame.id(), Some(id::CONNECTION_CLOSE), "{frame:?}"),
        None => return,
    }
    assert_works(&mut bystander, 1);
}

#[test]
fn deep_tables_in_arguments_and_headers() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let (server, mut bystander) = victim("[limits]\nframe_max = 4194304\n");
    let deep = nested_tables(DEEP);
    let queue = bystander.declare(1, &unique("queue"), 0).0;

    let mut raw = server.channel();
    raw.send_declare(1, &unique("queue"), 0, &deep);
    assert_ended(&mut raw, "deep arguments");
    let mut raw = server.channel();
    raw.send_bind(1, &queue, "amq.headers", "", &deep);
    assert_ended(&mut raw, "deep binding arguments");
    let mut raw = server.channel();
    let properties = Bytes::new().short(1 << 13).table(&deep).done();
    raw.publish(1, ("", &queue), 0, &properties, b"x");
    assert_ended(&mut raw, "deep headers");
    // Arrays nest as well.
    let mut arrays = Vec::new();
    for level in (0..DEEP).rev() {
        arrays.push(b'A');
        arrays.extend((level as u32 * 5).to_be_bytes());
    }
    let headers = Bytes::new().shortstr("n").raw(&arrays).done();
    let properties = Bytes::new().short(1 << 13).table(headers).done();
    let mut raw = server.channel();
    raw.publish(1, ("", &queue), 0, &properties, b"x");
    assert_ended(&mut raw, "deep arrays");

    assert_eq!(bystander.declare(1, &queue, 1).1, 0);
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 300);
}

#[test]
fn modest_depth_is_fine() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let properties = Bytes::new().short(1 << 13).table(nested_tables(100)).done();
    raw.publish(1, ("", &queue), 0, &properties, b"x");
    let message = raw.get(1, &queue, true).expect("the message");
    assert_eq!(message.content.properties, properties);
}

#[test]
fn header_tables_that_lie_are_not_stored() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let (server, mut bystander) = victim("");
    let queue = bystander.declare(1, &unique("queue"), 0).0;
    bystander.consume(1, &queue, "consumer", 0);
    let string = |length: u32| Bytes::new().field("a", b'S').long(length).raw("abc").done();
    let in_table = |entries: &[u8]| Bytes::new().short(1 << 13).table(entries).done();
    let lies = [
        ("a long string", in_table(&string(100))),
        ("a string of 4 GiB", in_table(&string(u32::MAX))),
        ("a string shorter than it is", in_table(&string(1))),
        ("a table longer than the frame", Bytes::new().short(1 << 13).long(1_000).raw(string(3)).done()),
        (
            "an inner table longer than the outer",
            in_table(&Bytes::new().field("a", b'F').long(50).raw(string(3)).done()),
        ),
        ("an unknown type", in_table(&Bytes::new().field("a", b'?').long(0).done())),
        ("a name without a value", in_table(&Bytes::new().shortstr("a").done())),
        ("a name that is not there", in_table(&[200, b'a'])),
        ("a property that is cut short", Bytes::new().short(1 << 15).octet(20).raw("text").done()),
        ("flags without values", Bytes::new().short(0xfffc).done()),
        ("half the flags", vec![0x80]),
        ("octets behind the properties", Bytes::new().short(1 << 15).shortstr("x").raw("more").done()),
    ];
    for (what, properties) in lies {
        let mut raw = server.channel();
        raw.begin_publish(1, "", &queue, 0);
        raw.frame(HEADER, 1, wire::header(1, &properties));
        raw.frame(BODY, 1, b"x");
        assert_ended(&mut raw, what);
        // The consumer got nothing and lives.
        bystander.fence(1);
    }
    bystander.publish(1, ("", &queue), 0, NO_PROPERTIES, b"fine");
    assert_eq!(bystander.delivery(1).text(), "fine");
}
