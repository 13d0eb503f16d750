//! A message as the broker holds it: immutable, shared by every queue and consumer that refers to it.

use std::borrow::Cow;

use bytes::Bytes;
use protocol::{Content, Properties};
use storage::{Meta, Payload, Place};

use super::clock::Clock;

/// Messages whose address, properties and body together fit here need no allocation beyond their `Arc`.
const INLINE_BYTES: usize = 112;

/// `address_len` and `properties_len` as they stand in front of a stored message.
const STORED_HEAD_BYTES: usize = 2 + 4;

/// Address (exchange and routing key as two short strings), properties and body, in this order and exactly as they stand
/// on the wire, so that a delivery copies them and never re-encodes them.
pub struct Message {
    place: Place,
    /// Wall time at which it expires, in milliseconds; 0 = never.
    deadline_ms: u64,
    properties_len: u32,
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

    /// Restores a message from what [`Payload::encode`] wrote; `None` when the lengths do not fit the bytes.
    pub fn from_stored(stored: Bytes, place: Place, deadline_ms: Option<u64>) -> Option<Self> {
        let (address, rest) = stored.split_first_chunk::<2>()?;
        let (properties, rest) = rest.split_first_chunk::<4>()?;
        let address_len = u16::from_le_bytes(*address);
        let properties_len = u32::from_le_bytes(*properties);
        let head = usize::from(address_len).checked_add(properties_len as usize)?;
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
        let address_len = usize::from(self.address_len);
        let head_len = address_len + self.properties_len as usize;
        let (head, body) = match &self.bytes {
            Storage::Inline { len, bytes } => bytes[..usize::from(*len)].split_at(head_len),
            Storage::Exact(all) => all.split_at(head_len),
            Storage::Gathered { head, body } => (&head[..], &body[..]),
            Storage::Stored(stored) => stored[STORED_HEAD_BYTES..].split_at(head_len),
        };
        let (address, properties) = head.split_at(address_len);
        Content { address, properties, body }
    }

    /// Whether the publisher asked for it to survive a restart (delivery-mode 2).
    pub fn is_persistent(&self) -> bool {
        self.persistent
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
            }
    }
}

impl Payload for Message {
    fn encoded_len(&self) -> usize {
        let content = self.content();
        STORED_HEAD_BYTES + content.address.len() + content.properties.len() + content.body.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let content = self.content();
        out.extend_from_slice(&self.address_len.to_le_bytes());
        out.extend_from_slice(&self.properties_len.to_le_bytes());
        out.extend_from_slice(content.address);
        out.extend_from_slice(content.properties);
        out.extend_from_slice(content.body);
    }

    fn place(&self) -> &Place {
        &self.place
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
        for stored in [&b""[..], b"\x01", b"\xff\xff\0\0\0\0abc", b"\0\0\xff\xff\xff\xffabc"] {
            assert!(Message::from_stored(Bytes::copy_from_slice(stored), Place::default(), None).is_none());
        }
    }
}
