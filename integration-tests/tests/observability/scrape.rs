//! A plain client of the Prometheus endpoint, and its text format taken apart.

use integration_tests::DEADLINE;
use integration_tests::process::{Broker, Launch};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(crate) struct Scraped {
    pub(crate) broker: Broker,
    endpoint: SocketAddr,
}

/// One number with its labels.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// All samples of a page by name, and the types of families.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) samples: BTreeMap<String, Vec<Sample>>,
    pub(crate) kinds: BTreeMap<String, String>,
}

/// A broker with the endpoint on a free port.
#[track_caller]
pub(crate) fn start() -> Scraped {
    let launch = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).env("NO_COLOR", "1");
    let broker = launch.config("[prometheus]\nlisten = '127.0.0.1:0'").start();
    let line = broker.wait_for_log(&["the Prometheus endpoint listens on "]);
    let endpoint = line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address");
    Scraped { broker, endpoint }
}

impl Scraped {
    /// Status, head and body of an answer, chunks put together.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.endpoint).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let head = head.to_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { dechunked(body) } else { body.to_owned() };
        (status, head, body)
    }

    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> Page {
        let (status, head, body) = self.ask("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Page::parse(&body)
    }

    /// Asks again until the page is as it should be.
    #[track_caller]
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&Page) -> bool) -> Page {
        let start = std::time::Instant::now();
        loop {
            let page = self.page(path);
            if wanted(&page) {
                return page;
            }
            assert!(start.elapsed() < DEADLINE, "{path} never became as it should: {page:#?}");
        }
    }
}

fn dechunked(body: &str) -> String {
    let (mut whole, mut rest) = (String::new(), body);
    loop {
        let (size, after) = rest.split_once("\r\n").expect("the size of a chunk");
        let size = usize::from_str_radix(size, 16).expect("a number");
        if size == 0 {
            return whole;
        }
        let (chunk, after) = after.split_at(size);
        whole.push_str(chunk);
        rest = after.strip_prefix("\r\n").expect("the end of a chunk");
    }
}

impl Page {
    /// Every line must be what the format allows, and every sample must belong to the family above it.
    #[track_caller]
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(["counter", "gauge", "histogram", "untyped"].contains(&kind), "{line}");
                assert!(page.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(rest.starts_with(&format!("{family} ")), "{line}");
            } else {
                let (name, sample) = parse_sample(line);
                assert!(name.starts_with(&family), "{line} belongs to {family}");
                page.samples.entry(name).or_default().push(sample);
            }
        }
        page
    }

    /// The value of the only sample of that name, or the sum of those with these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.samples.get(name).unwrap_or_else(|| panic!("no {name}"));
        let has = |sample: &&Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        let found: Vec<f64> = samples.iter().filter(has).map(|sample| sample.value).collect();
        assert!(!found.is_empty(), "no {name} with {labels:?}: {samples:?}");
        found.iter().sum()
    }
}

fn parse_sample(line: &str) -> (String, Sample) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, rest)) = series.split_once('{') else {
        return (series.to_owned(), Sample { labels: BTreeMap::new(), value });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        let (mut text, mut end, mut escaped) = (String::new(), None, false);
        for (at, c) in after.char_indices() {
            match c {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                '"' if !escaped => {
                    end = Some(at);
                    break;
                }
                'n' if escaped => text.push('\n'),
                other => text.push(other),
            }
            escaped = false;
        }
        let end = end.unwrap_or_else(|| panic!("{line}"));
        labels.insert(label.to_owned(), text);
        rest = after[end + 1..].trim_start_matches(',');
    }
    (name.to_owned(), Sample { labels, value })
}
