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
    for field in TableIter::new(table) {
        let (name, value) = field?;
        check_name(name)?;
        if let Some(nested) = Nested::of(&value) {
            check_nested(nested)?;
        }
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), TableError> {
    std::str::from_utf8(name)
        .map(drop)
        .map_err(|_| TableError::NameNotUtf8)
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
fn check_nested(first: Nested<'_>) -> Result<(), TableError> {
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
