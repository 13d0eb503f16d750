//! The limits of one queue, as its arguments and policies give them together (`vhost/queue_settings.rs`).

use crate::model::limit_arguments::Overflow;

/// The settings that hold for a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Time that a message may wait from now on, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// A message whose time is over leaves when it is the first, and not before; from then on it is nobody's.
    pub expires_at_head: bool,
    /// Time without use after which the queue ends, in milliseconds.
    pub expires_ms: Option<u64>,
    /// Most ready messages.
    pub max_length: Option<u64>,
    /// Most octets of bodies of ready messages.
    pub max_length_bytes: Option<u64>,
    /// What becomes of messages for which there is no room.
    pub overflow: Overflow,
}

impl QueueSettings {
    /// Whether any number of messages can be too much.
    pub(super) fn is_limited(&self) -> bool {
        self.max_length.is_some() || self.max_length_bytes.is_some()
    }

    /// Whether so many messages with so many octets are too much.
    pub(super) fn is_too_much(&self, messages: u64, bytes: u64) -> bool {
        self.max_length.is_some_and(|max| messages > max) || self.max_length_bytes.is_some_and(|max| bytes > max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_still_fits() {
        let settings = QueueSettings { max_length: Some(2), max_length_bytes: Some(10), ..QueueSettings::default() };
        assert!(!settings.is_too_much(2, 10));
        assert!(settings.is_too_much(3, 0));
        assert!(settings.is_too_much(0, 11));
        assert!(!QueueSettings::default().is_too_much(u64::MAX, u64::MAX));
    }
}
