//! The queue and the outbox against a model that knows where every message is.
//!
//! - `world`: a queue with its outboxes, what is done to them, and the model beside them.
//! - `random`: random operations, everything in memory, and with a cold backlog.
//! - `cold`: what happens while a read of the backlog is under way, step by step.
//! - `expiry`: messages whose time is over, in memory, on disk and on the way between them.
//! - `spilled`: transient messages that memory has no room for, with a real store below.
//! - `dropped`: the head of a backlog that leaves for lack of room, wherever it is.
//! - `priorities`: a backlog of all priorities, in memory, in the spill and in the store.
//! - `stored`: messages that the store names when their time is over.
//! - `credit`: credit and unacknowledged sets, case by case.
//! - `manual_time`: a clock in a test's hands.
//! - `threads`: many threads at once, accounted for at the end.

#[path = "../support/mod.rs"]
mod support;

mod cold;
mod credit;
mod dropped;
mod expiry;
mod manual_time;
mod priorities;
mod random;
mod spilled;
mod stored;
mod threads;
mod world;
