//! Which destinations a routing key and headers lead to. Pure tables: no queues, no locks, no I/O.
//!
//! [`table::Table`] is what one exchange owns. It keeps the bindings, by destination, and a matcher
//! of the exchange's kind that answers `route` without looking at each binding.

mod arena;
pub mod binding;
pub mod direct;
pub mod fanout;
pub mod headers;
pub mod headers_match;
pub mod kind;
pub mod table;
pub mod targets;
pub mod topic;
pub(crate) mod visited;
