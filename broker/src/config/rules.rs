//! What a virtual host allows its clients: the settings for the whole broker, and what `[[vhost]]` says otherwise.

use super::Settings;
use super::topology::VhostEntry;

/// How a declaration of what exists already is compared with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Redeclare {
    /// As RabbitMQ does: 406 for whatever differs.
    #[default]
    Strict,
    /// Only the type of an exchange and the owner of a queue count; what exists stays as it is.
    Relaxed,
}

impl Redeclare {
    /// The names in the configuration.
    pub(super) const NAMES: &[&str] = &["strict", "relaxed"];

    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "strict" => Some(Self::Strict),
            "relaxed" => Some(Self::Relaxed),
            _ => None,
        }
    }
}

/// What clients of one virtual host may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VhostRules {
    /// Queues that are neither durable nor exclusive can be declared.
    pub transient_nonexclusive_queues: bool,
    /// A prefetch can be one of the whole channel.
    pub global_qos: bool,
    /// How declarations are compared with what exists.
    pub redeclare: Redeclare,
    /// Largest message body, in octets.
    pub max_message_bytes: u64,
}

impl Default for VhostRules {
    fn default() -> Self {
        Self {
            transient_nonexclusive_queues: true,
            global_qos: true,
            redeclare: Redeclare::Strict,
            max_message_bytes: u64::MAX,
        }
    }
}

impl VhostRules {
    /// As far as the entry says something.
    fn change(&mut self, entry: &VhostEntry) {
        let changes = &entry.rules;
        self.transient_nonexclusive_queues =
            changes.transient_nonexclusive_queues.unwrap_or(self.transient_nonexclusive_queues);
        self.global_qos = changes.global_qos.unwrap_or(self.global_qos);
        self.redeclare = changes.redeclare.unwrap_or(self.redeclare);
        self.max_message_bytes = changes.max_message_bytes.unwrap_or(self.max_message_bytes);
    }
}

/// What one `[[vhost]]` says otherwise than the broker's settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuleChanges {
    pub(super) transient_nonexclusive_queues: Option<bool>,
    pub(super) global_qos: Option<bool>,
    pub(super) redeclare: Option<Redeclare>,
    pub(super) max_message_bytes: Option<u64>,
}

impl Settings {
    /// The rules of a virtual host, whether the configuration names it or not.
    pub fn rules_of(&self, vhost: &str) -> VhostRules {
        let mut rules = VhostRules {
            transient_nonexclusive_queues: self.compatibility.transient_nonexclusive_queues,
            global_qos: self.compatibility.global_qos,
            redeclare: self.compatibility.redeclare,
            max_message_bytes: self.limits.max_message_bytes,
        };
        for entry in self.topology.vhosts.iter().filter(|entry| entry.name == vhost) {
            rules.change(entry);
        }
        rules
    }
}
