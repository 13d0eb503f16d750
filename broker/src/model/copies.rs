//! Further routing keys of a message, in its headers.

use protocol::table::{ArrayIter, ValueRef};
use protocol::{AmqpError, ReplyCode, lookup};
use smallvec::SmallVec;

/// The routing keys of one message, its own first.
pub type Keys<'a> = SmallVec<[&'a str; 4]>;

/// Adds the routing keys of the headers `CC` and `BCC`; tells how many there are without those of `BCC`.
///
/// # Errors
///
/// 406 when one of them is no array. What in it is no string is passed over.
pub fn add<'a>(headers: &'a [u8], keys: &mut Keys<'a>) -> Result<usize, AmqpError> {
    let mut shown = keys.len();
    for name in ["CC", "BCC"] {
        match lookup(headers, name.as_bytes()) {
            None => {}
            Some(ValueRef::Array(items)) => {
                for item in ArrayIter::new(items).flatten() {
                    if let ValueRef::LongString(key) = item
                        && let Ok(key) = std::str::from_utf8(key)
                        && !keys.contains(&key)
                    {
                        keys.push(key);
                    }
                }
            }
            Some(other) => {
                return Err(AmqpError::new(
                    ReplyCode::PreconditionFailed,
                    format_args!("invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}", other.type_name()),
                ));
            }
        }
        if name == "CC" {
            shown = keys.len();
        }
    }
    Ok(shown)
}
