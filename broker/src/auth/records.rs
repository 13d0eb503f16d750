//! Users and permissions as they are stored: JSON under one key each.

use serde::{Deserialize, Serialize};

use super::password::{HashAlgorithm, PasswordHash};
use super::patterns::Patterns;
use super::topics::TopicPermission;
use crate::model::access::Permission;
use crate::model::limits::UserLimits;

const VERSION: u32 = 1;
const USER_PREFIX: &[u8] = b"user/";
const PERMISSION_PREFIX: &[u8] = b"permission/";
const TOPIC_PREFIX: &[u8] = b"topic_permission/";
const SEPARATOR: u8 = 0;

/// The value of `user/<name>`. No `Debug`: it holds a hash.
#[derive(Serialize, Deserialize)]
struct UserRecord {
    v: u32,
    password_hash: Option<String>,
    /// Left out for SHA-256, which was the only one once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hashing_algorithm: Option<String>,
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "UserLimits::is_empty")]
    limits: UserLimits,
}

/// The value of `permission/<user>\0<vhost>`.
#[derive(Serialize, Deserialize)]
struct PermissionRecord {
    v: u32,
    configure: String,
    write: String,
    read: String,
}

/// The value of `topic_permission/<user>\0<vhost>\0<exchange>`.
#[derive(Serialize, Deserialize)]
struct TopicRecord {
    v: u32,
    write: String,
    read: String,
}

/// A stored pair that concerns users.
pub(super) enum Stored {
    User { name: String, hash: Option<PasswordHash>, tags: Vec<String>, limits: UserLimits },
    Permission { user: String, vhost: String, patterns: Patterns },
    Topic { user: String, vhost: String, exchange: String, permission: TopicPermission },
}

pub(super) fn user_key(name: &str) -> Vec<u8> {
    [USER_PREFIX, name.as_bytes()].concat()
}

pub(super) fn permission_key(user: &str, vhost: &str) -> Vec<u8> {
    [PERMISSION_PREFIX, user.as_bytes(), &[SEPARATOR], vhost.as_bytes()].concat()
}

pub(super) fn topic_key(user: &str, vhost: &str, exchange: &str) -> Vec<u8> {
    [TOPIC_PREFIX, user.as_bytes(), &[SEPARATOR], vhost.as_bytes(), &[SEPARATOR], exchange.as_bytes()].concat()
}

pub(super) fn user_value(
    hash: Option<&PasswordHash>,
    tags: &[String],
    limits: UserLimits,
) -> Result<Vec<u8>, serde_json::Error> {
    let algorithm = hash.map(PasswordHash::algorithm).filter(|algorithm| *algorithm != HashAlgorithm::Sha256);
    serde_json::to_vec(&UserRecord {
        v: VERSION,
        password_hash: hash.map(PasswordHash::to_base64),
        hashing_algorithm: algorithm.map(|algorithm| algorithm.name().to_owned()),
        tags: tags.to_vec(),
        limits,
    })
}

pub(super) fn permission_value(patterns: &Patterns) -> Result<Vec<u8>, serde_json::Error> {
    let text = |permission| patterns.text(permission).to_owned();
    serde_json::to_vec(&PermissionRecord {
        v: VERSION,
        configure: text(Permission::Configure),
        write: text(Permission::Write),
        read: text(Permission::Read),
    })
}

pub(super) fn topic_value(permission: &TopicPermission) -> Result<Vec<u8>, serde_json::Error> {
    let text = |of| permission.text(of).to_owned();
    serde_json::to_vec(&TopicRecord { v: VERSION, write: text(Permission::Write), read: text(Permission::Read) })
}

/// Reads a stored pair; `None` when it is about something else. The error says what is wrong with the value, without
/// showing it.
pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Result<Stored, String>> {
    if let Some(name) = key.strip_prefix(USER_PREFIX) {
        return Some(read_user(name, value));
    }
    if let Some(names) = key.strip_prefix(TOPIC_PREFIX) {
        return Some(read_topic(names, value));
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
        Stored::User { name, hash, tags, .. } => {
            let password = if hash.is_some() { "a password" } else { "no password" };
            format!("user {name:?} with {password} and tags {tags:?}")
        }
        Stored::Permission { user, vhost, patterns } => format!(
            "permission of user {user:?} in vhost {vhost:?}: configure {:?}, write {:?}, read {:?}",
            patterns.text(Permission::Configure),
            patterns.text(Permission::Write),
            patterns.text(Permission::Read)
        ),
        Stored::Topic { user, vhost, exchange, permission } => format!(
            "topic permission of user {user:?} in vhost {vhost:?} for exchange {exchange:?}: write {:?}, read {:?}",
            permission.text(Permission::Write),
            permission.text(Permission::Read)
        ),
    }))
}

fn read_user(name: &[u8], value: &[u8]) -> Result<Stored, String> {
    let record: UserRecord = parse(value)?;
    check_version(record.v)?;
    let hash = match record.password_hash {
        None => None,
        Some(hash) => {
            let read = PasswordHash::from_definition(record.hashing_algorithm.as_deref(), &hash);
            Some(read.map_err(|_| "not a password hash".to_owned())?)
        }
    };
    Ok(Stored::User { name: text(name)?, hash, tags: record.tags, limits: record.limits })
}

fn read_permission(names: &[u8], value: &[u8]) -> Result<Stored, String> {
    let record: PermissionRecord = parse(value)?;
    check_version(record.v)?;
    let patterns = Patterns::new(&record.configure, &record.write, &record.read).map_err(|error| error.to_string())?;
    let mut parts = names.splitn(2, |byte| *byte == SEPARATOR);
    match (parts.next(), parts.next()) {
        (Some(user), Some(vhost)) => Ok(Stored::Permission { user: text(user)?, vhost: text(vhost)?, patterns }),
        _ => Err("the key has no vhost".to_owned()),
    }
}

fn read_topic(names: &[u8], value: &[u8]) -> Result<Stored, String> {
    let record: TopicRecord = parse(value)?;
    check_version(record.v)?;
    let permission = TopicPermission::new(&record.write, &record.read).map_err(|error| error.to_string())?;
    let mut parts = names.splitn(3, |byte| *byte == SEPARATOR);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(user), Some(vhost), Some(exchange)) => {
            Ok(Stored::Topic { user: text(user)?, vhost: text(vhost)?, exchange: text(exchange)?, permission })
        }
        _ => Err("the key has no vhost or no exchange".to_owned()),
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
