//! Content headers: properties that are accepted can be read and changed, and what comes out is accepted again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    Properties, Property, decode_header, replace_headers, replace_property, without_header,
};

fuzz_target!(|data: &[u8]| {
    let Ok(header) = decode_header(data) else {
        return;
    };
    let raw = header.properties;
    let properties = Properties::parse(raw).expect("the header was accepted");
    if let Some(headers) = properties.headers() {
        assert_eq!(replace_headers(raw, headers), raw);
    }
    let replaced = replace_headers(raw, b"\x03BCCV");
    let parsed = Properties::parse(&replaced).expect("still sound");
    assert_eq!(parsed.headers(), Some(&b"\x03BCCV"[..]));
    assert_eq!(parsed.content_type(), properties.content_type());
    assert_eq!(parsed.cluster_id(), properties.cluster_id());
    let without = without_header(&replaced, b"BCC").expect("it is there");
    assert_eq!(
        Properties::parse(&without).expect("still sound").headers(),
        Some(&b""[..])
    );
    for property in [
        Property::ContentType,
        Property::Headers,
        Property::DeliveryMode,
        Property::ClusterId,
    ] {
        let removed = replace_property(raw, property, None);
        assert!(
            !Properties::parse(&removed)
                .expect("still sound")
                .has(property)
        );
    }
});
