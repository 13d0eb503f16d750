//! What operators ask a running broker from the command line: its status, and a backup.

use crate::support::*;
use integration_tests::id;
use integration_tests::process::{Broker, Finished, Launch};
use integration_tests::raw::Raw;
use integration_tests::wire::PERSISTENT;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const DURABLE: u8 = 2;

fn data_dir(launch: &Launch) -> PathBuf {
    launch.home().join("data")
}

/// Runs the command line to its end, about a data directory.
fn command(arguments: &[&str], data_dir: &Path) -> Finished {
    let start = launch().listen(None).data_dir(None);
    let started = arguments.iter().fold(start, |launch, argument| launch.flag(*argument));
    started.flag("--data-dir").flag(data_dir.to_str().expect("a path in UTF-8")).run()
}

#[track_caller]
fn succeeds(finished: &Finished) -> String {
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
    finished.stdout.clone()
}

#[track_caller]
fn fails(finished: &Finished) -> String {
    assert!(!finished.status.success() && finished.stdout.is_empty(), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    finished.stderr.clone()
}

fn confirming(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw
}

fn publish(raw: &mut Raw, queue: &str, body: &[u8]) {
    raw.publish(1, ("", queue), 0, PERSISTENT, body);
    raw.expect(1, id::BASIC_ACK);
}

#[test]
fn the_status_says_how_the_broker_is() {
    if peer_is_set("it asks Warren") {
        return;
    }
    let broker = launch().start();
    let dir = data_dir(broker.launch());
    let mut raw = confirming(&broker);
    raw.declare(1, "kept", DURABLE);
    publish(&mut raw, "kept", b"message");
    let shown = succeeds(&command(&["ctl", "status"], &dir));
    for line in ["version      0.", "connections  1\n", "queues       1 in 1 vhosts\n", "damage       none\n"] {
        assert!(shown.contains(line), "{line:?}: {shown}");
    }
    assert!(shown.contains(&format!("data         {}\n", dir.display())), "{shown}");
    let shown = succeeds(&command(&["ctl", "status", "--json"], &dir));
    for part in ["\"free_bytes\": ", "\"clean\": true", "\"damage\": []", "\"fdatasyncs\": "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // What is damaged is named, in the log and here.
    let launch = broker.kill9();
    fs::write(dir.join("key"), "no key").expect("written");
    let broker = launch.start();
    let shown = succeeds(&command(&["ctl", "status"], &dir));
    let damage = format!("damage       {} is damaged\n", dir.join("key").display());
    assert!(shown.contains(&damage), "{shown}");
    assert!(shown.contains("recovery     1 messages in 1 queues, after an unclean stop\n"), "{shown}");
    assert!(broker.terminate().status.success());
}

#[test]
fn only_a_running_broker_answers() {
    if peer_is_set("it asks Warren") {
        return;
    }
    let broker = launch().start();
    let dir = data_dir(broker.launch());
    let socket = dir.join("control.sock");
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    let launch = broker.kill9();
    assert!(socket.exists());
    let nobody = format!("warren: no broker runs on data directory {} (--data-dir says which)\n", dir.display());
    assert_eq!(fails(&command(&["ctl", "status"], &dir)), nobody);
    // The next broker replaces what the dead one left, and takes its own away. The directory lives as long as `launch`.
    let broker = launch.clone().start();
    succeeds(&command(&["ctl", "status"], &dir));
    assert!(broker.terminate().status.success());
    assert!(launch.home().join("data/key").exists() && !socket.exists());
    assert_eq!(fails(&command(&["ctl", "status"], &dir)), nobody);
    assert_eq!(fails(&command(&["backup", "copy"], &dir)), nobody);
}

/// The path of a socket has 108 octets; that of a directory may be longer.
#[test]
fn a_long_path_has_a_socket_too() {
    if peer_is_set("it asks Warren") {
        return;
    }
    let launch = launch();
    let dir = launch.home().join("d".repeat(150)).join("data");
    let broker = launch.clone().data_dir(Some(&dir)).start();
    succeeds(&command(&["ctl", "status"], &dir));
    assert!(broker.terminate().status.success());
    assert!(dir.join("key").exists() && !dir.join("control.sock").exists());
}

/// Sends a request as it stands and returns status line and body.
fn exchange(socket: &Path, request: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("the socket");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().expect("a status line").to_owned(), body.to_owned())
}

#[test]
fn errors_are_json() {
    if peer_is_set("it asks Warren") {
        return;
    }
    let broker = launch().start();
    let socket = data_dir(broker.launch()).join("control.sock");
    let ask = |first_line: &str, body: &str| {
        let length = body.len();
        let head = format!("{first_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let head = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        exchange(&socket, &(head + body))
    };
    let (status, body) = ask("GET /api/nothing", "");
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert_eq!(body, r#"{"error":"Object Not Found","reason":"Not Found"}"#);
    assert_eq!(ask("DELETE /api/warren/status", "").0, "HTTP/1.1 405 Method Not Allowed");
    for body in ["", "[]", "{\"directory\": 7}", "{\"directory\": \"/tmp/x\", \"else\": 1}"] {
        let (status, answer) = ask("POST /api/warren/backup", body);
        assert!(status.starts_with("HTTP/1.1 4") && answer.starts_with("{\"error\":"), "{body}: {status} {answer}");
    }
    let (status, answer) = ask("POST /api/warren/backup", "{\"directory\": \"relative\"}");
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(answer.contains("relative is not an absolute path"), "{answer}");
}

#[test]
fn a_backup_is_restored_by_starting_on_it() {
    if peer_is_set("it asks Warren") {
        return;
    }
    let broker = launch().start();
    let dir = data_dir(broker.launch());
    let mut raw = confirming(&broker);
    raw.declare(1, "kept", DURABLE);
    let large = vec![b'x'; 1_200_000];
    for body in [b"first".as_slice(), &large, b"gone", b"last"] {
        publish(&mut raw, "kept", body);
    }
    assert!(raw.get(1, "kept", true).is_some());
    let copies = tempfile::tempdir().expect("a directory");
    let copy = copies.path().join("copy");
    let shown = succeeds(&command(&["backup", copy.to_str().expect("UTF-8")], &dir));
    assert!(shown.starts_with(&format!("backup in {}: 1 segments, 1 large messages; ", copy.display())), "{shown}");
    let refused = fails(&command(&["backup", copy.to_str().expect("UTF-8")], &dir));
    assert_eq!(refused, format!("warren: {} is not empty\n", copy.display()));
    // The broker goes on; the copy is as it was.
    publish(&mut raw, "kept", b"later");
    let restored = launch().data_dir(Some(&copy)).start();
    let mut other = confirming(&restored);
    let mut bodies = Vec::new();
    while let Some(message) = other.get(1, "kept", true) {
        assert!(message.redelivered);
        bodies.push(message.content.body);
    }
    assert_eq!(bodies, [large, b"gone".to_vec(), b"last".to_vec()]);
    let shown = succeeds(&command(&["ctl", "status"], &copy));
    assert!(shown.contains("damage       none\n"), "{shown}");
    assert!(restored.terminate().status.success());
    assert_eq!(raw.declare(1, "kept", DURABLE).1, 4);
    assert!(broker.terminate().status.success());
}

#[test]
fn a_backup_that_is_not_finished_is_refused() {
    if peer_is_set("it starts on a directory of Warren's") {
        return;
    }
    let launch = launch();
    let dir = data_dir(&launch);
    fs::create_dir(&dir).expect("created");
    fs::write(dir.join("backup.incomplete"), "").expect("written");
    let finished = launch.clone().run();
    let line = format!("warren: {} is a backup that was not finished; it cannot be started on\n", dir.display());
    assert!(finished.stderr.ends_with(&line), "{finished:?}");
    assert!(dir.exists() && !dir.join("key").exists() && !dir.join("sled").exists());
}
