//! A message is handed on as it came: properties, header tables and bodies byte for byte.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Handshake, Raw};
use integration_tests::server::Server;
use integration_tests::wire::{self, BODY, Bytes, HEADER, NO_PROPERTIES};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, DecimalValue, FieldArray};

#[test]
fn all_fourteen_properties_come_through() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::durable()).await;
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_content_encoding("utf-8".into())
            .with_headers(table("k", text("v")))
            .with_delivery_mode(2)
            .with_priority(200)
            .with_correlation_id("correlation".into())
            .with_reply_to("reply-to".into())
            .with_expiration("60000".into())
            .with_message_id("message".into())
            .with_timestamp(u64::MAX >> 1)
            .with_type("type".into())
            .with_user_id("guest".into())
            .with_app_id("app".into())
            .with_cluster_id("cluster".into());
        send_with(&channel, "", &queue, "x", properties.clone()).await;
        send(&channel, "", &queue, "y").await;
        let message = get(&channel, &queue).await.expect("a message");
        assert_eq!(message.properties, properties);
        let message = get(&channel, &queue).await.expect("a message");
        assert_eq!(message.properties, BasicProperties::default());
    });
}

#[test]
fn properties_keep_their_bytes() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let flags = 0b1111_1111_1111_1100;
    let all = Bytes::new()
        .short(flags)
        .shortstr("type")
        .shortstr("")
        .table(every_type_sorted())
        .octet(1)
        .octet(255)
        .shortstr("c".repeat(255))
        .shortstr("r")
        .shortstr("315360000000")
        .shortstr("m")
        .longlong(1_700_000_000)
        .shortstr("t")
        .shortstr("guest")
        .shortstr("a")
        .shortstr("cluster")
        .done();
    let mode_zero = Bytes::new().short(1 << 12).octet(0).done();
    let empty_table = Bytes::new().short(1 << 13).table([]).done();
    for properties in [&all[..], &mode_zero, &empty_table, NO_PROPERTIES] {
        raw.publish(1, ("", &queue), 0, properties, b"x");
        let message = raw.get(1, &queue, true).expect("the message");
        assert_eq!(message.content.properties, properties);
    }
}

#[test]
fn header_tables_are_not_rewritten() {
    if peer_is_set("RabbitMQ sorts the keys and turns L into l") {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let table = Bytes::new()
        .raw(every_type_sorted())
        .field("b", b'L')
        .longlong(u64::MAX)
        .field("a", b't')
        .octet(255)
        .field("a", b'V')
        .done();
    let properties = Bytes::new().short(1 << 13).table(table).done();
    raw.publish(1, ("", &queue), 0, &properties, b"x");
    let message = raw.get(1, &queue, true).expect("the message");
    assert_eq!(message.content.properties, properties);
}

#[test]
fn every_type_of_field_comes_through() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let mut array = FieldArray::default();
        array.push(AMQPValue::LongInt(-1));
        array.push(AMQPValue::FieldTable(table("inside", AMQPValue::Void)));
        array.push(AMQPValue::FieldArray(FieldArray::default()));
        let headers = tables([
            ("array", AMQPValue::FieldArray(array)),
            ("bool", AMQPValue::Boolean(true)),
            ("bytes", AMQPValue::ByteArray(vec![0u8, 255, 0xCE].into())),
            ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 3, value: 123_456 })),
            ("double", AMQPValue::Double(-1.5e300)),
            ("float", AMQPValue::Float(0.1)),
            ("i16", AMQPValue::ShortInt(i16::MIN)),
            ("i32", AMQPValue::LongInt(i32::MIN)),
            ("i64", AMQPValue::LongLongInt(i64::MIN)),
            ("i8", AMQPValue::ShortShortInt(i8::MIN)),
            ("string", text("a string, ä€😀")),
            ("table", AMQPValue::FieldTable(table("deep", text("down")))),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("u16", AMQPValue::ShortUInt(u16::MAX)),
            ("u32", AMQPValue::LongUInt(u32::MAX)),
            ("u8", AMQPValue::ShortShortUInt(u8::MAX)),
            ("void", AMQPValue::Void),
        ]);
        let properties = persistent().with_headers(headers);
        send_with(&channel, "", &queue, "x", properties.clone()).await;
        let message = get(&channel, &queue).await.expect("a message");
        assert_eq!(message.properties, properties);
    });
}

#[test]
fn large_bodies_come_through() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let mut consumer = consume(&channel, &queue, no_ack()).await;
        // RabbitMQ 4 refuses more than 16 MiB.
        let largest = if server.is_peer() { 16 << 20 } else { 20_000_000 };
        let boundary = 131_072 - 8;
        for size in [0, 1, boundary - 1, boundary, boundary + 1, 2 * boundary, largest] {
            let body: Vec<u8> = (0..size).map(|n: usize| ((n * 31) >> 3) as u8).collect();
            let confirm = channel
                .basic_publish(
                    "".into(),
                    queue.as_str().into(),
                    BasicPublishOptions::default(),
                    &body,
                    BasicProperties::default(),
                )
                .await
                .expect("publish");
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data.len(), size);
            assert!(delivery.data == body, "the body of {size} bytes differs");
            assert!(confirm.await.expect("confirm").is_ack());
        }
    });
}

#[test]
fn a_message_that_is_too_large_is_refused() {
    let (server, limit) = if peer_is_set("the part with a limit of Warren's own") {
        (server(), 16_777_216)
    } else {
        let launch = launch().config("[limits]\nmax_message_bytes = 100000\n");
        (Server::start(launch), 100_000)
    };
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, &vec![b'x'; limit]);
    raw.get(1, &queue, true).expect("just small enough");
    // The header alone gives no reaction; the error comes behind the last body frame.
    raw.begin_publish(1, "", &queue, 0);
    raw.frame(HEADER, 1, wire::header(limit as u64 + 1, NO_PROPERTIES));
    raw.open_channel(2);
    for piece in vec![b'x'; limit + 1].chunks(100_000) {
        raw.frame(BODY, 1, piece);
    }
    let text = format!("PRECONDITION_FAILED - message size {} is larger than configured max size {limit}", limit + 1);
    raw.expect_channel_close(1, 406, &text, id::BASIC_PUBLISH);
    raw.open_channel(1);
    assert_eq!(raw.declare(1, &queue, 4).1, 0);
}

#[test]
fn bodies_are_cut_to_the_receivers_frames() {
    let server = server();
    let mut sender = server.channel();
    let queue = sender.declare(1, &integration_tests::unique("queue"), 0).0;
    let body = vec![b'x'; 20_000];
    let sizes: &[u32] = if server.is_peer() { &[8192] } else { &[4096, 8192] };
    for frame_max in sizes {
        let mut receiver = with_frame_max(&server, *frame_max);
        let whole = *frame_max as usize - 8;
        sender.publish(1, ("", &queue), 0, NO_PROPERTIES, &body);
        sender.fence(1);
        let message = receiver.get(1, &queue, true).expect("the message");
        assert_eq!(message.content.body, body);
        let mut expected = vec![whole; body.len() / whole];
        expected.push(body.len() % whole);
        assert_eq!(message.content.pieces, expected);

        receiver.consume(1, &queue, "tag", 2);
        sender.publish(1, ("", &queue), 0, NO_PROPERTIES, &body[..2 * whole]);
        let message = receiver.delivery(1);
        assert_eq!(message.content.pieces, [whole, whole]);
        // Returns are cut as well; and what is sent in small frames arrives whole.
        receiver.publish(1, ("", "nowhere"), 1, NO_PROPERTIES, &body);
        receiver.expect(1, id::BASIC_RETURN);
        assert_eq!(receiver.read_content(1).pieces, expected);
        receiver.close();
    }
}

#[test]
fn a_body_can_come_in_pieces_of_any_size() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let body: Vec<u8> = (0..1_000u32).map(|n| n as u8).collect();
    raw.begin_publish(1, "", &queue, 0);
    raw.frame(HEADER, 1, wire::header(body.len() as u64, NO_PROPERTIES));
    for (index, byte) in body.iter().enumerate() {
        if index == 500 {
            // Nothing in it is a piece too.
            raw.frame(BODY, 1, []);
        }
        raw.frame(BODY, 1, [*byte]);
    }
    let message = raw.get(1, &queue, true).expect("the message");
    assert_eq!(message.content.body, body);
}

#[test]
fn contents_on_several_channels_may_be_interleaved() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let channels = 2..=9;
    for channel in channels.clone() {
        raw.open_channel(channel);
        raw.begin_publish(channel, "", &queue, 0);
    }
    for channel in channels.clone() {
        raw.frame(HEADER, channel, wire::header(4, NO_PROPERTIES));
    }
    for _ in 0..2 {
        for channel in channels.clone() {
            raw.frame(BODY, channel, channel.to_be_bytes());
        }
    }
    for channel in channels {
        raw.fence(channel);
    }
    let mut bodies = Vec::new();
    while let Some(message) = raw.get(1, &queue, true) {
        bodies.push(message.content.body);
    }
    bodies.sort();
    let expected: Vec<_> = (2..=9u16).map(|n| n.to_be_bytes().repeat(2)).collect();
    assert_eq!(bodies, expected);
}

fn with_frame_max(server: &Server, frame_max: u32) -> Raw {
    let mut raw = server.connect();
    let mut handshake = Handshake::plain("guest", "guest");
    handshake.frame_max = Some(frame_max);
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw.open_channel(1);
    raw
}

/// A table with every type of field, in the order and with the tags that RabbitMQ gives back too.
fn every_type_sorted() -> Vec<u8> {
    let inner = Bytes::new().field("z", b'V').field("a", b't').octet(0);
    Bytes::new()
        .field("array", b'A')
        .longstr(Bytes::new().octet(b'S').longstr("x").octet(b'I').long(1))
        .field("bool", b't')
        .octet(1)
        .field("bytes", b'x')
        .longstr([0, 255])
        .field("decimal", b'D')
        .octet(2)
        .long(12_345)
        .field("double", b'd')
        .longlong(2.5f64.to_bits())
        .field("float", b'f')
        .long(0.25f32.to_bits())
        .field("i16", b's')
        .short(0x8000)
        .field("i32", b'I')
        .long(0x8000_0000)
        .field("i64", b'l')
        .longlong(1 << 63)
        .field("i8", b'b')
        .octet(0x80)
        .field("string", b'S')
        .longstr([0xff, 0xfe])
        .field("table", b'F')
        .table(inner)
        .field("time", b'T')
        .longlong(1)
        .field("u16", b'u')
        .short(0xffff)
        .field("u32", b'i')
        .long(0xffff_ffff)
        .field("u8", b'B')
        .octet(0xff)
        .field("void", b'V')
        .done()
}
