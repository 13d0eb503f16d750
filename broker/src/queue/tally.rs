//! How often a message of a queue that counts deliveries was handed out, and how often in vain.

use std::sync::Arc;

use protocol::{Properties, lookup, replace_headers, retain_fields};

use crate::model::message::Message;

/// Bits of the deliveries in vain.
const FAILED_BITS: u32 = 12;
/// It came back; without it, it is out.
const BACK: u32 = 1 << FAILED_BITS;
const HANDED_OUT_SHIFT: u32 = FAILED_BITS + 1;

const HEADERS: [&str; 2] = ["x-acquired-count", "x-delivery-count"];

/// How often a message was handed out (up to 524,287) and how often in vain (up to 4,095): it was rejected, or its channel or
/// connection ended. Nothing for a message that never was, and always in queues that do not count.
///
/// The store keeps the larger of two values. Each step here, out and back, gives a larger one: they count the handing out in
/// the upper bits. So the store can tell what was out when the broker ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally(u32);

impl Tally {
    /// The greatest number of deliveries in vain that is told from one more.
    pub const FAILED_MAX: u32 = (1 << FAILED_BITS) - 1;
    const HANDED_OUT_MAX: u32 = u32::MAX >> HANDED_OUT_SHIFT;

    /// What the store had when the broker started. A message that was out then has come back in vain.
    pub fn recovered(stored: u32) -> Self {
        if stored != 0 && stored & BACK == 0 {
            Self(stored).back_to(stored & Self::FAILED_MAX, true)
        } else {
            Self(stored)
        }
    }

    /// What the store has, as it is: how often it was handed out, how often in vain, and whether it is out.
    pub fn of_stored(stored: u32) -> (u32, u32, bool) {
        let tally = Self(stored);
        (tally.handed_out(), tally.failed(), stored != 0 && stored & BACK == 0)
    }

    /// Whether it never was handed out.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// How often it was handed out.
    pub fn handed_out(self) -> u32 {
        self.0 >> HANDED_OUT_SHIFT
    }

    /// How often that was in vain.
    pub fn failed(self) -> u32 {
        self.0 & Self::FAILED_MAX
    }

    /// What [`Tally::shown`] wrote into a message.
    pub fn read(shown: &Message) -> Self {
        let headers = Properties::parse(shown.content().properties).ok().and_then(|properties| properties.headers());
        let count = |name: &str| {
            let value = headers.and_then(|headers| lookup(headers, name.as_bytes()));
            u32::try_from(value.and_then(|value| value.as_integer()).unwrap_or(0)).unwrap_or(0)
        };
        let [handed_out, failed] = HEADERS.map(count);
        if handed_out == 0 {
            return Self::default();
        }
        Self(handed_out.min(Self::HANDED_OUT_MAX) << HANDED_OUT_SHIFT | BACK | failed.min(Self::FAILED_MAX))
    }

    /// It is handed out once more: for the store.
    pub fn out(self) -> u32 {
        self.next() << HANDED_OUT_SHIFT | self.failed()
    }

    /// It was handed out once more and is back, in vain or not.
    #[must_use]
    pub fn back(self, in_vain: bool) -> Self {
        Self(self.next() << HANDED_OUT_SHIFT).back_to(self.failed(), in_vain)
    }

    /// For the store.
    pub fn to_stored(self) -> u32 {
        self.0
    }

    fn next(self) -> u32 {
        (self.handed_out() + 1).min(Self::HANDED_OUT_MAX)
    }

    fn back_to(self, failed: u32, in_vain: bool) -> Self {
        let failed = (failed + u32::from(in_vain)).min(Self::FAILED_MAX);
        Self(self.handed_out() << HANDED_OUT_SHIFT | BACK | failed)
    }

    /// The message as a client is shown it: with the counts in its headers, for a message that has any.
    pub fn shown(self, message: &Arc<Message>) -> Arc<Message> {
        if self.is_none() {
            return Arc::clone(message);
        }
        let content = message.content();
        let headers = Properties::parse(content.properties).ok().and_then(|properties| properties.headers());
        let ours = |name: &[u8]| HEADERS.iter().any(|header| header.as_bytes() == name);
        let mut headers = retain_fields(headers.unwrap_or_default(), |name| !ours(name)).unwrap_or_default();
        for (name, count) in HEADERS.iter().zip([self.handed_out(), self.failed()]).filter(|(_, count)| *count > 0) {
            headers.push(name.len() as u8);
            headers.extend_from_slice(name.as_bytes());
            headers.push(b'l');
            headers.extend_from_slice(&i64::from(count).to_be_bytes());
        }
        let properties = replace_headers(content.properties, &headers);
        let mut shown = Message::derived(message, message.traits(), content.address, &properties);
        if let Some(deadline_ms) = message.deadline_ms() {
            // Should nobody see it after all, it is what comes back.
            shown.expire_at(deadline_ms);
        }
        Arc::new(shown)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::queue::ready::Entry;

    fn counts(tally: Tally) -> (u32, u32) {
        (tally.handed_out(), tally.failed())
    }

    #[test]
    fn each_step_is_a_larger_value_for_the_store() {
        let (mut tally, mut stored) = (Tally::default(), 0);
        for round in 1..=1_000 {
            let in_vain = round % 3 == 0;
            assert!(tally.out() > stored, "out, round {round}");
            let out = Tally::recovered(tally.out());
            stored = tally.out();
            tally = tally.back(in_vain);
            assert!(tally.to_stored() > stored, "back, round {round}");
            stored = tally.to_stored();
            assert_eq!(counts(tally), (round, round / 3));
            assert_eq!(Tally::recovered(stored), tally, "it was back");
            assert_eq!(counts(out), (round, (round - 1) / 3 + 1), "it was out");
        }
    }

    #[test]
    fn a_tally_takes_no_room() {
        assert_eq!(std::mem::size_of::<Entry>(), 24, "as without it");
    }

    #[test]
    fn counts_stay_at_their_end() {
        let mut tally = Tally(u32::MAX);
        assert_eq!(counts(tally), (Tally::HANDED_OUT_MAX, Tally::FAILED_MAX));
        for in_vain in [true, false] {
            tally = tally.back(in_vain);
            assert_eq!(tally, Tally(u32::MAX));
            assert_eq!(Tally::recovered(tally.out()), tally);
        }
        assert_eq!(Tally::recovered(0), Tally::default());
    }

    #[test]
    fn the_headers_say_what_was_counted() {
        // headers {a: 1, x-delivery-count: 7, b: 2}, delivery-mode.
        let raw = b"\x30\0\0\0\0\x1b\x01aB\x01\x10x-delivery-countB\x07\x01bB\x02\x01";
        let body = Cow::Owned(vec![7; 300]);
        let message = Arc::new(Message::new(b"\x01e\x01k", raw, body, false));
        assert!(Arc::ptr_eq(&Tally::default().shown(&message), &message));
        let headers = |message: &Message| {
            let content = message.content();
            assert_eq!((content.address, content.body), (&b"\x01e\x01k"[..], &[7; 300][..]));
            Properties::parse(content.properties).unwrap().headers().unwrap().to_vec()
        };
        let found = |tally: Tally| {
            let headers = headers(&tally.shown(&message));
            let value = |name: &str| lookup(&headers, name.as_bytes()).and_then(|value| value.as_integer());
            ["a", "b", "x-acquired-count", "x-delivery-count"].map(value)
        };
        let given_back = Tally::default().back(false);
        assert_eq!(found(given_back), [Some(1), Some(2), Some(1), None]);
        assert_eq!(found(given_back.back(true).back(true)), [Some(1), Some(2), Some(3), Some(2)]);
        for tally in [given_back, given_back.back(true), Tally(u32::MAX)] {
            assert_eq!(Tally::read(&tally.shown(&message)), tally);
        }
    }
}
