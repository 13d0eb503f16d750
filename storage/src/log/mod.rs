//! The log: what is in a segment and how it is found again.
//!
//! A segment is a sequence of groups, each aligned to [`group::ALIGN`]; a group is a header and its entries, each aligned to
//! [`record::ALIGN`].

pub(crate) mod group;
pub(crate) mod key;
pub(crate) mod location;
pub(crate) mod record;
pub(crate) mod segment;
