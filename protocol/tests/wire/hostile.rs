//! Octets from anywhere: every public decoder answers, and none panics.

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::{
    ArrayIter, Assembler, Content, Decoded, FrameKind, Method, Properties, Property, TableIter, check_protocol_header,
    decode_frame, decode_header, decode_method, decode_server_method, frame_len, lookup, method_ids, parse_amqplain,
    parse_plain, put_deliver, put_method, replace_headers, replace_property, shortstrs, table, without_header,
};

fn feed_everything(octets: &[u8]) {
    let _ = decode_frame(octets, 0);
    let _ = decode_frame(octets, 4096);
    let _ = frame_len(octets);
    let _ = method_ids(octets);
    let _ = decode_method(octets);
    let _ = decode_server_method(octets);
    let _ = decode_header(octets);
    let _ = Properties::parse(octets);
    let _ = table::check(octets);
    let _ = lookup(octets, b"name");
    assert!(TableIter::new(octets).count() <= octets.len());
    assert!(ArrayIter::new(octets).count() <= octets.len());
    let _ = parse_plain(octets);
    let _ = parse_amqplain(octets);
    let _ = shortstrs(octets);
    let _ = replace_headers(octets, octets);
    let _ = replace_property(octets, Property::Expiration, Some(octets));
    let _ = replace_property(octets, Property::Headers, None);
    let _ = without_header(octets, b"name");
    if let Some(first) = octets.first_chunk::<8>() {
        let _ = check_protocol_header(first);
    }
    let mut assembler = Assembler::new();
    let _ = assembler.on_header(octets);
    let _ = assembler.begin_address(octets);
    let _ = assembler.on_header(octets);
    let _ = assembler.on_body(octets);
    let mut out = Vec::new();
    put_deliver(&mut out, 1, "tag", 1, false, &Content { address: octets, properties: octets, body: octets }, 9);
}

/// Reads a stream until its first error, as a connection does.
fn feed_stream(mut wire: &[u8]) {
    let mut assembler = Assembler::new();
    while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(wire, 131_072) {
        wire = &wire[consumed..];
        let result = match frame.kind {
            FrameKind::Method => match decode_method(frame.payload) {
                Ok(Method::Publish(publish)) => assembler.begin(&publish),
                Ok(_) => assembler.on_method(),
                Err(error) => Err(error),
            },
            FrameKind::Header => assembler.on_header(frame.payload).map(drop),
            FrameKind::Body => assembler.on_body(frame.payload).map(drop),
            FrameKind::Heartbeat => Ok(()),
        };
        if let Err(error) = result {
            assert!(error.text.len() <= 255);
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_octets(octets in vec(any::<u8>(), 0..200)) {
        feed_everything(&octets);
        feed_stream(&octets);
    }

    /// Octets that mean something to the formats are more often accepted a part of the way.
    #[test]
    fn plausible_octets(octets in vec(
        prop_oneof![
            4 => Just(0u8),
            3 => proptest::sample::select(&b"SIilLsubBfdDTFAtxV"[..]),
            2 => 1u8..12,
            1 => proptest::sample::select(&[10u8, 20, 30, 40, 50, 60, 80, 90, 120, 0x80, 0xb0, 0xce, 0xff][..]),
            1 => any::<u8>(),
        ],
        0..120,
    )) {
        feed_everything(&octets);
        feed_stream(&octets);
        for class_id in [10u8, 20, 30, 40, 50, 60, 85, 90] {
            for method_id in [10u8, 11, 20, 30, 31, 40, 50, 60, 70, 71, 80, 90, 120] {
                let payload = [&[0, class_id, 0, method_id][..], &octets].concat();
                let _ = decode_method(&payload);
                let _ = decode_server_method(&payload);
            }
        }
        let header = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x30, 0][..], &octets].concat();
        feed_everything(&header);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// One octet of a sound method is changed: it may still be sound, but nothing panics.
    #[test]
    fn damaged_methods(parts in crate::values::parts(), at in any::<proptest::sample::Index>(), with in any::<u8>()) {
        for method in crate::values::all_methods(parts) {
            let mut wire = Vec::new();
            put_method(&mut wire, 1, &method);
            let at = at.index(wire.len());
            wire[at] = with;
            feed_stream(&wire);
            feed_everything(&wire[7..]);
        }
    }
}

#[test]
fn a_method_with_tables_as_deep_as_allowed_is_parsed() {
    // queue.declare with 127 tables inside its arguments: `amq-protocol` recurses, but only this far.
    let mut table: Vec<u8> = Vec::new();
    for _ in 1..table::DEPTH_MAX {
        let inner = std::mem::take(&mut table);
        table.extend_from_slice(&[1, b'a', b'F']);
        table.extend_from_slice(&(inner.len() as u32).to_be_bytes());
        table.extend_from_slice(&inner);
    }
    let declare = |table: &[u8]| {
        let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
        payload.extend_from_slice(&(table.len() as u32).to_be_bytes());
        payload.extend_from_slice(table);
        payload
    };
    assert!(decode_method(&declare(&table)).is_ok());
    let mut deeper = vec![1, b'a', b'F'];
    deeper.extend_from_slice(&(table.len() as u32).to_be_bytes());
    deeper.extend_from_slice(&table);
    assert!(decode_method(&declare(&deeper)).is_err());
}

#[test]
fn a_bottomless_table_in_a_content_header_is_refused() {
    let mut table = Vec::new();
    for level in (0..100_000u32).rev() {
        table.extend_from_slice(&[0, b'F']);
        table.extend_from_slice(&(level * 6).to_be_bytes());
    }
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0];
    payload.extend_from_slice(&(table.len() as u32).to_be_bytes());
    payload.extend_from_slice(&table);
    let error = decode_header(&payload).unwrap_err();
    assert_eq!(error.text, "FRAME_ERROR - malformed field table: more than 128 levels of nesting");
    feed_everything(&table);
}
