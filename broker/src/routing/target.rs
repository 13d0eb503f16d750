//! What a binding leads to, as far as routing has to know.

use std::hash::Hash;

/// A queue or an exchange that bindings lead to. Equality is identity: another queue of the same name is not equal.
pub trait Target: Clone + Eq + Hash {
    /// What stays when the broker is restarted. Exchanges that select by a hash depend on nothing else.
    fn identity(&self) -> Identity<'_>;
}

/// Kind and name of a target, unique within its virtual host at any one time. Ordered as RabbitMQ orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity<'a> {
    /// Exchanges come before queues.
    pub kind: TargetKind,
    /// Names are compared by their bytes.
    pub name: &'a str,
}

/// The kinds of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKind {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
}
