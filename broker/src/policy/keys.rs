//! The settings a policy can have: RabbitMQ's, with its words for what a value may not be.

use serde_json::Value;

use super::matching::ObjectKind;

/// One setting.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What the value is called when it is wrong, and whether it is right.
    rule: Rule,
    /// How an operator policy's value is merged; `None` keeps the setting from operators.
    pub(super) merge: Option<Merge>,
    /// Kinds of queues that cannot have it: a policy with it passes over them.
    pub(super) not_for: &'static [ObjectKind],
}

/// What an operator policy and a policy together give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// The smaller value.
    Min,
    /// The larger value.
    Max,
    /// The operator's.
    Operator,
    /// The smaller value; a negative one is no limit and so the largest.
    MinOfLimits,
}

/// What a value must be, and what RabbitMQ calls it.
#[derive(Clone, Copy)]
enum Rule {
    AtLeast(i64, &'static str),
    Integer(&'static str),
    Text(&'static str),
    OneOf(&'static [&'static str], &'static str),
    IntegerOf(&'static [i64], &'static str),
    Between(i64, i64, &'static str),
    Age,
}

use ObjectKind::{ClassicQueue as Classic, QuorumQueue as Quorum, Stream};

const fn key(name: &'static str, rule: Rule, merge: Option<Merge>, not_for: &'static [ObjectKind]) -> Key {
    Key { name, rule, merge, not_for }
}

const RETRY_TYPES: &[&str] = &["all", "failed", "returned", "disabled"];

/// All settings, in alphabetical order.
pub(super) const KEYS: &[Key] = &[
    key("alternate-exchange", Rule::Text("alternate exchange name"), None, &[]),
    key("consumer-disconnected-timeout", Rule::AtLeast(0, "consumer disconnected timeout"), None, &[]),
    key("consumer-timeout", Rule::AtLeast(0, "consumer timeout"), None, &[]),
    key("dead-letter-exchange", Rule::Text("dead letter exchange name"), None, &[Stream]),
    key("dead-letter-routing-key", Rule::Text("dead letter routing key"), None, &[Stream]),
    key(
        "dead-letter-strategy",
        Rule::OneOf(&["at-most-once", "at-least-once"], "dead letter strategy"),
        None,
        &[Classic, Stream],
    ),
    key(
        "delayed-retry-max",
        Rule::AtLeast(1, "delayed retry maximum delay. Must be a positive integer"),
        Some(Merge::Min),
        &[],
    ),
    key(
        "delayed-retry-min",
        Rule::AtLeast(1, "delayed retry minimum delay. Must be a positive integer"),
        Some(Merge::Max),
        &[],
    ),
    key(
        "delayed-retry-type",
        Rule::OneOf(RETRY_TYPES, "delayed retry type. Must be one of: all, failed, returned, disabled"),
        Some(Merge::Operator),
        &[],
    ),
    key("delivery-limit", Rule::Integer("delivery limit"), Some(Merge::MinOfLimits), &[Classic, Stream]),
    key("expires", Rule::AtLeast(1, "queue expiry"), Some(Merge::Min), &[Stream]),
    key("initial-cluster-size", Rule::AtLeast(0, "cluster size"), None, &[Classic, Quorum]),
    key("max-age", Rule::Age, None, &[Classic, Quorum]),
    key("max-in-memory-bytes", Rule::AtLeast(0, "maximum memory in bytes"), Some(Merge::Min), &[Classic, Stream]),
    key("max-in-memory-length", Rule::AtLeast(0, "maximum memory in bytes"), Some(Merge::Min), &[Classic, Stream]),
    key("max-length", Rule::AtLeast(0, "maximum length"), Some(Merge::Min), &[Stream]),
    key("max-length-bytes", Rule::AtLeast(0, "maximum length in bytes"), Some(Merge::Min), &[]),
    // Ours: in RabbitMQ a message whose time is over waits until it is the first.
    key(
        "message-expiry",
        Rule::OneOf(&["anywhere", "head"], "message expiry. Must be anywhere or head"),
        Some(Merge::Operator),
        &[Stream],
    ),
    key("message-ttl", Rule::AtLeast(0, "message TTL"), Some(Merge::Min), &[Stream]),
    key(
        "overflow",
        Rule::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"], "overflow value"),
        Some(Merge::Operator),
        &[Stream],
    ),
    key(
        "queue-leader-locator",
        Rule::OneOf(&["client-local", "balanced", "random", "least-leaders"], "queue leader locator value"),
        None,
        &[],
    ),
    key("queue-mode", Rule::OneOf(&["default", "lazy"], "queue-mode value"), None, &[Stream]),
    key("queue-version", Rule::IntegerOf(&[1, 2], "queue-version value"), Some(Merge::Operator), &[]),
    key("stream-filter-size-bytes", Rule::Between(16, 255, "filter size. Valid range is 16-255"), None, &[]),
    key("stream-max-segment-size-bytes", Rule::AtLeast(0, "segment size"), None, &[Classic, Quorum]),
    key("target-group-size", Rule::AtLeast(1, "qq target count value"), Some(Merge::Max), &[Classic, Stream]),
];

/// Whether policies can have a setting of that name.
pub fn is_setting(name: &str) -> bool {
    find(name).is_some()
}

/// The setting of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// `None` when the value is right, otherwise what RabbitMQ says it is not.
    pub(super) fn refuses(&self, value: &Value) -> Option<&'static str> {
        let (is_right, what) = match self.rule {
            Rule::AtLeast(min, what) => (integer(value).is_some_and(|number| number >= i128::from(min)), what),
            Rule::Integer(what) => (integer(value).is_some(), what),
            Rule::Text(what) => (value.is_string(), what),
            Rule::OneOf(allowed, what) => (value.as_str().is_some_and(|text| allowed.contains(&text)), what),
            Rule::IntegerOf(allowed, what) => (value.as_i64().is_some_and(|number| allowed.contains(&number)), what),
            Rule::Between(min, max, what) => (value.as_i64().is_some_and(|n| (min..=max).contains(&n)), what),
            Rule::Age => (value.as_str().is_some_and(is_age), "max age"),
        };
        (!is_right).then_some(what)
    }
}

impl Merge {
    /// What holds when both a policy and an operator policy have the setting.
    pub(super) fn apply(self, policy: &Value, operator: &Value) -> Value {
        let (Some(own), Some(operators)) = (integer(policy), integer(operator)) else {
            return operator.clone();
        };
        let takes_own = match self {
            Self::Operator => false,
            Self::Max => own > operators,
            Self::MinOfLimits if own < 0 || operators < 0 => own > operators,
            Self::Min | Self::MinOfLimits => own < operators,
        };
        if takes_own { policy.clone() } else { operator.clone() }
    }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

/// A number above zero and a unit.
fn is_age(text: &str) -> bool {
    let Some((last, _)) = text.char_indices().next_back() else {
        return false;
    };
    let (digits, unit) = text.split_at(last);
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number && digits.bytes().any(|digit| digit != b'0') && matches!(unit, "Y" | "M" | "D" | "h" | "m" | "s")
}
