//! A byte stream cut at any places gives the same messages.

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::{
    Assembled, Assembler, Content, Decoded, FrameKind, Method, address, decode_frame, decode_method, encode_properties,
    put_heartbeat, put_publish,
};

#[derive(Clone, Debug, PartialEq)]
struct Message {
    address: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    mandatory: bool,
}

impl From<Assembled<'_>> for Message {
    fn from(assembled: Assembled<'_>) -> Self {
        assert_eq!(assembled.body_size, assembled.body.len() as u64);
        Self {
            address: assembled.address.to_vec(),
            properties: assembled.properties.to_vec(),
            body: assembled.body.into_owned(),
            mandatory: assembled.mandatory,
        }
    }
}

fn message() -> impl Strategy<Value = Message> {
    let address = (crate::values::short(), crate::values::short()).prop_map(|(e, k)| address(e.as_str(), k.as_str()));
    let body = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 4_000..20_000)];
    let properties = crate::values::properties().prop_map(|properties| encode_properties(&properties));
    (address, properties, body, any::<bool>()).prop_map(|(address, properties, body, mandatory)| Message {
        address,
        properties,
        body,
        mandatory,
    })
}

/// Reads a stream that arrives in the given parts, the way a connection does: as many frames as there are, then more.
fn receive(wire: &[u8], parts: &[usize]) -> Vec<Message> {
    let mut found = Vec::new();
    let mut assembler = Assembler::new();
    let mut buffer: Vec<u8> = Vec::new();
    let mut parts = parts.iter().copied().cycle();
    let mut rest = wire;
    while !rest.is_empty() {
        let (part, later) = rest.split_at(parts.next().unwrap_or(1).clamp(1, rest.len()));
        rest = later;
        buffer.extend_from_slice(part);
        let mut read = 0;
        loop {
            match decode_frame(&buffer[read..], 0).unwrap() {
                Decoded::Incomplete { needed } => {
                    assert!(needed > buffer.len() - read, "{needed}");
                    break;
                }
                Decoded::Frame { frame, consumed } => {
                    read += consumed;
                    let assembled = match frame.kind {
                        FrameKind::Method => {
                            let Method::Publish(publish) = decode_method(frame.payload).unwrap() else {
                                panic!("{frame:?}");
                            };
                            assembler.begin(&publish).unwrap();
                            None
                        }
                        FrameKind::Header => assembler.on_header(frame.payload).unwrap(),
                        FrameKind::Body => assembler.on_body(frame.payload).unwrap(),
                        FrameKind::Heartbeat => None,
                    };
                    found.extend(assembled.map(Message::from));
                }
            }
        }
        buffer.drain(..read);
    }
    assert!(buffer.is_empty() && assembler.is_idle());
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_messages(
        messages in vec(message(), 0..5),
        frame_max in prop_oneof![Just(0u32), 4096u32..9000],
        parts in vec(prop_oneof![1usize..20, 1usize..6000], 1..10),
    ) {
        let mut wire = Vec::new();
        for message in &messages {
            let content = Content {
                address: &message.address,
                properties: &message.properties,
                body: &message.body,
            };
            put_publish(&mut wire, 3, &content, message.mandatory, frame_max);
            put_heartbeat(&mut wire);
        }
        prop_assert_eq!(receive(&wire, &parts), messages.clone());
        prop_assert_eq!(receive(&wire, &[usize::MAX]), messages);
    }
}

#[test]
fn octet_by_octet() {
    let content = Content { address: &address("e", "k"), properties: b"\x10\x00\x02", body: &[7; 9_000] };
    let mut wire = Vec::new();
    put_publish(&mut wire, 3, &content, true, 4096);
    let expected = Message {
        address: content.address.to_vec(),
        properties: content.properties.to_vec(),
        body: content.body.to_vec(),
        mandatory: true,
    };
    assert_eq!(receive(&wire, &[1]), [expected]);
}
