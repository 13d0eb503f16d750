//! What holds for one queue: its arguments and its policies together.

use crate::model::arguments::{integer, string};
use crate::model::limit_arguments::{EXPIRES, MAX_LENGTH, MAX_LENGTH_BYTES, MESSAGE_TTL, OVERFLOW, Overflow};
use crate::model::queue_kind::QueueKind;
use crate::policy::Effective;
use crate::queue::QueueSpec;
use crate::queue::settings::QueueSettings;

/// What holds for a queue by RabbitMQ's rules: the smaller of two numbers, and the argument of two texts.
pub(super) fn queue_settings(spec: &QueueSpec, policy: &Effective) -> QueueSettings {
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
    // As RabbitMQ, which has it for classic queues only.
    let is_quorum = QueueKind::of(&spec.arguments) == QueueKind::Quorum;
    let overflow = overflow.filter(|overflow| !is_quorum || *overflow != Overflow::RejectPublishDlx);
    QueueSettings {
        message_ttl_ms: number(MESSAGE_TTL, "message-ttl"),
        expires_at_head: policy.definition.text("message-expiry") == Some("head"),
        expires_ms: number(EXPIRES, "expires"),
        max_length: number(MAX_LENGTH, "max-length"),
        max_length_bytes: number(MAX_LENGTH_BYTES, "max-length-bytes"),
        overflow: overflow.unwrap_or_default(),
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
        queue_settings(&spec, &Effective { definition, ..Effective::default() })
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
                expires_at_head: false,
                expires_ms: Some(5_000),
                max_length: Some(9),
                max_length_bytes: Some(7),
                overflow: Overflow::RejectPublish,
            }
        );
        assert_eq!(settings(&[], &json!({"overflow": "reject-publish-dlx"})).overflow, Overflow::RejectPublishDlx);
        assert!(settings(&[], &json!({"message-expiry": "head"})).expires_at_head);
        assert!(!settings(&[], &json!({"message-expiry": "anywhere"})).expires_at_head);
        let quorum = [("x-queue-type", AMQPValue::LongString("quorum".into()))];
        assert_eq!(settings(&quorum, &json!({"overflow": "reject-publish-dlx"})).overflow, Overflow::DropHead);
        assert_eq!(settings(&quorum, &json!({"overflow": "reject-publish"})).overflow, Overflow::RejectPublish);
        assert_eq!(settings(&[], &json!({})), QueueSettings::default());
    }
}
