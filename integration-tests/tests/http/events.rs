//! What operators change is told on the event exchange.

use crate::client::start;
use integration_tests::id;
use integration_tests::raw::{Delivery, Raw};
use integration_tests::wire::{Bytes, Reader};

const DURABLE: u8 = 2;

/// The value of a header that is a text.
fn text(event: &Delivery, name: &str) -> String {
    let mut properties = Reader::new(&event.content.properties);
    properties.short();
    let headers = properties.longstr();
    let field = Bytes::new().field(name, b'S').done();
    let at = headers.windows(field.len()).position(|window| window == field);
    let at = at.unwrap_or_else(|| panic!("{name} is not in {headers:?}"));
    String::from_utf8(Reader::new(&headers[at + field.len()..]).longstr().to_vec()).expect("UTF-8")
}

#[test]
fn operators_changes_are_told() {
    let server = start();
    let mut raw = Raw::connect(server.broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.declare(1, "events", DURABLE);
    raw.bind(1, "events", "amq.rabbitmq.event", "#", &[]);
    raw.consume(1, "events", "", 2);
    let mut next = || loop {
        let event = raw.delivery(1);
        // Those of this connection and of logins come as they come.
        if !["consumer.", "user.authentication."].iter().any(|prefix| event.routing_key.starts_with(prefix)) {
            return event;
        }
    };
    assert_eq!(next().routing_key.as_str(), "binding.created");
    let policy = r#"{"pattern":"^a","definition":{"message-ttl":5},"apply-to":"queues"}"#;
    for (method, path, body, event, name, by) in [
        ("PUT", "/api/vhosts/v", "{}", "vhost.created", "v", "rmq-cli"),
        ("", "", "", "permission.created", "", "rmq-cli"),
        ("PUT", "/api/users/u", r#"{"password":"p","tags":""}"#, "user.created", "u", "rmq-cli"),
        (
            "PUT",
            "/api/permissions/v/u",
            r#"{"configure":"","write":"","read":""}"#,
            "permission.created",
            "",
            "rmq-cli",
        ),
        ("DELETE", "/api/permissions/v/u", "", "permission.deleted", "", "rmq-cli"),
        ("PUT", "/api/policies/v/p", policy, "policy.set", "p", "rmq-cli"),
        ("DELETE", "/api/policies/v/p", "", "policy.cleared", "p", "rmq-cli"),
        ("PUT", "/api/queues/v/q", "{}", "queue.created", "q", "guest"),
        ("PUT", "/api/exchanges/v/e", r#"{"type":"topic"}"#, "exchange.created", "e", "guest"),
        ("POST", "/api/bindings/v/e/e/q/q", r#"{"routing_key":"k"}"#, "binding.created", "", "guest"),
        ("DELETE", "/api/exchanges/v/e", "", "binding.deleted", "", "guest"),
        ("", "", "", "exchange.deleted", "e", "guest"),
        ("DELETE", "/api/queues/v/q", "", "queue.deleted", "q", "guest"),
        ("DELETE", "/api/users/u", "", "user.deleted", "u", "rmq-cli"),
    ] {
        if !method.is_empty() {
            let answer = server.ask(method, path, body);
            assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        }
        let told = next();
        assert_eq!(told.routing_key.as_str(), event, "{method} {path}");
        assert_eq!(text(&told, "user_who_performed_action"), by, "{event}");
        if !name.is_empty() {
            assert_eq!(text(&told, "name"), name, "{event}");
        }
    }
    assert!(server.broker.terminate().status.success());
}

#[test]
fn the_firehose_is_a_field_of_the_virtual_host() {
    let server = start();
    let path = "/api/vhosts/v";
    server.expect(201, "PUT", path, r#"{"tracing":true,"description":"d"}"#);
    let shown = |expected: bool| {
        assert_eq!(server.expect(200, "GET", path, "")["tracing"], expected);
    };
    shown(true);
    server.expect(204, "PUT", path, r#"{"description":"d"}"#);
    shown(true);
    let refused = server.expect(400, "PUT", path, r#"{"tracing":"no"}"#);
    assert_eq!(refused, serde_json::json!({"error": "bad_request", "reason": ["not_boolean", "no"]}));
    shown(true);
    server.expect(204, "PUT", path, r#"{"tracing":"false"}"#);
    shown(false);
    assert!(server.broker.terminate().status.success());
}

#[test]
fn what_is_published_here_is_delayed_and_kept() {
    let server = start();
    let kept = r#"{"type":"x-recent-history","durable":true,"arguments":{"x-delayed-exchange":true}}"#;
    server.expect(201, "PUT", "/api/exchanges/%2F/e", kept);
    for (delay, body) in [(3_600_000, "much later"), (0, "now")] {
        let message = format!(
            r#"{{"routing_key":"k","payload":"{body}","payload_encoding":"string","properties":{{"headers":{{"x-delay":{delay}}}}}}}"#
        );
        let routed = server.expect(200, "POST", "/api/exchanges/%2F/e/publish", &message);
        assert_eq!(routed["routed"], body != "now");
    }
    let mut raw = Raw::connect(server.broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, "e", "", &[]);
    assert_eq!(raw.get(1, &queue, true).expect("the history").text(), "now");
    assert!(raw.get(1, &queue, true).is_none());
    raw.call(1, id::EXCHANGE_DELETE, Bytes::new().short(0).shortstr("e").octet(0), id::EXCHANGE_DELETE_OK);
    assert!(server.broker.terminate().status.success());
}
