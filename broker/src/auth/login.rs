//! Checking credentials.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::password::PasswordHash;
use super::store::AuthStore;
use crate::model::log_limit::LogLine;

/// A user who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// Their name.
    pub name: Arc<str>,
    /// Their tags.
    pub tags: Arc<[String]>,
}

/// Why a login was refused: for the log. A client only learns that it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// There is no such user.
    #[error("user '{0}' does not exist")]
    UnknownUser(String),
    /// It is not the password.
    #[error("user '{0}': wrong password")]
    WrongPassword(String),
    /// Empty passwords are never right.
    #[error("user '{0}': an empty password is not allowed")]
    EmptyPassword(String),
    /// The user has no password to log in with.
    #[error("user '{0}' has no password")]
    NoPassword(String),
    /// The user may connect from this machine only.
    #[error("user '{0}' can only connect via localhost")]
    LoopbackOnly(String),
    /// Whoever logs in with a certificate must show one.
    #[error("connection peer presented no TLS (x.509) certificate")]
    NoCertificate,
    /// The certificate says nothing that could be a user.
    #[error("no name found in the certificate")]
    NoNameInCertificate,
    /// Anonymous logins are turned off.
    #[error("anonymous logins are turned off")]
    AnonymousOff,
}

/// What an unknown user's password is compared with, so that the time of a refusal does not tell who exists.
static NOBODY: LazyLock<PasswordHash> = LazyLock::new(|| PasswordHash::new("nobody"));

impl AuthStore {
    /// Checks a user's password and where they connect from, whatever mechanism it came by.
    pub fn authenticate(&self, user: &str, password: &str, peer: IpAddr) -> Result<UserInfo, AuthFailure> {
        let name = || user.to_owned();
        let found = self.with_user(user, |user| (user.info.clone(), user.hash.clone()));
        let stored = match &found {
            Some((_, Some(hash))) => hash,
            _ => &*NOBODY,
        };
        let matches = stored.matches(password);
        match found {
            None => Err(AuthFailure::UnknownUser(name())),
            Some((_, None)) => Err(AuthFailure::NoPassword(name())),
            Some(_) if password.is_empty() => Err(AuthFailure::EmptyPassword(name())),
            Some(_) if !matches => Err(AuthFailure::WrongPassword(name())),
            Some((info, Some(_))) => self.check_peer(info, peer),
        }
    }

    /// Logs in a user who has shown a certificate that names them, and was checked.
    pub fn authenticate_external(&self, user: &str, peer: IpAddr) -> Result<UserInfo, AuthFailure> {
        let info = self.user(user).ok_or_else(|| AuthFailure::UnknownUser(user.to_owned()))?;
        self.check_peer(info, peer)
    }

    /// Logs in the anonymous user.
    pub fn authenticate_anonymous(&self, peer: IpAddr) -> Result<UserInfo, AuthFailure> {
        let name = self.anonymous_user.as_deref().ok_or(AuthFailure::AnonymousOff)?;
        let info = self.user(name).ok_or_else(|| AuthFailure::UnknownUser(name.to_owned()))?;
        self.check_peer(info, peer)
    }

    /// A login was refused: whether that is worth a line in the log. Whoever guesses passwords must not fill the disk.
    pub fn note_refusal(&self) -> LogLine {
        self.refusals.event(Instant::now())
    }

    fn check_peer(&self, info: UserInfo, peer: IpAddr) -> Result<UserInfo, AuthFailure> {
        let is_restricted = self.loopback_users.read().iter().any(|name| **name == *info.name);
        // A listener for both families reports an IPv4 peer as ::ffff:127.0.0.1.
        if is_restricted && !peer.to_canonical().is_loopback() {
            return Err(AuthFailure::LoopbackOnly(info.name.as_ref().to_owned()));
        }
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Credentials;
    use crate::auth::tests::Memory;

    fn store() -> Arc<AuthStore> {
        let store = Arc::new(Memory::default()).open();
        for (name, credentials) in [
            ("guest", Credentials::Password("guest")),
            ("ann", Credentials::Password("00123")),
            ("certificate", Credentials::None),
        ] {
            store.put_user(name, credentials, &[]).unwrap();
        }
        store
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_right_password_logs_in() {
        let info = store().authenticate("ann", "00123", peer("10.1.2.3")).unwrap();
        assert_eq!(&*info.name, "ann");
    }

    #[test]
    fn anything_else_does_not() {
        let store = store();
        let login = |user, password| store.authenticate(user, password, peer("127.0.0.1")).unwrap_err().to_string();
        assert_eq!(login("ann", "123"), "user 'ann': wrong password");
        assert_eq!(login("ann", ""), "user 'ann': an empty password is not allowed");
        assert_eq!(login("eve", "nobody"), "user 'eve' does not exist");
        assert_eq!(login("", "nobody"), "user '' does not exist");
        assert_eq!(login("certificate", "nobody"), "user 'certificate' has no password");
        assert_eq!(login("certificate", ""), "user 'certificate' has no password");
    }

    #[test]
    fn guest_connects_from_this_machine_only() {
        let store = store();
        for here in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(store.authenticate("guest", "guest", peer(here)).is_ok(), "{here}");
        }
        for elsewhere in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1"] {
            assert_eq!(
                store.authenticate("guest", "guest", peer(elsewhere)),
                Err(AuthFailure::LoopbackOnly("guest".into())),
                "{elsewhere}"
            );
        }
        assert_eq!(
            store.authenticate("guest", "wrong", peer("10.0.0.1")),
            Err(AuthFailure::WrongPassword("guest".into()))
        );
        store.set_loopback_users(vec!["ann".into()]);
        assert!(store.authenticate("guest", "guest", peer("10.0.0.1")).is_ok());
        assert!(store.authenticate("ann", "00123", peer("10.0.0.1")).is_err());
        assert_eq!(store.loopback_users(), ["ann"]);
        assert_eq!(
            AuthFailure::LoopbackOnly("guest".into()).to_string(),
            "user 'guest' can only connect via localhost"
        );
    }

    #[test]
    fn anonymous_is_guest_with_guests_limits() {
        let store = store();
        let info = store.authenticate_anonymous(peer("::1")).unwrap();
        assert_eq!(&*info.name, "guest");
        assert_eq!(store.authenticate_anonymous(peer("10.0.0.1")), Err(AuthFailure::LoopbackOnly("guest".into())));
        store.delete_user("guest").unwrap();
        assert_eq!(store.authenticate_anonymous(peer("::1")), Err(AuthFailure::UnknownUser("guest".into())));
    }
}
