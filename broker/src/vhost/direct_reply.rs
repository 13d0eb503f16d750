//! Addresses for direct replies: who may get one, and who is behind it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Vhost;
use crate::queue::direct_reply::ReplyConsumer;

/// What clients consume from, and give as the address for their replies.
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Octets behind each of the two dots of an address, as base64.
const PART: usize = 22;

/// A new address. Two times 128 random bits: nobody guesses it, so whoever knows it was given it.
fn new_address() -> String {
    let part = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
    format!("{DIRECT_REPLY}.{}.{}", part(), part())
}

/// Whether a routing key or a queue name is an address that a consumer has, or had.
pub fn is_reply_address(name: &str) -> bool {
    let Some(parts) = name.strip_prefix(DIRECT_REPLY).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let is_part = |part: &str| {
        part.len() == PART && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    parts.split_once('.').is_some_and(|(first, second)| is_part(first) && is_part(second))
}

impl Vhost {
    /// Makes a consumer known, under an address of its own.
    pub fn add_reply_consumer(&self, create: impl FnOnce(Arc<str>) -> Arc<ReplyConsumer>) -> Arc<ReplyConsumer> {
        let consumer = create(new_address().into());
        self.reply_consumers.insert(Arc::clone(&consumer.address), Arc::clone(&consumer));
        consumer
    }

    /// The consumer behind an address, while there is one.
    pub fn reply_consumer(&self, address: &str) -> Option<Arc<ReplyConsumer>> {
        self.reply_consumers.get(address)
    }

    /// Nobody finds the consumer any more.
    pub fn remove_reply_consumer(&self, consumer: &Arc<ReplyConsumer>) {
        self.reply_consumers.remove(&consumer.address, consumer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = new_address();
        assert!(is_reply_address(&address));
        assert_ne!(address, new_address());
        for other in ["", DIRECT_REPLY, "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.x.y", &address[..66], "q"] {
            assert!(!is_reply_address(other), "{other}");
        }
        assert!(!is_reply_address(&format!("{address}x")));
        assert!(!is_reply_address(&address.replace("reply-to", "reply.to")));
    }
}
