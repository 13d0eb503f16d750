//! Each kind of resource, with the codes and texts of RabbitMQ 4.3.

use crate::client::{Server, start};
use integration_tests::id;
use integration_tests::raw::Raw;
use serde_json::json;

#[test]
fn queues_exchanges_and_bindings() {
    let server = start();
    let queue = "/api/queues/%2F/a%2Fb";
    server.expect(201, "PUT", queue, r#"{"durable":true}"#);
    server.expect(204, "PUT", queue, r#"{"durable":true}"#);
    let refused = server.expect(400, "PUT", queue, r#"{"durable":false}"#);
    let text = "inequivalent arg 'durable' for queue 'a/b' in vhost '/': received 'false' but current is 'true'";
    assert_eq!(refused, json!({"error": "bad_request", "reason": text}));
    let refused = server.expect(400, "PUT", queue, r#"{"durable":1}"#);
    assert_eq!(refused, json!({"error": "bad_request", "reason": ["not_boolean", 1]}));
    let refused = server.expect(400, "PUT", "/api/exchanges/%2F/x", r#"{"type":"nosuch"}"#);
    assert_eq!(refused["reason"], "invalid exchange type 'nosuch'");
    let bound = server.ask("POST", "/api/bindings/%2F/e/amq.direct/q/a%2Fb", r#"{"routing_key":"k"}"#);
    assert!(bound.status == 201 && bound.head.contains("location: a%2fb/k"), "{}", bound.head);
    let binding = server.expect(200, "GET", "/api/bindings/%2F/e/amq.direct/q/a%2Fb/k", "");
    let expected = json!({
        "source": "amq.direct", "vhost": "/", "destination": "a/b", "destination_type": "queue", "routing_key": "k",
        "arguments": {}, "properties_key": "k"
    });
    assert_eq!(binding, expected);
    let message =
        r#"{"routing_key":"k","payload":"aGk=","payload_encoding":"base64","properties":{"delivery_mode":2}}"#;
    let routed = server.expect(200, "POST", "/api/exchanges/%2F/amq.direct/publish", message);
    assert_eq!(routed, json!({"routed": true}));
    let shown = server.expect(200, "GET", queue, "");
    assert_eq!((&shown["messages"], &shown["messages_ready"]), (&json!(1), &json!(1)));
    server.expect(204, "DELETE", &format!("{queue}/contents"), "");
    assert_eq!(server.expect(200, "GET", queue, "")["messages"], 0);
    server.expect(204, "DELETE", "/api/bindings/%2F/e/amq.direct/q/a%2Fb/k", "");
    server.expect(204, "DELETE", queue, "");
    let gone = server.expect(404, "GET", queue, "");
    assert_eq!(gone, json!({"error": "Object Not Found", "reason": "Not Found"}));
    assert!(server.broker.terminate().status.success());
}

#[test]
fn lists_have_pages_columns_and_an_order() {
    let server = start();
    for name in ["qa", "qb", "qc"] {
        server.expect(201, "PUT", &format!("/api/queues/%2F/{name}"), "{}");
    }
    let page = server.expect(200, "GET", "/api/queues?page=2&page_size=1&name=q&columns=name&sort=name", "");
    let expected = json!({
        "filtered_count": 3, "item_count": 1, "items": [{"name": "qb"}], "page": 2, "page_count": 3, "page_size": 1,
        "total_count": 3
    });
    assert_eq!(page, expected);
    let reverse = server.expect(200, "GET", "/api/queues/%2F?sort=name&sort_reverse=true&columns=name,messages", "");
    assert_eq!(reverse[0], json!({"messages": 0, "name": "qc"}));
    let wrong = server.expect(400, "GET", "/api/queues?page=0", "");
    let reason = "Invalid pagination parameters: page number 0, page size undefined";
    assert_eq!(wrong, json!({"error": "invalid_pagination_parameters", "reason": reason}));
}

#[test]
fn a_connection_is_listed_and_closed() {
    let server = start();
    let mut raw = Raw::connect(server.broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    let all = server.expect(200, "GET", "/api/connections/", "");
    let name = all[0]["name"].as_str().expect("a name");
    assert_eq!((&all[0]["user"], &all[0]["state"]), (&json!("guest"), &json!("running")));
    let path = format!("/api/connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
    assert_eq!(server.expect(200, "GET", &path, "")["name"], name);
    server.expect(204, "DELETE", &path, "");
    raw.expect(0, id::CONNECTION_CLOSE);
}

#[test]
fn definitions_come_back_and_a_wrong_one_changes_nothing() {
    let server = start();
    server.expect(201, "PUT", "/api/vhosts/v", "{}");
    server.expect(201, "PUT", "/api/users/ann", r#"{"password":"secret","tags":"monitoring"}"#);
    server.expect(201, "PUT", "/api/permissions/v/ann", r#"{"configure":"a","write":"b","read":"c"}"#);
    server.expect(201, "PUT", "/api/policies/v/p", r#"{"pattern":"^q","definition":{"max-length":5}}"#);
    server.expect(201, "PUT", "/api/queues/v/q", r#"{"arguments":{"x-queue-type":"classic"}}"#);
    server.expect(201, "POST", "/api/bindings/v/e/amq.topic/q/q", r##"{"routing_key":"a.#"}"##);
    let exported = server.expect(200, "GET", "/api/definitions", "");
    let copy = start();
    copy.expect(204, "POST", "/api/definitions", &exported.to_string());
    // Again changes nothing.
    copy.expect(204, "POST", "/api/definitions", &exported.to_string());
    let again = copy.expect(200, "GET", "/api/definitions", "");
    for part in ["users", "vhosts", "permissions", "policies", "queues", "exchanges", "bindings"] {
        assert_eq!(again[part], exported[part], "{part}");
    }
    let mut wrong = exported.clone();
    wrong["vhosts"].as_array_mut().expect("a list").push(json!({"name": "new"}));
    wrong["policies"][0]["pattern"] = json!("(");
    let refused = copy.expect(400, "POST", "/api/definitions", &wrong.to_string());
    assert!(
        refused["reason"].as_str().is_some_and(|reason| reason.starts_with("policies[0] (name \"p\", vhost \"v\"): ")),
        "{refused}"
    );
    copy.expect(404, "GET", "/api/vhosts/new", "");
}

/// The keys that tools read, which RabbitMQ 4.3 has as well.
#[test]
fn resources_have_the_keys_that_tools_read() {
    let server: Server = start();
    server.expect(201, "PUT", "/api/queues/%2F/q", "{}");
    for (path, keys) in [
        (
            "/api/overview",
            "management_version product_name rabbitmq_version cluster_name queue_totals object_totals node listeners",
        ),
        ("/api/nodes", "name type running os_pid mem_limit mem_alarm disk_free disk_free_limit disk_free_alarm uptime"),
        ("/api/vhosts", "name description tags default_queue_type metadata tracing cluster_state messages"),
        ("/api/users", "name password_hash hashing_algorithm tags limits"),
        ("/api/permissions", "user vhost configure write read"),
        ("/api/exchanges", "name vhost type durable auto_delete internal arguments"),
        (
            "/api/queues",
            "name vhost type durable auto_delete exclusive arguments messages messages_ready messages_unacknowledged consumers node state",
        ),
        ("/api/bindings", "source vhost destination destination_type routing_key arguments properties_key"),
        ("/api/whoami", "name tags is_internal_user"),
    ] {
        let answer = server.expect(200, "GET", path, "");
        let object = answer.get(0).unwrap_or(&answer);
        for key in keys.split(' ') {
            assert!(object.get(key).is_some(), "{path} has no {key}: {object}");
        }
    }
}

#[test]
fn quorum_queues_say_what_they_are() {
    let server: Server = start();
    let declare = |name: &str, arguments: &str| {
        let body = format!(r#"{{"arguments":{{"x-queue-type":"quorum"{arguments}}}}}"#);
        server.expect(201, "PUT", &format!("/api/queues/%2F/{name}"), &body);
        server.expect(200, "GET", &format!("/api/queues/%2F/{name}"), "")
    };
    let plain = declare("plain", "");
    assert_eq!((&plain["type"], &plain["delivery_limit"]), (&json!("quorum"), &json!(20)));
    assert_eq!((&plain["members"], &plain["online"]), (&json!([plain["node"]]), &json!([plain["leader"]])));
    assert_eq!(declare("limited", r#","x-delivery-limit":3"#)["delivery_limit"], json!(3));
    assert_eq!(declare("unlimited", r#","x-delivery-limit":-1"#)["delivery_limit"], json!("unlimited"));
    server.expect(201, "PUT", "/api/queues/%2F/classic", "{}");
    let classic = server.expect(200, "GET", "/api/queues/%2F/classic", "");
    assert_eq!((&classic["type"], classic.get("delivery_limit")), (&json!("classic"), None));
    let wrong = r#"{"auto_delete":true,"arguments":{"x-queue-type":"quorum"}}"#;
    let refused = server.expect(400, "PUT", "/api/queues/%2F/wrong", wrong);
    assert_eq!(refused["reason"], json!("invalid property 'auto-delete' for queue 'wrong' in vhost '/'"));
}
