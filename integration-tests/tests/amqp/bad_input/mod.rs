//! Input no client should send: an exact error or a closed connection, bounded memory, and nobody else notices.

mod floods;
mod frames;
mod tables;

use crate::support::*;
use integration_tests::id;
use integration_tests::process::Broker;
use integration_tests::raw::Raw;
use integration_tests::server::Server;
use integration_tests::wire;

const WARREN_ONLY: &str = "it is about what Warren survives";

const DEEP: usize = 100_000;

/// A broker with frames large enough for everything here, and a connection that must not notice anything.
fn victim(config: &str) -> (Server, Raw) {
    let server = Server::own(launch().config(config));
    let bystander = server.channel();
    (server, bystander)
}

fn broker(server: &Server) -> &Broker {
    server.broker().expect("a broker of our own")
}

#[track_caller]
fn assert_memory_below(server: &Server, mib: u64) {
    let peak = broker(server).peak_resident_bytes() >> 20;
    assert!(peak < mib, "{peak} MiB were resident, not below {mib}");
}

/// The server must end this connection, with or without a connection.close that names a protocol error.
#[track_caller]
fn assert_ended(raw: &mut Raw, what: &str) {
    let Some(frame) = raw.next_frame() else {
        return;
    };
    assert_eq!(frame.id(), Some(id::CONNECTION_CLOSE), "{what}: {frame:?}");
    let code = u16::from_be_bytes([frame.arguments()[0], frame.arguments()[1]]);
    assert!([501, 502, 503, 504, 505, 530].contains(&code), "{what}: {frame:?}");
    raw.try_send(wire::method(0, id::CONNECTION_CLOSE_OK, []));
    raw.expect_end();
}
