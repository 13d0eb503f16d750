//! Users, passwords and permissions.
//!
//! # Layout
//! - `password`: salted hashes in RabbitMQ's format
//! - `patterns`: the three regular expressions of a permission; `topics`: the two of a topic permission
//! - `records`: users and permissions as stored
//! - `store`: who exists and may what; every change is durable through the journal
//! - `users`, `permissions`: what an operator does with them
//! - `login`: checking credentials
//! - `grants`: what one connection may do, with its decisions remembered
//! - `startup`: the default user and the users of the configuration file
//!
//! Passwords and hashes never appear in `Debug` output or in a log.

mod grants;
mod login;
mod password;
mod patterns;
mod permissions;
mod records;
mod startup;
mod store;
#[cfg(test)]
mod tests;
mod topics;
mod users;

pub use grants::Grants;
pub use login::{AuthFailure, UserInfo};
pub use password::{HashAlgorithm, PasswordHash};
pub use patterns::{PatternError, Patterns};
pub use permissions::{PermissionDefinition, TopicPermissionDefinition};
pub use records::describe;
pub use startup::{StartupError, prepare};
pub use store::{AuthError, AuthStore, Journal};
pub use topics::TopicPermission;
pub use users::{Credentials, UserDefinition};
