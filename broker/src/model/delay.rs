//! The header `x-delay`: how long an exchange that delays messages keeps one back.

use protocol::table::ValueRef;
use protocol::{lookup, replace_header};

const HEADER: &[u8] = b"x-delay";

/// The header's value in milliseconds, as the delayed-message plugin reads it: integers, strings that are one, and fractions
/// cut off. `None` when there is none that can be used.
fn read(headers: &[u8]) -> Option<i64> {
    match lookup(headers, HEADER)? {
        ValueRef::LongString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        // Conversions saturate, and what is no number is no delay.
        ValueRef::F32(value) => Some(value as i64),
        ValueRef::F64(value) => Some(value as i64),
        ValueRef::Decimal { scale, value } => Some((f64::from(value) / 10f64.powi(scale.into())) as i64),
        other => other.as_integer(),
    }
}

/// How long to keep a message back, in milliseconds; `None` when it goes on at once.
pub fn wanted_ms(headers: &[u8]) -> Option<u64> {
    read(headers).and_then(|delay| u64::try_from(delay).ok()).filter(|delay| *delay > 0)
}

/// The properties of a message that is kept back: the delay in them is negative from here on, so that consumers see that it was
/// delayed and no exchange delays it again.
pub fn mark_delayed(properties: &[u8], headers: &[u8]) -> Vec<u8> {
    let Some(delay) = read(headers) else {
        return properties.to_vec();
    };
    let negative = delay.wrapping_neg();
    let value = match i32::try_from(negative) {
        Ok(short) => [&b"I"[..], &short.to_be_bytes()].concat(),
        Err(_) => [&b"l"[..], &negative.to_be_bytes()].concat(),
    };
    replace_header(properties, HEADER, &value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: &[u8]) -> Vec<u8> {
        [b"\x01aV\x07x-delay", value, b"\x01bV"].concat()
    }

    #[test]
    fn numbers_of_any_kind() {
        let cases: [(&[u8], Option<u64>); 12] = [
            (b"I\x00\x00\x13\x88", Some(5000)),
            (b"b\x05", Some(5)),
            (b"l\x00\x00\x01\x00\x00\x00\x00\x00", Some(1 << 40)),
            (b"S\x00\x00\x00\x045000", Some(5000)),
            (b"S\x00\x00\x00\x025s", None),
            (b"I\xff\xff\xff\xff", None),
            (b"I\x00\x00\x00\x00", None),
            (b"d\x40\x93\x4a\x45\x6d\x5c\xfa\xad", Some(1234)),
            (b"D\x01\x00\x00\x00\x7b", Some(12)),
            (b"d\x7f\xf8\x00\x00\x00\x00\x00\x00", None),
            (b"V", None),
            (b"T\x00\x00\x00\x00\x00\x00\x00\x05", None),
        ];
        for (value, expected) in cases {
            assert_eq!(wanted_ms(&table(value)), expected, "{value:?}");
        }
        assert_eq!(wanted_ms(b""), None);
    }

    #[test]
    fn the_mark_is_the_negative_delay() {
        let marked = |value: &[u8]| {
            let headers = table(value);
            let length = (headers.len() as u32).to_be_bytes();
            let properties = [&[0x20, 0x00][..], &length, &headers].concat();
            mark_delayed(&properties, &headers)[6..].to_vec()
        };
        let short = marked(b"S\x00\x00\x00\x045000");
        assert_eq!(short, table(b"I\xff\xff\xec\x78"));
        assert_eq!(wanted_ms(&short), None);
        assert_eq!(marked(b"l\x00\x00\x01\x00\x00\x00\x00\x00"), table(b"l\xff\xff\xff\x00\x00\x00\x00\x00"));
    }
}
