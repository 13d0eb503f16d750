//! Frames as they are on the wire, octet by octet. The literals were put together by hand from the specification, so a
//! mistake that encoder and decoder share shows here.

use protocol::amqp::{AMQPClass, AMQPValue, FieldTable, basic, channel, connection, queue};
use protocol::{
    Ack, Assembler, Content, Decoded, Frame, FrameKind, GetOk, Method, Nack, PROTOCOL_HEADER, Publish, Reject, Return,
    ServerMethod, address, check_protocol_header, decode_frame, decode_method, decode_server_method, names, put_ack,
    put_deliver, put_get_ok, put_heartbeat, put_method, put_nack, put_publish, put_return,
};

/// Octets from hex digits; blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex digits")).collect()
}

fn frames(mut wire: &[u8]) -> Vec<Frame<'_>> {
    let mut found = Vec::new();
    while let Decoded::Frame { frame, consumed } = decode_frame(wire, 4096).expect("a sound frame") {
        found.push(frame);
        wire = &wire[consumed..];
    }
    assert!(wire.is_empty());
    found
}

/// Writes a method and reads what is expected back, both ways round.
#[track_caller]
fn check_method(channel: u16, method: AMQPClass, wire: &str) {
    let wire = hex(wire);
    let mut out = Vec::new();
    put_method(&mut out, channel, &method);
    assert_eq!(out, wire);
    let frames = frames(&wire);
    assert_eq!((frames.len(), frames[0].kind, frames[0].channel), (1, FrameKind::Method, channel));
    let client = decode_method(frames[0].payload);
    let server = decode_server_method(frames[0].payload);
    let found = match (client, server) {
        (Ok(Method::Other(found)), _) | (_, Ok(ServerMethod::Other(found))) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(*found, method);
}

#[test]
fn protocol_header() {
    assert_eq!(PROTOCOL_HEADER.to_vec(), hex("41 4d 51 50 00 00 09 01"));
    assert_eq!(check_protocol_header(&PROTOCOL_HEADER), Ok(()));
}

#[test]
fn heartbeat() {
    let mut out = Vec::new();
    put_heartbeat(&mut out);
    assert_eq!(out, hex("08 0000 00000000 ce"));
    assert_eq!(frames(&out), [Frame { kind: FrameKind::Heartbeat, channel: 0, payload: &[] }]);
}

#[test]
fn handshake() {
    let table = |name: &str, value: AMQPValue| {
        let mut table = FieldTable::default();
        table.insert(names::short_cut(name), value);
        table
    };
    // connection.start 0-9, {product: "Warren"}, "PLAIN", "en_US"
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: table("product", AMQPValue::LongString(names::long("Warren"))),
            mechanisms: names::long("PLAIN"),
            locales: names::long("en_US"),
        })),
        "01 0000 0000002f 000a 000a 00 09
         00000013 07 70726f64756374 53 00000006 57617272656e
         00000005 504c41494e 00000005 656e5f5553 ce",
    );
    // connection.start-ok {capabilities: {basic.nack: true}}, PLAIN, NUL guest NUL guest, en_US
    let capabilities = table("basic.nack", AMQPValue::Boolean(true));
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: table("capabilities", AMQPValue::FieldTable(capabilities)),
            mechanism: names::short_cut("PLAIN"),
            response: names::long("\0guest\0guest"),
            locale: names::short_cut("en_US"),
        })),
        "01 0000 00000043 000a 000b
         0000001f 0c 6361706162696c6974696573 46 0000000d 0a 62617369632e6e61636b 74 01
         05 504c41494e 0000000c 00 6775657374 00 6775657374 05 656e5f5553 ce",
    );
    // connection.tune 2047, 131072, 60
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::Tune(connection::Tune {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
        })),
        "01 0000 0000000c 000a 001e 07ff 00020000 003c ce",
    );
    // connection.tune-ok, the same
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
        })),
        "01 0000 0000000c 000a 001f 07ff 00020000 003c ce",
    );
    // connection.open "/"
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::Open(connection::Open { virtual_host: names::short_cut("/") })),
        "01 0000 00000008 000a 0028 01 2f 00 00 ce",
    );
    // connection.open-ok ""
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})),
        "01 0000 00000005 000a 0029 00 ce",
    );
    // channel.open "", channel.open-ok ""
    check_method(
        1,
        AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
        "01 0001 00000005 0014 000a 00 ce",
    );
    check_method(
        1,
        AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})),
        "01 0001 00000008 0014 000b 00000000 ce",
    );
}

#[test]
fn queue_declare() {
    // ticket 0, "q", durable and auto-delete, {x-max-length: 10 as int32}
    let mut arguments = FieldTable::default();
    arguments.insert(names::short_cut("x-max-length"), AMQPValue::LongInt(10));
    check_method(
        1,
        AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: names::short_cut("q"),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: true,
            nowait: false,
            arguments,
        })),
        "01 0001 0000001f 0032 000a 0000 01 71 0a 00000012 0c 782d6d61782d6c656e677468 49 0000000a ce",
    );
    check_method(
        1,
        AMQPClass::Queue(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
            queue: names::short_cut("q"),
            message_count: 3,
            consumer_count: 1,
        })),
        "01 0001 0000000e 0032 000b 01 71 00000003 00000001 ce",
    );
}

#[test]
fn basic_consume() {
    // ticket 0, queue "q", tag "t", no-ack and exclusive, {}
    check_method(
        1,
        AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
            queue: names::short_cut("q"),
            consumer_tag: names::short_cut("t"),
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
            arguments: FieldTable::default(),
        })),
        "01 0001 0000000f 003c 0014 0000 01 71 01 74 06 00000000 ce",
    );
}

/// content-type "text/plain", delivery-mode 2
const PROPERTIES: &str = "9000 0a 746578742f706c61696e 02";

#[test]
fn publish() {
    // basic.publish "logs", "a.b", mandatory; content header, five octets; body "hello"
    let wire = hex("01 0002 00000010 003c 0028 0000 04 6c6f6773 03 612e62 01 ce
         02 0002 0000001a 003c 0000 0000000000000005 9000 0a 746578742f706c61696e 02 ce
         03 0002 00000005 68656c6c6f ce");
    let properties = hex(PROPERTIES);
    let address = address("logs", "a.b");
    let content = Content { address: &address, properties: &properties, body: b"hello" };
    let mut out = Vec::new();
    put_publish(&mut out, 2, &content, true, 4096);
    assert_eq!(out, wire);

    let frames = frames(&wire);
    let publish = Publish {
        exchange: b"logs",
        routing_key: b"a.b",
        address: &hex("04 6c6f6773 03 612e62"),
        mandatory: true,
        immediate: false,
    };
    assert_eq!(decode_method(frames[0].payload), Ok(Method::Publish(publish)));
    let mut assembler = Assembler::new();
    assembler.begin(&publish).expect("nothing is unfinished");
    assert_eq!(assembler.on_header(frames[1].payload), Ok(None));
    let message = assembler.on_body(frames[2].payload).expect("a body").expect("all of it");
    assert_eq!((message.address, message.properties, &*message.body), (&address[..], &properties[..], &b"hello"[..]));
}

#[test]
fn publish_of_nothing() {
    // basic.publish "", "q"; content header without properties; no body frame
    let content = Content { address: &address("", "q"), properties: &[0, 0], body: &[] };
    let mut out = Vec::new();
    put_publish(&mut out, 1, &content, false, 4096);
    assert_eq!(
        out,
        hex("01 0001 0000000a 003c 0028 0000 00 01 71 00 ce
             02 0001 0000000e 003c 0000 0000000000000000 0000 ce")
    );
}

#[test]
fn deliver() {
    // basic.deliver "ctag", 258, redelivered, "logs", "a.b"; content header; body "hello"
    let wire = hex("01 0002 0000001b 003c 003c 04 63746167 0000000000000102 01 04 6c6f6773 03 612e62 ce
         02 0002 0000001a 003c 0000 0000000000000005 9000 0a 746578742f706c61696e 02 ce
         03 0002 00000005 68656c6c6f ce");
    let content = Content { address: &address("logs", "a.b"), properties: &hex(PROPERTIES), body: b"hello" };
    let mut out = Vec::new();
    put_deliver(&mut out, 2, "ctag", 258, true, &content, 4096);
    assert_eq!(out, wire);
    let frames = frames(&wire);
    let Ok(ServerMethod::Deliver(found)) = decode_server_method(frames[0].payload) else { panic!("{frames:?}") };
    assert_eq!((found.consumer_tag, found.delivery_tag, found.redelivered), ("ctag", 258, true));
    assert_eq!((found.exchange, found.routing_key, found.address), ("logs", "a.b", content.address));
}

#[test]
fn get_ok() {
    // basic.get-ok 1, not redelivered, "", "q", 7 left; content header without properties; body "x"
    let wire = hex("01 0001 00000014 003c 0047 0000000000000001 00 00 01 71 00000007 ce
         02 0001 0000000e 003c 0000 0000000000000001 0000 ce
         03 0001 00000001 78 ce");
    let address = address("", "q");
    let content = Content { address: &address, properties: &[0, 0], body: b"x" };
    let mut out = Vec::new();
    put_get_ok(&mut out, 1, 1, false, 7, &content, 4096);
    assert_eq!(out, wire);
    let expected = GetOk {
        delivery_tag: 1,
        redelivered: false,
        exchange: "",
        routing_key: "q",
        address: &address,
        message_count: 7,
    };
    assert_eq!(decode_server_method(frames(&wire)[0].payload), Ok(ServerMethod::GetOk(expected)));
}

#[test]
fn basic_return() {
    // basic.return 312 "NO_ROUTE", "e", "k"; content header without properties; body "x"
    let wire = hex("01 0001 00000013 003c 0032 0138 08 4e4f5f524f555445 01 65 01 6b ce
         02 0001 0000000e 003c 0000 0000000000000001 0000 ce
         03 0001 00000001 78 ce");
    let address = address("e", "k");
    let content = Content { address: &address, properties: &[0, 0], body: b"x" };
    let mut out = Vec::new();
    put_return(&mut out, 1, 312, "NO_ROUTE", &content, 4096);
    assert_eq!(out, wire);
    let expected = Return { code: 312, text: "NO_ROUTE", exchange: "e", routing_key: "k", address: &address };
    assert_eq!(decode_server_method(frames(&wire)[0].payload), Ok(ServerMethod::Return(expected)));
}

#[test]
fn settlements() {
    // basic.ack 5, multiple
    let wire = hex("01 0001 0000000d 003c 0050 0000000000000005 01 ce");
    let mut out = Vec::new();
    put_ack(&mut out, 1, 5, true);
    assert_eq!(out, wire);
    let ack = Ack { delivery_tag: 5, multiple: true };
    assert_eq!(decode_method(frames(&wire)[0].payload), Ok(Method::Ack(ack)));
    assert_eq!(decode_server_method(frames(&wire)[0].payload), Ok(ServerMethod::Ack(ack)));

    // basic.nack 5, not multiple, requeue
    let wire = hex("01 0001 0000000d 003c 0078 0000000000000005 02 ce");
    out.clear();
    put_nack(&mut out, 1, 5, false, true);
    assert_eq!(out, wire);
    let nack = Nack { delivery_tag: 5, multiple: false, requeue: true };
    assert_eq!(decode_method(frames(&wire)[0].payload), Ok(Method::Nack(nack)));
    assert_eq!(decode_server_method(frames(&wire)[0].payload), Ok(ServerMethod::Nack(nack)));

    // basic.reject 5, requeue
    let wire = hex("01 0001 0000000d 003c 005a 0000000000000005 01 ce");
    let reject = Reject { delivery_tag: 5, requeue: true };
    assert_eq!(decode_method(frames(&wire)[0].payload), Ok(Method::Reject(reject)));
}

#[test]
fn close() {
    // channel.close 404 "NOT_FOUND" 50 10 and its answer
    check_method(
        1,
        AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
            reply_code: 404,
            reply_text: names::short_cut("NOT_FOUND"),
            class_id: 50,
            method_id: 10,
        })),
        "01 0001 00000014 0014 0028 0194 09 4e4f545f464f554e44 0032 000a ce",
    );
    check_method(
        1,
        AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})),
        "01 0001 00000004 0014 0029 ce",
    );
    // connection.close 200 "bye" 0 0 and its answer
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
            reply_code: 200,
            reply_text: names::short_cut("bye"),
            class_id: 0,
            method_id: 0,
        })),
        "01 0000 0000000e 000a 0032 00c8 03 627965 0000 0000 ce",
    );
    check_method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})),
        "01 0000 00000004 000a 0033 ce",
    );
}
