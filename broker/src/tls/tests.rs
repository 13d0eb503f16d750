//! Handshakes in memory, with certificates made for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType as San};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::config::{LoginFrom, SanType, TlsVersion};
use crate::tls::names::is_for;

/// A directory with an authority, and what it has signed.
struct Files {
    dir: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, authority: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let (certificate, private) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&certificate, params.signed_by(&key, &self.authority).unwrap().pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (certificate, private)
    }

    fn settings(&self) -> config::Tls {
        config::Tls {
            certificates: vec![self.sign("server", &["broker.test"], |_| {})],
            ca: Some(self.path("ca.pem")),
            verify_peer: false,
            require_certificate: false,
            versions: vec![TlsVersion::Tls12, TlsVersion::Tls13],
            login_from: LoginFrom::DistinguishedName,
        }
    }

    fn client(&self, identity: Option<(&Path, &Path)>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        }
    }
}

/// A handshake; what the server then knows, or why there is none, and the certificate that the client was shown.
fn shake(tls: &Tls, client: ClientConfig, host: &str) -> (std::io::Result<PeerTls>, Option<Vec<u8>>) {
    use tokio::io::AsyncReadExt;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let client = async {
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, theirs).await.ok()?;
            let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
            // A refusal of the client's certificate comes after its own handshake in TLS 1.3.
            let _ = stream.read(&mut [0]).await;
            shown
        };
        let server = async { tls.accept_amqp(ours).await.map(|(_, peer)| peer) };
        tokio::join!(server, client)
    })
}

#[test]
fn both_versions_are_spoken_and_described() {
    let files = Files::new();
    let tls = Tls::load(&files.settings()).unwrap();
    for (version, name) in [(&TLS12, "tlsv1.2"), (&TLS13, "tlsv1.3")] {
        let (peer, shown) = shake(&tls, files.client(None, &[version]), "broker.test");
        let peer = peer.unwrap();
        assert_eq!((peer.protocol.as_str(), peer.hash.as_str()), (name, "aead"));
        assert!(peer.cipher.starts_with("aes_") || peer.cipher.starts_with("chacha20"), "{}", peer.cipher);
        assert!(peer.certificate.is_none() && !peer.offers_external && shown.is_some());
    }
    assert_eq!(suite_parts("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384").0, "ecdhe_rsa");
}

#[test]
fn a_version_that_is_not_configured_is_refused() {
    let files = Files::new();
    let tls = Tls::load(&config::Tls { versions: vec![TlsVersion::Tls13], ..files.settings() }).unwrap();
    assert!(shake(&tls, files.client(None, &[&TLS12]), "broker.test").0.is_err());
    assert!(shake(&tls, files.client(None, &[&TLS13]), "broker.test").0.is_ok());
}

#[test]
fn clients_are_known_by_their_certificates() {
    let files = Files::new();
    let (certificate, key) = files.sign("client", &["first.test", "second.test"], |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "AT");
        params.distinguished_name.push(DnType::OrganizationName, "Ann, Bob");
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.subject_alt_names.push(San::IpAddress("192.0.2.7".parse().unwrap()));
    });
    let user = |login_from| {
        let tls = Tls::load(&config::Tls { verify_peer: true, login_from, ..files.settings() }).unwrap();
        let client = files.client(Some((&certificate, &key)), &[&TLS13]);
        let peer = shake(&tls, client, "broker.test").0.unwrap();
        assert!(peer.offers_external);
        let shown = peer.certificate.unwrap();
        assert!(shown.issuer.contains("CN=authority"), "{}", shown.issuer);
        assert!(shown.validity.contains(" - ") && !shown.serial_number.starts_with('0'));
        shown.user
    };
    let subject = user(LoginFrom::DistinguishedName).unwrap();
    assert_eq!(subject, "CN=ann,O=Ann\\, Bob,C=AT", "the most specific part is first");
    assert_eq!(user(LoginFrom::CommonName).as_deref(), Some("ann"));
    assert_eq!(user(LoginFrom::AlternativeName(SanType::Dns, 1)).as_deref(), Some("second.test"));
    assert_eq!(user(LoginFrom::AlternativeName(SanType::Dns, 2)), None);
    assert_eq!(user(LoginFrom::AlternativeName(SanType::Ip, 0)).as_deref(), Some("192.0.2.7"));
    assert_eq!(user(LoginFrom::AlternativeName(SanType::Email, 0)), None);
}

#[test]
fn certificates_that_do_not_hold_are_refused() {
    let (files, others) = (Files::new(), Files::new());
    let tls = |require_certificate| {
        Tls::load(&config::Tls { verify_peer: true, require_certificate, ..files.settings() }).unwrap()
    };
    let outcome = |tls: &Tls, identity: Option<&(PathBuf, PathBuf)>| {
        let identity = identity.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        shake(tls, files.client(identity, &[&TLS12]), "broker.test").0
    };
    let good = files.sign("good", &["x.test"], |_| {});
    let expired = files.sign("expired", &["x.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let stranger = others.sign("stranger", &["x.test"], |_| {});
    for require in [false, true] {
        let tls = tls(require);
        assert!(outcome(&tls, Some(&good)).is_ok());
        assert!(outcome(&tls, Some(&expired)).is_err());
        assert!(outcome(&tls, Some(&stranger)).is_err());
        assert_eq!(outcome(&tls, None).is_err(), require);
    }
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let files = Files::new();
    let mut settings = files.settings();
    settings.certificates.push(files.sign("other", &["*.other.test"], |_| {}));
    let tls = Tls::load(&settings).unwrap();
    let shown = |host: &str| {
        let (_, shown) = shake(&tls, files.client(None, &[&TLS13]), host);
        shown.map(|der| certificate::dns_names(&der))
    };
    assert_eq!(shown("broker.test"), Some(vec!["broker.test".to_owned()]));
    assert_eq!(shown("a.other.test"), Some(vec!["*.other.test".to_owned()]));
    assert_eq!(shown("a.b.other.test"), None, "the first one, which this client does not take");
    assert!(is_for("a.test", "A.test") && !is_for("*.test", "test") && !is_for("*.test", ".test"));
}

#[test]
fn files_are_read_again_and_mistakes_change_nothing() {
    let files = Files::new();
    let settings = files.settings();
    let tls = Tls::load(&settings).unwrap();
    let shown = || shake(&tls, files.client(None, &[&TLS13]), "broker.test").1.unwrap();
    let before = shown();
    std::fs::write(&settings.certificates[0].1, "nonsense").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(shown(), before);
    files.sign("server", &["broker.test"], |_| {});
    tls.reload().unwrap();
    assert_ne!(shown(), before);
    assert_eq!(tls.expiry().len(), 1);
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let files = Files::new();
    let settings = files.settings();
    let (certificate, key) = settings.certificates[0].clone();
    let (_, other) = files.sign("other", &["x.test"], |_| {});
    let error = |certificates: (PathBuf, PathBuf), ca: Option<PathBuf>| {
        let settings = config::Tls { certificates: vec![certificates], ca, verify_peer: true, ..settings.clone() };
        Tls::load(&settings).err().expect("refused").to_string()
    };
    let ca = || Some(files.path("ca.pem"));
    let missing = files.path("missing.pem");
    assert!(error((missing.clone(), key.clone()), ca()).contains("missing.pem: "));
    assert!(error((certificate.clone(), missing.clone()), ca()).contains("missing.pem: "));
    assert!(error((key.clone(), key.clone()), ca()).contains("server.key: there is no certificate in it"));
    assert!(error((certificate.clone(), other), ca()).contains("not the key of "));
    assert!(error((certificate, key), Some(missing)).contains("missing.pem: "));
}
