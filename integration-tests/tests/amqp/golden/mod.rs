//! Every reply code, on the wire: what is sent and what comes back, compared with a trace that was recorded from RabbitMQ.
//!
//! A trace is in `traces/`. Lines with `>` are frames of the client after its handshake, as type, channel and octets; lines with `<`
//! are what the server answers: closes with code, text, class and method, any other frame as type, channel and method. With
//! `WARREN_TEST_PEER` set the scenes are played with that node; with `WARREN_GOLDEN_RECORD` as well their traces are written.
//!
//! Codes without a scene: 311, 313, 402, 502 and 506 are none that RabbitMQ sends to a client of these queues.

mod scenes;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use integration_tests::raw::Raw;
use integration_tests::server::Server;
use integration_tests::wire::{METHOD, Reader};
use integration_tests::{id, wire};

/// One connection whose frames are written down.
struct Play<'a> {
    server: &'a Server,
    raw: Raw,
    trace: String,
}

impl<'a> Play<'a> {
    /// A connection with its first channel open.
    fn new(server: &'a Server) -> Self {
        Self { server, raw: server.channel(), trace: String::new() }
    }

    fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let octets: String = payload.iter().map(|octet| format!("{octet:02x}")).collect();
        writeln!(self.trace, "> {kind} {channel} {octets}").expect("a string");
        self.raw.send(wire::frame(kind, channel, payload));
    }

    fn method(&mut self, channel: u16, (class, method): id::Id, arguments: impl AsRef<[u8]>) {
        let payload = [&class.to_be_bytes(), &method.to_be_bytes(), arguments.as_ref()].concat();
        self.send(METHOD, channel, &payload);
    }

    /// Writes down what comes until the server has closed something, or has returned a message.
    #[track_caller]
    fn listen(&mut self) {
        loop {
            let Some(frame) = self.raw.any_frame() else {
                self.trace.push_str("< end\n");
                return;
            };
            let (kind, channel) = (frame.kind, frame.channel);
            let Some((class, method)) = frame.id() else {
                if kind != wire::HEARTBEAT {
                    writeln!(self.trace, "< {kind} {channel}").expect("a string");
                }
                if kind == wire::BODY {
                    return;
                }
                continue;
            };
            let said = matches!((class, method), id::CONNECTION_CLOSE | id::CHANNEL_CLOSE | id::BASIC_RETURN);
            write!(self.trace, "< {kind} {channel} {class}.{method}").expect("a string");
            if said {
                let mut reader = Reader::new(frame.arguments());
                let (code, text) = (reader.short(), reader.shortstr());
                let text = text.replace(&format!("vhost '{}'", self.server.vhost()), "vhost '{vhost}'");
                write!(self.trace, " {code} {text:?}").expect("a string");
            }
            if matches!((class, method), id::CONNECTION_CLOSE | id::CHANNEL_CLOSE) {
                let mut reader = Reader::new(frame.arguments());
                let _ = (reader.short(), reader.shortstr());
                writeln!(self.trace, " {}.{}", reader.short(), reader.short()).expect("a string");
                return;
            }
            self.trace.push('\n');
        }
    }
}

fn trace_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/amqp/golden/traces").join(name).with_extension("txt")
}

#[test]
fn every_reply_code_is_as_recorded() {
    let record = std::env::var_os("WARREN_GOLDEN_RECORD").is_some();
    let mut different = Vec::new();
    for (name, play) in scenes::ALL {
        let server = Server::start(crate::support::launch());
        assert!(!record || server.is_peer(), "only the peer is recorded");
        let mut scene = Play::new(&server);
        play(&mut scene);
        let path = trace_of(name);
        if record {
            std::fs::write(&path, &scene.trace).expect("written");
        }
        let recorded = std::fs::read_to_string(&path).unwrap_or_default();
        if recorded != scene.trace {
            different.push(format!("{name}, recorded:\n{recorded}played:\n{}", scene.trace));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_reply_code_has_a_trace() {
    for code in [312, 320, 403, 404, 405, 406, 501, 503, 504, 505, 530, 540, 541] {
        let has = |(name, _): &(&str, _)| {
            let text = std::fs::read_to_string(trace_of(name)).expect("a trace");
            text.lines().any(|line| line.starts_with("< ") && line.contains(&format!(" {code} \"")))
        };
        assert!(scenes::ALL.iter().any(has), "{code}");
    }
}
