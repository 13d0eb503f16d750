//! Which certificate is shown to a client that says whom it wants to speak to (SNI).

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::certificate;

/// The first certificate that is for the name, or the first of all.
pub(super) struct ByName(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl ByName {
    pub(super) fn new(keys: Vec<CertifiedKey>) -> Self {
        let names = |key: &CertifiedKey| key.cert.first().map(|leaf| certificate::dns_names(leaf)).unwrap_or_default();
        Self(keys.into_iter().map(|key| (names(&key), Arc::new(key))).collect())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name();
        let fits = |names: &[String]| wanted.is_some_and(|wanted| names.iter().any(|name| is_for(name, wanted)));
        let (_, key) = self.0.iter().find(|(names, _)| fits(names)).or_else(|| self.0.first())?;
        Some(Arc::clone(key))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(names, _)| names)).finish()
    }
}

/// Whether a name of a certificate covers a host: an asterisk stands for one whole label.
pub(super) fn is_for(name: &str, host: &str) -> bool {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && same(rest, domain)),
        None => same(name, host),
    }
}
