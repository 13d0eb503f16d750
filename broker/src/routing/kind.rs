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
}

impl ExchangeKind {
    /// The kind with this name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            _ => return None,
        })
    }

    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }

    /// Whether `route` never reports a destination twice for one key.
    pub fn reports_once(self) -> bool {
        matches!(self, Self::Direct | Self::Fanout)
    }
}
