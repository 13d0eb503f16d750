//! The rules of policies: RabbitMQ's texts, and matching and merging against a naive model.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::model::operation::OperationError;

const KINDS: [ObjectKind; 4] =
    [ObjectKind::Exchange, ObjectKind::ClassicQueue, ObjectKind::QuorumQueue, ObjectKind::Stream];

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn definition(kind: PolicyKind, value: Value) -> Result<Definition, String> {
    Definition::new(kind, &map(value))
}

#[track_caller]
fn refused(value: Value, text: &str) {
    assert_eq!(definition(PolicyKind::Policy, value), Err(text.to_owned()));
}

#[test]
fn wrong_values_have_rabbitmqs_words() {
    refused(json!({}), "no policy provided");
    refused(json!({"max-length": -1}), "-1 is not a valid maximum length");
    refused(json!({"max-length": "a"}), "<<\"a\">> is not a valid maximum length");
    refused(json!({"max-length": 1.5}), "1.5 is not a valid maximum length");
    refused(json!({"max-length-bytes": -5}), "-5 is not a valid maximum length in bytes");
    refused(json!({"message-ttl": -1}), "-1 is not a valid message TTL");
    refused(json!({"expires": 0}), "0 is not a valid queue expiry");
    refused(json!({"overflow": "nope"}), "<<\"nope\">> is not a valid overflow value");
    refused(json!({"dead-letter-exchange": 1}), "1 is not a valid dead letter exchange name");
    refused(json!({"dead-letter-routing-key": 1}), "1 is not a valid dead letter routing key");
    refused(json!({"dead-letter-strategy": "x"}), "<<\"x\">> is not a valid dead letter strategy");
    refused(json!({"delivery-limit": "x"}), "<<\"x\">> is not a valid delivery limit");
    refused(json!({"max-age": "1w"}), "<<\"1w\">> is not a valid max age");
    refused(json!({"max-age": "0s"}), "<<\"0s\">> is not a valid max age");
    refused(json!({"max-age": 7}), "7 is not a valid max age");
    refused(json!({"stream-max-segment-size-bytes": -1}), "-1 is not a valid segment size");
    refused(json!({"stream-filter-size-bytes": 3}), "3 is not a valid filter size. Valid range is 16-255");
    refused(json!({"queue-leader-locator": "x"}), "<<\"x\">> is not a valid queue leader locator value");
    refused(json!({"queue-mode": "x"}), "<<\"x\">> is not a valid queue-mode value");
    refused(json!({"queue-version": 3}), "3 is not a valid queue-version value");
    refused(json!({"alternate-exchange": 1}), "1 is not a valid alternate exchange name");
    refused(json!({"consumer-timeout": -3}), "-3 is not a valid consumer timeout");
    refused(json!({"consumer-disconnected-timeout": -1}), "-1 is not a valid consumer disconnected timeout");
    refused(json!({"target-group-size": 0}), "0 is not a valid qq target count value");
    refused(json!({"initial-cluster-size": "x"}), "<<\"x\">> is not a valid cluster size");
    refused(json!({"max-in-memory-length": -1}), "-1 is not a valid maximum memory in bytes");
    refused(
        json!({"delayed-retry-type": "x"}),
        "<<\"x\">> is not a valid delayed retry type. Must be one of: all, failed, returned, disabled",
    );
    refused(
        json!({"delayed-retry-min": 0}),
        "0 is not a valid delayed retry minimum delay. Must be a positive integer",
    );
    refused(json!({"delayed-retry-type": "all"}), "delayed-retry-min is required when delayed-retry-type is all");
    refused(
        json!({"delayed-retry-min": 5, "delayed-retry-max": 2}),
        "delayed-retry-max (2) must not be smaller than delayed-retry-min (5)",
    );
    refused(
        json!({"queue-master-locator": "min-masters"}),
        "use of deprecated queue-master-locator argument is not permitted",
    );
}

#[test]
fn unknown_settings_are_named_after_wrong_values() {
    refused(json!({"foo": 1, "bar": 2}), "[{<<\"bar\">>,2},{<<\"foo\">>,1}] are not recognised policy settings");
    refused(json!({"foo": 2, "max-length": 1, "overflow": "z"}), "<<\"z\">> is not a valid overflow value");
    for name in ["alternate-exchange", "dead-letter-exchange", "queue-mode", "max-age", "consumer-timeout"] {
        let error = definition(PolicyKind::OperatorPolicy, json!({name: "a"})).unwrap_err();
        assert_eq!(error, format!("[{{<<\"{name}\">>,<<\"a\">>}}] are not recognised policy settings"));
    }
}

#[test]
fn right_values_are_taken() {
    for value in [
        json!({"message-ttl": 0, "expires": 1, "max-length": 0, "overflow": "reject-publish-dlx"}),
        json!({"message-ttl": 99_999_999_999_999_i64, "max-length": u64::MAX}),
        json!({"dead-letter-routing-key": "k", "delivery-limit": -1, "max-age": "7D", "queue-version": 1}),
        json!({"delayed-retry-type": "disabled"}),
        json!({"delayed-retry-type": "all", "delayed-retry-min": 5}),
        json!({"queue-mode": "lazy", "queue-leader-locator": "balanced", "stream-filter-size-bytes": 16}),
    ] {
        assert_eq!(definition(PolicyKind::Policy, value.clone()).unwrap().to_json(), map(value));
    }
}

fn request<'a>(name: &'a str, pattern: &'a str, definition: &'a Map<String, Value>) -> PolicyRequest<'a> {
    PolicyRequest { name, pattern, definition, priority: None, apply_to: None }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let (foo, priority) = (map(json!({"foo": 1})), json!("a"));
    let request = PolicyRequest { priority: Some(&priority), apply_to: Some("b"), ..request("p", "(", &foo) };
    let error = Policy::new(PolicyKind::Policy, &request).unwrap_err();
    assert_eq!((error.exit_code(), error.http_status()), (69, 400));
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["Validation failed", ""]);
    assert_eq!(lines[2], "[{<<\"foo\">>,1}] are not recognised policy settings");
    assert_eq!(
        lines[3],
        "apply-to 'b' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', \
         'exchanges', or 'all'"
    );
    assert!(lines[4].starts_with("pattern should be regular expression but is invalid: "), "{text}");
    assert_eq!(lines[5], "priority should be a number, actually was <<\"a\">>");
    assert_eq!(lines.len(), 6);
}

#[test]
fn a_policy_needs_a_name() {
    let settings = map(json!({"max-length": 1}));
    let error = Policy::new(PolicyKind::Policy, &request("", "", &settings)).unwrap_err();
    assert!(matches!(error, OperationError::BadArgument(_)), "{error}");
}

/// What RabbitMQ 4.3 makes of a policy and an operator policy.
#[test]
fn operators_settings_are_merged_as_rabbitmq_does() {
    let merged = |own: Value, operator: Value| {
        let own = definition(PolicyKind::Policy, own).unwrap();
        let operator = definition(PolicyKind::OperatorPolicy, operator).unwrap();
        Value::Object(own.under(&operator).to_json())
    };
    for (own, operator, expected) in [
        (
            json!({"overflow": "drop-head"}),
            json!({"overflow": "reject-publish"}),
            json!({"overflow": "reject-publish"}),
        ),
        (json!({"overflow": "reject-publish"}), json!({"overflow": "drop-head"}), json!({"overflow": "drop-head"})),
        (json!({"max-length": 5}), json!({"max-length": 3}), json!({"max-length": 3})),
        (json!({"max-length": 3}), json!({"max-length": 5}), json!({"max-length": 3})),
        (json!({"delivery-limit": -1}), json!({"delivery-limit": 5}), json!({"delivery-limit": 5})),
        (json!({"delivery-limit": 5}), json!({"delivery-limit": -1}), json!({"delivery-limit": 5})),
        (json!({"delivery-limit": 5}), json!({"delivery-limit": 9}), json!({"delivery-limit": 5})),
        (json!({"delivery-limit": -5}), json!({"delivery-limit": -1}), json!({"delivery-limit": -1})),
        (json!({"queue-version": 1}), json!({"queue-version": 2}), json!({"queue-version": 2})),
        (json!({"target-group-size": 5}), json!({"target-group-size": 3}), json!({"target-group-size": 5})),
        (
            json!({"max-in-memory-length": 5, "max-in-memory-bytes": 5}),
            json!({"max-in-memory-length": 9, "max-in-memory-bytes": 2}),
            json!({"max-in-memory-length": 5, "max-in-memory-bytes": 2}),
        ),
        (
            json!({"delayed-retry-type": "failed", "delayed-retry-min": 5, "delayed-retry-max": 5}),
            json!({"delayed-retry-type": "all", "delayed-retry-min": 9, "delayed-retry-max": 9}),
            json!({"delayed-retry-type": "all", "delayed-retry-min": 9, "delayed-retry-max": 5}),
        ),
        (
            json!({"dead-letter-exchange": "a"}),
            json!({"max-length": 2}),
            json!({"dead-letter-exchange": "a", "max-length": 2}),
        ),
    ] {
        assert_eq!(merged(own.clone(), operator.clone()), expected, "{own} {operator}");
    }
}

/// Which kinds of queues RabbitMQ 4.3 gives a policy with that setting: classic, quorum, stream.
#[test]
fn a_policy_passes_over_queues_that_can_not_have_it() {
    for (settings, kinds) in [
        (json!({"message-ttl": 1}), "cq"),
        (json!({"max-length": 1}), "cq"),
        (json!({"max-length-bytes": 1}), "cqs"),
        (json!({"overflow": "drop-head"}), "cq"),
        (json!({"dead-letter-exchange": "a"}), "cq"),
        (json!({"dead-letter-strategy": "at-most-once"}), "q"),
        (json!({"delivery-limit": 1}), "q"),
        (json!({"max-age": "1D"}), "s"),
        (json!({"stream-max-segment-size-bytes": 5}), "s"),
        (json!({"stream-filter-size-bytes": 16}), "cqs"),
        (json!({"queue-mode": "lazy"}), "cq"),
        (json!({"queue-version": 2}), "cqs"),
        (json!({"max-in-memory-length": 1}), "q"),
        (json!({"target-group-size": 1}), "q"),
        (json!({"initial-cluster-size": 1}), "s"),
        (json!({"expires": 1}), "cq"),
        (json!({"alternate-exchange": "a"}), "cqs"),
        (json!({"max-length": 1, "delivery-limit": 1}), "q"),
    ] {
        let policy = Policy::new(PolicyKind::Policy, &request("p", "", &map(settings.clone()))).unwrap();
        let found: String = [ObjectKind::ClassicQueue, ObjectKind::QuorumQueue, ObjectKind::Stream]
            .into_iter()
            .zip("cqs".chars())
            .filter(|(kind, _)| policy.matches(*kind, "any"))
            .map(|(_, letter)| letter)
            .collect();
        assert_eq!(found, kinds, "{settings}");
        assert!(policy.matches(ObjectKind::Exchange, ""));
    }
}

#[test]
fn records_bring_everything_back() {
    let settings = map(json!({"max-length": 5, "overflow": "reject-publish"}));
    let priority = json!(1.5);
    for kind in [PolicyKind::Policy, PolicyKind::OperatorPolicy] {
        let request = PolicyRequest {
            priority: Some(&priority),
            apply_to: Some("classic_queues"),
            ..request("p/\u{e9}", "^a|b$", &settings)
        };
        let policy = Policy::new(kind, &request).unwrap();
        let storage::TopologyChange::Put { key, value } = put_policy("v", kind, &policy) else {
            panic!("not a record");
        };
        assert!(is_policy_record(&key));
        let Ok(Stored::Policy { vhost, kind: read_kind, policy: read }) = read(&key, &value) else {
            panic!("not a policy");
        };
        assert_eq!((vhost.as_str(), read_kind), ("v", kind));
        assert_eq!(format!("{read:?}"), format!("{policy:?}"));
        assert_eq!(delete_policy("v", kind, "p/\u{e9}"), storage::TopologyChange::Delete { key });
    }
    let error = read(b"policy/v\0p", br#"{"v":2}"#).err().unwrap();
    assert_eq!(error, "version 2 is not known to this broker");
    let broken =
        br#"{"v":1,"vhost":"v","name":"p","pattern":"(","apply-to":"all","priority":0,"definition":{"max-length":1}}"#;
    let error = read(b"policy/v\0p", broken).err().unwrap();
    assert!(error.starts_with("Validation failed: pattern"), "{error}");
}

/// One policy of the model: everything a list of cases.
#[derive(Clone, Debug)]
struct Plan {
    operator: bool,
    name: u8,
    letters: String,
    anchored: bool,
    priority: i64,
    apply_to: &'static str,
    max_length: Option<i64>,
    delivery_limit: Option<i64>,
    alternate: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    const APPLY_TO: [&str; 6] = ["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"];
    let settings = (proptest::option::of(0_i64..9), proptest::option::of(-2_i64..5), any::<bool>());
    (any::<bool>(), 0_u8..6, "[ab]{0,2}", any::<bool>(), -1_i64..3, proptest::sample::select(&APPLY_TO[..]), settings)
        .prop_map(|(operator, name, letters, anchored, priority, apply_to, settings)| {
            let (max_length, delivery_limit, alternate) = settings;
            let alternate = alternate && !operator;
            // A policy has at least one setting.
            let max_length = max_length.or((delivery_limit.is_none() && !alternate).then_some(1));
            Plan { operator, name, letters, anchored, priority, apply_to, max_length, delivery_limit, alternate }
        })
}

impl Plan {
    fn kind(&self) -> PolicyKind {
        if self.operator { PolicyKind::OperatorPolicy } else { PolicyKind::Policy }
    }

    fn name(&self) -> String {
        format!("p{}", self.name)
    }

    fn build(&self) -> Policy {
        let mut settings = Map::new();
        if let Some(value) = self.max_length {
            settings.insert("max-length".to_owned(), json!(value));
        }
        if let Some(value) = self.delivery_limit {
            settings.insert("delivery-limit".to_owned(), json!(value));
        }
        if self.alternate {
            settings.insert("alternate-exchange".to_owned(), json!("x"));
        }
        let pattern = if self.anchored { format!("^{}", self.letters) } else { self.letters.clone() };
        let (name, priority) = (self.name(), json!(self.priority));
        let request = PolicyRequest {
            priority: Some(&priority),
            apply_to: Some(self.apply_to),
            ..request(&name, &pattern, &settings)
        };
        Policy::new(self.kind(), &request).unwrap()
    }

    fn holds_for(&self, kind: ObjectKind, name: &str) -> bool {
        let meant = match self.apply_to {
            "queues" => kind != ObjectKind::Exchange,
            "exchanges" => kind == ObjectKind::Exchange,
            "classic_queues" => kind == ObjectKind::ClassicQueue,
            "quorum_queues" => kind == ObjectKind::QuorumQueue,
            "streams" => kind == ObjectKind::Stream,
            _ => true,
        };
        let possible = match kind {
            ObjectKind::Stream => self.max_length.is_none() && self.delivery_limit.is_none(),
            ObjectKind::ClassicQueue => self.delivery_limit.is_none(),
            _ => true,
        };
        let named = if self.anchored { name.starts_with(&self.letters) } else { name.contains(&self.letters) };
        meant && possible && named
    }
}

/// The model: look at all of them.
fn expected<'p>(plans: &'p [Plan], operator: bool, kind: ObjectKind, name: &str) -> Option<&'p Plan> {
    let mut found: Vec<&Plan> =
        plans.iter().filter(|plan| plan.operator == operator && plan.holds_for(kind, name)).collect();
    found.sort_by_key(|plan| (-plan.priority, plan.name));
    found.first().copied()
}

fn least_limit(a: i64, b: i64) -> i64 {
    match (a < 0, b < 0) {
        (false, false) => a.min(b),
        _ => a.max(b),
    }
}

proptest! {
    #[test]
    fn matching_and_merging_are_those_of_the_model(plans in proptest::collection::vec(plan(), 0..10), removed in 0_u8..6) {
        let mut policies = Policies::default();
        let mut model: Vec<Plan> = Vec::new();
        for plan in &plans {
            let replaced = policies.insert(plan.kind(), Arc::new(plan.build()));
            let before = model.len();
            model.retain(|other| (other.operator, other.name) != (plan.operator, plan.name));
            prop_assert_eq!(replaced.is_some(), model.len() < before);
            model.push(plan.clone());
        }
        let name = format!("p{removed}");
        let was_there = model.iter().any(|plan| !plan.operator && plan.name == removed);
        prop_assert_eq!(policies.remove(PolicyKind::Policy, &name).is_some(), was_there);
        model.retain(|plan| plan.operator || plan.name != removed);
        for kind in KINDS {
            for name in ["", "a", "b", "ab", "ba", "bab", "c"] {
                let effective = policies.effective(kind, name);
                let own = expected(&model, false, kind, name);
                let operator = expected(&model, true, kind, name);
                prop_assert_eq!(effective.policy.as_deref().map(str::to_owned), own.map(Plan::name));
                prop_assert_eq!(effective.operator_policy.as_deref().map(str::to_owned), operator.map(Plan::name));
                let merge = |of: fn(&Plan) -> Option<i64>, both: fn(i64, i64) -> i64| {
                    match (own.and_then(of), operator.and_then(of)) {
                        (Some(own), Some(operator)) => Some(both(own, operator)),
                        (own, operator) => own.or(operator),
                    }
                };
                let settings = &effective.definition;
                prop_assert_eq!(settings.integer("max-length"), merge(|plan| plan.max_length, i64::min));
                prop_assert_eq!(settings.integer("delivery-limit"), merge(|plan| plan.delivery_limit, least_limit));
                let alternate = own.is_some_and(|plan| plan.alternate);
                prop_assert_eq!(settings.text("alternate-exchange").is_some(), alternate);
            }
        }
    }
}
