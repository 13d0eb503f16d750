//! Warren: an AMQP 0-9-1 message broker that RabbitMQ's clients speak to unchanged.
//!
//! Layers, each knowing only those before it: config < model < routing < queue < vhost < session < net. ARCHITECTURE.md
//! has the map.
#![forbid(unsafe_code)]

pub mod admin;
pub mod auth;
pub mod bench;
pub mod broker;
pub mod cli;
mod client;
pub mod config;
pub mod ctl;
pub mod drain;
pub mod model;
pub mod net;
pub mod offline;
pub mod policy;
pub mod prometheus;
pub mod queue;
pub mod routing;
pub mod session;
mod start;
pub mod tls;
pub mod vhost;

pub use start::run;
