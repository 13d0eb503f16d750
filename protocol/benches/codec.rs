//! What a message costs on its way in and out, in nanoseconds. `cargo bench -p warren-protocol`

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use protocol::amqp::{BasicProperties, FieldTable};
use protocol::{
    AmqpError, Assembler, Content, Decoded, FrameKind, Method, address, decode_frame, decode_method, encode_properties,
    lookup, put_ack, put_deliver, put_publish,
};

const MESSAGES: usize = 1_000;
const ROUNDS: usize = 500;
const FRAME_MAX: u32 = 131_072;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), AmqpError> {
    let address = address("amq.topic", "orders.eu.created");
    let plain = encode_properties(&BasicProperties::default().with_delivery_mode(2));
    let mut table = FieldTable::default();
    table.insert("source".into(), protocol::amqp::AMQPValue::LongString("web".into()));
    table.insert("attempt".into(), protocol::amqp::AMQPValue::LongInt(3));
    let rich = encode_properties(
        &BasicProperties::default()
            .with_content_type("application/json".into())
            .with_headers(table)
            .with_delivery_mode(2)
            .with_message_id("5f1c6c1e-6b0e-4b7e".into()),
    );
    for (name, properties) in [("delivery mode only", &plain), ("headers and four more", &rich)] {
        for body_len in [16, 1024] {
            let body = vec![b'x'; body_len];
            let content = Content { address: &address, properties, body: &body };
            publish_in(name, &content)?;
            delivery_out(name, &content);
        }
    }
    acks()?;
    header_lookup(&rich)
}

/// Prints the fastest round: the others were disturbed by something.
fn report(name: &str, mut round: impl FnMut() -> Result<(), AmqpError>) -> Result<(), AmqpError> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        best = best.min(start.elapsed().as_nanos() as f64 / MESSAGES as f64);
    }
    println!("{best:8.1} ns  {name}");
    Ok(())
}

fn publish_in(name: &str, content: &Content<'_>) -> Result<(), AmqpError> {
    let mut wire = Vec::new();
    for _ in 0..MESSAGES {
        put_publish(&mut wire, 1, content, false, FRAME_MAX);
    }
    let mut assembler = Assembler::new();
    report(&format!("publish in, {} octets, {name}", content.body.len()), || {
        let mut rest = black_box(&wire[..]);
        while let Decoded::Frame { frame, consumed } = decode_frame(rest, FRAME_MAX)? {
            rest = &rest[consumed..];
            let assembled = match frame.kind {
                FrameKind::Method => {
                    if let Method::Publish(publish) = decode_method(frame.payload)? {
                        assembler.begin(&publish)?;
                    }
                    None
                }
                FrameKind::Header => assembler.on_header(frame.payload)?,
                FrameKind::Body => assembler.on_body(frame.payload)?,
                FrameKind::Heartbeat => None,
            };
            black_box(assembled);
        }
        Ok(())
    })
}

fn delivery_out(name: &str, content: &Content<'_>) {
    let mut out = Vec::new();
    let _ = report(&format!("delivery out, {} octets, {name}", content.body.len()), || {
        out.clear();
        for tag in 0..MESSAGES as u64 {
            put_deliver(&mut out, 1, "amq.ctag-1234567890123456789012", tag, false, black_box(content), FRAME_MAX);
        }
        black_box(&out);
        Ok(())
    });
}

fn acks() -> Result<(), AmqpError> {
    let mut wire = Vec::new();
    for tag in 0..MESSAGES as u64 {
        put_ack(&mut wire, 1, tag, false);
    }
    report("ack in", || {
        let mut rest = black_box(&wire[..]);
        while let Decoded::Frame { frame, consumed } = decode_frame(rest, FRAME_MAX)? {
            rest = &rest[consumed..];
            black_box(decode_method(frame.payload)?);
        }
        Ok(())
    })
}

fn header_lookup(properties: &[u8]) -> Result<(), AmqpError> {
    let properties = protocol::Properties::parse(properties)?;
    let headers = properties.headers().unwrap_or_default();
    report("second header by name", || {
        for _ in 0..MESSAGES {
            black_box(lookup(black_box(headers), b"source"));
        }
        Ok(())
    })
}
