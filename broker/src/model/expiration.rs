//! The expiration property: how long a message may wait in a queue.

use protocol::{AmqpError, ReplyCode};

/// Ten years: RabbitMQ takes no longer times.
pub const MAX_MS: u64 = 315_360_000_000;

/// Reads the property's text as milliseconds.
///
/// # Errors
///
/// 406 with RabbitMQ's wording for what is no integer, has something behind it, is negative or too large.
pub fn parse(text: &[u8]) -> Result<u64, AmqpError> {
    let text = String::from_utf8_lossy(text);
    let refuse = |reason: std::fmt::Arguments<'_>| {
        Err(AmqpError::new(ReplyCode::PreconditionFailed, format_args!("invalid expiration '{text}': {reason}")))
    };
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
    let (digits, rest) = unsigned.split_at(end);
    if digits.is_empty() {
        return refuse(format_args!("no_integer"));
    }
    if !rest.is_empty() {
        return refuse(format_args!("{{leftover_string,\"{rest}\"}}"));
    }
    let significant = digits.trim_start_matches('0');
    if negative && !significant.is_empty() {
        return refuse(format_args!("{{value_negative,-{significant}}}"));
    }
    match digits.parse() {
        Ok(ms) if ms <= MAX_MS => Ok(ms),
        _ => refuse(format_args!("{{value_too_large,{significant}}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_milliseconds() {
        for (text, ms) in [("0", 0), ("+5", 5), ("-0", 0), ("0060000", 60_000), ("315360000000", MAX_MS)] {
            assert_eq!(parse(text.as_bytes()).ok(), Some(ms), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_in_rabbitmqs_words() {
        for (text, reason) in [
            ("-1", "{value_negative,-1}"),
            ("abc", "no_integer"),
            ("", "no_integer"),
            ("10ms", "{leftover_string,\"ms\"}"),
            ("315360000001", "{value_too_large,315360000001}"),
            ("99999999999999999999999", "{value_too_large,99999999999999999999999}"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.text, format!("PRECONDITION_FAILED - invalid expiration '{text}': {reason}"));
        }
    }
}
