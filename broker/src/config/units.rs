//! Numbers of bytes with a unit, in the spellings that RabbitMQ takes.

const KIB: i64 = 1 << 10;
const KB: i64 = 1000;

/// Units, in lower case. A letter alone stands for a power of two, as in RabbitMQ.
const UNITS: [(&str, i64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", KIB),
    ("kib", KIB),
    ("kb", KB),
    ("m", KIB * KIB),
    ("mib", KIB * KIB),
    ("mb", KB * KB),
    ("g", KIB * KIB * KIB),
    ("gib", KIB * KIB * KIB),
    ("gb", KB * KB * KB),
    ("t", KIB * KIB * KIB * KIB),
    ("tib", KIB * KIB * KIB * KIB),
    ("tb", KB * KB * KB * KB),
];

/// Reads a whole number of bytes; `None` when it is not one, or does not fit.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<i64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        for (text, expected) in [
            ("0", 0),
            ("123", 123),
            (" 5 B ", 5),
            ("64k", 64 << 10),
            ("64KiB", 64 << 10),
            ("64 kB", 64_000),
            ("3M", 3 << 20),
            ("3MiB", 3 << 20),
            ("3MB", 3_000_000),
            ("2g", 2 << 30),
            ("2GiB", 2 << 30),
            ("2GB", 2_000_000_000),
            ("1T", 1 << 40),
            ("1TiB", 1 << 40),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_number_of_bytes_is_refused() {
        for text in ["", "GiB", "-1", "1.5GB", "1 000", "1EB", "9223372036854775808", "9000000000T", "\u{663}"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
