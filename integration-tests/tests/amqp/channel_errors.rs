//! What a channel does after an error, how many there may be, and the methods of its own class.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, NO_PROPERTIES};

#[test]
fn too_many_channels_are_counted_not_numbered() {
    let server = server();
    let mut raw = server.connect();
    let mut handshake = integration_tests::raw::Handshake::plain("guest", "guest");
    handshake.channel_max = Some(2);
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw.open_channel(7);
    raw.open_channel(65_535);
    raw.method(1, id::CHANNEL_OPEN, [0]);
    raw.expect_connection_close(
        530,
        "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)",
        (0, 0),
    );
}

#[test]
fn a_long_text_is_cut() {
    let server = server();
    let mut raw = server.channel();
    let name = "x".repeat(255);
    raw.send_declare(1, &name, 1, &[]);
    let text = format!("NOT_FOUND - no queue '{name}' in vhost '{}'", server.vhost());
    let close = raw.channel_close(1);
    assert_eq!((close.code, close.text.len()), (404, 255), "{close:?}");
    let kept = close.text.strip_suffix("...").expect("the dots");
    assert!(text.starts_with(kept), "{kept}");
}

#[test]
fn a_half_dead_channel_ignores_everything_but_its_end() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let fail = |raw: &mut Raw| {
        raw.send_declare(1, "missing", 1, &[]);
    };
    fail(&mut raw);
    raw.unanswered_channel_close(1);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"ignored");
    fail(&mut raw);
    // A close is answered, and close-ok frees the number.
    let close = Bytes::new().short(200).shortstr("").long(0).done();
    raw.call(1, id::CHANNEL_CLOSE, &close, id::CHANNEL_CLOSE_OK);
    raw.method(1, id::CHANNEL_CLOSE_OK, []);
    raw.open_channel(1);
    assert_eq!(raw.declare(1, &queue, 4).1, 0);
    // Closed is closed.
    raw.call(1, id::CHANNEL_CLOSE, &close, id::CHANNEL_CLOSE_OK);
    raw.method(1, id::CHANNEL_CLOSE, &close);
    raw.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", id::CHANNEL_CLOSE);
}

#[test]
fn an_error_gives_back_what_the_channel_held() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"held");
    raw.get(1, &queue, false).expect("a message");
    raw.consume(1, &queue, "tag", 0);
    raw.send_declare(1, "missing", 1, &[]);
    // Without close-ok: what it held and consumed is free already.
    raw.unanswered_channel_close(1);
    raw.open_channel(2);
    let back = raw.get(2, &queue, true).expect("back in the queue");
    assert_eq!((back.text(), back.redelivered), ("held", true));
    assert_eq!(raw.declare(2, &queue, 4), (queue.clone(), 0, 0));
}

#[test]
fn flow_and_access_are_answered() {
    let server = server();
    let mut raw = server.channel();
    assert_eq!(raw.call(1, id::CHANNEL_FLOW, [1], id::CHANNEL_FLOW_OK), [1]);
    let arguments = Bytes::new().shortstr("/data").octet(0b1_1111);
    let answer = raw.call(1, id::ACCESS_REQUEST, arguments, id::ACCESS_REQUEST_OK);
    assert_eq!(answer, [0, 1]);
    raw.open_channel(3);
    let close = Bytes::new().short(200).shortstr("").long(0);
    raw.call(3, id::CHANNEL_CLOSE, close, id::CHANNEL_CLOSE_OK);
    let answer = raw.call(3, id::CHANNEL_OPEN, [0], id::CHANNEL_OPEN_OK);
    assert_eq!(answer, [0, 0, 0, 0]);
}
