//! Users, passwords and permissions.
//!
//! # Layout
//! - `password`: salted hashes in RabbitMQ's format
//! - `patterns`: the three regular expressions of a permission
//! - `records`: users and permissions as stored
//! - `store`: who exists and may what; every change is durable through the journal
//! - `login`: checking credentials
//! - `grants`: what one connection may do, with its decisions remembered
//! - `startup`: the default user and the users of the configuration file
//!
//! Passwords and hashes never appear in `Debug` output or in a log.

mod grants;
mod login;
mod password;
mod patterns;
mod records;
mod startup;
mod store;
#[cfg(test)]
mod tests;

pub use grants::Grants;
pub use login::{AuthFailure, UserInfo};
pub use password::PasswordHash;
pub use patterns::{PatternError, Patterns};
pub use records::describe;
pub use startup::{StartupError, prepare};
pub use store::{AuthError, AuthStore, Credentials, Journal};
