//! Octets as an Erlang binary, the notation error texts use to show what was received.

use std::fmt::{self, Display, Formatter, Write};

/// Octets shown at most before a text is cut anyway: two characters each are more than a reply text can hold.
const SHOWN_MAX: usize = 128;

/// Octets as a list of numbers: `<<97,98>>`.
pub(crate) struct Numbers<'a>(pub(crate) &'a [u8]);

impl Display for Numbers<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<<")?;
        for (i, octet) in self.0.iter().take(SHOWN_MAX).enumerate() {
            if i > 0 {
                f.write_char(',')?;
            }
            write!(f, "{octet}")?;
        }
        // Only a text that will be cut long before its end leaves the loop early.
        f.write_str(">>")
    }
}

/// Octets as text when all of them are printable: `<<"ab">>`, else as [`Numbers`].
struct Pretty<'a>(&'a [u8]);

impl Display for Pretty<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() || !self.0.iter().all(|&octet| is_printable(octet)) {
            return Numbers(self.0).fmt(f);
        }
        f.write_str("<<\"")?;
        self.0.iter().try_for_each(|&octet| write_escaped(f, char::from(octet)))?;
        f.write_str("\">>")
    }
}

/// A name as an Erlang binary: as text when all of it is printable, `<<"ab">>` or `<<"a\u{e4}"/utf8>>`, else as octets.
#[derive(Clone, Copy, Debug)]
pub struct ErlangBinary<'a>(pub &'a str);

impl Display for ErlangBinary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let beyond_latin = |c: char| c >= '\u{a0}' && !matches!(c, '\u{fffe}' | '\u{ffff}');
        let printable = |c: char| u8::try_from(c).is_ok_and(is_printable) || beyond_latin(c);
        if self.0.is_ascii() || !self.0.chars().all(printable) {
            return Pretty(self.0.as_bytes()).fmt(f);
        }
        f.write_str("<<\"")?;
        self.0.chars().try_for_each(|c| write_escaped(f, c))?;
        f.write_str("\"/utf8>>")
    }
}

fn write_escaped(f: &mut Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' => f.write_str("\\\""),
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\x0b' => f.write_str("\\v"),
        '\x08' => f.write_str("\\b"),
        '\x0c' => f.write_str("\\f"),
        '\x1b' => f.write_str("\\e"),
        _ => f.write_char(c),
    }
}

fn is_printable(octet: u8) -> bool {
    matches!(octet, 0x20..=0x7e | 0x08..=0x0d | 0x1b)
}

/// A payload cut to what fits a text: `all octets = <<..>>` or `first 16 octets = <<..>>`.
pub(crate) struct Snippet<'a>(pub(crate) &'a [u8]);

/// Octets of a payload that a text shows.
pub(crate) const SNIPPET_OCTETS: usize = 16;

impl Display for Snippet<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(SNIPPET_OCTETS) {
            Some((first, rest)) if !rest.is_empty() => {
                write!(f, "first 16 octets = {}", Pretty(first))
            }
            _ => write!(f, "all octets = {}", Pretty(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_octets_are_text() {
        assert_eq!(Snippet(b"abc").to_string(), r#"all octets = <<"abc">>"#);
        assert_eq!(Snippet(b"a\"\\\n").to_string(), r#"all octets = <<"a\"\\\n">>"#);
    }

    #[test]
    fn other_octets_are_numbers() {
        assert_eq!(Snippet(b"").to_string(), "all octets = <<>>");
        assert_eq!(Snippet(&[0, 20, 0, 10, 1, 48]).to_string(), "all octets = <<0,20,0,10,1,48>>");
        assert_eq!(Numbers(b"ab").to_string(), "<<97,98>>");
    }

    #[test]
    fn sixteen_octets_are_all_and_seventeen_are_not() {
        assert_eq!(Snippet(&[b'x'; 16]).to_string(), r#"all octets = <<"xxxxxxxxxxxxxxxx">>"#);
        assert_eq!(Snippet(&[b'x'; 17]).to_string(), r#"first 16 octets = <<"xxxxxxxxxxxxxxxx">>"#);
    }

    #[test]
    fn names_are_text_in_any_script() {
        for (name, shown) in [
            ("", "<<>>"),
            ("a\"\u{1b}", r#"<<"a\"\e">>"#),
            ("\u{e9}\n", "<<\"\u{e9}\\n\"/utf8>>"),
            ("a\x01b", "<<97,1,98>>"),
            ("\u{80}", "<<194,128>>"),
            ("\u{fffe}", "<<239,191,190>>"),
        ] {
            assert_eq!(ErlangBinary(name).to_string(), shown);
        }
    }

    #[test]
    fn a_long_list_is_bounded() {
        assert!(Numbers(&[255; 100_000]).to_string().len() < 1_000);
    }
}
