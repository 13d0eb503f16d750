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
    let now = if value.is_some() {
        before | property.flag()
    } else {
        before & !property.flag()
    };
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
    let mut kept = Vec::with_capacity(table.len());
    let mut fields = TableIter::new(table);
    loop {
        let before = fields.rest();
        let Some(field) = fields.next() else { break };
        let (field_name, _) = field.ok()?;
        if field_name != name {
            kept.extend_from_slice(before.get(..before.len() - fields.rest().len())?);
        }
    }
    (kept.len() != table.len()).then(|| replace_headers(raw, &kept))
}
