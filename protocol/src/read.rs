//! Cutting the wire's primitive fields off the front of a slice. Each returns the field and what follows it.

/// An octet.
pub(crate) fn octet(buf: &[u8]) -> Option<(u8, &[u8])> {
    buf.split_first().map(|(first, rest)| (*first, rest))
}

/// `N` octets.
pub(crate) fn chunk<const N: usize>(buf: &[u8]) -> Option<([u8; N], &[u8])> {
    buf.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
}

/// A 16-bit number.
pub(crate) fn short(buf: &[u8]) -> Option<(u16, &[u8])> {
    chunk(buf).map(|(octets, rest)| (u16::from_be_bytes(octets), rest))
}

/// A 32-bit number.
pub(crate) fn long(buf: &[u8]) -> Option<(u32, &[u8])> {
    chunk(buf).map(|(octets, rest)| (u32::from_be_bytes(octets), rest))
}

/// A 64-bit number.
pub(crate) fn long_long(buf: &[u8]) -> Option<(u64, &[u8])> {
    chunk(buf).map(|(octets, rest)| (u64::from_be_bytes(octets), rest))
}

/// The octets of a string with a one-octet length.
pub(crate) fn short_str(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octet(buf)?;
    rest.split_at_checked(usize::from(len))
}

/// The octets of a string, table or array with a four-octet length.
pub(crate) fn long_str(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = long(buf)?;
    rest.split_at_checked(len as usize)
}
