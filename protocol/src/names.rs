//! AMQP strings from text of any length. The conversions that `amq-protocol` offers for short strings panic above 255
//! octets, so nothing outside this file should call them.

use amq_protocol::types::{LongString, ShortString};

/// Octets a short string can have.
pub const SHORT_MAX: usize = 255;

/// A text that does not fit a short string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{octets} octets are more than the {SHORT_MAX} a short string can have")]
pub struct TooLong {
    /// Octets of the text.
    pub octets: usize,
}

/// A short string.
///
/// # Errors
///
/// When the text has more than 255 octets.
pub fn short(text: &str) -> Result<ShortString, TooLong> {
    ShortString::try_new(text).map_err(|_| TooLong { octets: text.len() })
}

/// A short string, cut at a character when the text is too long.
#[must_use]
pub fn short_cut(text: &str) -> ShortString {
    ShortString::try_new(cut(text)).unwrap_or_default()
}

/// A long string.
#[must_use]
pub fn long(octets: impl Into<Vec<u8>>) -> LongString {
    LongString::from(octets.into())
}

/// The part of a text that fits a short string.
#[must_use]
#[inline]
pub fn cut(text: &str) -> &str {
    cut_at(text, SHORT_MAX)
}

/// The longest part of a text that has at most `max` octets.
#[inline]
pub(crate) fn cut_at(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    // A character has at most four octets, so one of these is a boundary.
    (0..4).find_map(|back| text.get(..max.checked_sub(back)?)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_up_to_255_octets() {
        let text = "x".repeat(255);
        assert_eq!(short(&text).map(|s| s.as_str().len()), Ok(255));
        assert_eq!(short(&"x".repeat(256)), Err(TooLong { octets: 256 }));
    }

    #[test]
    fn cuts_between_characters() {
        let text = "ü".repeat(200);
        assert_eq!(cut(&text).len(), 254);
        assert_eq!(short_cut(&text).as_str(), "ü".repeat(127));
        assert_eq!(short_cut("short").as_str(), "short");
    }
}
