//! Frames and methods that break the protocol, and exactly what is said about them.

use crate::support::*;
use integration_tests::id::{self, Id};
use integration_tests::raw::Close;
use integration_tests::wire::{self, BODY, Bytes, HEADER, HEARTBEAT, METHOD, NO_PROPERTIES};

/// What is sent on an open channel 1, and the connection.close that follows.
struct Case {
    what: &'static str,
    send: Vec<u8>,
    close: Close,
}

fn case(what: &'static str, send: Vec<u8>, code: u16, text: &str, id: Id) -> Case {
    Case { what, send, close: Close::new(code, text, id) }
}

#[track_caller]
fn check(cases: Vec<Case>) {
    let server = server();
    let mut bystander = server.channel();
    for Case { what, send, close } in cases {
        let mut raw = server.channel();
        raw.send(send);
        assert_eq!(raw.connection_close(), close, "{what}");
        raw.expect_end();
        assert_works(&mut bystander, 1);
    }
}

#[test]
fn frames_that_are_no_frames() {
    let unfinished = |kind: u8, payload: &[u8], end: u8| {
        let mut frame = wire::frame(kind, 1, payload);
        frame.pop();
        frame.push(end);
        frame
    };
    check(vec![
        case(
            "an unknown frame type",
            wire::frame(4, 1, b"abc"),
            501,
            "FRAME_ERROR - type 4, all octets = <<\"abc\">>: unknown_frame",
            (0, 0),
        ),
        case(
            "a method without room for its ids",
            wire::frame(METHOD, 1, &[0, 60]),
            501,
            "FRAME_ERROR - type 1, all octets = <<0,60>>: unknown_frame",
            (0, 0),
        ),
        case(
            "a wrong frame end",
            unfinished(BODY, b"abc", 0xCD),
            501,
            "FRAME_ERROR - type 3, all octets = <<\"abc\">>: {invalid_frame_end_marker,205}",
            (0, 0),
        ),
        case(
            "a heartbeat on a channel",
            wire::frame(HEARTBEAT, 1, b""),
            505,
            "UNEXPECTED_FRAME - type 8, all octets = <<>>",
            (0, 0),
        ),
        case(
            "a heartbeat with something in it",
            wire::frame(HEARTBEAT, 0, b"abc"),
            501,
            "FRAME_ERROR - type 8, all octets = <<\"abc\">>: unknown_frame",
            (0, 0),
        ),
        case(
            "a header without room for its fields",
            wire::frame(HEADER, 1, b"abc"),
            501,
            "FRAME_ERROR - type 2, all octets = <<\"abc\">>: unknown_frame",
            (0, 0),
        ),
        case(
            "a header on channel 0",
            wire::frame(HEADER, 0, &wire::header(3, NO_PROPERTIES)),
            505,
            "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,3,0,0>>",
            (0, 0),
        ),
        case(
            "a body on channel 0",
            wire::frame(BODY, 0, b"0123456789abcdefgh"),
            505,
            "UNEXPECTED_FRAME - type 3, first 16 octets = <<\"0123456789abcdef\">>",
            (0, 0),
        ),
    ]);
}

#[test]
fn a_frame_that_is_too_large_is_refused_by_its_head() {
    let server = server();
    let mut raw = server.channel();
    // 8 octets more than allowed are tolerated; then only the first 7 octets have to be there.
    let limit: u32 = 131_072 - 8;
    let head = |size: u32| Bytes::new().octet(BODY).short(1).long(size).done();
    raw.send(head(limit + 9));
    let text = format!("FRAME_ERROR - type 3, all octets = <<>>: {{frame_too_large,{},{limit}}}", limit + 9);
    raw.expect_connection_close(501, &text, (0, 0));

    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.begin_publish(1, "", &queue, 0);
    let body = vec![b'x'; limit as usize + 8];
    raw.frame(HEADER, 1, wire::header(body.len() as u64, NO_PROPERTIES));
    raw.frame(BODY, 1, &body);
    let message = raw.get(1, &queue, true).expect("the message");
    assert_eq!(message.content.body.len(), body.len());
}

#[test]
fn content_out_of_order() {
    let publish = || {
        let arguments = Bytes::new().short(0).shortstr("").shortstr("q").octet(0);
        wire::method(1, id::BASIC_PUBLISH, arguments)
    };
    let header = |payload: Vec<u8>| wire::frame(HEADER, 1, &payload);
    let publish_and = |frames: &[Vec<u8>]| {
        let mut bytes = publish();
        bytes.extend(frames.concat());
        bytes
    };
    let no_header = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
    let no_body = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
    let no_method = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    let wrong_class = Bytes::new().short(50).short(0).longlong(0).short(0).done();
    let with_weight = Bytes::new().short(60).short(1).longlong(0).short(0).done();
    check(vec![
        case("a header alone", header(wire::header(0, NO_PROPERTIES)), 505, no_method, (0, 0)),
        case("a body alone", wire::frame(BODY, 1, b"x"), 505, no_method, (0, 0)),
        case("two publishes", publish_and(&[publish()]), 505, no_header, id::BASIC_PUBLISH),
        case(
            "a body instead of a header",
            publish_and(&[wire::frame(BODY, 1, b"x")]),
            505,
            no_header,
            id::BASIC_PUBLISH,
        ),
        case("a header with a weight", publish_and(&[header(with_weight)]), 505, no_header, id::BASIC_PUBLISH),
        case(
            "a header of another class",
            publish_and(&[header(wrong_class)]),
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
            id::BASIC_PUBLISH,
        ),
        case(
            "a method instead of a body",
            publish_and(&[header(wire::header(3, NO_PROPERTIES)), publish()]),
            505,
            no_body,
            id::BASIC_PUBLISH,
        ),
        case(
            "two headers",
            publish_and(&[header(wire::header(3, NO_PROPERTIES)), header(wire::header(3, NO_PROPERTIES))]),
            505,
            no_body,
            id::BASIC_PUBLISH,
        ),
        case(
            "more body than announced",
            publish_and(&[header(wire::header(3, NO_PROPERTIES)), wire::frame(BODY, 1, b"four")]),
            501,
            "FRAME_ERROR - content body frame exceeds remaining content size",
            id::BASIC_PUBLISH,
        ),
        case(
            "a body as large as the sky",
            publish_and(&[header(wire::header(1 << 63, NO_PROPERTIES))]),
            501,
            "FRAME_ERROR - content body size 9223372036854775808 exceeds maximum allowed size 536870912",
            id::BASIC_PUBLISH,
        ),
        case(
            "a body just too large",
            publish_and(&[header(wire::header(536_870_913, NO_PROPERTIES))]),
            501,
            "FRAME_ERROR - content body size 536870913 exceeds maximum allowed size 536870912",
            id::BASIC_PUBLISH,
        ),
    ]);
}

#[test]
fn methods_where_they_do_not_belong() {
    let in_running = "CHANNEL_ERROR - unexpected method in connection state running";
    let unimplemented = "COMMAND_INVALID - unimplemented method";
    let close = Bytes::new().short(200).shortstr("").long(0).done();
    let blocked = Bytes::new().shortstr("why").done();
    let open = Bytes::new().shortstr("/").shortstr("").octet(0).done();
    let tune_ok = Bytes::new().short(0).long(0).short(0).done();
    let declare_ok = Bytes::new().shortstr("q").long(0).long(0).done();
    check(vec![
        case("channel.open on channel 0", wire::method(0, id::CHANNEL_OPEN, [0]), 504, in_running, id::CHANNEL_OPEN),
        case("basic.recover on channel 0", wire::method(0, id::BASIC_RECOVER, [1]), 504, in_running, id::BASIC_RECOVER),
        case(
            "connection.blocked from a client",
            wire::method(0, id::CONNECTION_BLOCKED, &blocked),
            504,
            in_running,
            id::CONNECTION_BLOCKED,
        ),
        case(
            "a second connection.open",
            wire::method(0, id::CONNECTION_OPEN, &open),
            504,
            in_running,
            id::CONNECTION_OPEN,
        ),
        case(
            "a second tune-ok",
            wire::method(0, id::CONNECTION_TUNE_OK, &tune_ok),
            504,
            in_running,
            id::CONNECTION_TUNE_OK,
        ),
        case(
            "connection.close on a channel",
            wire::method(1, id::CONNECTION_CLOSE, &close),
            503,
            unimplemented,
            id::CONNECTION_CLOSE,
        ),
        case(
            "a method on a channel that is not open",
            wire::method(2, id::BASIC_RECOVER, [1]),
            504,
            "CHANNEL_ERROR - expected 'channel.open'",
            id::BASIC_RECOVER,
        ),
        case(
            "a second channel.open",
            wire::method(1, id::CHANNEL_OPEN, [0]),
            504,
            "CHANNEL_ERROR - second 'channel.open' seen",
            id::CHANNEL_OPEN,
        ),
        case(
            "queue.declare-ok from a client",
            wire::method(1, id::QUEUE_DECLARE_OK, &declare_ok),
            503,
            unimplemented,
            id::QUEUE_DECLARE_OK,
        ),
        case(
            "a stray channel.close-ok",
            wire::method(1, id::CHANNEL_CLOSE_OK, []),
            503,
            unimplemented,
            id::CHANNEL_CLOSE_OK,
        ),
        case(
            "channel.flow off",
            wire::method(1, id::CHANNEL_FLOW, [0]),
            540,
            "NOT_IMPLEMENTED - active=false",
            id::CHANNEL_FLOW,
        ),
    ]);
}

#[test]
fn arguments_that_cannot_be_read() {
    let bad_name = Bytes::new().short(0).shortstr(b"\xff\xfe").octet(0).table([]);
    check(vec![
        case(
            "arguments that end early",
            wire::method(1, id::QUEUE_DECLARE, [0]),
            501,
            "FRAME_ERROR - cannot decode <<0>>",
            id::QUEUE_DECLARE,
        ),
        case(
            "a name that is not UTF-8",
            wire::method(1, id::QUEUE_DECLARE, &bad_name),
            501,
            "FRAME_ERROR - Malformed UTF-8 in shortstr",
            (0, 0),
        ),
    ]);
}

#[test]
fn what_makes_rabbitmq_hang_up_gets_an_answer() {
    if peer_is_set("RabbitMQ resets these connections; Warren explains itself") {
        return;
    }
    let server = server();
    let mut bystander = server.channel();
    let unknown_tag = Bytes::new().short(0).shortstr("q").octet(0).table(Bytes::new().field("x", b'!'));
    let cases = [
        ("an unknown class", wire::method(1, (999, 10), [])),
        ("an unknown method", wire::method(1, (60, 999), [])),
        ("the old class of files", wire::method(1, (70, 10), [])),
        ("an unknown type of field", wire::method(1, id::QUEUE_DECLARE, unknown_tag)),
    ];
    for (what, bytes) in cases {
        let mut raw = server.channel();
        raw.send(bytes);
        let close = raw.connection_close();
        assert!([501, 502, 503, 540].contains(&close.code), "{what}: {close:?}");
        raw.expect_end();
        assert_works(&mut bystander, 1);
    }
}

#[test]
fn after_an_error_the_connection_is_read_until_close_ok() {
    let server = server();
    let mut raw = server.channel();
    raw.frame(4, 1, b"abc");
    // A client that has not noticed yet keeps sending; it must still get the close and not a reset.
    for _ in 0..200 {
        raw.publish(1, ("", "nowhere"), 0, NO_PROPERTIES, &[b'x'; 10_000]);
    }
    let text = "FRAME_ERROR - type 4, all octets = <<\"abc\">>: unknown_frame";
    raw.expect_connection_close(501, text, (0, 0));
    raw.expect_end();
}

#[test]
fn after_its_close_a_client_may_say_more_and_closes_the_socket() {
    let server = server();
    let mut raw = server.channel();
    let close = || Bytes::new().short(200).shortstr("").long(0);
    // Threads of one client close it at the same time; each is answered, and the socket stays open until the client goes.
    for _ in 0..3 {
        raw.call(0, id::CONNECTION_CLOSE, close(), id::CONNECTION_CLOSE_OK);
    }
    raw.publish(1, ("", "nowhere"), 0, NO_PROPERTIES, b"too late");
    raw.call(0, id::CONNECTION_CLOSE, close(), id::CONNECTION_CLOSE_OK);
}

#[test]
fn a_client_may_close_while_the_server_does() {
    let server = server();
    let mut raw = server.channel();
    raw.frame(4, 1, b"abc");
    raw.expect(0, id::CONNECTION_CLOSE);
    let arguments = Bytes::new().short(200).shortstr("").long(0);
    raw.call(0, id::CONNECTION_CLOSE, arguments, id::CONNECTION_CLOSE_OK);
}
