//! What the integration tests share: starting the real broker, and a raw AMQP client that trusts nobody.
//!
//! # Layout
//! - [`process`]: one broker process: starting it, its output, its end.
//! - [`server`]: whatever a test speaks to: a broker of its own, or the peer that `WARREN_TEST_PEER` names.
//! - [`peer`]: preparing a RabbitMQ node (virtual hosts, users) through its management interface.
//! - [`id`]: the numbers of the methods.
//! - [`wire`]: building and taking apart AMQP data by hand.
//! - [`raw`]: a client over a plain socket, for what no well-behaved client would send.
//!
//! Nothing here uses the `protocol` crate: a mistake there must not cancel out against itself.
//! Everything here is for tests and therefore panics, with what it saw, when the broker does not do what was asked.
//!
//! # Against a real RabbitMQ
//! With `WARREN_TEST_PEER=127.0.0.1:5673` every test that needs nothing of Warren's own runs against the node at that
//! address instead (guest/guest, management 10,000 ports higher). Each test gets a virtual host of its own there.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub mod id;
mod output;
pub mod peer;
pub mod process;
pub mod raw;
pub mod server;
pub mod wire;

/// How long any single event may take before a test gives up. Generous: it only decides how fast a failure is seen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A name no other test and no other run uses.
pub fn unique(subject: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{number}-{subject}", std::process::id())
}
