//! A minimal blocking AMQP client on the broker's own protocol crate, for load and for moving messages between brokers.
//!
//! # Layout
//! - `connection`: logging in, methods and their answers; `incoming`: what is read

mod connection;
mod incoming;

pub(crate) use connection::{CHANNEL, Connection, check_not_closed, short};
pub(crate) use incoming::Incoming;
