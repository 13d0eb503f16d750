//! From exchanges to queues.

use super::*;
use crate::vhost::RouteInfo;

fn info(fixture: &Fixture, exchange: &str, keys: &[&str]) -> RouteInfo {
    let exchange = fixture.vhost.exchange(exchange).expect("exchange");
    fixture.vhost.route_to(&exchange, keys, None, &mut Targets::default())
}

const SIMPLE: RouteInfo = RouteInfo { simple: true, by_message: false };
const FAR: RouteInfo = RouteInfo { simple: false, by_message: false };

#[test]
fn the_default_exchange_knows_queues_by_name() {
    let fixture = Fixture::new();
    fixture.with_queue("q1");
    fixture.with_queue("q2");
    assert_eq!(fixture.routed("", &["q1"]), ["q1"]);
    assert_eq!(fixture.routed("", &["q1", "q2", "q1", "none"]), ["q1", "q2"]);
    assert!(fixture.routed("", &["none"]).is_empty());
    assert_eq!(info(&fixture, "", &["q1"]), SIMPLE);
    let exchange = fixture.vhost.exchange("").expect("exchange");
    let version = exchange.version();
    fixture.with_queue("q3");
    assert_ne!(exchange.version(), version, "a cached miss must end");
    let version = exchange.version();
    fixture.delete_queue("q3").expect("delete");
    assert_ne!(exchange.version(), version);
}

#[test]
fn each_queue_once_whatever_leads_to_it() {
    let fixture = Fixture::new();
    fixture.with_exchange("inner", "fanout");
    for n in 0..40 {
        let name = format!("q{n:02}");
        fixture.with_queue(&name);
        for key in ["#", "a.*", "a.b"] {
            fixture.bind("amq.topic", &name, key).expect("bind");
        }
        fixture.bind("inner", &name, "").expect("bind");
    }
    fixture.bind_exchange("amq.topic", "inner", "a.#").expect("bind");
    assert_eq!(fixture.routed("amq.topic", &["a.b", "a.c", "x"]).len(), 40);
    assert_eq!(fixture.routed("amq.topic", &["a.b"]).len(), 40);
    assert_eq!(fixture.routed("inner", &["a.b", "c"]).len(), 40);
}

#[test]
fn circles_are_visited_once() {
    let fixture = Fixture::new();
    fixture.with_exchange("a", "fanout");
    fixture.with_exchange("b", "fanout");
    fixture.with_queue("q");
    fixture.bind_exchange("a", "b", "").expect("bind");
    fixture.bind_exchange("b", "a", "").expect("bind");
    fixture.bind_exchange("b", "b", "").expect("bind");
    fixture.bind("b", "q", "").expect("bind");
    assert_eq!(fixture.routed("a", &["k"]), ["q"]);
    assert_eq!(info(&fixture, "a", &["k"]), FAR);
}

#[test]
fn headers_decide_and_say_so() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    fixture.with_exchange("x", "direct");
    let color = |name: &str| arguments(&[("color", text(name))]);
    fixture.bind_with("amq.headers", "q", "", &color("red")).expect("bind");
    fixture.bind_exchange("x", "amq.headers", "k").expect("bind");
    for exchange in ["amq.headers", "x"] {
        assert_eq!(fixture.routed_with(exchange, &["k"], &color("red")), ["q"]);
        assert!(fixture.routed_with(exchange, &["k"], &color("blue")).is_empty());
        assert!(info(&fixture, exchange, &["k"]).by_message);
    }
    assert_eq!(info(&fixture, "x", &["other"]), SIMPLE);
}

fn with_alternate(fixture: &Fixture, name: &str, alternate: &str) {
    fixture
        .declare_exchange(ExchangeRequest {
            arguments: arguments(&[("alternate-exchange", text(alternate))]),
            ..exchange(name, "direct")
        })
        .expect("exchange");
}

#[test]
fn the_alternate_gets_what_leads_nowhere() {
    let fixture = Fixture::new();
    with_alternate(&fixture, "x", "ae");
    fixture.with_queue("q");
    fixture.with_queue("unrouted");
    fixture.bind("x", "q", "k").expect("bind");
    assert!(fixture.routed("x", &["other"]).is_empty(), "a missing one is ignored");
    assert_eq!(info(&fixture, "x", &["other"]), FAR);
    let version = fixture.vhost.version();
    fixture.with_exchange("ae", "fanout");
    assert_ne!(fixture.vhost.version(), version);
    fixture.bind("ae", "unrouted", "").expect("bind");
    assert_eq!(fixture.routed("x", &["k"]), ["q"]);
    assert_eq!(info(&fixture, "x", &["k"]), SIMPLE);
    assert_eq!(fixture.routed("x", &["other"]), ["unrouted"]);
    assert_eq!(fixture.routed("x", &["other", "k"]), ["q"]);
}

#[test]
fn an_exchange_that_leads_nowhere_is_a_destination() {
    let fixture = Fixture::new();
    with_alternate(&fixture, "x", "ae");
    fixture.with_exchange("ae", "fanout");
    fixture.with_exchange("dead-end", "fanout");
    fixture.with_queue("unrouted");
    fixture.bind("ae", "unrouted", "").expect("bind");
    fixture.bind_exchange("x", "dead-end", "k").expect("bind");
    assert!(fixture.routed("x", &["k"]).is_empty());
}

#[test]
fn alternates_are_chained_without_going_in_circles() {
    let fixture = Fixture::new();
    with_alternate(&fixture, "a", "b");
    with_alternate(&fixture, "b", "c");
    with_alternate(&fixture, "c", "a");
    assert!(fixture.routed("a", &["k"]).is_empty());
    fixture.with_queue("q");
    fixture.bind("c", "q", "k").expect("bind");
    assert_eq!(fixture.routed("a", &["k"]), ["q"]);
}

#[test]
fn the_default_exchange_can_be_an_alternate() {
    let fixture = Fixture::new();
    with_alternate(&fixture, "x", "");
    fixture.with_queue("q");
    assert_eq!(fixture.routed("x", &["q"]), ["q"]);
}

#[test]
fn versions_move_with_bindings() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    let exchange = fixture.vhost.exchange("amq.direct").expect("exchange");
    let mut seen = vec![(exchange.version(), fixture.vhost.version())];
    let mut moved = || {
        let now = (exchange.version(), fixture.vhost.version());
        let last = seen.last().copied().unwrap_or_default();
        seen.push(now);
        now.0 != last.0 && now.1 != last.1
    };
    fixture.bind("amq.direct", "q", "k").expect("bind");
    assert!(moved());
    fixture.unbind("amq.direct", "q", "k").expect("unbind");
    assert!(moved());
    fixture.bind("amq.direct", "q", "k").expect("bind");
    assert!(moved());
    fixture.delete_queue("q").expect("delete");
    assert!(moved());
}
