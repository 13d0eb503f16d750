//! What tells two bindings of one source and destination apart.

use std::sync::Arc;

use hashbrown::Equivalent;

/// Routing key and arguments of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey {
    /// The binding key.
    pub key: Arc<str>,
    /// The arguments in their canonical wire form ([`Arguments::to_wire`]).
    ///
    /// [`Arguments::to_wire`]: crate::model::arguments::Arguments::to_wire
    pub arguments: Box<[u8]>,
}

/// The same, borrowed, for lookups. Hashes like [`BindingKey`].
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct BindingRef<'a> {
    pub(super) key: &'a str,
    pub(super) arguments: &'a [u8],
}

impl Equivalent<BindingKey> for BindingRef<'_> {
    fn equivalent(&self, other: &BindingKey) -> bool {
        self.key == &*other.key && self.arguments == &*other.arguments
    }
}
