//! Who is at the other end of a connection, as far as its socket says.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address. Clients on a Unix socket count as on the loopback.
    pub ip: IpAddr,
    /// Its socket address and ours, where there are some.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What encrypts the connection.
    pub tls: Option<Arc<PeerTls>>,
}

impl From<IpAddr> for Peer {
    fn from(ip: IpAddr) -> Self {
        Self { ip, addresses: None, tls: None }
    }
}

impl fmt::Display for Peer {
    /// For the log: its socket address, or what else there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses {
            Some((client, _)) => client.fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// What was agreed on with a client that speaks TLS. Names as RabbitMQ shows them.
#[derive(Clone, Debug, Default)]
pub struct PeerTls {
    /// Such as `tlsv1.3`.
    pub protocol: String,
    /// Such as `aes_256_gcm`.
    pub cipher: String,
    /// Such as `ecdhe_rsa`, or `any` where the cipher suite does not say.
    pub key_exchange: String,
    /// Such as `sha384`, or `aead` where it is part of the cipher.
    pub hash: String,
    /// What the client showed, if it did. It was checked.
    pub certificate: Option<PeerCertificate>,
    /// Clients are asked for a certificate, so that they can log in with it.
    pub offers_external: bool,
}

/// A client's certificate.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// Whose it is, as RFC 4514 writes it.
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// From when to when it holds.
    pub validity: String,
    /// In hexadecimal.
    pub serial_number: String,
    /// The user it logs in; `None` when it has no such name.
    pub user: Option<String>,
}
