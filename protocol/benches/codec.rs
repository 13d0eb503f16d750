//! What a message costs on its way in and out. `cargo bench -p warren-protocol`

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use protocol::amqp::{AMQPValue, BasicProperties, FieldTable};
use protocol::{
    Assembler, Content, Decoded, FrameKind, Method, Properties, address, decode_frame, decode_method,
    encode_properties, lookup, put_ack, put_deliver, put_publish,
};

const MESSAGES: usize = 1_000;
const FRAME_MAX: u32 = 131_072;
const SIZES: [usize; 2] = [16, 1024];

fn main() {
    divan::main();
}

/// Nothing but a delivery mode.
fn plain() -> Vec<u8> {
    encode_properties(&BasicProperties::default().with_delivery_mode(2))
}

/// Two headers, and four more properties.
fn rich() -> Vec<u8> {
    let mut table = FieldTable::default();
    table.insert("source".into(), AMQPValue::LongString("web".into()));
    table.insert("attempt".into(), AMQPValue::LongInt(3));
    encode_properties(
        &BasicProperties::default()
            .with_content_type("application/json".into())
            .with_headers(table)
            .with_delivery_mode(2)
            .with_message_id("5f1c6c1e-6b0e-4b7e".into()),
    )
}

/// Takes publishes apart, down to whole messages.
fn decode(bencher: Bencher<'_, '_>, size: usize, properties: &[u8]) {
    let (address, body) = (address("amq.topic", "orders.eu.created"), vec![b'x'; size]);
    let mut wire = Vec::new();
    for _ in 0..MESSAGES {
        put_publish(&mut wire, 1, &Content { address: &address, properties, body: &body }, false, FRAME_MAX);
    }
    let mut assembler = Assembler::new();
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        let mut rest = black_box(&wire[..]);
        while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, FRAME_MAX) {
            rest = &rest[consumed..];
            let assembled = match frame.kind {
                FrameKind::Method => {
                    if let Ok(Method::Publish(publish)) = decode_method(frame.payload) {
                        assembler.begin(&publish).expect("a publish may begin");
                    }
                    None
                }
                FrameKind::Header => assembler.on_header(frame.payload).expect("a header"),
                FrameKind::Body => assembler.on_body(frame.payload).expect("a body"),
                FrameKind::Heartbeat => None,
            };
            black_box(assembled);
        }
        assert!(rest.is_empty());
    });
}

/// Encodes deliveries.
fn encode(bencher: Bencher<'_, '_>, size: usize, properties: &[u8]) {
    let (address, body) = (address("amq.topic", "orders.eu.created"), vec![b'x'; size]);
    let content = Content { address: &address, properties, body: &body };
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        out.clear();
        for tag in 0..MESSAGES as u64 {
            put_deliver(&mut out, 1, "amq.ctag-1234567890123456789012", tag, false, black_box(&content), FRAME_MAX);
        }
        black_box(out.len())
    });
}

#[divan::bench(args = SIZES)]
fn decode_publish(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, size, &plain());
}

#[divan::bench(args = SIZES)]
fn decode_publish_with_headers(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, size, &rich());
}

#[divan::bench(args = SIZES)]
fn encode_delivery(bencher: Bencher<'_, '_>, size: usize) {
    encode(bencher, size, &plain());
}

#[divan::bench(args = SIZES)]
fn encode_delivery_with_headers(bencher: Bencher<'_, '_>, size: usize) {
    encode(bencher, size, &rich());
}

#[divan::bench]
fn decode_ack(bencher: Bencher<'_, '_>) {
    let mut wire = Vec::new();
    for tag in 0..MESSAGES as u64 {
        put_ack(&mut wire, 1, tag, false);
    }
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        let mut rest = black_box(&wire[..]);
        while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, FRAME_MAX) {
            rest = &rest[consumed..];
            black_box(decode_method(frame.payload).is_ok());
        }
        assert!(rest.is_empty());
    });
}

#[divan::bench]
fn header_by_name(bencher: Bencher<'_, '_>) {
    let properties = rich();
    let properties = Properties::parse(&properties).expect("properties");
    let headers = properties.headers().unwrap_or_default();
    bencher.bench_local(|| lookup(black_box(headers), b"attempt").is_some());
}
