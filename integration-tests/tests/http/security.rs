//! Who may not, and what a request may not be.

use crate::client::{GUEST, start};
use serde_json::{Value, json};
use std::io::{Read, Write};

#[test]
fn without_the_right_password_nobody_gets_in() {
    let server = start();
    let nobody = server.ask_as(None, "GET", "/api/overview", "");
    assert_eq!((nobody.status, nobody.body), (401, Value::Null));
    assert!(nobody.head.contains("www-authenticate: basic realm=\"rabbitmq management\""), "{}", nobody.head);
    // guest:wrong, and what is no credentials at all.
    for credentials in ["Z3Vlc3Q6d3Jvbmc=", "!", "Z3Vlc3Q="] {
        let refused = server.ask_as(Some(credentials), "GET", "/api/overview", "");
        let expected = json!({"error": "not_authorized", "reason": "Not_Authorized"});
        assert_eq!((refused.status, refused.body), (401, expected), "{credentials}");
    }
}

#[test]
fn tags_say_what_a_user_may_do() {
    let server = start();
    // name:x in base64.
    for (name, tags, login) in
        [("mon", "monitoring", "bW9uOng="), ("man", "management", "bWFuOng="), ("non", "", "bm9uOng=")]
    {
        let body = json!({"password": "x", "tags": tags}).to_string();
        server.expect(201, "PUT", &format!("/api/users/{name}"), &body);
        let ask = |method: &str, path: &str| {
            let answer = server.ask_as(Some(login), method, path, "{}");
            (answer.status, answer.body["reason"].as_str().unwrap_or_default().to_owned())
        };
        let refused = |reason: &str| (401, reason.to_owned());
        if tags.is_empty() {
            assert_eq!(ask("GET", "/api/whoami"), refused("Not management user"));
            continue;
        }
        assert_eq!(ask("GET", "/api/whoami").0, 200);
        assert_eq!(ask("GET", "/api/users"), refused("Not administrator user"));
        assert_eq!(ask("GET", "/api/definitions"), refused("Not administrator user"));
        assert_eq!(ask("PUT", "/api/vhosts/v"), refused("Not administrator user"));
        assert_ne!(ask("PUT", "/api/queues/%2F/q").0, 201);
        let nodes = ask("GET", "/api/nodes");
        assert_eq!(nodes, if tags == "monitoring" { (200, String::new()) } else { refused("Not monitor user") });
    }
    server.expect(404, "GET", "/api/queues/%2F/q", "");
}

#[test]
fn paths_lead_nowhere_else() {
    let server = start();
    for path in
        ["/api/../etc/passwd", "/api/%2e%2e/etc/passwd", "/etc/passwd", "/api/warren/status", "/api/warren/backup"]
    {
        assert_eq!(server.ask("GET", path, "").status, 404, "{path}");
    }
    assert_eq!(server.ask("POST", "/api/warren/backup", "{\"directory\":\"/tmp/x\"}").status, 404);
    assert_eq!(server.ask("GET", "/api/queues/%zz", "").status, 400);
    // A name with line breaks does not become a header.
    let answer = server.ask("POST", "/api/bindings/%2F/e/amq.direct/q/a%0D%0AX-Evil:%201", "{}");
    assert!(answer.status == 404 && !answer.head.contains("x-evil"), "{}", answer.head);
    assert_eq!(server.ask("PATCH", "/api/overview", "").status, 405);
    assert_eq!(server.expect(400, "PUT", "/api/vhosts/v", "{")["reason"], "not_json");
}

#[test]
fn a_body_that_is_too_large_is_refused_unread() {
    let server = start();
    let head = format!("POST /api/definitions HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {GUEST}\r\n");
    let answer = server.raw(&format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n", (64 << 20) + 1));
    assert_eq!(answer.status, 413);
}

/// A client that never ends its head is cut off, and holds nobody up meanwhile.
#[test]
fn a_slow_head_is_cut_off() {
    let server = start();
    let mut slow = server.open();
    slow.write_all(b"GET /api/overview HTTP/1.1\r\nX-Slow: ").expect("written");
    server.expect(200, "GET", "/api/overview", "");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
