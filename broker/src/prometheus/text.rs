//! The text format of Prometheus, version 0.0.4, written in pieces: a page about 100,000 queues is never in memory as a whole.

use std::fmt::{self, Display, Write};

use bytes::Bytes;
use storage::Histogram;

/// Octets in one piece.
const PIECE: usize = 64 << 10;

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Untyped,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }
}

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Whole(holds.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

/// Names and values.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// Where pieces go; false when nobody wants any more.
pub(super) type Send<'s> = dyn FnMut(Bytes) -> bool + 's;

/// A page while it is written.
pub(super) struct Page<'s> {
    text: String,
    /// What names of families begin with.
    pub(super) prefix: &'static str,
    /// Of the family that is being written.
    name: &'static str,
    send: &'s mut Send<'s>,
    gone: bool,
}

impl<'s> Page<'s> {
    pub(super) fn new(send: &'s mut Send<'s>) -> Self {
        Self { text: String::with_capacity(PIECE + 4096), prefix: "rabbitmq_", name: "", send, gone: false }
    }

    /// Nobody reads it any more: what would take long can be left out.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let (prefix, kind) = (self.prefix, kind.name());
        self.put(format_args!("# TYPE {prefix}{name} {kind}\n# HELP {prefix}{name} {help}\n"));
    }

    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: impl Into<Number>) {
        self.suffixed("", labels, value.into());
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Into<Number>) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// One number of the family, or of a part of it.
    pub(super) fn suffixed(&mut self, suffix: &str, labels: &Labels<'_>, value: Number) {
        let (prefix, name) = (self.prefix, self.name);
        self.put(format_args!("{prefix}{name}{suffix}"));
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\"{}\"", Escaped(value)));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{after} {value}\n"));
        if self.text.len() >= PIECE {
            self.flush();
        }
    }

    /// A histogram of the store as a family: its values are divided by `unit`. Bounds are powers of two.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram, unit: f64) {
        self.family(name, Kind::Histogram, help);
        let mut seen = 0;
        let last = histogram.buckets.len() - 1;
        for (bucket, count) in histogram.buckets.iter().enumerate().take(last) {
            seen += count;
            // The store's bound is the first value that is not in the bucket.
            let bound = ((1_u64 << bucket) - 1) as f64 / unit;
            self.suffixed("_bucket", &[("le", &bound.to_string())], seen.into());
        }
        // One number for both: they are read while others count.
        let count = histogram.count();
        self.suffixed("_bucket", &[("le", "+Inf")], count.into());
        self.suffixed("_sum", &[], Number::Real(histogram.sum as f64 / unit));
        self.suffixed("_count", &[], count.into());
    }

    /// Sends what is left; true when everything was sent.
    pub(super) fn end(mut self) -> bool {
        self.flush();
        !self.gone
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        if !self.gone {
            // Writing to a string does not fail.
            let _ = self.text.write_fmt(text);
        }
    }

    fn flush(&mut self) {
        if !self.gone && !self.text.is_empty() {
            self.gone = !(self.send)(Bytes::copy_from_slice(self.text.as_bytes()));
            self.text.clear();
        }
    }
}

/// The value of a label.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            let (plain, special) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_str(match special.as_bytes().first() {
                Some(b'\\') => "\\\\",
                Some(b'"') => "\\\"",
                _ => "\\n",
            })?;
            rest = special.get(1..).unwrap_or_default();
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Page<'_>)) -> (String, usize) {
        let (mut text, mut pieces) = (String::new(), 0);
        let mut send = |piece: Bytes| {
            text.push_str(std::str::from_utf8(&piece).unwrap());
            pieces += 1;
            true
        };
        let mut page = Page::new(&mut send);
        write(&mut page);
        assert!(page.end());
        (text, pieces)
    }

    #[test]
    fn names_of_queues_are_escaped() {
        let (text, _) = written(|page| {
            page.family("queues", Kind::Gauge, "Queues");
            page.sample(&[("vhost", "/"), ("queue", "a\"b\\c\nd")], 1_u64);
        });
        assert_eq!(
            text,
            "# TYPE rabbitmq_queues gauge\n# HELP rabbitmq_queues Queues\n\
             rabbitmq_queues{vhost=\"/\",queue=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_in_seconds() {
        let mut histogram = Histogram::default();
        histogram.buckets[0] = 1;
        histogram.buckets[2] = 2;
        histogram.buckets[31] = 4;
        histogram.sum = 1_500_000;
        let (text, _) = written(|page| page.histogram("t", "Time", &histogram, 1e6));
        assert!(text.contains("_bucket{le=\"0\"} 1\n"));
        assert!(text.contains("_bucket{le=\"0.000003\"} 3\n"));
        assert!(text.contains("_bucket{le=\"+Inf\"} 7\nrabbitmq_t_sum 1.5\nrabbitmq_t_count 7\n"));
    }

    #[test]
    fn a_long_page_comes_in_pieces_and_stops_when_nobody_reads() {
        let many = |page: &mut Page<'_>| {
            page.family("queues", Kind::Gauge, "Queues");
            for number in 0..10_000_u64 {
                page.sample(&[("queue", "some name")], number);
            }
        };
        let (text, pieces) = written(many);
        assert_eq!(text.lines().count(), 10_002);
        assert!(pieces > 3);
        let mut sent = 0;
        let mut send = |_| {
            sent += 1;
            false
        };
        let mut page = Page::new(&mut send);
        many(&mut page);
        assert!(page.is_gone());
        assert!(!page.end());
        assert_eq!(sent, 1);
    }
}
