//! Field tables as they are on the wire: checked once, then read in place without allocation.

mod check;

pub use check::{DEPTH_MAX, TableError, check, check_structure};

use crate::read;

/// A field value, borrowed from its table. Integers tagged `l` and `L` are both `I64`, as RabbitMQ reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, `L`
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// `S`
    LongString(&'a [u8]),
    /// `x`
    Bytes(&'a [u8]),
    /// `T`, seconds since 1970
    Timestamp(u64),
    /// `A`, the octets after the length
    Array(&'a [u8]),
    /// `F`, the octets after the length
    Table(&'a [u8]),
    /// `V`
    Void,
}

impl<'a> ValueRef<'a> {
    /// The value of any integer type.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(v) => Some(v.into()),
            Self::U8(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I64(v) => Some(v),
            _ => None,
        }
    }

    /// The octets of a long string or byte array.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::LongString(octets) | Self::Bytes(octets) => Some(octets),
            _ => None,
        }
    }

    /// The type's name in error texts.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Bytes(_) => "binary",
            Self::Timestamp(_) => "timestamp",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }

    /// Reads a value with its tag and returns what follows it.
    fn read(buf: &'a [u8]) -> Result<(Self, &'a [u8]), TableError> {
        let (tag, rest) = read::octet(buf).ok_or(TableError::Truncated)?;
        let value = match tag {
            b'S' => read::long_str(rest).map(|(v, rest)| (Self::LongString(v), rest)),
            b'I' => read::chunk(rest).map(|(v, rest)| (Self::I32(i32::from_be_bytes(v)), rest)),
            b'i' => read::long(rest).map(|(v, rest)| (Self::U32(v), rest)),
            b'l' | b'L' => read::chunk(rest).map(|(v, rest)| (Self::I64(i64::from_be_bytes(v)), rest)),
            b's' => read::chunk(rest).map(|(v, rest)| (Self::I16(i16::from_be_bytes(v)), rest)),
            b'u' => read::short(rest).map(|(v, rest)| (Self::U16(v), rest)),
            b'b' => read::chunk(rest).map(|(v, rest)| (Self::I8(i8::from_be_bytes(v)), rest)),
            b'B' => read::octet(rest).map(|(v, rest)| (Self::U8(v), rest)),
            b'f' => read::chunk(rest).map(|(v, rest)| (Self::F32(f32::from_be_bytes(v)), rest)),
            b'd' => read::chunk(rest).map(|(v, rest)| (Self::F64(f64::from_be_bytes(v)), rest)),
            b'D' => read::octet(rest).and_then(|(scale, rest)| {
                let (value, rest) = read::long(rest)?;
                Some((Self::Decimal { scale, value }, rest))
            }),
            b'T' => read::long_long(rest).map(|(v, rest)| (Self::Timestamp(v), rest)),
            b'F' => read::long_str(rest).map(|(v, rest)| (Self::Table(v), rest)),
            b'A' => read::long_str(rest).map(|(v, rest)| (Self::Array(v), rest)),
            b't' => read::octet(rest).map(|(v, rest)| (Self::Bool(v != 0), rest)),
            b'x' => read::long_str(rest).map(|(v, rest)| (Self::Bytes(v), rest)),
            b'V' => Some((Self::Void, rest)),
            unknown => return Err(TableError::UnknownTag(unknown)),
        };
        value.ok_or(TableError::Truncated)
    }
}

/// The fields of one table, in order, without those of the tables inside it. A malformed field is yielded as an error
/// and is the last item.
#[derive(Clone, Debug)]
pub struct TableIter<'a> {
    rest: &'a [u8],
}

impl<'a> TableIter<'a> {
    /// Iterates over a table given without its length.
    #[must_use]
    pub fn new(table: &'a [u8]) -> Self {
        Self { rest: table }
    }

    fn read(&mut self) -> Result<(&'a [u8], ValueRef<'a>), TableError> {
        let (name, rest) = read::short_str(self.rest).ok_or(TableError::Truncated)?;
        let (value, rest) = ValueRef::read(rest)?;
        self.rest = rest;
        Ok((name, value))
    }

    /// What has not been read yet; the difference to an earlier call is the octets of the fields between.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for TableIter<'a> {
    type Item = Result<(&'a [u8], ValueRef<'a>), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The values of one array, in order. A malformed value is yielded as an error and is the last item.
#[derive(Clone, Debug)]
pub struct ArrayIter<'a> {
    rest: &'a [u8],
}

impl<'a> ArrayIter<'a> {
    /// Iterates over an array given without its length.
    #[must_use]
    pub fn new(array: &'a [u8]) -> Self {
        Self { rest: array }
    }
}

impl<'a> Iterator for ArrayIter<'a> {
    type Item = Result<ValueRef<'a>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match ValueRef::read(self.rest) {
            Ok((value, rest)) => {
                self.rest = rest;
                Some(Ok(value))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// The first value of that name in a table given without its length; fields after a malformed one are not seen.
#[must_use]
pub fn lookup<'a>(table: &'a [u8], key: &[u8]) -> Option<ValueRef<'a>> {
    TableIter::new(table).map_while(Result::ok).find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One field of every type, each named by its tag.
    const ALL_TYPES: &[u8] = b"\x01tt\x02\
        \x01bb\xff\x01BB\xff\x01ss\xff\xfe\x01uu\xff\xfe\x01II\xff\xff\xff\xfd\x01ii\xff\xff\xff\xfd\
        \x01ll\xff\xff\xff\xff\xff\xff\xff\xfc\x01LL\xff\xff\xff\xff\xff\xff\xff\xfc\
        \x01ff\x3f\x80\x00\x00\x01dd\x3f\xf0\x00\x00\x00\x00\x00\x00\x01DD\x02\x00\x00\x01\x3a\
        \x01SS\x00\x00\x00\x02hi\x01xx\x00\x00\x00\x01\xff\x01TT\x00\x00\x00\x00\x65\x00\x00\x00\
        \x01AA\x00\x00\x00\x03Vt\x01\x01FF\x00\x00\x00\x03\x01vV\x01VV";

    #[test]
    fn every_type_is_read() {
        use ValueRef::*;
        assert_eq!(check(ALL_TYPES), Ok(()));
        let expected = [
            ("t", Bool(true)),
            ("b", I8(-1)),
            ("B", U8(255)),
            ("s", I16(-2)),
            ("u", U16(65_534)),
            ("I", I32(-3)),
            ("i", U32(4_294_967_293)),
            ("l", I64(-4)),
            ("L", I64(-4)),
            ("f", F32(1.0)),
            ("d", F64(1.0)),
            ("D", Decimal { scale: 2, value: 314 }),
            ("S", LongString(b"hi")),
            ("x", Bytes(b"\xff")),
            ("T", Timestamp(0x6500_0000)),
            ("A", Array(b"Vt\x01")),
            ("F", Table(b"\x01vV")),
            ("V", Void),
        ];
        let found: Vec<_> = TableIter::new(ALL_TYPES).map_while(Result::ok).collect();
        let expected: Vec<_> = expected.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
        assert_eq!(found, expected);
        let array: Vec<_> = ArrayIter::new(b"Vt\x01").map_while(Result::ok).collect();
        assert_eq!(array, [Void, Bool(true)]);
    }

    #[test]
    fn lookup_finds_the_first_of_a_name() {
        let table = b"\x01aB\x01\x01bB\x02\x01aB\x03";
        assert_eq!(lookup(table, b"a"), Some(ValueRef::U8(1)));
        assert_eq!(lookup(table, b"b"), Some(ValueRef::U8(2)));
        assert_eq!(lookup(table, b"c"), None);
        assert_eq!(lookup(b"\x01aB\x01\x01bZ\x01cB\x01", b"c"), None, "behind a malformed field");
    }

    #[test]
    fn iterators_end_at_the_first_error() {
        let mut fields = TableIter::new(b"\x01aB\x01\x01bZ\x01cB\x01");
        assert!(matches!(fields.next(), Some(Ok(_))));
        assert_eq!(fields.next(), Some(Err(TableError::UnknownTag(b'Z'))));
        assert_eq!(fields.next(), None);
        let mut values = ArrayIter::new(b"VS\x00\x00\x00\x05hi");
        assert_eq!(values.next(), Some(Ok(ValueRef::Void)));
        assert_eq!(values.next(), Some(Err(TableError::Truncated)));
        assert_eq!(values.next(), None);
    }

    #[test]
    fn integers_of_all_widths_are_integers() {
        let integers = TableIter::new(ALL_TYPES).map_while(Result::ok).filter_map(|(_, value)| value.as_integer());
        assert_eq!(integers.collect::<Vec<_>>(), [-1, 255, -2, 65_534, -3, 4_294_967_293, -4, -4]);
    }
}
