//! Changing single properties in their octets. Everything that is not changed keeps its octets, tags and order.

use super::{Property, flags, walk};
use crate::table::TableIter;

/// Properties with another header table, given without its length. Properties that are malformed, or a table too
/// large for its length field, are left as they are.
#[must_use]
pub fn replace_headers(raw: &[u8], headers: &[u8]) -> Vec<u8> {
    let Ok(len) = u32::try_from(headers.len()) else {
        return raw.to_vec();
    };
    let mut value = Vec::with_capacity(headers.len() + 4);
    value.extend_from_slice(&len.to_be_bytes());
    value.extend_from_slice(headers);
    replace_property(raw, Property::Headers, Some(&value))
}

/// Properties with another value for one of them, or without it. The value is what goes on the wire, its length
/// included, and is not checked. Properties that are malformed are left as they are.
#[must_use]
pub fn replace_property(raw: &[u8], property: Property, value: Option<&[u8]>) -> Vec<u8> {
    let mut values = Vec::with_capacity(raw.len() + value.map_or(0, <[u8]>::len));
    let mut inserted = false;
    let visited = walk(raw, |present, octets| {
        if present as u8 >= property as u8 && !inserted {
            values.extend_from_slice(value.unwrap_or_default());
            inserted = true;
        }
        if present != property {
            values.extend_from_slice(octets);
        }
    });
    let (Ok(before), Ok((_, after_flags))) = (visited, flags(raw)) else {
        return raw.to_vec();
    };
    if !inserted {
        values.extend_from_slice(value.unwrap_or_default());
    }
    let now = if value.is_some() { before | property.flag() } else { before & !property.flag() };
    let flag_octets = raw.get(..raw.len() - after_flags.len()).unwrap_or_default();
    let mut out = Vec::with_capacity(flag_octets.len() + values.len());
    out.extend_from_slice(flag_octets);
    // The lowest bit of the first word tells whether more words follow; it is not ours to change.
    if let Some(first) = out.first_chunk_mut::<2>() {
        let continuation = u16::from_be_bytes(*first) & !before;
        *first = (now | continuation).to_be_bytes();
    }
    out.extend_from_slice(&values);
    out
}

/// Properties without a header, or `None` when it is not there. The other headers stay as they are.
#[must_use]
pub fn without_header(raw: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut table = None;
    walk(raw, |property, octets| {
        if property == Property::Headers {
            table = octets.get(4..);
        }
    })
    .ok()?;
    let table = table?;
    let kept = retain_fields(table, |field_name| field_name != name)?;
    (kept.len() != table.len()).then(|| replace_headers(raw, &kept))
}

/// The fields of a table, given without its length, whose name `keep` wants, as they stand. `None` when it is malformed.
#[must_use]
pub fn retain_fields(table: &[u8], mut keep: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(table.len());
    let mut fields = TableIter::new(table);
    loop {
        let before = fields.rest();
        let Some(field) = fields.next() else { break };
        let (field_name, _) = field.ok()?;
        if keep(field_name) {
            kept.extend_from_slice(before.get(..before.len() - fields.rest().len())?);
        }
    }
    Some(kept)
}

/// Properties with another value for one header: its tag and octets, not checked. Its first place counts, further ones are
/// taken out; properties without the header, or malformed ones, are left as they are.
#[must_use]
pub fn replace_header(raw: &[u8], name: &[u8], value: &[u8]) -> Vec<u8> {
    replaced_header(raw, name, value).unwrap_or_else(|| raw.to_vec())
}

fn replaced_header(raw: &[u8], name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut table = None;
    walk(raw, |property, octets| {
        if property == Property::Headers {
            table = octets.get(4..);
        }
    })
    .ok()?;
    let table = table?;
    let mut headers = Vec::with_capacity(table.len() + value.len());
    let mut fields = TableIter::new(table);
    let mut seen = false;
    loop {
        let before = fields.rest();
        let Some(field) = fields.next() else { break };
        let (field_name, _) = field.ok()?;
        if field_name != name {
            headers.extend_from_slice(before.get(..before.len() - fields.rest().len())?);
        } else if !std::mem::replace(&mut seen, true) {
            headers.extend_from_slice(before.get(..=name.len())?);
            headers.extend_from_slice(value);
        }
    }
    seen.then(|| replace_headers(raw, &headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// content-type, headers {a: 1, BCC: 2, b: 3}, delivery-mode.
    const RAW: &[u8] = b"\xb0\x00\x04text\x00\x00\x00\x0e\x01aB\x01\x03BCCB\x02\x01bB\x03\x02";

    #[test]
    fn headers_are_replaced_in_place() {
        let replaced = replace_headers(RAW, b"\x01cL\0\0\0\0\0\0\0\x01");
        assert_eq!(replaced, b"\xb0\x00\x04text\x00\x00\x00\x0b\x01cL\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(replace_headers(RAW, b""), b"\xb0\x00\x04text\x00\x00\x00\x00\x02");
    }

    #[test]
    fn headers_are_added_at_their_place() {
        assert_eq!(replace_headers(b"\x00\x00", b"\x01cV"), b"\x20\x00\x00\x00\x00\x03\x01cV");
        let between = replace_headers(b"\x90\x00\x04text\x02", b"\x01cV");
        assert_eq!(between, b"\xb0\x00\x04text\x00\x00\x00\x03\x01cV\x02");
        assert_eq!(replace_headers(b"\x80\x00\x04text", b""), b"\xa0\x00\x04text\x00\x00\x00\x00");
    }

    #[test]
    fn any_property_is_replaced_or_removed() {
        let raw = b"\x13\x00\x02\x01r\x0510000";
        assert_eq!(replace_property(raw, Property::Expiration, None), b"\x12\x00\x02\x01r");
        assert_eq!(replace_property(raw, Property::ReplyTo, Some(b"\x02xy")), b"\x13\x00\x02\x02xy\x0510000");
        assert_eq!(replace_property(raw, Property::UserId, None), raw);
        assert_eq!(replace_property(raw, Property::ClusterId, Some(b"\x01c")), b"\x13\x04\x02\x01r\x0510000\x01c");
    }

    #[test]
    fn continuation_words_stay() {
        assert_eq!(replace_headers(b"\x10\x01\x00\x00\x02", b""), b"\x30\x01\x00\x00\x00\x00\x00\x00\x02");
        assert_eq!(replace_property(b"\x10\x01\x00\x00\x02", Property::DeliveryMode, None), b"\x00\x01\x00\x00");
    }

    #[test]
    fn malformed_properties_are_left_alone() {
        for raw in [&b""[..], b"\x80", b"\x80\x00\x05a", b"\x20\x00\x00\x00\x00\x09\x01a"] {
            assert_eq!(replace_headers(raw, b"\x01cV"), raw);
            assert_eq!(without_header(raw, b"a"), None);
        }
    }

    #[test]
    fn a_header_is_taken_out() {
        let without = without_header(RAW, b"BCC");
        assert_eq!(without.as_deref(), Some(&b"\xb0\x00\x04text\x00\x00\x00\x08\x01aB\x01\x01bB\x03\x02"[..]));
        assert_eq!(without_header(RAW, b"CC"), None);
        assert_eq!(without_header(b"\x00\x00", b"BCC"), None);
        let twice = b"\x20\x00\x00\x00\x00\x06\x01aV\x01aV";
        assert_eq!(without_header(twice, b"a").as_deref(), Some(&b"\x20\x00\x00\x00\x00\x00"[..]));
    }

    #[test]
    fn a_header_gets_another_value() {
        let replaced = replace_header(RAW, b"BCC", b"I\0\0\0\x07");
        let expected = b"\xb0\x00\x04text\x00\x00\x00\x11\x01aB\x01\x03BCCI\0\0\0\x07\x01bB\x03\x02";
        assert_eq!(replaced, expected);
        assert_eq!(replace_header(RAW, b"CC", b"V"), RAW);
        let twice = b"\x20\x00\x00\x00\x00\x06\x01aV\x01aV";
        assert_eq!(replace_header(twice, b"a", b"t\x01"), b"\x20\x00\x00\x00\x00\x04\x01at\x01");
    }
}
