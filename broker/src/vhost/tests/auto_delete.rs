//! Exchanges that go with the last binding from them.

use super::*;

fn auto_delete(fixture: &Fixture, name: &str) {
    fixture.declare_exchange(ExchangeRequest { auto_delete: true, ..exchange(name, "fanout") }).expect("exchange");
}

#[test]
fn only_after_a_binding() {
    let fixture = Fixture::new();
    auto_delete(&fixture, "x");
    fixture.with_queue("q");
    fixture.unbind("x", "q", "").expect("unbind");
    assert!(fixture.has_exchange("x"), "it was never bound");
    fixture.bind("x", "q", "a").expect("bind");
    fixture.bind("x", "q", "b").expect("bind");
    fixture.unbind("x", "q", "a").expect("unbind");
    assert!(fixture.has_exchange("x"));
    fixture.unbind("x", "q", "b").expect("unbind");
    assert!(!fixture.has_exchange("x"));
}

#[test]
fn with_the_queue() {
    let fixture = Fixture::new();
    auto_delete(&fixture, "x");
    fixture.with_queue("q1");
    fixture.with_queue("q2");
    fixture.bind("x", "q1", "").expect("bind");
    fixture.bind("x", "q2", "").expect("bind");
    fixture.delete_queue("q1").expect("delete");
    assert!(fixture.has_exchange("x"));
    fixture.delete_queue("q2").expect("delete");
    assert!(!fixture.has_exchange("x"));
}

#[test]
fn along_a_chain() {
    let fixture = Fixture::new();
    let names = ["x0", "x1", "x2", "x3"];
    for name in names {
        auto_delete(&fixture, name);
    }
    for pair in names.windows(2) {
        if let [source, destination] = pair {
            fixture.bind_exchange(source, destination, "").expect("bind");
        }
    }
    fixture.with_queue("q");
    fixture.bind("x3", "q", "").expect("bind");
    assert_eq!(fixture.routed("x0", &["k"]), ["q"]);
    fixture.delete_queue("q").expect("delete");
    for name in names {
        assert!(!fixture.has_exchange(name), "{name}");
    }
}

#[test]
fn the_destination_of_a_binding_does_not_go_with_its_source() {
    let fixture = Fixture::new();
    auto_delete(&fixture, "source");
    auto_delete(&fixture, "destination");
    fixture.with_queue("q");
    fixture.bind("destination", "q", "").expect("bind");
    fixture.bind_exchange("source", "destination", "").expect("bind");
    fixture.unbind_exchange("source", "destination", "").expect("unbind");
    assert!(!fixture.has_exchange("source"));
    assert!(fixture.has_exchange("destination"));
}

#[test]
fn in_a_circle() {
    let fixture = Fixture::new();
    auto_delete(&fixture, "a");
    auto_delete(&fixture, "b");
    auto_delete(&fixture, "self");
    fixture.bind_exchange("a", "b", "").expect("bind");
    fixture.bind_exchange("b", "a", "").expect("bind");
    fixture.bind_exchange("self", "self", "").expect("bind");
    fixture.unbind_exchange("b", "a", "").expect("unbind");
    assert!(!fixture.has_exchange("a") && !fixture.has_exchange("b"));
    fixture.unbind_exchange("self", "self", "").expect("unbind");
    assert!(!fixture.has_exchange("self"));
}

#[test]
fn with_an_exclusive_queue() {
    let fixture = Fixture::new();
    auto_delete(&fixture, "x");
    fixture.declare_queue(QueueRequest { exclusive: true, ..queue("q") }).expect("declare");
    fixture.bind("x", "q", "").expect("bind");
    fixture.vhost.delete_exclusive(ME);
    assert!(!fixture.has_exchange("x"));
}

/// Neither deleting nor dropping may recurse along the chain.
#[test]
fn a_very_long_chain() {
    const LENGTH: usize = 20_000;
    let fixture = Fixture::new();
    for circle in [false, true] {
        for n in 0..LENGTH {
            auto_delete(&fixture, &format!("x{n}"));
        }
        for n in 1..LENGTH {
            let (source, destination) = (format!("x{}", n - 1), format!("x{n}"));
            fixture.bind_exchange(&source, &destination, "").expect("bind");
        }
        let last = format!("x{}", LENGTH - 1);
        fixture.with_queue("q");
        fixture.bind(&last, "q", "").expect("bind");
        assert_eq!(fixture.routed("x0", &["k"]), ["q"]);
        if circle {
            // Left for the vhost to drop.
            fixture.bind_exchange(&last, "x0", "").expect("bind");
        } else {
            fixture.delete_queue("q").expect("delete");
            assert!(!fixture.has_exchange("x0"));
        }
    }
}
