//! The arguments of every method, so that they can be checked before `amq-protocol` reads them: its table parser
//! recurses, and its errors do not say what was wrong.

use crate::error::AmqpError;
use crate::{read, table};

/// What an argument looks like on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Octet,
    Short,
    Long,
    LongLong,
    ShortStr,
    LongStr,
    Table,
    /// Neighbouring bits, at most eight.
    Bits,
}

/// Who may send a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
    Both,
}

/// A method as the specification lists it.
pub(crate) struct Signature {
    pub(crate) sender: Sender,
    fields: &'static [Field],
}

impl Signature {
    /// The signature of a method, if there is such a method.
    pub(crate) fn of(class_id: u16, method_id: u16) -> Option<Self> {
        use Field::{Bits, Long, LongLong, LongStr, Octet, Short, ShortStr, Table};
        use Sender::{Both, Client, Server};
        let (sender, fields): (Sender, &'static [Field]) = match (class_id, method_id) {
            // connection
            (10, 10) => (Server, &[Octet, Octet, Table, LongStr, LongStr]),
            (10, 11) => (Client, &[Table, ShortStr, LongStr, ShortStr]),
            (10, 20) => (Server, &[LongStr]),
            (10, 21) => (Client, &[LongStr]),
            (10, 30) => (Server, &[Short, Long, Short]),
            (10, 31) => (Client, &[Short, Long, Short]),
            (10, 40) => (Client, &[ShortStr, ShortStr, Bits]),
            (10, 41) => (Server, &[ShortStr]),
            (10, 50) => (Both, &[Short, ShortStr, Short, Short]),
            (10, 51) => (Both, &[]),
            (10, 60) => (Server, &[ShortStr]),
            (10, 61) => (Server, &[]),
            (10, 70) => (Client, &[LongStr, ShortStr]),
            (10, 71) => (Server, &[]),
            // channel
            (20, 10) => (Client, &[ShortStr]),
            (20, 11) => (Server, &[LongStr]),
            (20, 20 | 21) => (Both, &[Bits]),
            (20, 40) => (Both, &[Short, ShortStr, Short, Short]),
            (20, 41) => (Both, &[]),
            // access
            (30, 10) => (Client, &[ShortStr, Bits]),
            (30, 11) => (Server, &[Short]),
            // exchange
            (40, 10) => (Client, &[Short, ShortStr, ShortStr, Bits, Table]),
            (40, 20) => (Client, &[Short, ShortStr, Bits]),
            (40, 30 | 40) => (Client, &[Short, ShortStr, ShortStr, ShortStr, Bits, Table]),
            (40, 11 | 21 | 31 | 51) => (Server, &[]),
            // queue
            (50, 10) => (Client, &[Short, ShortStr, Bits, Table]),
            (50, 11) => (Server, &[ShortStr, Long, Long]),
            (50, 20) => (Client, &[Short, ShortStr, ShortStr, ShortStr, Bits, Table]),
            (50, 30 | 40) => (Client, &[Short, ShortStr, Bits]),
            (50, 31 | 41) => (Server, &[Long]),
            (50, 50) => (Client, &[Short, ShortStr, ShortStr, ShortStr, Table]),
            (50, 21 | 51) => (Server, &[]),
            // basic
            (60, 10) => (Client, &[Long, Short, Bits]),
            (60, 11) => (Server, &[]),
            (60, 20) => (Client, &[Short, ShortStr, ShortStr, Bits, Table]),
            (60, 21) => (Server, &[ShortStr]),
            (60, 30) => (Both, &[ShortStr, Bits]),
            // The specification lets a client answer basic.cancel; RabbitMQ sends it without waiting for one.
            (60, 31) => (Server, &[ShortStr]),
            (60, 40) => (Client, &[Short, ShortStr, ShortStr, Bits]),
            (60, 50) => (Server, &[Short, ShortStr, ShortStr, ShortStr]),
            (60, 60) => (Server, &[ShortStr, LongLong, Bits, ShortStr, ShortStr]),
            (60, 70) => (Client, &[Short, ShortStr, Bits]),
            (60, 71) => (Server, &[LongLong, Bits, ShortStr, ShortStr, Long]),
            (60, 72) => (Server, &[ShortStr]),
            (60, 80 | 120) => (Both, &[LongLong, Bits]),
            (60, 90) => (Client, &[LongLong, Bits]),
            (60, 100 | 110) => (Client, &[Bits]),
            (60, 111) => (Server, &[]),
            // confirm
            (85, 10) => (Client, &[Bits]),
            (85, 11) => (Server, &[]),
            // tx
            (90, 10 | 20 | 30) => (Client, &[]),
            (90, 11 | 21 | 31) => (Server, &[]),
            _ => return None,
        };
        Some(Self { sender, fields })
    }

    /// Checks that the arguments are exactly those of the method; then what is in them.
    pub(crate) fn check(&self, class_id: u16, method_id: u16, arguments: &[u8]) -> Result<(), AmqpError> {
        // All lengths first: RabbitMQ matches the shape of the whole method before it looks into a string.
        let mut rest = arguments;
        for field in self.fields {
            rest = skip(*field, rest).ok_or_else(|| AmqpError::cannot_decode(arguments, class_id, method_id))?;
        }
        if !rest.is_empty() {
            return Err(AmqpError::cannot_decode(arguments, class_id, method_id));
        }
        let mut rest = arguments;
        for field in self.fields {
            check_value(*field, rest).map_err(|error| match error {
                ValueError::Utf8 => AmqpError::malformed_utf8(),
                ValueError::Table(error) => AmqpError::malformed_table(error).at(class_id, method_id),
            })?;
            rest = skip(*field, rest).unwrap_or_default();
        }
        Ok(())
    }
}

enum ValueError {
    Utf8,
    Table(table::TableError),
}

fn skip(field: Field, buf: &[u8]) -> Option<&[u8]> {
    match field {
        Field::Octet | Field::Bits => buf.get(1..),
        Field::Short => buf.get(2..),
        Field::Long => buf.get(4..),
        Field::LongLong => buf.get(8..),
        Field::ShortStr => read::short_str(buf).map(|(_, rest)| rest),
        Field::LongStr | Field::Table => read::long_str(buf).map(|(_, rest)| rest),
    }
}

fn check_value(field: Field, buf: &[u8]) -> Result<(), ValueError> {
    match field {
        Field::ShortStr => {
            let (octets, _) = read::short_str(buf).unwrap_or_default();
            std::str::from_utf8(octets).map(drop).map_err(|_| ValueError::Utf8)
        }
        Field::Table => {
            let (body, _) = read::long_str(buf).unwrap_or_default();
            table::check(body).map_err(ValueError::Table)
        }
        _ => Ok(()),
    }
}
