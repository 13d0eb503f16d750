//! The management API over TCP, as scripts and tools use it.

mod client;
mod definitions;
mod events;
mod golden;
mod rates;
mod resources;
mod security;
