//! Addresses to accept connections on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// One configured address: `IP:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    text: String,
    host: String,
    port: u16,
    is_default: bool,
}

impl ListenAddress {
    /// Reads an address without asking any name service.
    ///
    /// # Errors
    ///
    /// What an address looks like, when this does not.
    pub fn parse(text: &str, is_default: bool) -> Result<Self, &'static str> {
        const FORM: &str = "must be an address with a port, such as 127.0.0.1:5672, [::1]:5672 or localhost:5672";
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let port = port.parse().map_err(|_| FORM)?;
        let host = match host.strip_prefix('[') {
            Some(inside) => {
                let address = inside.strip_suffix(']').ok_or(FORM)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| FORM)?;
                address
            }
            None => host,
        };
        let is_bare_ipv6 = host.contains(':') && !text.starts_with('[');
        if host.is_empty() || is_bare_ipv6 || host.contains(char::is_whitespace) {
            return Err(FORM);
        }
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port, is_default })
    }

    /// Whether nobody asked for this address. A default whose address family the machine does not have may be skipped;
    /// an explicit one that can't be bound is an error.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// The port; 0 takes a free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket addresses behind it. A host name is looked up, which may block.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_a_port_are_taken() {
        for text in ["0.0.0.0:5672", "127.0.0.1:0", "[::]:5672", "[::1]:1"] {
            let address = ListenAddress::parse(text, false).unwrap();
            assert_eq!(address.resolve().unwrap(), [text.parse().unwrap()]);
            assert_eq!(address.to_string(), text);
        }
        let named = ListenAddress::parse("broker.example:5672", true).unwrap();
        assert_eq!((named.port(), named.is_default()), (5672, true));
    }

    #[test]
    fn others_are_not() {
        for text in [
            "",
            ":",
            "5672",
            ":5672",
            "localhost",
            "localhost:",
            "localhost:70000",
            "::1:5672",
            "[::1]",
            "[::1:5672",
            "[nonsense]:1",
            "a b:1",
            "127.0.0.1:amqp",
        ] {
            assert!(ListenAddress::parse(text, false).is_err(), "{text}");
        }
    }
}
