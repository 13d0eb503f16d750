//! Sockets: listeners, one task per connection, buffers.

mod buffers;
mod connection;
mod descriptors;
pub mod door;
mod heartbeat;
pub mod listener;
mod proxy;
pub mod unix;
