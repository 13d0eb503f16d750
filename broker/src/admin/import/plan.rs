//! What a document comes to once it was checked.

use std::collections::HashMap;

use serde_json::Value;

use super::entry::Object;
use crate::model::arguments::Arguments;
use crate::policy::Policy;
use crate::vhost::Metadata;

/// In the order in which it is applied.
#[derive(Default)]
pub(super) struct Plan<'a> {
    pub(super) vhosts: Vec<(&'a str, Metadata, Option<&'a Object>)>,
    pub(super) users: Vec<(&'a str, &'a Object, Vec<String>)>,
    pub(super) permissions: Vec<(&'a str, &'a str, [&'a str; 3])>,
    pub(super) policies: Vec<(&'a str, Policy)>,
    pub(super) parameters: Vec<(&'a str, &'a str, &'a str, &'a Value)>,
    pub(super) globals: Vec<(&'a str, &'a Value)>,
    pub(super) exchanges: Vec<(&'a str, &'a str, &'a Object)>,
    pub(super) queues: Vec<(&'a str, &'a str, &'a Object)>,
    pub(super) bindings: Vec<Binding<'a>>,
    pub(super) topics: Vec<(&'a str, &'a str, &'a str, [&'a str; 2])>,
    /// New queues by virtual host.
    pub(super) added: HashMap<&'a str, usize>,
}

/// One binding.
pub(super) struct Binding<'a> {
    pub(super) vhost: &'a str,
    pub(super) source: &'a str,
    /// `queue` or `exchange`.
    pub(super) kind: &'a str,
    pub(super) destination: &'a str,
    pub(super) key: &'a str,
    pub(super) arguments: Arguments,
}
