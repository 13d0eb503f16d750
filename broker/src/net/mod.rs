//! Sockets: listeners, one task per connection, buffers.

mod buffers;
mod connection;
mod descriptors;
mod heartbeat;
pub mod listener;
