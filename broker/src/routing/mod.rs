//! Which destinations a routing key and headers lead to. Pure tables: no queues, no locks, no I/O.
//!
//! [`table::Table`] is what one exchange owns. It keeps the bindings, by destination, and a matcher
//! of the exchange's kind that answers `route` without looking at each binding, or `pick` for kinds
//! that select one destination by a number.

mod arena;
pub mod binding;
pub mod consistent_hash;
pub mod direct;
pub mod fanout;
pub mod fingerprint;
pub mod hash_on;
pub mod headers;
pub mod headers_match;
pub mod kind;
pub mod modulus;
pub mod phash2;
pub mod random;
pub mod table;
pub mod target;
pub mod targets;
pub mod topic;
pub(crate) mod visited;
