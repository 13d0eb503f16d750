//! The first user, and the users and permissions the configuration file declares.

use storage::Lsn;

use super::password::{HashAlgorithm, PasswordHash};
use super::patterns::Patterns;
use super::store::AuthStore;
use super::users::Credentials;
use crate::config::{DefaultUser, PermissionEntry, Topology, UserEntry, UserSecret};
use crate::model::access::Permission;
use crate::model::operation::OperationError;

/// Why the start stops: one line that names the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{context}: {problem}")]
pub struct StartupError {
    context: String,
    problem: String,
}

impl StartupError {
    fn new(context: &str, problem: impl std::fmt::Display) -> Self {
        Self { context: context.to_owned(), problem: problem.to_string() }
    }
}

/// Creates what is declared and missing, and the default user when nobody was stored before. An entry that differs from
/// what is stored is an error. `vhost_exists` is asked for the vhost of each permission. Returns the position that makes
/// all of it durable.
pub fn prepare(
    store: &AuthStore,
    default_user: &DefaultUser,
    topology: &Topology,
    vhost_exists: impl Fn(&str) -> bool,
) -> Result<Lsn, StartupError> {
    let is_first_start = store.is_empty();
    let mut last = Lsn::default();
    for entry in &topology.users {
        last = last.max(user(store, entry)?);
    }
    // A declared user of the same name is the operator's explicit word, so it comes first.
    if is_first_start && store.user(&default_user.name).is_none() {
        last = last.max(first_user(store, default_user).map_err(|error| StartupError::new("[default_user]", error))?);
    }
    for entry in &topology.permissions {
        if !vhost_exists(&entry.vhost) {
            let problem = format!("there is no vhost {:?}", entry.vhost);
            return Err(StartupError::new(&entry.context, problem));
        }
        last = last.max(permission(store, entry)?);
    }
    Ok(last)
}

fn first_user(store: &AuthStore, user: &DefaultUser) -> Result<Lsn, OperationError> {
    let password = Credentials::Password(user.password.expose());
    store.put_user(&user.name, password, &user.tags)?;
    let everything = Patterns::new(".*", ".*", ".*")?;
    store.put_permission(&user.name, &user.vhost, everything)
}

fn user(store: &AuthStore, entry: &UserEntry) -> Result<Lsn, StartupError> {
    let conflict = |problem: &str| StartupError::new(&entry.context, problem);
    let stored = store.with_user(&entry.name, |user| (user.info.clone(), user.hash.clone()));
    let Some((info, hash)) = stored else {
        let credentials = match &entry.secret {
            UserSecret::Password(password) => Credentials::Password(password.expose()),
            UserSecret::Hash(hash) => Credentials::Hash(
                PasswordHash::from_definition(None, hash.expose())
                    .map_err(|error| StartupError::new(&entry.context, error))?,
            ),
        };
        return store
            .put_user(&entry.name, credentials, &entry.tags)
            .map_err(|error| StartupError::new(&entry.context, error));
    };
    let is_same_secret = match (&entry.secret, hash) {
        (UserSecret::Password(password), Some(hash)) => hash.matches(password.expose()),
        (UserSecret::Hash(text), Some(hash)) => {
            PasswordHash::from_base64(HashAlgorithm::default(), text.expose()).is_some_and(|given| given.is_same(&hash))
        }
        (_, None) => false,
    };
    if !is_same_secret {
        let field = match &entry.secret {
            UserSecret::Password(_) => "password",
            UserSecret::Hash(_) => "password_hash",
        };
        return Err(conflict(&format!("{field} differs from the stored user's")));
    }
    if *info.tags != *entry.tags {
        return Err(conflict(&format!("tags = {:?} differs from the stored user's {:?}", entry.tags, info.tags)));
    }
    Ok(Lsn::default())
}

fn permission(store: &AuthStore, entry: &PermissionEntry) -> Result<Lsn, StartupError> {
    let wrong = |error: OperationError| StartupError::new(&entry.context, error);
    let Some(stored) = store.permission(&entry.user, &entry.vhost) else {
        let patterns = Patterns::new(&entry.configure, &entry.write, &entry.read)
            .map_err(|error| StartupError::new(&entry.context, error))?;
        return store.put_permission(&entry.user, &entry.vhost, patterns).map_err(wrong);
    };
    for (field, given, permission) in [
        ("configure", &entry.configure, Permission::Configure),
        ("write", &entry.write, Permission::Write),
        ("read", &entry.read, Permission::Read),
    ] {
        let current = stored.text(permission);
        if current != given {
            return Err(StartupError::new(
                &entry.context,
                format!("{field} = {given:?} differs from the stored permission's {current:?}"),
            ));
        }
    }
    Ok(Lsn::default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::tests::Memory;
    use crate::config::{Flags, Settings};

    const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn settings(file: &str) -> Settings {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.toml");
        std::fs::write(&path, file).unwrap();
        let flags = Flags { config: Some(path), ..Flags::default() };
        Settings::load(&flags, []).unwrap()
    }

    fn start(memory: &Arc<Memory>, file: &str) -> Result<Arc<AuthStore>, String> {
        let settings = settings(file);
        let store = memory.open();
        let exists = |vhost: &str| vhost == "/";
        prepare(&store, &settings.default_user, &settings.topology, exists).map_err(|error| error.to_string())?;
        Ok(store)
    }

    #[test]
    fn guest_is_there_on_the_first_start_only() {
        let memory = Arc::new(Memory::default());
        let store = start(&memory, "").unwrap();
        assert!(store.authenticate("guest", "guest", HERE).is_ok());
        assert_eq!(&*store.user("guest").unwrap().tags, ["administrator"]);
        assert!(store.vhost_access("guest", "/"));
        store.put_user("ann", Credentials::Password("a"), &[]).unwrap();
        store.delete_user("guest").unwrap();
        let store = start(&memory, "").unwrap();
        assert!(store.user("guest").is_none());
    }

    #[test]
    fn another_first_user_replaces_guest() {
        let file = "[default_user]\nname = \"ann\"\npassword = \"00123\"\ntags = []";
        let store = start(&Arc::new(Memory::default()), file).unwrap();
        assert!(store.authenticate("ann", "00123", HERE).is_ok());
        assert!(store.user("guest").is_none());
    }

    const DECLARED: &str = r#"
[[user]]
name = "ann"
password = "sesame"
tags = ["monitoring"]
[[permission]]
user = "ann"
configure = ""
write = ".*"
read = "^q$"
"#;

    #[test]
    fn declared_users_are_created_once() {
        let memory = Arc::new(Memory::default());
        start(&memory, DECLARED).unwrap();
        let store = start(&memory, DECLARED).unwrap();
        assert!(store.authenticate("ann", "sesame", HERE).is_ok());
        assert_eq!(store.permission("ann", "/").unwrap().text(Permission::Read), "^q$");
        assert!(store.user("guest").is_some());
    }

    #[test]
    fn a_declared_guest_is_the_only_guest() {
        let file = "[[user]]\nname = \"guest\"\npassword = \"other\"";
        let memory = Arc::new(Memory::default());
        let store = start(&memory, file).unwrap();
        assert!(store.authenticate("guest", "other", HERE).is_ok());
        assert!(store.authenticate("guest", "guest", HERE).is_err());
        assert!(start(&memory, file).is_ok());
    }

    #[test]
    fn hashes_are_taken_and_compared() {
        let hash = PasswordHash::new("sesame").to_base64();
        let file = format!("[[user]]\nname = \"ann\"\npassword_hash = \"{hash}\"");
        let memory = Arc::new(Memory::default());
        start(&memory, &file).unwrap();
        let store = start(&memory, &file).unwrap();
        assert!(store.authenticate("ann", "sesame", HERE).is_ok());
        let other = PasswordHash::new("other").to_base64();
        let error = start(&memory, &file.replace(&hash, &other)).unwrap_err();
        assert!(error.ends_with("password_hash differs from the stored user's"));
        assert!(!error.contains(&other) && !error.contains(&hash));
    }

    #[test]
    fn a_difference_stops_the_start_and_names_the_field() {
        let memory = Arc::new(Memory::default());
        start(&memory, DECLARED).unwrap();
        for (old, new, problem) in [
            ("sesame", "other", "password differs from the stored user's"),
            ("\"monitoring\"", "\"a\"", "tags = [\"a\"] differs from the stored user's [\"monitoring\"]"),
            ("write = \".*\"", "write = \"w\"", "write = \"w\" differs from the stored permission's \".*\""),
        ] {
            let error = start(&memory, &DECLARED.replace(old, new)).unwrap_err();
            assert!(error.ends_with(problem), "{error}");
            assert!(error.contains("number 1 ("), "{error}");
            assert!(!error.contains('\n') && !error.contains("sesame"));
        }
    }

    #[test]
    fn permissions_need_a_user_a_vhost_and_usable_patterns() {
        let permission = |user: &str, rest: &str| {
            let file = format!("[[permission]]\nuser = \"{user}\"\nwrite = \"\"\nread = \"\"\n{rest}");
            start(&Arc::new(Memory::default()), &file).unwrap_err()
        };
        assert!(permission("eve", "configure = \"\"").ends_with("User \"eve\" does not exist"));
        assert!(permission("eve", "configure = \"\"\nvhost = \"v\"").ends_with("there is no vhost \"v\""));
        let broken = permission("eve", "configure = \"(\"");
        assert!(broken.contains("configure = \"(\" is not a usable"), "{broken}");
    }
}
