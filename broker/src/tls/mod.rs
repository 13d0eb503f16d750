//! TLS: which certificates are shown to whom, which clients are asked for theirs, and what is known of those that are connected.
//!
//! - `load`: files to a server's configuration; `names`: which certificate is for which name
//! - `certificate`: what a client's certificate says, as RabbitMQ writes it

mod certificate;
mod load;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ProtocolVersion, ServerConfig, SupportedCipherSuite};
use tokio_rustls::server::TlsStream;

pub use load::TlsError;

use crate::config;
use crate::model::peer::PeerTls;

/// TLS as it is configured. Certificates can be read again; connections keep what they began with.
pub struct Tls {
    settings: config::Tls,
    current: RwLock<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    /// For AMQP: clients may be asked for a certificate.
    amqp: Arc<ServerConfig>,
    /// For HTTP, where users log in with passwords.
    http: Arc<ServerConfig>,
    /// When the certificates end, in seconds since 1970, with their files.
    expiry: Arc<[(String, i64)]>,
}

impl Tls {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// The file and what is wrong with it.
    pub fn load(settings: &config::Tls) -> Result<Self, TlsError> {
        let current = RwLock::new(load::load(settings)?);
        Ok(Self { settings: settings.clone(), current })
    }

    /// Reads all files again; from now on they hold. With an error everything stays as it was.
    ///
    /// # Errors
    ///
    /// As for [`Tls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = load::load(&self.settings)?;
        *self.current.write() = loaded;
        Ok(())
    }

    /// When each certificate ends, in seconds since 1970.
    pub fn expiry(&self) -> Arc<[(String, i64)]> {
        Arc::clone(&self.current.read().expiry)
    }

    /// Does the handshake with an AMQP client. The caller limits its time.
    ///
    /// # Errors
    ///
    /// Whatever the client does that is no handshake, or no certificate that holds.
    pub async fn accept_amqp<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> std::io::Result<(TlsStream<S>, PeerTls)> {
        let config = Arc::clone(&self.current.read().amqp);
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        let peer = self.describe(&stream);
        Ok((stream, peer))
    }

    /// Does the handshake with an HTTP client.
    ///
    /// # Errors
    ///
    /// As for [`Tls::accept_amqp`].
    pub async fn accept_http<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> std::io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.current.read().http);
        TlsAcceptor::from(config).accept(socket).await
    }

    fn describe<S>(&self, stream: &TlsStream<S>) -> PeerTls {
        let (_, connection) = stream.get_ref();
        let protocol = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "tlsv1.3",
            _ => "tlsv1.2",
        };
        let suite = connection.negotiated_cipher_suite().map(suite_name).unwrap_or_default();
        let (key_exchange, cipher, hash) = suite_parts(&suite);
        let shown = connection.peer_certificates().and_then(|chain| chain.first());
        PeerTls {
            protocol: protocol.to_owned(),
            cipher,
            key_exchange,
            hash,
            certificate: shown.and_then(|der| certificate::describe(der, &self.settings.login_from)),
            offers_external: self.settings.verify_peer,
        }
    }
}

fn suite_name(suite: SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().to_owned()
}

/// `TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384` and `TLS13_AES_256_GCM_SHA384` as key exchange, cipher and hash.
fn suite_parts(suite: &str) -> (String, String, String) {
    let suite = suite.to_lowercase();
    let (exchange, rest) = match suite.split_once("_with_") {
        Some((exchange, rest)) => (exchange.trim_start_matches("tls_"), rest),
        None => ("any", suite.trim_start_matches("tls13_")),
    };
    let cipher = rest.rsplit_once("_sha").map_or(rest, |(cipher, _)| cipher);
    // All that are offered are of this kind.
    (exchange.to_owned(), cipher.to_owned(), "aead".to_owned())
}
