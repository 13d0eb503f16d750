//! Exchanges that pick one of their bindings: what they are declared with, what may be bound, where messages go.

use super::*;
use crate::vhost::RouteInfo;

const BY_KEYS: RouteInfo = RouteInfo { simple: true, by_message: false };
const BY_MESSAGE: RouteInfo = RouteInfo { simple: true, by_message: true };

const TYPES: [&str; 4] = ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"];

fn info(fixture: &Fixture, exchange: &str) -> RouteInfo {
    let exchange = fixture.vhost.exchange(exchange).expect("exchange");
    fixture.vhost.route_to(&exchange, &["key"], None, &mut Targets::default())
}

/// An exchange `x` that hashes as the argument says.
fn hashing(name: &str, value: &str) -> Fixture {
    let fixture = Fixture::new();
    let arguments = arguments(&[(name, text(value))]);
    let request = ExchangeRequest { arguments, ..exchange("x", "x-consistent-hash") };
    fixture.declare_exchange(request).expect("exchange");
    fixture
}

/// The binding key that a type wants.
fn key_for(kind: &str) -> &'static str {
    if kind == "x-local-random" { "" } else { "1" }
}

#[test]
fn one_queue_gets_the_message() {
    for kind in TYPES {
        let fixture = Fixture::new();
        fixture.with_exchange("x", kind);
        assert!(fixture.routed("x", &["key"]).is_empty(), "{kind}");
        for queue in ["a", "b", "c"] {
            fixture.with_queue(queue);
            fixture.bind("x", queue, key_for(kind)).expect("bind");
        }
        for number in 0..50 {
            let key = number.to_string();
            assert_eq!(fixture.routed("x", &[&key, "other", "a"]).len(), 1, "{kind}");
        }
        for queue in ["a", "b"] {
            fixture.delete_queue(queue).expect("delete");
        }
        assert_eq!(fixture.routed("x", &["key"]), ["c"], "{kind}");
        fixture.unbind("x", "c", key_for(kind)).expect("unbind");
        assert!(fixture.routed("x", &["key"]).is_empty(), "{kind}");
    }
}

#[test]
fn a_route_is_kept_only_where_the_key_decides() {
    for (kind, expected) in TYPES.into_iter().zip([BY_KEYS, BY_KEYS, BY_MESSAGE, BY_MESSAGE]) {
        let fixture = Fixture::new();
        fixture.with_exchange("x", kind);
        fixture.with_queue("q");
        fixture.bind("x", "q", key_for(kind)).expect("bind");
        assert_eq!(info(&fixture, "x"), expected, "{kind}");
        fixture.with_exchange("outer", "fanout");
        fixture.bind_exchange("outer", "x", "").expect("bind");
        assert_eq!(info(&fixture, "outer"), RouteInfo { simple: false, ..expected }, "{kind}");
    }
    for (name, value) in [("hash-header", "h"), ("x-hash-on", "h"), ("hash-property", "timestamp")] {
        assert_eq!(info(&hashing(name, value), "x"), BY_MESSAGE, "{name}");
    }
    assert_eq!(info(&hashing("x-algorithm", "ring"), "x"), BY_KEYS);
}

#[test]
fn further_keys_count_for_modulus_only() {
    let fixture = Fixture::new();
    for (exchange, kind) in [("modulus", "x-modulus-hash"), ("consistent", "x-consistent-hash")] {
        fixture.with_exchange(exchange, kind);
        for queue in ["a", "b", "c"] {
            fixture.with_queue(queue);
            fixture.bind(exchange, queue, "1").expect("bind");
        }
    }
    let further: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let places = |exchange: &str| {
        let mut places: Vec<_> = further.iter().flat_map(|key| fixture.routed(exchange, &["key", key])).collect();
        places.sort();
        places.dedup();
        places
    };
    assert_eq!(places("modulus"), ["a", "b", "c"]);
    assert_eq!(places("consistent").len(), 1);
}

#[test]
fn a_chain_of_hashes_ends_in_one_queue() {
    let fixture = Fixture::new();
    fixture.with_exchange("x", "x-consistent-hash");
    for (exchange, queues) in [("left", ["a", "b"]), ("right", ["c", "d"])] {
        fixture.with_exchange(exchange, "x-modulus-hash");
        fixture.bind_exchange("x", exchange, "5").expect("bind");
        for queue in queues {
            fixture.with_queue(queue);
            fixture.bind(exchange, queue, "").expect("bind");
        }
    }
    let mut seen: Vec<String> = Vec::new();
    for number in 0..100 {
        let key = number.to_string();
        let places = fixture.routed("x", &[&key]);
        assert_eq!(places.len(), 1);
        assert_eq!(fixture.routed("x", &[&key]), places);
        seen.extend(places);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b", "c", "d"]);
}

#[test]
fn an_alternate_takes_what_finds_no_binding() {
    for kind in TYPES {
        let fixture = Fixture::new();
        let arguments = arguments(&[("alternate-exchange", text("amq.fanout"))]);
        fixture.declare_exchange(ExchangeRequest { arguments, ..exchange("x", kind) }).expect("exchange");
        fixture.with_queue("q");
        fixture.with_queue("unrouted");
        fixture.bind("amq.fanout", "unrouted", "").expect("bind");
        assert_eq!(fixture.routed("x", &["key"]), ["unrouted"], "{kind}");
        fixture.bind("x", "q", key_for(kind)).expect("bind");
        assert_eq!(fixture.routed("x", &["key"]), ["q"], "{kind}");
    }
}

/// A message with an identifier where an exchange that is declared so looks for it.
fn identified(hashed: &str, id: u64) -> BasicProperties {
    let text_of_id = id.to_string();
    let properties = BasicProperties::default();
    match hashed {
        "message_id" => properties.with_message_id(text_of_id.into()),
        "correlation_id" => properties.with_correlation_id(text_of_id.into()),
        "timestamp" => properties.with_timestamp(id),
        header => properties.with_headers(arguments(&[(header, text(&text_of_id))]).table().clone()),
    }
}

/// The queue that each of many identifiers leads to, whatever the routing key.
fn places(argument: &str, hashed: &str) -> Vec<String> {
    let fixture = hashing(argument, hashed);
    for queue in ["a", "b", "c"] {
        fixture.with_queue(queue);
        fixture.bind("x", queue, "1").expect("bind");
    }
    let place = |key, properties| fixture.routed_by("x", &[key], properties).concat();
    let without = BasicProperties::default;
    assert_eq!(place("key", without()), place("another key", without()));
    let of_all = |key| (0..60).map(|id| place(key, identified(hashed, id))).collect::<Vec<_>>();
    let places = of_all("key");
    assert_eq!(of_all("another key"), places);
    places
}

#[test]
fn headers_and_properties_place_messages() {
    let expected = places("hash-header", "customer");
    for queue in ["a", "b", "c"] {
        assert!(expected.iter().any(|place| place == queue));
    }
    // The same identifiers lead to the same queues, wherever in the message they are.
    for (argument, hashed) in [
        ("x-hash-on", "customer"),
        ("hash-property", "message_id"),
        ("hash-property", "correlation_id"),
        ("hash-property", "timestamp"),
    ] {
        assert_eq!(places(argument, hashed), expected, "{hashed}");
    }
}

#[test]
fn weights_are_checked_after_names() {
    let fixture = Fixture::new();
    fixture.with_exchange("x", "x-consistent-hash");
    fixture.with_exchange("inner", "fanout");
    fixture.with_queue("q");
    let integer = "PRECONDITION_FAILED - The binding key must be an integer: <<\"much\">>";
    assert_eq!(refusal(fixture.bind("x", "q", "much")), refused(406, integer, 50, 20));
    assert_eq!(refusal(fixture.bind_exchange("x", "inner", "much")), refused(406, integer, 40, 30));
    assert_eq!(
        refusal(fixture.bind("x", "missing", "much")),
        refused(404, "NOT_FOUND - no queue 'missing' in vhost '/'", 50, 20)
    );
    assert_eq!(refusal(fixture.unbind("x", "q", "much")), None);
    assert!(fixture.vhost.exchange("x").expect("exchange").bindings().is_empty());
}

#[test]
fn local_random_wants_queues_without_keys() {
    let fixture = Fixture::new();
    fixture.with_exchange("x", "x-local-random");
    fixture.with_exchange("inner", "fanout");
    fixture.with_queue("q");
    let key = "PRECONDITION_FAILED - Non empty binding 'k' key not permitted";
    assert_eq!(refusal(fixture.bind("x", "q", "k")), refused(406, key, 50, 20));
    assert_eq!(refusal(fixture.bind_exchange("x", "inner", "k")), refused(406, key, 40, 30));
    let destination = "PRECONDITION_FAILED - Destination not found";
    assert_eq!(refusal(fixture.bind_exchange("x", "inner", "")), refused(406, destination, 40, 30));
    assert_eq!(refusal(fixture.bind("x", "q", "")), None);
}

#[test]
fn hash_arguments_are_checked_when_new_and_never_compared() {
    let fixture = Fixture::new();
    let declare = |name: &'static str, pairs: &[(&str, AMQPValue)]| {
        let request = ExchangeRequest { arguments: arguments(pairs), ..exchange(name, "x-consistent-hash") };
        refusal(fixture.declare_exchange(request))
    };
    let property = ("hash-property", text("app_id"));
    let message = "PRECONDITION_FAILED - Unsupported property: app_id";
    assert_eq!(declare("x", std::slice::from_ref(&property)), refused(406, message, 40, 10));
    assert!(!fixture.has_exchange("x"));
    let message =
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'";
    let alternate = ("alternate-exchange", AMQPValue::LongInt(1));
    assert_eq!(declare("x", &[property.clone(), alternate]), refused(406, message, 40, 10));
    let message = "PRECONDITION_FAILED - invalid type 'bool' for arg 'hash-header' in exchange 'x' in vhost '/'";
    assert_eq!(declare("x", &[("hash-header", AMQPValue::Boolean(true))]), refused(406, message, 40, 10));
    assert_eq!(declare("x", &[("hash-header", text("h"))]), None);
    assert_eq!(declare("x", &[("hash-header", text("other"))]), None);
    assert_eq!(declare("x", std::slice::from_ref(&property)), None);
    let message = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but \
                   current is ''x-consistent-hash''";
    assert_eq!(refusal(fixture.declare_exchange(exchange("x", "direct"))), refused(406, message, 40, 10));
    // Other types do not know these arguments.
    let request = ExchangeRequest { arguments: arguments(&[property]), ..exchange("y", "direct") };
    fixture.declare_exchange(request).expect("unknown arguments are ignored");
}
