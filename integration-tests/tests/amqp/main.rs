//! The broker as its clients see it: the real binary, driven by lapin and by a raw socket. One file or folder per area.
//!
//! One test binary for all areas: it is linked once, and the areas run beside one another.

mod support;

#[path = "../../../storage/tests/fixtures/archive.rs"]
mod archive;

mod acknowledgements;
mod alarms;
mod allocations;
mod bad_input;
mod channel_errors;
mod compatibility;
mod configuration;
mod confirms;
mod consumer_priority;
mod consumer_timeout;
mod control;
mod dead_letter;
mod dead_letter_example;
mod deaths;
mod deduplication;
mod delayed;
mod descriptors;
mod direct_reply_to;
mod durability;
mod events;
mod exchanges;
mod expiration;
mod firehose;
mod forwarding;
mod golden;
mod handshake;
mod hash_exchanges;
mod heartbeats;
mod listeners;
mod log_tools;
mod overflow;
mod permissions;
mod priorities;
mod properties;
mod protocol_errors;
mod publish_consume;
mod qos;
mod queue_limits;
mod queues;
mod quorum;
mod recent_history;
mod routing;
mod single_active_consumer;
mod tls;
mod transactions;
mod unsupported_arguments;
mod upgrade;
