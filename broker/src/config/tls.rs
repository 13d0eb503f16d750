//! `[tls]`: certificates, and what clients must show.

use std::path::PathBuf;

use super::error::{ConfigError, quoted};
use super::merged::Merged;

/// What `tls.login_from` takes; RabbitMQ's words.
pub(super) const LOGIN_FROM: &[&str] = &["distinguished_name", "common_name", "subject_alternative_name"];

/// `[tls]`
#[derive(Debug, Clone)]
pub struct Tls {
    /// Files of certificates with those of their keys; the first is shown to clients that name no host, or another one.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Who vouches for clients.
    pub ca: Option<PathBuf>,
    /// Clients are asked for a certificate.
    pub verify_peer: bool,
    /// Clients without one are refused.
    pub require_certificate: bool,
    /// What is spoken.
    pub versions: Vec<TlsVersion>,
    /// What of a client's certificate is the user's name.
    pub login_from: LoginFrom,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// What of a certificate is the name of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFrom {
    /// The whole subject.
    DistinguishedName,
    /// Its common name; several are joined by commas.
    CommonName,
    /// The alternative name of this kind and number.
    AlternativeName(SanType, usize),
}

/// A kind of alternative name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanType {
    /// A host.
    Dns,
    /// An address.
    Ip,
    /// A mail address.
    Email,
    /// An URI.
    Uri,
}

impl Tls {
    pub(super) fn from_merged(merged: &Merged) -> Result<Self, ConfigError> {
        let path = |key: &str| Ok::<_, ConfigError>(Some(merged.text(key)?).filter(|text| !text.is_empty()));
        let pairs = |certificates: Vec<String>, keys: Vec<String>, key: &str| {
            if certificates.len() != keys.len() {
                return Err(merged.problem(key, "every certificate needs its key, in the same order"));
            }
            Ok(certificates.into_iter().map(PathBuf::from).zip(keys.into_iter().map(PathBuf::from)))
        };
        let first =
            pairs(path("tls.certificate")?.into_iter().collect(), path("tls.key")?.into_iter().collect(), "tls.key")?;
        let more = pairs(merged.list("tls.more_certificates")?, merged.list("tls.more_keys")?, "tls.more_keys")?;
        let certificates: Vec<_> = first.chain(more).collect();
        let tls = Self {
            certificates,
            ca: path("tls.ca")?.map(PathBuf::from),
            verify_peer: merged.text("tls.verify")? == "peer",
            require_certificate: merged.boolean("tls.fail_if_no_peer_certificate")?,
            versions: versions(merged)?,
            login_from: login_from(merged)?,
        };
        if tls.verify_peer && tls.ca.is_none() {
            return Err(merged.problem("tls.verify", "clients cannot be verified without tls.ca"));
        }
        if tls.require_certificate && !tls.verify_peer {
            return Err(merged.problem("tls.fail_if_no_peer_certificate", "needs tls.verify = \"peer\""));
        }
        for key in ["listeners.tls", "management.tls_listen"] {
            let listens = match key {
                "listeners.tls" => !merged.list(key)?.is_empty(),
                _ => !merged.text(key)?.is_empty(),
            };
            if listens && tls.certificates.is_empty() {
                return Err(merged.problem(key, "needs tls.certificate and tls.key"));
            }
        }
        Ok(tls)
    }
}

fn versions(merged: &Merged) -> Result<Vec<TlsVersion>, ConfigError> {
    const KEY: &str = "tls.versions";
    let texts = merged.list(KEY)?;
    if texts.is_empty() {
        return Err(merged.problem(KEY, "at least one version is needed"));
    }
    let version = |text: &String| match text.as_str() {
        "1.2" | "tlsv1.2" => Ok(TlsVersion::Tls12),
        "1.3" | "tlsv1.3" => Ok(TlsVersion::Tls13),
        other => Err(merged.problem(KEY, &format!("{} is neither \"1.2\" nor \"1.3\"", quoted(other)))),
    };
    texts.iter().map(version).collect()
}

fn login_from(merged: &Merged) -> Result<LoginFrom, ConfigError> {
    let kind = match merged.text("tls.login_san_type")?.as_str() {
        "ip" => SanType::Ip,
        "email" => SanType::Email,
        "uri" => SanType::Uri,
        _ => SanType::Dns,
    };
    Ok(match merged.text("tls.login_from")?.as_str() {
        "common_name" => LoginFrom::CommonName,
        "subject_alternative_name" => LoginFrom::AlternativeName(kind, merged.number("tls.login_san_index")?),
        _ => LoginFrom::DistinguishedName,
    })
}
