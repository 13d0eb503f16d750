//! Sockets: listeners, one task per connection, buffers.

mod buffers;
mod connection;
mod heartbeat;
pub mod listener;
