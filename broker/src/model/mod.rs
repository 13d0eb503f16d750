//! Values that every layer of the broker speaks about: arguments, identities, access rights.

pub mod access;
pub mod argument_errors;
pub mod arguments;
pub mod attempts;
pub mod clock;
pub mod collections;
pub mod consumer_arguments;
pub mod copies;
pub mod counters;
pub mod dead_letter_arguments;
pub mod death;
pub mod deduplication;
pub mod delay;
pub mod delivery_arguments;
pub mod erlang_term;
pub mod events;
pub mod expiration;
pub mod limit_arguments;
pub mod limits;
pub mod log_control;
pub mod log_limit;
pub mod memory;
pub mod message;
pub mod operation;
pub mod pattern;
pub mod peer;
pub mod property_table;
pub mod queue_arguments;
pub mod queue_kind;
pub mod received;
pub mod statistics;

/// A client connection, numbered by the broker for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);
