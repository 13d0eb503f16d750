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
        ("PUT", "/api/vhosts/v", "{}", "vhost.created", "v", "guest"),
        ("", "", "", "permission.created", "", "guest"),
        ("PUT", "/api/users/u", r#"{"password":"p","tags":""}"#, "user.created", "u", "guest"),
        ("PUT", "/api/permissions/v/u", r#"{"configure":"","write":"","read":""}"#, "permission.created", "", "guest"),
        ("DELETE", "/api/permissions/v/u", "", "permission.deleted", "", "guest"),
        ("PUT", "/api/policies/v/p", policy, "policy.set", "p", "guest"),
        ("DELETE", "/api/policies/v/p", "", "policy.cleared", "p", "guest"),
        ("PUT", "/api/vhost-limits/v/max-queues", r#"{"value":5}"#, "parameter.set", "limits", "guest"),
        ("", "", "", "vhost.limits.set", "limits", "guest"),
        // The same again is no change.
        ("PUT", "/api/vhost-limits/v/max-queues", r#"{"value":5}"#, "", "", ""),
        ("DELETE", "/api/vhost-limits/v", "", "parameter.cleared", "limits", "guest"),
        ("", "", "", "vhost.limits.cleared", "limits", "guest"),
        ("PUT", "/api/user-limits/u/max-channels", r#"{"value":5}"#, "user.limits.set", "limits", "guest"),
        ("DELETE", "/api/user-limits/u/max-channels", "", "user.limits.cleared", "limits", "guest"),
        ("PUT", "/api/queues/v/q", "{}", "queue.created", "q", "guest"),
        ("PUT", "/api/exchanges/v/e", r#"{"type":"topic"}"#, "exchange.created", "e", "guest"),
        ("POST", "/api/bindings/v/e/e/q/q", r#"{"routing_key":"k"}"#, "binding.created", "", "guest"),
        ("DELETE", "/api/exchanges/v/e", "", "binding.deleted", "", "guest"),
        ("", "", "", "exchange.deleted", "e", "guest"),
        ("DELETE", "/api/queues/v/q", "", "queue.deleted", "q", "guest"),
        ("DELETE", "/api/users/u", "", "user.deleted", "u", "guest"),
    ] {
        if !method.is_empty() {
            let answer = server.ask(method, path, body);
            assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        }
        if event.is_empty() {
            continue;
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
fn what_is_published_here_may_be_a_duplicate() {
    let server = start();
    let once = r#"{"type":"x-message-deduplication","durable":true,"arguments":{"x-cache-size":10}}"#;
    server.expect(201, "PUT", "/api/exchanges/%2F/once", once);
    let window = r#"{"durable":true,"arguments":{"x-message-deduplication":true}}"#;
    server.expect(201, "PUT", "/api/queues/%2F/window", window);
    let publish = |exchange: &str, body: &str, id: &str| {
        let message = format!(
            r#"{{"routing_key":"window","payload":"{body}","payload_encoding":"string","properties":{{"delivery_mode":2,"headers":{{"x-deduplication-header":"{id}"}}}}}}"#
        );
        let answer = server.expect(200, "POST", &format!("/api/exchanges/%2F/{exchange}/publish"), &message);
        answer["routed"].as_bool().expect("whether it was routed")
    };
    assert!(!publish("once", "nobody", "1"));
    server.expect(201, "POST", "/api/bindings/%2F/e/once/q/window", r#"{"routing_key":"","arguments":{}}"#);
    assert!(publish("once", "first", "1"));
    assert!(publish("amq.default", "second", "2"));
    for (exchange, id) in [("once", "1"), ("amq.default", "1"), ("once", "2"), ("amq.default", "2")] {
        publish(exchange, "duplicate", id);
    }
    let mut raw = Raw::connect(server.broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    for body in ["first", "second"] {
        assert_eq!(raw.get(1, "window", true).expect("a message").text(), body);
    }
    assert!(raw.get(1, "window", true).is_none());
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
