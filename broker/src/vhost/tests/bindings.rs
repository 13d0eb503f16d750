//! queue.bind, queue.unbind, exchange.bind, exchange.unbind.

use super::*;

#[test]
fn missing_ends_are_reported_exchange_first() {
    let fixture = Fixture::new();
    let no_exchange = "NOT_FOUND - no exchange 'x' in vhost '/'";
    assert_eq!(refusal(fixture.bind("x", "q", "")), refused(404, no_exchange, 50, 20));
    fixture.with_exchange("x", "direct");
    assert_eq!(refusal(fixture.bind("x", "q", "")), refused(404, "NOT_FOUND - no queue 'q' in vhost '/'", 50, 20));
    assert_eq!(
        refusal(fixture.bind_exchange("y", "z", "")),
        refused(404, "NOT_FOUND - no exchange 'y' in vhost '/'", 40, 30)
    );
    assert_eq!(
        refusal(fixture.bind_exchange("x", "z", "")),
        refused(404, "NOT_FOUND - no exchange 'z' in vhost '/'", 40, 30)
    );
}

#[test]
fn unbinding_what_is_not_there_is_fine() {
    let fixture = Fixture::new();
    assert_eq!(refusal(fixture.unbind("x", "q", "")), None);
    assert_eq!(refusal(fixture.unbind_exchange("x", "y", "")), None);
    fixture.with_exchange("x", "direct");
    fixture.with_queue("q");
    assert_eq!(refusal(fixture.unbind("x", "q", "never")), None);
}

#[test]
fn the_default_exchange_has_no_bindings() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    fixture.with_exchange("x", "fanout");
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    assert_eq!(refusal(fixture.bind("", "q", "")), refused(403, text, 50, 20));
    assert_eq!(refusal(fixture.unbind("", "missing", "")), refused(403, text, 50, 50));
    for (source, destination) in [("", "x"), ("x", "")] {
        assert_eq!(refusal(fixture.bind_exchange(source, destination, "")), refused(403, text, 40, 30));
        assert_eq!(refusal(fixture.unbind_exchange(source, destination, "")), refused(403, text, 40, 40));
    }
}

#[test]
fn direct_reply_queues_cannot_be_bound() {
    let fixture = Fixture::new();
    let text = "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue";
    for name in ["amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.abc.def"] {
        assert_eq!(refusal(fixture.bind("missing", name, "")), refused(403, text, 50, 20));
        assert_eq!(refusal(fixture.unbind("missing", name, "")), refused(403, text, 50, 50));
    }
}

#[test]
fn the_same_binding_twice_is_one() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    fixture.bind("amq.direct", "q", "k").expect("bind");
    let exchange = fixture.vhost.exchange("amq.direct").expect("exchange");
    let version = exchange.version();
    fixture.bind("amq.direct", "q", "k").expect("bind again");
    assert_eq!(exchange.version(), version, "nothing changed");
    assert_eq!(exchange.bindings().len(), 1);
    fixture.unbind("amq.direct", "q", "k").expect("unbind");
    assert_ne!(exchange.version(), version);
    assert!(fixture.routed("amq.direct", &["k"]).is_empty());
}

#[test]
fn one_of_several_bindings_can_go() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    let extra = arguments(&[("n", AMQPValue::LongInt(1))]);
    fixture.bind("amq.topic", "q", "a.*").expect("bind");
    fixture.bind("amq.topic", "q", "a.b").expect("bind");
    fixture.bind_with("amq.topic", "q", "a.b", &extra).expect("bind");
    fixture.unbind("amq.topic", "q", "a.*").expect("unbind");
    assert_eq!(fixture.routed("amq.topic", &["a.b"]), ["q"]);
    fixture.unbind("amq.topic", "q", "a.b").expect("unbind");
    assert_eq!(fixture.routed("amq.topic", &["a.b"]), ["q"]);
    // Other arguments name another binding, which is not there.
    fixture.unbind("amq.topic", "q", "a.b").expect("unbind");
    assert_eq!(fixture.routed("amq.topic", &["a.b"]), ["q"]);
    let queue = crate::vhost::Destination::Queue(fixture.with_queue("q"));
    assert_eq!(fixture.vhost.bindings_to(&queue).len(), 1);
}

#[test]
fn anothers_exclusive_queue_is_locked() {
    let fixture = Fixture::new();
    fixture.declare_queue(QueueRequest { exclusive: true, connection: OTHER, ..queue("q") }).expect("declare");
    let none = Arguments::default();
    let request =
        |key, connection| QueueBinding { queue: "q", exchange: "amq.direct", key, arguments: &none, connection };
    let vhost = &fixture.vhost;
    vhost.bind_queue(&Unrestricted, request("k", OTHER)).expect("the owner binds");
    let code = |result| refusal(result).map(|(code, _, class, method)| (code, class, method));
    assert_eq!(code(vhost.bind_queue(&Unrestricted, request("k2", ME))), Some((405, 50, 20)));
    assert_eq!(code(vhost.unbind_queue(&Unrestricted, request("k", ME))), Some((405, 50, 50)));
    assert_eq!(
        code(vhost.unbind_queue(&Unrestricted, request("k2", ME))),
        None,
        "a binding that is not there is nobody's"
    );
}

#[test]
fn bindings_are_validated_once_both_ends_are_found() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    fixture.with_exchange("h", "headers");
    let bad = arguments(&[("x-match", text("foo"))]);
    let message = "PRECONDITION_FAILED - Invalid x-match field value <<\"foo\">>; expected all, \
                   any, all-with-x, or any-with-x";
    assert_eq!(refusal(fixture.bind_with("h", "q", "", &bad)), refused(406, message, 50, 20));
    assert!(refusal(fixture.bind_with("h", "missing", "", &bad)).is_some_and(|r| r.0 == 404));
    // Before anybody asks whose queue it is.
    fixture.declare_queue(QueueRequest { exclusive: true, connection: OTHER, ..queue("theirs") }).expect("declare");
    assert_eq!(refusal(fixture.bind_with("h", "theirs", "", &bad)), refused(406, message, 50, 20));
    assert!(refusal(fixture.bind("h", "theirs", "")).is_some_and(|r| r.0 == 405));
    assert_eq!(refusal(fixture.bind_with("amq.direct", "q", "", &bad)), None);
    let to_exchange = ExchangeBinding { destination: "amq.fanout", source: "h", key: "", arguments: &bad };
    assert_eq!(refusal(fixture.vhost.bind_exchange(&Unrestricted, to_exchange)), refused(406, message, 40, 30));
}

#[test]
fn line_breaks_are_removed_from_names_but_not_from_keys() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    fixture.bind("amq.\ndirect", "q\r", "k\n").expect("bind");
    assert_eq!(fixture.routed("amq.direct", &["k\n"]), ["q"]);
    assert!(fixture.routed("amq.direct", &["k"]).is_empty());
}

#[test]
fn a_recreated_queue_has_no_bindings() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    fixture.bind("amq.direct", "q", "k").expect("bind");
    fixture.delete_queue("q").expect("delete");
    fixture.with_queue("q");
    assert!(fixture.routed("amq.direct", &["k"]).is_empty());
}
