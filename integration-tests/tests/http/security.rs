//! Who may not, and what a request may not be.

use crate::client::{GUEST, Server, start, start_with};
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
    let server = start_with("header_timeout_ms = 200");
    let mut slow = server.open();
    slow.write_all(b"GET /api/overview HTTP/1.1\r\nX-Slow: ").expect("written");
    server.expect(200, "GET", "/api/overview", "");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

/// Nor does one that never ends its body.
#[test]
fn a_slow_body_is_cut_off() {
    let server = start_with("body_timeout_ms = 200");
    let head = format!("PUT /api/queues/%2F/q HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {GUEST}\r\n");
    let answer = server.raw(&format!("{head}Connection: close\r\nContent-Length: 10\r\n\r\n{{"));
    assert_eq!(answer.status, 408);
    server.expect(404, "GET", "/api/queues/%2F/q", "");
}

/// Who has a place and does nothing with it loses it to who waits.
#[test]
fn idle_connections_make_room() {
    let server = start_with("connections = 2\nheader_timeout_ms = 200");
    let idle = [server.open(), server.open()];
    server.expect(200, "GET", "/api/whoami", "");
    for mut stream in idle {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the connection ends");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn a_body_in_pieces_ends_at_the_same_size() {
    let server = start();
    let mut stream = server.open();
    let head = format!("POST /api/definitions HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {GUEST}\r\n");
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).expect("written");
    let piece = vec![b' '; 1 << 20];
    for _ in 0..64 {
        stream.write_all(b"100000\r\n").expect("written");
        stream.write_all(&piece).expect("written");
        stream.write_all(b"\r\n").expect("written");
    }
    stream.write_all(b"1\r\n \r\n").expect("written");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 413");
}

/// The same answer to both, so that nobody learns which names there are.
#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let server = start();
    let told = |head: &str| head.lines().filter(|line| !line.starts_with("date")).collect::<Vec<_>>().join("\n");
    // guest:wrong and nobody:wrong.
    let [wrong, unknown] = ["Z3Vlc3Q6d3Jvbmc=", "bm9ib2R5Ondyb25n"].map(|login| {
        let answer = server.ask_as(Some(login), "GET", "/api/overview", "");
        (answer.status, told(&answer.head), answer.body)
    });
    assert_eq!(wrong, unknown);
    assert_eq!(wrong.0, 401);
}

#[test]
fn names_stay_names() {
    let server = start();
    for name in ["..%2F..%2Fetc%2Fpasswd", "a%00b", "%2E%2E", "%3Cscript%3E"] {
        let path = format!("/api/queues/%2F/{name}");
        server.expect(201, "PUT", &path, "{}");
        server.expect(200, "GET", &path, "");
        let bound = server.ask(
            "POST",
            &format!("/api/bindings/%2F/e/amq.direct/q/{name}"),
            r#"{"routing_key":"k\r\nX-Evil: 1"}"#,
        );
        assert!(bound.status == 201 && !bound.head.contains("\nx-evil"), "{}", bound.head);
        server.expect(204, "DELETE", &path, "");
    }
    for path in ["/api/queues/%2F/%ff", "/api/queues/%2F/%c3%28", "/api/queues/%"] {
        server.expect(400, "GET", path, "");
    }
    alive(&server);
}

#[test]
fn hostile_json_is_refused() {
    let server = start();
    let deep = format!(r#"{{"arguments":{}1{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    for body in [&deep, &"[".repeat(1_000_000), r#"{"durable":1e999}"#, "{\"durable\":tru", "\u{0}", "[]", "5", "nul"] {
        assert_eq!(server.expect(400, "PUT", "/api/queues/%2F/q", body)["reason"], "not_json");
    }
    for arguments in [
        r#"{"x-max-length":1e30}"#,
        r#"{"x-max-length":99999999999999999999999999}"#,
        r#"{"x-message-ttl":-1}"#,
        r#"{"x-expires":0}"#,
        r#"{"x-max-priority":256}"#,
    ] {
        server.expect(400, "PUT", "/api/queues/%2F/q", &format!(r#"{{"durable":true,"arguments":{arguments}}}"#));
    }
    for query in [
        "page=99999999999999999999",
        "page=-1",
        "page_size=1e9",
        "page=1&page_size=501",
        "page=1&use_regex=true&name=%28",
    ] {
        server.expect(400, "GET", &format!("/api/queues?{query}"), "");
    }
    let mut stream = server.open();
    let head =
        format!("PUT /api/queues/%2F/q HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {GUEST}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: 4\r\n\r\n").as_bytes()).expect("written");
    stream.write_all(b"{\xff\xfe}").expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    server.expect(404, "GET", "/api/queues/%2F/q", "");
    alive(&server);
}

/// No site may ask in a user's name, and what is answered is no page.
#[test]
fn answers_cannot_be_taken_for_something_else() {
    let server = start();
    let preflight = server.ask_as(None, "OPTIONS", "/api/queues", "");
    assert_eq!(preflight.status, 200);
    for answer in [preflight, server.ask("GET", "/api/overview", ""), server.ask("GET", "/api/nosuch", "")] {
        assert!(!answer.head.contains("access-control-"), "{}", answer.head);
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
        assert!(answer.head.contains("content-security-policy: default-src 'none'"), "{}", answer.head);
    }
}

#[test]
fn the_page_is_for_users_and_runs_nothing_but_its_own_script() {
    let server = start();
    // Nobody, and guest:wrong: the browser is to ask.
    for login in [None, Some("Z3Vlc3Q6d3Jvbmc=")] {
        let refused = server.ask_as(login, "GET", "/", "");
        assert!(refused.status == 401 && refused.head.contains("www-authenticate: basic"), "{}", refused.head);
    }
    let page = server.ask("GET", "/", "");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html"), "{}", page.head);
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy")).expect("a policy");
    assert!(policy.contains("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(server.ask("POST", "/", "").status, 405);
}

fn alive(server: &Server) {
    server.expect(200, "GET", "/api/health/checks/is-in-service", "");
}
