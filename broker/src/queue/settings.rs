//! What holds for one queue: its arguments and its policies together.

use super::QueueSpec;
use crate::model::arguments::{integer, string};
use crate::model::limit_arguments::{EXPIRES, MAX_LENGTH, MAX_LENGTH_BYTES, MESSAGE_TTL, OVERFLOW, Overflow};
use crate::policy::Effective;

/// The settings that hold for a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Time that a message may wait from now on, in milliseconds.
    pub message_ttl_ms: Option<u64>,
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
    /// By RabbitMQ's rules: the smaller of two numbers, and the argument of two texts.
    pub fn new(spec: &QueueSpec, policy: &Effective) -> Self {
        let number = |argument: &str, key: &str| {
            let own = spec.arguments.get(argument).and_then(integer).and_then(|value| u64::try_from(value).ok());
            let theirs = policy.definition.integer(key).and_then(|value| u64::try_from(value).ok());
            match (own, theirs) {
                (Some(own), Some(theirs)) => Some(own.min(theirs)),
                (own, theirs) => own.or(theirs),
            }
        };
        let own = spec.arguments.get(OVERFLOW).and_then(string);
        let overflow = own.as_deref().or_else(|| policy.definition.text("overflow")).and_then(Overflow::named);
        Self {
            message_ttl_ms: number(MESSAGE_TTL, "message-ttl"),
            expires_ms: number(EXPIRES, "expires"),
            max_length: number(MAX_LENGTH, "max-length"),
            max_length_bytes: number(MAX_LENGTH_BYTES, "max-length-bytes"),
            overflow: overflow.unwrap_or_default(),
        }
    }

    /// Whether so many messages with so many octets are too much.
    pub(super) fn is_too_much(&self, messages: u64, bytes: u64) -> bool {
        self.max_length.is_some_and(|max| messages > max) || self.max_length_bytes.is_some_and(|max| bytes > max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use amq_protocol::types::AMQPValue;
    use serde_json::json;

    use super::*;
    use crate::model::arguments::Arguments;
    use crate::policy::{Definition, PolicyKind};

    fn settings(arguments: &[(&str, AMQPValue)], policy: &serde_json::Value) -> QueueSettings {
        let mut declared = Arguments::default();
        for (name, value) in arguments {
            declared.insert(name, value.clone());
        }
        let spec = QueueSpec {
            vhost: "/".into(),
            name: "q".into(),
            durable: true,
            exclusive: None,
            auto_delete: false,
            arguments: Arc::new(declared),
        };
        let definition = match policy.as_object() {
            Some(object) if !object.is_empty() => Definition::new(PolicyKind::Policy, object).unwrap(),
            _ => Definition::default(),
        };
        QueueSettings::new(&spec, &Effective { definition, ..Effective::default() })
    }

    #[test]
    fn the_smaller_number_holds_and_the_argument_of_texts() {
        let arguments = [
            (MESSAGE_TTL, AMQPValue::LongInt(100)),
            (MAX_LENGTH, AMQPValue::ShortShortUInt(9)),
            (EXPIRES, AMQPValue::LongLongInt(5_000)),
            (OVERFLOW, AMQPValue::LongString("reject-publish".into())),
        ];
        let both = settings(
            &arguments,
            &json!({"message-ttl": 50, "max-length": 10, "max-length-bytes": 7, "overflow": "drop-head"}),
        );
        assert_eq!(
            both,
            QueueSettings {
                message_ttl_ms: Some(50),
                expires_ms: Some(5_000),
                max_length: Some(9),
                max_length_bytes: Some(7),
                overflow: Overflow::RejectPublish,
            }
        );
        assert_eq!(settings(&[], &json!({"overflow": "reject-publish-dlx"})).overflow, Overflow::RejectPublishDlx);
        assert_eq!(settings(&[], &json!({})), QueueSettings::default());
    }

    #[test]
    fn a_limit_is_what_still_fits() {
        let settings = QueueSettings { max_length: Some(2), max_length_bytes: Some(10), ..QueueSettings::default() };
        assert!(!settings.is_too_much(2, 10));
        assert!(settings.is_too_much(3, 0));
        assert!(settings.is_too_much(0, 11));
        assert!(!QueueSettings::default().is_too_much(u64::MAX, u64::MAX));
    }
}
