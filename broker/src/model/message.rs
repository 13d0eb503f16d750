//! A message as the broker holds it: immutable, shared by every queue and consumer that refers to it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use protocol::{Content, Properties, Property};
use storage::{Meta, Payload, Place};

use super::clock::Clock;

/// Messages whose address, properties and body together fit here need no allocation beyond their `Arc`.
const INLINE_BYTES: usize = 112;

/// `address_len` and `properties_len` as they stand in front of a stored message.
const STORED_HEAD_BYTES: usize = 2 + 4;

/// An address is two short strings; the upper bits of its length say more about the message. They are stored with it.
const ADDRESS_LEN: u16 = 0x0fff;
/// Its `x-death` header is the broker's own account of what became of it, not what a client wrote.
const DIED: u16 = 0x8000;
/// Routing keys that nobody is shown stand before the address: four octets of length and short strings.
const HIDES_KEYS: u16 = 0x4000;
/// It was given another routing key: those in its CC header do not count any more.
const REKEYED: u16 = 0x2000;
const HIDDEN_LEN_BYTES: usize = 4;

/// How a message was routed and what it has been through, beside what its octets say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits<'a> {
    /// Its `x-death` header is the broker's own.
    pub died: bool,
    /// The keys in its CC header do not count any more.
    pub rekeyed: bool,
    /// Short strings, one after the other: the keys of a BCC header that was taken out.
    pub hidden_keys: &'a [u8],
}

impl Traits<'_> {
    fn flags(self) -> u16 {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        flag(self.died, DIED) | flag(self.rekeyed, REKEYED) | flag(!self.hidden_keys.is_empty(), HIDES_KEYS)
    }

    fn prefix(self) -> Vec<u8> {
        match u32::try_from(self.hidden_keys.len()) {
            Ok(len) if len > 0 => [&len.to_le_bytes(), self.hidden_keys].concat(),
            _ => Vec::new(),
        }
    }
}

/// Address (exchange and routing key as two short strings), properties and body, in this order and exactly as they stand
/// on the wire, so that a delivery copies them and never re-encodes them.
pub struct Message {
    place: Place,
    /// Wall time at which it expires, in milliseconds; 0 = never.
    deadline_ms: u64,
    properties_len: u32,
    /// With flags in its upper bits.
    address_len: u16,
    persistent: bool,
    /// Queues that hold it, as a power of two.
    shared: u8,
    bytes: Storage,
}

enum Storage {
    Inline {
        len: u8,
        bytes: [u8; INLINE_BYTES],
    },
    /// One exact allocation: a slice of the read buffer would pin the whole buffer while the message waits in a queue.
    Exact(Box<[u8]>),
    /// A body that arrived in several frames was gathered in a buffer of its own, which is kept as it is.
    Gathered {
        head: Box<[u8]>,
        body: Vec<u8>,
    },
    /// Read back from the log; address, properties and body follow the stored lengths.
    Stored(Bytes),
    /// A head of its own and the body of another message, which is not of this kind itself.
    Derived {
        head: Box<[u8]>,
        origin: Arc<Message>,
    },
    /// All of another message, which is not of this kind itself. Only the deadline differs.
    Same {
        origin: Arc<Message>,
    },
}

impl Message {
    /// Makes a message of the parts of one publish. `persistent`: the properties say delivery-mode 2.
    pub fn new(address: &[u8], properties: &[u8], body: Cow<'_, [u8]>, persistent: bool) -> Self {
        let head = address.len() + properties.len();
        let total = head + body.len();
        let bytes = if total <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..address.len()].copy_from_slice(address);
            bytes[address.len()..head].copy_from_slice(properties);
            bytes[head..total].copy_from_slice(&body);
            Storage::Inline { len: total as u8, bytes }
        } else {
            match body {
                Cow::Borrowed(body) => {
                    let mut all = Vec::with_capacity(total);
                    all.extend_from_slice(address);
                    all.extend_from_slice(properties);
                    all.extend_from_slice(body);
                    Storage::Exact(all.into_boxed_slice())
                }
                Cow::Owned(body) => Storage::Gathered { head: [address, properties].concat().into_boxed_slice(), body },
            }
        };
        Self {
            place: Place::default(),
            deadline_ms: 0,
            properties_len: properties.len() as u32,
            address_len: address.len() as u16,
            persistent,
            shared: 0,
            bytes,
        }
    }

    /// A message that was published to routing keys which nobody is shown.
    pub fn with_traits(
        traits: Traits<'_>,
        address: &[u8],
        properties: &[u8],
        body: Cow<'_, [u8]>,
        persistent: bool,
    ) -> Self {
        let prefix = traits.prefix();
        if prefix.is_empty() {
            let mut message = Self::new(address, properties, body, persistent);
            message.address_len |= traits.flags();
            return message;
        }
        let head = [&prefix, address, properties].concat().into_boxed_slice();
        Self {
            properties_len: properties.len() as u32,
            address_len: address.len() as u16 | traits.flags(),
            bytes: Storage::Gathered { head, body: body.into_owned() },
            ..Self::new(&[], &[], Cow::Borrowed(&[]), persistent)
        }
    }

    /// Another message with the body of `origin`, which is neither copied nor changed. It never expires.
    pub fn derived(origin: &Arc<Self>, traits: Traits<'_>, address: &[u8], properties: &[u8]) -> Self {
        let head = [&traits.prefix(), address, properties].concat().into_boxed_slice();
        let origin = origin.whole();
        let origin = match &origin.bytes {
            Storage::Derived { origin, .. } => Arc::clone(origin),
            _ => Arc::clone(origin),
        };
        Self {
            properties_len: properties.len() as u32,
            address_len: address.len() as u16 | traits.flags(),
            persistent: origin.persistent,
            bytes: Storage::Derived { head, origin },
            ..Self::new(&[], &[], Cow::Borrowed(&[]), false)
        }
    }

    /// The same message, to expire at that wall time, in milliseconds. The store writes the two as one.
    pub fn expiring(origin: &Arc<Self>, deadline_ms: u64) -> Self {
        let origin = origin.whole();
        Self {
            deadline_ms: deadline_ms.max(1),
            properties_len: origin.properties_len,
            address_len: origin.address_len,
            shared: origin.shared,
            persistent: origin.persistent,
            bytes: Storage::Same { origin: Arc::clone(origin) },
            place: Place::default(),
        }
    }

    /// Itself, or the message that it is the same as.
    fn whole(self: &Arc<Self>) -> &Arc<Self> {
        match &self.bytes {
            Storage::Same { origin } => origin,
            _ => self,
        }
    }

    /// How it was routed and what it has been through.
    pub fn traits(&self) -> Traits<'_> {
        let hidden_keys = match self.prefix_len() {
            0 => &[],
            len => self.head().get(HIDDEN_LEN_BYTES..len).unwrap_or_default(),
        };
        Traits { died: self.address_len & DIED != 0, rekeyed: self.address_len & REKEYED != 0, hidden_keys }
    }

    /// What stands before the body, at least.
    fn head(&self) -> &[u8] {
        match &self.bytes {
            Storage::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Storage::Exact(all) => all,
            Storage::Gathered { head, .. } | Storage::Derived { head, .. } => head,
            Storage::Stored(stored) => &stored[STORED_HEAD_BYTES..],
            Storage::Same { origin } => origin.head(),
        }
    }

    /// Octets before the address.
    fn prefix_len(&self) -> usize {
        if self.address_len & HIDES_KEYS == 0 { 0 } else { prefix_len(self.head()) }
    }

    /// Restores a message from what [`Payload::encode`] wrote; `None` when the lengths do not fit the bytes.
    pub fn from_stored(stored: Bytes, place: Place, deadline_ms: Option<u64>) -> Option<Self> {
        let (address, rest) = stored.split_first_chunk::<2>()?;
        let (properties, rest) = rest.split_first_chunk::<4>()?;
        let address_len = u16::from_le_bytes(*address);
        let properties_len = u32::from_le_bytes(*properties);
        let prefix = if address_len & HIDES_KEYS == 0 { 0 } else { prefix_len(rest) };
        let head = usize::from(address_len & ADDRESS_LEN).checked_add(properties_len as usize)?.checked_add(prefix)?;
        if head > rest.len() {
            return None;
        }
        Some(Self {
            place,
            deadline_ms: deadline_ms.unwrap_or(0),
            properties_len,
            address_len,
            persistent: true,
            shared: 0,
            bytes: Storage::Stored(stored),
        })
    }

    /// Restores a stored message of which the publisher may not have asked that it be stored, without a deadline.
    pub fn as_published(stored: Bytes, place: Place) -> Option<Self> {
        let mut message = Self::from_stored(stored, place, None)?;
        message.persistent = Properties::parse(message.content().properties).ok()?.delivery_mode() == Some(2);
        Some(message)
    }

    /// Restores a message that was not stored for good: what the publisher asked for is in its properties only.
    pub fn from_spilled(stored: Bytes, deadline_ms: Option<u64>) -> Option<Self> {
        let mut message = Self::from_stored(stored, Place::default(), deadline_ms)?;
        message.persistent = Properties::parse(message.content().properties).ok()?.delivery_mode() == Some(2);
        Some(message)
    }

    /// The three parts, for encoding.
    pub fn content(&self) -> Content<'_> {
        let prefix_len = self.prefix_len();
        let address_len = usize::from(self.address_len & ADDRESS_LEN);
        let head_len = prefix_len + address_len + self.properties_len as usize;
        let (head, body) = match &self.bytes {
            Storage::Inline { len, bytes } => bytes[..usize::from(*len)].split_at(head_len),
            Storage::Exact(all) => all.split_at(head_len),
            Storage::Gathered { head, body } => (&head[..], &body[..]),
            Storage::Stored(stored) => stored[STORED_HEAD_BYTES..].split_at(head_len),
            Storage::Derived { head, origin } => (&head[..], origin.content().body),
            Storage::Same { origin } => return origin.content(),
        };
        let (address, properties) = head[prefix_len..].split_at(address_len);
        Content { address, properties, body }
    }

    /// Octets of the body.
    pub fn body_len(&self) -> usize {
        self.content().body.len()
    }

    /// Whether the publisher asked for it to survive a restart (delivery-mode 2).
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// The priority property, 0 without.
    pub fn priority(&self) -> u8 {
        let properties = self.content().properties;
        let flagged = properties
            .first_chunk::<2>()
            .is_some_and(|flags| u16::from_be_bytes(*flags) & Property::Priority.flag() != 0);
        // They were checked when the message came in.
        let found = flagged.then(|| Properties::parse(properties).ok()).flatten();
        found.and_then(|found| found.priority()).unwrap_or(0)
    }

    /// Lets it expire at this wall time, in milliseconds.
    pub fn expire_at(&mut self, deadline_ms: u64) {
        self.deadline_ms = deadline_ms.max(1);
    }

    /// Lets it expire at this wall time, in milliseconds, or never.
    pub fn set_deadline(&mut self, deadline_ms: Option<u64>) {
        self.deadline_ms = deadline_ms.map_or(0, |deadline_ms| deadline_ms.max(1));
    }

    /// Lets it expire that much later.
    pub fn postpone_expiry(&mut self, by_ms: u64) {
        self.deadline_ms = self.deadline_ms.saturating_add(by_ms);
    }

    /// What the store keeps beside the message.
    pub fn meta(&self) -> Meta {
        Meta { deadline_ms: self.deadline_ms(), ..Meta::default() }
    }

    /// Wall time at which it expires, in milliseconds.
    pub fn deadline_ms(&self) -> Option<u64> {
        (self.deadline_ms != 0).then_some(self.deadline_ms)
    }

    /// Whether its time is over. Only a message that can expire asks for the time.
    pub fn is_expired(&self, clock: &Clock) -> bool {
        self.deadline_ms != 0 && self.deadline_ms <= clock.now_ms()
    }

    /// So many queues are going to hold it.
    pub fn share(&mut self, queues: usize) {
        // At most 64: the power above the number of queues that there can be.
        self.shared = queues.next_power_of_two().trailing_zeros() as u8;
    }

    /// The part of [`Message::resident_bytes`] that each of the queues it was published to accounts for.
    pub fn accounted_bytes(&self) -> usize {
        self.resident_bytes() >> self.shared
    }

    /// Memory that the message occupies, roughly: what limits of queues and outboxes count.
    pub fn resident_bytes(&self) -> usize {
        std::mem::size_of::<Self>()
            + match &self.bytes {
                Storage::Inline { .. } => 0,
                Storage::Exact(all) => all.len(),
                Storage::Gathered { head, body } => head.len() + body.capacity(),
                Storage::Stored(stored) => stored.len(),
                Storage::Derived { head, origin } => head.len() + origin.resident_bytes(),
                Storage::Same { origin } => origin.resident_bytes(),
            }
    }
}

/// Octets of the hidden keys that `head` begins with, their length included.
fn prefix_len(head: &[u8]) -> usize {
    let len = head.first_chunk::<HIDDEN_LEN_BYTES>().map_or(0, |len| u32::from_le_bytes(*len));
    HIDDEN_LEN_BYTES.saturating_add(len as usize)
}

impl Payload for Message {
    fn encoded_len(&self) -> usize {
        let content = self.content();
        let head = self.prefix_len() + content.address.len() + content.properties.len();
        STORED_HEAD_BYTES + head + content.body.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let content = self.content();
        out.extend_from_slice(&self.address_len.to_le_bytes());
        out.extend_from_slice(&self.properties_len.to_le_bytes());
        out.extend_from_slice(self.head().get(..self.prefix_len()).unwrap_or_default());
        out.extend_from_slice(content.address);
        out.extend_from_slice(content.properties);
        out.extend_from_slice(content.body);
    }

    fn place(&self) -> &Place {
        match &self.bytes {
            Storage::Same { origin } => &origin.place,
            _ => &self.place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &[u8] = b"\x02ex\x03key";
    /// Flags with only delivery-mode, then 2.
    const PERSISTENT: &[u8] = &[0x10, 0x00, 2];

    fn round_trip(body: Cow<'_, [u8]>) {
        let expected = body.to_vec();
        let message = Message::new(ADDRESS, PERSISTENT, body, true);
        assert!(message.is_persistent());
        let mut stored = Vec::new();
        message.encode(&mut stored);
        assert_eq!(stored.len(), message.encoded_len());
        let back = Message::from_stored(stored.into(), Place::default(), None).unwrap();
        for message in [&message, &back] {
            let content = message.content();
            assert_eq!(content.address, ADDRESS);
            assert_eq!(content.properties, PERSISTENT);
            assert_eq!(content.body, expected);
        }
    }

    #[test]
    fn every_size_survives_storage() {
        for len in [0, 1, 90, 103, 104, 105, 1_000, 100_000] {
            round_trip(Cow::Borrowed(&vec![7; len]));
            round_trip(Cow::Owned(vec![7; len]));
        }
    }

    #[test]
    fn traits_are_stored_and_shown_to_nobody() {
        let traits = Traits { died: true, rekeyed: false, hidden_keys: b"\x02k1\x02k2" };
        for len in [0, 200] {
            let body = vec![7; len];
            let plain = Arc::new(Message::with_traits(
                Traits { died: false, ..traits },
                ADDRESS,
                PERSISTENT,
                Cow::Borrowed(&body),
                true,
            ));
            let derived = Arc::new(Message::derived(&plain, traits, b"\0\x03new", PERSISTENT));
            let again = Message::derived(&derived, Traits { rekeyed: true, ..Traits::default() }, ADDRESS, &[0, 0]);
            assert_eq!(again.traits(), Traits { rekeyed: true, ..Traits::default() });
            assert_eq!(again.content().body.as_ptr(), plain.content().body.as_ptr(), "the body is shared");
            let mut stored = Vec::new();
            derived.encode(&mut stored);
            assert_eq!(stored.len(), derived.encoded_len());
            let back = Message::from_stored(stored.into(), Place::default(), None).unwrap();
            for message in [&*derived, &back] {
                assert_eq!(message.traits(), traits);
                assert!(message.is_persistent());
                let content = message.content();
                assert_eq!((content.address, content.properties), (&b"\0\x03new"[..], PERSISTENT));
                assert_eq!(content.body, body);
            }
        }
    }

    #[test]
    fn every_queue_accounts_for_its_part() {
        let mut message = Message::new(ADDRESS, PERSISTENT, Cow::Owned(vec![0; 10_000]), true);
        let whole = message.resident_bytes();
        assert!(whole > 10_000);
        for (queues, parts) in [(0, 1), (1, 1), (2, 2), (3, 4), (1000, 1024)] {
            message.share(queues);
            assert_eq!(message.accounted_bytes(), whole / parts);
        }
        assert_eq!(message.resident_bytes(), whole);
    }

    #[test]
    fn lying_lengths_are_refused() {
        for stored in
            [&b""[..], b"\x01", b"\xff\xff\0\0\0\0abc", b"\0\0\xff\xff\xff\xffabc", b"\0\x40\0\0\0\0\xff\xff\xff\xff"]
        {
            assert!(Message::from_stored(Bytes::copy_from_slice(stored), Place::default(), None).is_none());
        }
    }
}
