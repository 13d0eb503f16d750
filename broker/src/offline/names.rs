//! Queue ids as the names that operators know.

use std::collections::HashMap;

use storage::{QueueId, TopologyChange};

use crate::queue::lanes::owner_of;
use crate::vhost::{Described, describe};

/// Virtual host and name of every queue that was heard of.
#[derive(Default)]
pub(super) struct Names {
    queues: HashMap<QueueId, (String, String)>,
    /// Whose else the ids are, in a sentence.
    others: HashMap<QueueId, String>,
}

impl Names {
    pub(super) fn new(topology: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut names = Self::default();
        for (key, value) in topology {
            names.learn(key, value);
        }
        names
    }

    /// Also what was deleted later keeps its name: ids are never used twice.
    pub(super) fn change(&mut self, change: &TopologyChange) {
        if let TopologyChange::Put { key, value } = change {
            self.learn(key, value);
        }
    }

    fn learn(&mut self, key: &[u8], value: &[u8]) {
        match describe(key, value) {
            Some(Ok(Described::Queue { vhost, name, id, window })) => {
                let window = window.map(|id| (id, format!("the window of queue {name:?} in vhost {vhost:?}")));
                self.others.extend(window);
                self.queues.insert(id, (vhost, name));
            }
            Some(Ok(Described::Exchange { vhost, name, kept, .. })) => {
                self.others.extend(kept.iter().map(|id| (*id, format!("exchange {name:?} in vhost {vhost:?}"))));
            }
            _ => {}
        }
    }

    /// Virtual host and name.
    pub(super) fn get(&self, id: QueueId) -> Option<(&str, &str)> {
        self.queues.get(&owner_of(id).0).map(|(vhost, name)| (vhost.as_str(), name.as_str()))
    }

    /// The queue in a sentence.
    pub(super) fn text(&self, id: QueueId) -> String {
        match self.get(id) {
            Some((vhost, name)) => format!("queue {name:?} in vhost {vhost:?}"),
            None => self.others.get(&id).cloned().unwrap_or_else(|| format!("queue id {id:x}")),
        }
    }
}
