//! Login responses.

use crate::table::{self, ValueRef};

/// User and password of a PLAIN response: NUL, user, NUL, password. There must be no identity before the first NUL.
#[must_use]
pub fn parse_plain(response: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(response).ok()?;
    let (user, password) = text.strip_prefix('\0')?.split_once('\0')?;
    (!password.contains('\0')).then_some((user, password))
}

/// User and password of an AMQPLAIN response: the fields LOGIN and PASSWORD of a table without its length.
#[must_use]
pub fn parse_amqplain(response: &[u8]) -> Option<(String, String)> {
    table::check(response).ok()?;
    let text = |name: &[u8]| {
        let octets = table::lookup(response, name).as_ref().and_then(ValueRef::as_bytes)?;
        std::str::from_utf8(octets).ok().map(str::to_owned)
    };
    Some((text(b"LOGIN")?, text(b"PASSWORD")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_nul_user_nul_password() {
        assert_eq!(parse_plain(b"\0guest\0secret"), Some(("guest", "secret")));
        assert_eq!(parse_plain(b"\0\0"), Some(("", "")));
    }

    #[test]
    fn plain_refuses_everything_else() {
        for response in
            [&b""[..], b"\0", b"guest\0guest", b"\0guest", b"id\0guest\0guest", b"\0guest\0guest\0", b"\0\xff\0guest"]
        {
            assert_eq!(parse_plain(response), None, "{response:?}");
        }
    }

    #[test]
    fn amqplain_is_a_table_without_length() {
        let strings = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x02pw";
        assert_eq!(parse_amqplain(strings), Some(("guest".to_owned(), "pw".to_owned())));
        let octets = b"\x08PASSWORDx\0\0\0\x02pw\x05LOGINx\0\0\0\x05guest";
        assert_eq!(parse_amqplain(octets), Some(("guest".to_owned(), "pw".to_owned())));
    }

    #[test]
    fn amqplain_refuses_everything_else() {
        for response in [
            &b""[..],
            b"\x05LOGINS\0\0\0\x05guest",
            b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDI\0\0\0\x02",
            b"\x05LOGINS\0\0\0\xffguest",
            b"\x05LOGINS\0\0\0\x01\xff\x08PASSWORDS\0\0\0\x02pw",
        ] {
            assert_eq!(parse_amqplain(response), None, "{response:?}");
        }
    }
}
