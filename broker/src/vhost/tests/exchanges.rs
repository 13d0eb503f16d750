//! exchange.declare and exchange.delete.

use super::*;

#[test]
fn the_predeclared_ones_are_there() {
    let fixture = Fixture::new();
    for (name, kind, internal) in [
        ("", "direct", false),
        ("amq.direct", "direct", false),
        ("amq.fanout", "fanout", false),
        ("amq.topic", "topic", false),
        ("amq.headers", "headers", false),
        ("amq.match", "headers", false),
        ("amq.rabbitmq.trace", "topic", true),
        ("amq.rabbitmq.event", "topic", true),
    ] {
        let exchange = fixture.vhost.exchange(name).expect("exchange");
        assert_eq!(exchange.kind().name(), kind);
        assert_eq!(exchange.internal(), internal);
        assert!(exchange.durable() && !exchange.auto_delete());
    }
    assert_eq!(fixture.vhost.exchanges().len(), 8);
}

#[test]
fn redeclaring_a_predeclared_one_is_fine() {
    let fixture = Fixture::new();
    let request = ExchangeRequest { durable: true, ..exchange("amq.direct", "direct") };
    assert_eq!(refusal(fixture.declare_exchange(request)), None);
}

#[test]
fn unknown_types_are_refused_before_anything_else() {
    let fixture = Fixture::new();
    assert_eq!(
        refusal(fixture.declare_exchange(exchange("", "nonsense"))),
        refused(406, "PRECONDITION_FAILED - invalid exchange type 'nonsense'", 40, 10)
    );
    fixture.with_exchange("x", "direct");
    assert_eq!(
        refusal(fixture.declare_exchange(exchange("x", "x-message-deduplication"))),
        refused(540, "NOT_IMPLEMENTED - exchange type 'x-message-deduplication' is not supported yet", 40, 10)
    );
}

#[test]
fn the_default_exchange_is_left_alone() {
    let fixture = Fixture::new();
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    let vhost = &fixture.vhost;
    assert_eq!(refusal(fixture.declare_exchange(exchange("", "direct"))), refused(403, text, 40, 10));
    assert_eq!(refusal(vhost.declare_exchange_passive(&Unrestricted, "")), refused(403, text, 40, 10));
    assert_eq!(refusal(vhost.delete_exchange(&Unrestricted, "\r\n", false)), refused(403, text, 40, 20));
}

#[test]
fn reserved_names_cannot_be_created() {
    let fixture = Fixture::new();
    assert_eq!(
        refusal(fixture.declare_exchange(exchange("amq.foo", "direct"))),
        refused(403, "ACCESS_REFUSED - exchange name 'amq.foo' contains reserved prefix 'amq.*'", 40, 10)
    );
}

#[test]
fn line_breaks_are_removed_from_names() {
    let fixture = Fixture::new();
    fixture.with_exchange("p4.x\r\ny", "direct");
    assert!(fixture.has_exchange("p4.xy"));
    assert_eq!(refusal(fixture.vhost.delete_exchange(&Unrestricted, "p4\n.xy", false)), None);
    assert!(!fixture.has_exchange("p4.xy"));
}

#[test]
fn passive_only_asks_for_existence() {
    let fixture = Fixture::new();
    fixture.with_exchange("x", "topic");
    let passive = |name| refusal(fixture.vhost.declare_exchange_passive(&Unrestricted, name));
    assert_eq!(passive("x"), None);
    assert_eq!(passive("amq.y"), refused(404, "NOT_FOUND - no exchange 'amq.y' in vhost '/'", 40, 10));
}

#[test]
fn a_redeclare_must_be_equivalent() {
    let fixture = Fixture::new();
    let original = || ExchangeRequest {
        arguments: arguments(&[("alternate-exchange", text("ae")), ("nonsense", text("1"))]),
        ..exchange("x", "direct")
    };
    let mismatch = |request| {
        let (code, text, class, method) = refusal(fixture.declare_exchange(request))?;
        assert_eq!((code, class, method), (406, 40, 10));
        let rest = text.strip_prefix("PRECONDITION_FAILED - inequivalent arg ")?;
        Some(rest.to_owned())
    };
    assert_eq!(mismatch(original()), None);
    assert_eq!(mismatch(original()), None);
    let ignored = ExchangeRequest {
        arguments: arguments(&[("alternate-exchange", text("ae")), ("x-cache-size", text("1"))]),
        ..original()
    };
    assert_eq!(mismatch(ignored), None);
    for (request, text) in [
        (
            ExchangeRequest { kind: "fanout", durable: true, ..original() },
            "'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'direct'",
        ),
        (
            ExchangeRequest { durable: true, auto_delete: true, ..original() },
            "'durable' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            ExchangeRequest { auto_delete: true, internal: true, ..original() },
            "'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            ExchangeRequest { internal: true, arguments: Arguments::default(), ..original() },
            "'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            ExchangeRequest { arguments: Arguments::default(), ..original() },
            "'alternate-exchange' for exchange 'x' in vhost '/': received none but current is \
             the value 'ae' of type 'longstr'",
        ),
        (
            ExchangeRequest { arguments: arguments(&[("alternate-exchange", text("other"))]), ..original() },
            "'alternate-exchange' for exchange 'x' in vhost '/': received 'other' but current is \
             'ae'",
        ),
    ] {
        assert_eq!(mismatch(request).as_deref(), Some(text));
    }
}

#[test]
fn an_alternate_is_a_name() {
    let fixture = Fixture::new();
    let request = ExchangeRequest {
        arguments: arguments(&[("alternate-exchange", AMQPValue::LongInt(1))]),
        ..exchange("x", "direct")
    };
    assert_eq!(
        refusal(fixture.declare_exchange(request)),
        refused(
            406,
            "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in \
             exchange 'x' in vhost '/'",
            40,
            10
        )
    );
    assert!(!fixture.has_exchange("x"));
}

#[test]
fn arguments_that_have_not_landed_are_named() {
    let fixture = Fixture::new();
    let request = ExchangeRequest {
        arguments: arguments(&[("x-message-deduplication", AMQPValue::Boolean(true))]),
        ..exchange("x", "direct")
    };
    assert_eq!(
        refusal(fixture.declare_exchange(request)),
        refused(540, "NOT_IMPLEMENTED - exchange argument 'x-message-deduplication' is not supported yet", 40, 10)
    );
}

#[test]
fn deleting_a_missing_one_is_fine_but_never_a_system_one() {
    let fixture = Fixture::new();
    let delete = |name| refusal(fixture.vhost.delete_exchange(&Unrestricted, name, true));
    assert_eq!(delete("missing"), None);
    for name in ["amq.topic", "amq.missing"] {
        let text = format!("ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed");
        assert_eq!(delete(name), refused(403, &text, 40, 20));
    }
}

#[test]
fn in_use_means_having_bindings_as_a_source() {
    let fixture = Fixture::new();
    fixture.with_exchange("source", "fanout");
    fixture.with_exchange("destination", "fanout");
    fixture.bind_exchange("source", "destination", "").expect("bind");
    let delete = |name| refusal(fixture.vhost.delete_exchange(&Unrestricted, name, true));
    assert_eq!(delete("source"), refused(406, "PRECONDITION_FAILED - exchange 'source' in vhost '/' in use", 40, 20));
    assert_eq!(delete("destination"), None);
    assert!(!fixture.has_exchange("destination"));
    assert_eq!(delete("source"), None);
}

#[test]
fn a_new_one_of_the_same_name_has_no_bindings() {
    let fixture = Fixture::new();
    fixture.with_exchange("x", "fanout");
    fixture.with_queue("q");
    fixture.bind("x", "q", "").expect("bind");
    let old = fixture.vhost.exchange("x").expect("exchange");
    let version = old.version();
    fixture.vhost.delete_exchange(&Unrestricted, "x", false).expect("delete");
    assert!(old.is_deleted() && old.version() != version);
    fixture.with_exchange("x", "fanout");
    assert!(fixture.routed("x", &[""]).is_empty());
}
