//! What becomes of a message that a queue gives up: the account of its deaths in its headers.
//!
//! The account is the broker's own, as long as the message says so ([`Traits::died`]). An `x-death` header that a client wrote
//! is an ordinary header, and the first death replaces it.

use std::borrow::Cow;
use std::sync::Arc;

use protocol::{
    ArrayIter, Properties, Property, ValueRef, address, lookup, replace_headers, replace_property, retain_fields,
    shortstrs,
};

use super::expiration;
use super::message::{Message, Traits};

const DEATHS: &str = "x-death";
const FIRST: [&str; 3] = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
const LAST: [&str; 3] = ["x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"];

/// Why a queue gives a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A consumer did not want it, nor want it back in the queue.
    Rejected,
    /// Its time is over.
    Expired,
    /// The queue holds no more.
    MaxLen,
    /// It came back too often.
    DeliveryLimit,
}

impl Reason {
    /// As headers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLen => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// One death and where the message goes then.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue that gives it up.
    pub queue: &'a str,
    /// Why.
    pub reason: Reason,
    /// When, in seconds since 1970.
    pub time_s: u64,
    /// The exchange that it goes to.
    pub exchange: &'a str,
    /// With this key instead of those it had.
    pub routing_key: Option<&'a str>,
}

/// What is known of all deaths of a message in one queue for one reason.
#[derive(Clone, Debug, PartialEq)]
struct Record<'a> {
    original_expiration: Option<Cow<'a, [u8]>>,
    count: i64,
    reason: &'a [u8],
    queue: &'a [u8],
    /// Of the first.
    time_s: u64,
    exchange: Cow<'a, [u8]>,
    /// An array without its length.
    routing_keys: Cow<'a, [u8]>,
}

impl<'a> Record<'a> {
    fn read(table: &'a [u8]) -> Option<Self> {
        let octets = |name: &str| lookup(table, name.as_bytes()).and_then(|value| value.as_bytes());
        Some(Self {
            original_expiration: octets("original-expiration").map(Cow::Borrowed),
            count: lookup(table, b"count")?.as_integer()?,
            reason: octets("reason")?,
            queue: octets("queue")?,
            time_s: match lookup(table, b"time")? {
                ValueRef::Timestamp(time_s) => time_s,
                _ => return None,
            },
            exchange: octets("exchange").map(Cow::Borrowed)?,
            routing_keys: match lookup(table, b"routing-keys")? {
                ValueRef::Array(keys) => Cow::Borrowed(keys),
                _ => return None,
            },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut table = Vec::new();
        if let Some(expiration) = &self.original_expiration {
            put_text(&mut table, "original-expiration", expiration);
        }
        put_name(&mut table, "count");
        table.push(b'l');
        table.extend_from_slice(&self.count.to_be_bytes());
        put_text(&mut table, "reason", self.reason);
        put_text(&mut table, "queue", self.queue);
        put_name(&mut table, "time");
        table.push(b'T');
        table.extend_from_slice(&self.time_s.to_be_bytes());
        put_text(&mut table, "exchange", &self.exchange);
        put_name(&mut table, "routing-keys");
        table.push(b'A');
        put_long(&mut table, &self.routing_keys);
        out.push(b'F');
        put_long(out, &table);
    }
}

/// The records of a message, the latest first.
fn records<'a>(message: &Message, headers: &'a [u8]) -> Vec<Record<'a>> {
    match lookup(headers, DEATHS.as_bytes()) {
        Some(ValueRef::Array(entries)) if message.traits().died => ArrayIter::new(entries)
            .map_while(Result::ok)
            .filter_map(|entry| match entry {
                ValueRef::Table(table) => Record::read(table),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The message as it goes on after a death: another address, other headers, the same body.
pub fn after(message: &Arc<Message>, death: &Death<'_>) -> Message {
    let content = message.content();
    let properties = Properties::parse(content.properties).ok();
    let headers = properties.and_then(|properties| properties.headers()).unwrap_or_default();
    let expiration = properties.and_then(|properties| properties.expiration());
    let (exchange, _) = shortstrs(content.address);
    let keys = routing_keys(message);
    let mut shown = Vec::new();
    for key in keys.iter().filter(|key| !key.hidden) {
        shown.push(b'S');
        put_long(&mut shown, key.text.as_bytes());
    }
    let mut known = records(message, headers);
    let first = known.is_empty();
    let at = known
        .iter()
        .position(|record| record.queue == death.queue.as_bytes() && record.reason == death.reason.as_str().as_bytes());
    let latest = match at {
        Some(at) => {
            let record = known.remove(at);
            Record { count: record.count.saturating_add(1), ..record }
        }
        None => Record {
            original_expiration: expiration.map(|text| match expiration::parse(text) {
                Ok(ms) => Cow::Owned(ms.to_string().into_bytes()),
                Err(_) => Cow::Borrowed(text),
            }),
            count: 1,
            reason: death.reason.as_str().as_bytes(),
            queue: death.queue.as_bytes(),
            time_s: death.time_s,
            exchange: Cow::Borrowed(exchange.as_bytes()),
            routing_keys: Cow::Owned(shown),
        },
    };
    known.insert(0, latest);

    let ours = |name: &[u8]| {
        name == DEATHS.as_bytes()
            || LAST.iter().any(|last| last.as_bytes() == name)
            || (first && FIRST.iter().any(|first| first.as_bytes() == name))
    };
    let mut now = retain_fields(headers, |name| !ours(name)).unwrap_or_default();
    put_name(&mut now, DEATHS);
    now.push(b'A');
    let mut entries = Vec::new();
    for record in &known {
        record.write(&mut entries);
    }
    put_long(&mut now, &entries);
    let values = [exchange.as_bytes(), death.queue.as_bytes(), death.reason.as_str().as_bytes()];
    for (name, value) in FIRST.iter().zip(values).filter(|_| first).chain(LAST.iter().zip(values)) {
        put_text(&mut now, name, value);
    }
    let properties = replace_property(&replace_headers(content.properties, &now), Property::Expiration, None);

    let traits = message.traits();
    match death.routing_key {
        Some(key) => {
            let traits = Traits { died: true, rekeyed: true, hidden_keys: &[] };
            Message::derived(message, traits, &address(death.exchange, key), &properties)
        }
        None => {
            let key = keys.first().map_or("", |key| &*key.text);
            let traits = Traits { died: true, ..traits };
            Message::derived(message, traits, &address(death.exchange, key), &properties)
        }
    }
}

/// Whether a message that has just died goes round in a circle that no client takes part in, if it goes to this queue.
pub fn is_cycle(message: &Message, queue: &str) -> bool {
    let properties = Properties::parse(message.content().properties).ok();
    let headers = properties.and_then(|properties| properties.headers()).unwrap_or_default();
    for record in records(message, headers) {
        if record.reason == Reason::Rejected.as_str().as_bytes() {
            return false;
        }
        if record.queue == queue.as_bytes() {
            return true;
        }
    }
    false
}

/// One of the keys that a message is routed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingKey<'a> {
    /// The key.
    pub text: Cow<'a, str>,
    /// It is told to nobody: it came from a BCC header.
    pub hidden: bool,
}

/// The keys that a message was published with: its own, then those of CC and BCC.
pub fn routing_keys(message: &Message) -> Vec<RoutingKey<'_>> {
    let content = message.content();
    let traits = message.traits();
    let shown = |text| RoutingKey { text, hidden: false };
    let mut keys = vec![shown(shortstrs(content.address).1)];
    let properties = Properties::parse(content.properties).ok();
    if let Some(headers) = properties.and_then(|properties| properties.headers())
        && !traits.rekeyed
        && let Some(ValueRef::Array(copies)) = lookup(headers, b"CC")
    {
        for copy in ArrayIter::new(copies).map_while(Result::ok) {
            if let ValueRef::LongString(key) = copy
                && let Ok(key) = std::str::from_utf8(key)
            {
                keys.push(shown(Cow::Borrowed(key)));
            }
        }
    }
    let mut rest = traits.hidden_keys;
    while let Some((len, more)) = rest.split_first()
        && let Some((key, more)) = more.split_at_checked(usize::from(*len))
    {
        keys.push(RoutingKey { text: String::from_utf8_lossy(key), hidden: true });
        rest = more;
    }
    keys
}

/// Keys as [`Traits::hidden_keys`] has them. One that is too long for a short string can name nothing and is left out.
pub fn hidden_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut hidden = Vec::new();
    for key in keys {
        if let Ok(len) = u8::try_from(key.len()) {
            hidden.push(len);
            hidden.extend_from_slice(key.as_bytes());
        }
    }
    hidden
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    // Names are constants of this file, all of them short.
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn put_text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put_name(out, name);
    out.push(b'S');
    put_long(out, value);
}

fn put_long(out: &mut Vec<u8>, octets: &[u8]) {
    out.extend_from_slice(&u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(octets);
}

#[cfg(test)]
mod tests;
