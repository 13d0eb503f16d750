//! Heartbeats in both directions.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Handshake, Raw};
use integration_tests::server::Server;
use integration_tests::wire::{self, HEARTBEAT};

fn open(server: &Server, heartbeat: u16) -> Raw {
    let mut raw = server.connect();
    let mut handshake = Handshake::plain("guest", "guest");
    handshake.heartbeat = heartbeat;
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw
}

#[test]
fn an_idle_client_hears_from_the_server() {
    let server = server();
    let mut raw = open(&server, 1);
    for _ in 0..4 {
        let frame = raw.any_frame().expect("a heartbeat");
        assert_eq!((frame.kind, frame.channel), (HEARTBEAT, 0));
        assert!(frame.payload.is_empty());
        // Our own keep the connection alive.
        raw.frame(HEARTBEAT, 0, b"");
    }
    raw.open_channel(1);
    assert_works(&mut raw, 1);
}

#[test]
fn a_silent_client_is_dropped_without_a_word() {
    let server = server();
    let mut raw = open(&server, 1);
    let mut heartbeats = 0;
    while let Some(frame) = raw.any_frame() {
        assert_eq!(frame.kind, HEARTBEAT, "{frame:?}");
        heartbeats += 1;
    }
    assert!(heartbeats >= 2, "only {heartbeats} heartbeats came");
}

#[test]
fn any_traffic_keeps_a_connection_alive() {
    let server = server();
    let mut raw = open(&server, 1);
    raw.open_channel(1);
    // Never a heartbeat of ours: a method for each of the server's, until it should have given up on us twice over.
    for _ in 0..10 {
        let frame = raw.any_frame().expect("a heartbeat");
        assert_eq!(frame.kind, HEARTBEAT);
        raw.send(wire::method(1, id::CHANNEL_FLOW, [1]));
        raw.expect(1, id::CHANNEL_FLOW_OK);
    }
}

#[test]
fn without_heartbeats_nobody_is_dropped() {
    let server = server();
    let mut quiet = open(&server, 0);
    let mut clock = open(&server, 1);
    // The silent connection with heartbeats is the clock: it is gone after some seconds.
    while clock.any_frame().is_some() {}
    quiet.open_channel(1);
    assert_works(&mut quiet, 1);
}
