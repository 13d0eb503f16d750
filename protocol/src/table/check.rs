//! Checking a table and everything inside it, once, without recursion.

use super::{TableIter, ValueRef};
use crate::read;

/// Tables and arrays that may be inside each other, the outermost table included.
pub const DEPTH_MAX: usize = 128;

/// Why octets are not a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A name or value is longer than what encloses it.
    #[error("a field ends beyond its table")]
    Truncated,
    /// A type tag that RabbitMQ does not know.
    #[error("unknown field type {0}")]
    UnknownTag(u8),
    /// A field name that is not UTF-8.
    #[error("a field name is not UTF-8")]
    NameNotUtf8,
    /// More than [`DEPTH_MAX`] levels.
    #[error("more than {DEPTH_MAX} levels of nesting")]
    TooDeep,
}

/// Checks a table given without its length, and all tables and arrays inside it.
///
/// # Errors
///
/// The first thing found to be wrong.
pub fn check(table: &[u8]) -> Result<(), TableError> {
    check_all(table, check_name)
}

/// The same for the headers of a message, which are passed on as they are: names may be any octets, as for RabbitMQ.
///
/// # Errors
///
/// The first thing found to be wrong.
pub fn check_structure(table: &[u8]) -> Result<(), TableError> {
    check_all(table, |_| Ok(()))
}

#[inline]
fn check_all(table: &[u8], check_name: fn(&[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
    for field in TableIter::new(table) {
        let (name, value) = field?;
        check_name(name)?;
        if let Some(nested) = Nested::of(&value) {
            check_nested(nested, check_name)?;
        }
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), TableError> {
    std::str::from_utf8(name).map(drop).map_err(|_| TableError::NameNotUtf8)
}

/// A table or array inside another, with what is left to read of it.
#[derive(Clone, Copy)]
struct Nested<'a> {
    rest: &'a [u8],
    named: bool,
}

impl<'a> Nested<'a> {
    fn of(value: &ValueRef<'a>) -> Option<Self> {
        match *value {
            ValueRef::Table(rest) => Some(Self { rest, named: true }),
            ValueRef::Array(rest) => Some(Self { rest, named: false }),
            _ => None,
        }
    }
}

/// Checks everything inside one table or array. Its own function because flat tables should not pay for the stack.
#[inline(never)]
fn check_nested(first: Nested<'_>, check_name: fn(&[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
    // What encloses `current`; the outermost table is not among them.
    let mut enclosing = [first; DEPTH_MAX - 2];
    let mut depth = 0;
    let mut current = first;
    loop {
        if current.rest.is_empty() {
            if depth == 0 {
                return Ok(());
            }
            depth -= 1;
            current = *enclosing.get(depth).ok_or(TableError::TooDeep)?;
            continue;
        }
        if current.named {
            let (name, rest) = read::short_str(current.rest).ok_or(TableError::Truncated)?;
            check_name(name)?;
            current.rest = rest;
        }
        let (value, rest) = ValueRef::read(current.rest)?;
        current.rest = rest;
        if let Some(nested) = Nested::of(&value) {
            *enclosing.get_mut(depth).ok_or(TableError::TooDeep)? = current;
            depth += 1;
            current = nested;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `levels` tables or arrays inside each other, the outermost table included.
    fn nested(levels: usize, tag: u8) -> Vec<u8> {
        let mut table: Vec<u8> = Vec::new();
        for level in 1..levels {
            // An array's values have no names; the outermost is a table in any case.
            let mut outer = if tag == b'F' || level == levels - 1 { vec![0] } else { Vec::new() };
            outer.push(tag);
            outer.extend_from_slice(&(table.len() as u32).to_be_bytes());
            outer.extend_from_slice(&table);
            table = outer;
        }
        table
    }

    /// Headers of nested tables that end nowhere, all lengths reaching to the end.
    fn bottomless(levels: usize) -> Vec<u8> {
        let mut table = Vec::new();
        for level in (0..levels).rev() {
            table.extend_from_slice(&[0, b'F']);
            table.extend_from_slice(&(level as u32 * 6).to_be_bytes());
        }
        table
    }

    #[test]
    fn depth_is_limited() {
        for tag in [b'F', b'A'] {
            assert_eq!(check(&nested(1, tag)), Ok(()));
            assert_eq!(check(&nested(2, tag)), Ok(()));
            assert_eq!(check(&nested(DEPTH_MAX, tag)), Ok(()));
            assert_eq!(check(&nested(DEPTH_MAX + 1, tag)), Err(TableError::TooDeep));
        }
        assert_eq!(check(&bottomless(100_000)), Err(TableError::TooDeep));
    }

    #[test]
    fn siblings_do_not_add_to_the_depth() {
        let mut table = Vec::new();
        for _ in 0..1_000 {
            table.extend_from_slice(b"\x01aA\x00\x00\x00\x0aA\x00\x00\x00\x00A\x00\x00\x00\x00");
        }
        assert_eq!(check(&table), Ok(()));
    }

    #[test]
    fn lengths_that_lie_are_found() {
        for table in [
            &b"\x05ab"[..],
            b"\x01a",
            b"\x01aS\x00\x00\x00\x05hi",
            b"\x01aS\xff\xff\xff\xffhi",
            b"\x01aI\x00\x00",
            b"\x01aF\x00\x00\x00\x04\x01bI\x00",
            b"\x01aF\x00\x00\x00\x03\x01bI\x00\x00\x00\x01",
            b"\x01aA\x00\x00\x00\x01S",
            b"\x01aA\x00\x00\x00\x09A\x00\x00\x00\x05V",
        ] {
            assert_eq!(check(table), Err(TableError::Truncated), "{table:?}");
        }
    }

    #[test]
    fn tags_are_those_of_rabbitmq() {
        for tag in 0..=255u8 {
            let known = b"SIilLsubBfdDTFAtxV".contains(&tag);
            let top = check(&[&[0, tag][..], &[0; 8]].concat());
            let inside = check(&[&[0, b'A', 0, 0, 0, 9, tag][..], &[0; 8]].concat());
            if known {
                assert_ne!(top, Err(TableError::UnknownTag(tag)));
                assert_ne!(inside, Err(TableError::UnknownTag(tag)));
            } else {
                assert_eq!(top, Err(TableError::UnknownTag(tag)));
                assert_eq!(inside, Err(TableError::UnknownTag(tag)));
            }
        }
    }

    #[test]
    fn names_are_utf8_at_every_level() {
        assert_eq!(check(b"\x02\xc3\xbcV"), Ok(()));
        assert_eq!(check(b"\x01\xffV"), Err(TableError::NameNotUtf8));
        assert_eq!(check(b"\x01aF\x00\x00\x00\x03\x01\xffV"), Err(TableError::NameNotUtf8));
        assert_eq!(check_structure(b"\x01aF\x00\x00\x00\x03\x01\xffV"), Ok(()));
        assert_eq!(check(b"\x01aS\x00\x00\x00\x01\xff"), Ok(()), "values are octets");
    }
}
