//! The kinds of exchanges.

/// How an exchange selects destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// By equality of routing key and binding key.
    Direct,
    /// All of them.
    Fanout,
    /// By words of the routing key, with wildcards in the binding key.
    Topic,
    /// By the headers of the message.
    Headers,
    /// One, by the hash of a part of the message; each has the share of its weight.
    ConsistentHash,
    /// One, by the hash of the routing keys modulo the number of bindings.
    ModulusHash,
    /// One by chance.
    Random,
    /// One by chance, of the queues of this node: all of them, as long as there is one node.
    LocalRandom,
    /// All of them, and those bound later get the last messages.
    RecentHistory,
    /// All of them, unless the message has come before.
    Deduplication,
}

impl ExchangeKind {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Direct,
        Self::Fanout,
        Self::Topic,
        Self::Headers,
        Self::ConsistentHash,
        Self::ModulusHash,
        Self::Random,
        Self::LocalRandom,
        Self::RecentHistory,
        Self::Deduplication,
    ];

    /// The kind with this name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
            Self::RecentHistory => "x-recent-history",
            Self::Deduplication => "x-message-deduplication",
        }
    }

    /// Whether `route` never reports a destination twice for one key.
    pub fn reports_once(self) -> bool {
        matches!(self, Self::Direct | Self::Fanout | Self::RecentHistory | Self::Deduplication)
    }

    /// Whether a number selects one destination, instead of keys and headers any number of them.
    pub fn picks_one(self) -> bool {
        matches!(self, Self::ConsistentHash | Self::ModulusHash | Self::Random | Self::LocalRandom)
    }
}
