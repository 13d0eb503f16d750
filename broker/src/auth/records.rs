//! Users and permissions as they are stored: JSON under one key each.

use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const USER_PREFIX: &[u8] = b"user/";
const PERMISSION_PREFIX: &[u8] = b"permission/";
const SEPARATOR: u8 = 0;

/// The value of `user/<name>`. No `Debug`: it holds a hash.
#[derive(Serialize, Deserialize)]
pub(super) struct UserRecord {
    v: u32,
    password_hash: Option<String>,
    tags: Vec<String>,
}

/// The value of `permission/<user>\0<vhost>`.
#[derive(Serialize, Deserialize)]
pub(super) struct PermissionRecord {
    v: u32,
    configure: String,
    write: String,
    read: String,
}

/// A stored pair that concerns users.
pub(super) enum Stored {
    User { name: String, password_hash: Option<String>, tags: Vec<String> },
    Permission { user: String, vhost: String, configure: String, write: String, read: String },
}

pub(super) fn user_key(name: &str) -> Vec<u8> {
    [USER_PREFIX, name.as_bytes()].concat()
}

pub(super) fn permission_key(user: &str, vhost: &str) -> Vec<u8> {
    [PERMISSION_PREFIX, user.as_bytes(), &[SEPARATOR], vhost.as_bytes()].concat()
}

pub(super) fn user_value(password_hash: Option<String>, tags: &[String]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&UserRecord { v: VERSION, password_hash, tags: tags.to_vec() })
}

pub(super) fn permission_value(configure: &str, write: &str, read: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&PermissionRecord {
        v: VERSION,
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    })
}

/// Reads a stored pair; `None` when it is about something else. The error says what is wrong with the value, without
/// showing it.
pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Result<Stored, String>> {
    if let Some(name) = key.strip_prefix(USER_PREFIX) {
        return Some(read_user(name, value));
    }
    key.strip_prefix(PERMISSION_PREFIX).map(|names| read_permission(names, value))
}

/// A stored pair in words, for tools of operators; `None` when it is about something else. Hashes are not shown.
///
/// # Errors
///
/// What is wrong with the value.
pub fn describe(key: &[u8], value: &[u8]) -> Option<Result<String, String>> {
    let stored = read(key, value)?;
    Some(stored.map(|stored| match stored {
        Stored::User { name, password_hash, tags } => {
            let password = if password_hash.is_some() { "a password" } else { "no password" };
            format!("user {name:?} with {password} and tags {tags:?}")
        }
        Stored::Permission { user, vhost, configure, write, read } => format!(
            "permission of user {user:?} in vhost {vhost:?}: configure {configure:?}, write {write:?}, read {read:?}"
        ),
    }))
}

fn read_user(name: &[u8], value: &[u8]) -> Result<Stored, String> {
    let record: UserRecord = parse(value)?;
    check_version(record.v)?;
    Ok(Stored::User { name: text(name)?, password_hash: record.password_hash, tags: record.tags })
}

fn read_permission(names: &[u8], value: &[u8]) -> Result<Stored, String> {
    let record: PermissionRecord = parse(value)?;
    check_version(record.v)?;
    let mut parts = names.splitn(2, |byte| *byte == SEPARATOR);
    match (parts.next(), parts.next()) {
        (Some(user), Some(vhost)) => Ok(Stored::Permission {
            user: text(user)?,
            vhost: text(vhost)?,
            configure: record.configure,
            write: record.write,
            read: record.read,
        }),
        _ => Err("the key has no vhost".to_owned()),
    }
}

fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    // serde_json quotes the text it could not use; that may be a hash, so only the place is passed on.
    serde_json::from_slice(value)
        .map_err(|error| format!("unreadable JSON (line {}, column {})", error.line(), error.column()))
}

fn check_version(version: u32) -> Result<(), String> {
    if version == VERSION {
        return Ok(());
    }
    Err(format!("written by another version of warren (format {version}, this one reads {VERSION})"))
}

fn text(name: &[u8]) -> Result<String, String> {
    String::from_utf8(name.to_vec()).map_err(|_| "the key is not valid UTF-8".to_owned())
}
