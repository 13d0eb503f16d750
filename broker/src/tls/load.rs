//! From files to a server's configuration.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::Loaded;
use super::certificate;
use super::names::ByName;
use crate::config::{self, TlsVersion};

/// What is wrong with a file of certificates or keys.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

impl TlsError {
    fn new(path: &Path, reason: impl Display) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

pub(super) fn load(settings: &config::Tls) -> Result<Loaded, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut expiry = Vec::new();
    let mut keys = Vec::new();
    for (certificate, key) in &settings.certificates {
        let chain = chain(certificate)?;
        if let Some(end) = chain.first().and_then(|leaf| certificate::not_after(leaf)) {
            warn_of_expiry(certificate, end);
            expiry.push((certificate.display().to_string(), end));
        }
        keys.push(certified(&provider, chain, certificate, key)?);
    }
    let resolver = Arc::new(ByName::new(keys));
    let server = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
        let versions: Vec<_> = settings.versions.iter().map(version).collect();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| TlsError::new(Path::new("tls.versions"), error))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        Ok::<_, TlsError>(builder.with_cert_resolver(Arc::clone(&resolver) as _))
    };
    let verifier = match (&settings.ca, settings.verify_peer) {
        (Some(ca), true) => Some(verifier(&provider, ca, settings.require_certificate)?),
        _ => None,
    };
    let mut http = server(None)?;
    http.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { amqp: Arc::new(server(verifier)?), http: Arc::new(http), expiry: expiry.into() })
}

fn version(version: &TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::Tls12 => &TLS12,
        TlsVersion::Tls13 => &TLS13,
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| TlsError::new(path, error))?;
    if certificates.is_empty() {
        return Err(TlsError::new(path, "there is no certificate in it"));
    }
    Ok(certificates)
}

fn certified(
    provider: &CryptoProvider,
    chain: Vec<CertificateDer<'static>>,
    certificate: &Path,
    key: &Path,
) -> Result<CertifiedKey, TlsError> {
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::new(key, error))?;
    let signing = provider.key_provider.load_private_key(private).map_err(|error| TlsError::new(key, error))?;
    let certified = CertifiedKey::new(chain, signing);
    let fits = certified.keys_match();
    fits.map_err(|error| TlsError::new(key, format_args!("not the key of {}: {error}", certificate.display())))?;
    Ok(certified)
}

fn verifier(provider: &Arc<CryptoProvider>, ca: &Path, require: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(ca)? {
        roots.add(certificate).map_err(|error| TlsError::new(ca, error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if require { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| TlsError::new(ca, error))
}

/// An expired certificate is served all the same: some clients do not care, and the others say so.
fn warn_of_expiry(path: &Path, end: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    if end <= now {
        tracing::warn!(certificate = %path.display(), "the certificate has expired");
    }
}
