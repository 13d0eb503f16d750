//! Queues: how they come, whose they are, and how they go.

mod declare;
mod lifetime;

use integration_tests::server::Server;
use integration_tests::wire::Bytes;

const PASSIVE: u8 = 1;
const DURABLE: u8 = 2;
const EXCLUSIVE: u8 = 4;
const AUTO_DELETE: u8 = 8;

fn not_found(server: &Server, queue: &str) -> String {
    format!("NOT_FOUND - no queue '{queue}' in vhost '{}'", server.vhost())
}

fn locked(server: &Server, queue: &str) -> String {
    format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '{}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.",
        server.vhost()
    )
}

/// Arguments of the methods that have a queue's name and bits.
fn just_queue(queue: &str, bits: u8) -> Vec<u8> {
    Bytes::new().short(0).shortstr(queue).octet(bits).done()
}
