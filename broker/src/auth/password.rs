//! Salted password hashes, byte for byte as RabbitMQ's `rabbit_password_hashing_sha256`, `_sha512` and `_md5` make them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::model::operation::OperationError;

const SALT_BYTES: usize = 4;

/// How a password is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256: RabbitMQ's default and ours.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
    /// MD5, of users who were made before RabbitMQ 3.6. They can log in; every new password is hashed with SHA-256.
    Md5,
}

impl HashAlgorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Md5];

    /// RabbitMQ's name for it, as in its definitions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Md5 => 16,
        }
    }

    fn hash(self, salt: [u8; SALT_BYTES], password: &str) -> Box<[u8]> {
        fn digest<D: Digest>(salt: [u8; SALT_BYTES], password: &str) -> Box<[u8]> {
            D::new().chain_update(salt).chain_update(password).finalize().to_vec().into()
        }
        match self {
            Self::Sha256 => digest::<Sha256>(salt, password),
            Self::Sha512 => digest::<Sha512>(salt, password),
            Self::Md5 => digest::<Md5>(salt, password),
        }
    }
}

/// 4 bytes of salt, then the hash of salt and password.
#[derive(Clone)]
pub struct PasswordHash {
    algorithm: HashAlgorithm,
    salt: [u8; SALT_BYTES],
    hash: Box<[u8]>,
}

impl PasswordHash {
    /// Hashes a password with a new random salt.
    pub fn new(password: &str) -> Self {
        Self::with_salt(HashAlgorithm::default(), rand::random(), password)
    }

    fn with_salt(algorithm: HashAlgorithm, salt: [u8; SALT_BYTES], password: &str) -> Self {
        Self { algorithm, salt, hash: algorithm.hash(salt, password) }
    }

    /// Reads the base64 form; `None` when it is not one.
    pub fn from_base64(algorithm: HashAlgorithm, text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let (salt, hash) = bytes.split_at_checked(SALT_BYTES)?;
        (hash.len() == algorithm.bytes()).then_some(())?;
        Some(Self { algorithm, salt: salt.try_into().ok()?, hash: hash.into() })
    }

    /// Reads a hash as definitions have it: base64, and the name of the algorithm; without one its length tells.
    ///
    /// # Errors
    ///
    /// An algorithm that is not known, or a text that is no hash of it. The hash is not shown.
    pub fn from_definition(algorithm: Option<&str>, text: &str) -> Result<Self, OperationError> {
        let algorithm = match algorithm {
            None if Self::from_base64(HashAlgorithm::Sha512, text).is_some() => HashAlgorithm::Sha512,
            None => HashAlgorithm::default(),
            Some(name) => HashAlgorithm::from_name(name)
                .ok_or_else(|| OperationError::BadArgument(format!("hashing algorithm '{name}' is not supported")))?,
        };
        Self::from_base64(algorithm, text).ok_or_else(|| {
            OperationError::BadArgument(format!(
                "the password hash is not the base64 of a 4-byte salt and a {}-byte hash",
                algorithm.bytes()
            ))
        })
    }

    /// How it was made.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The base64 form, as RabbitMQ exports it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode([self.salt.as_slice(), &self.hash].concat())
    }

    /// Whether that is the password. Takes the same time for every wrong one.
    pub fn matches(&self, password: &str) -> bool {
        self.algorithm.hash(self.salt, password).ct_eq(&self.hash).into()
    }

    /// Whether both are the same hash with the same salt.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.salt == other.salt && bool::from(self.hash.ct_eq(&other.hash))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(<hidden>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_salt_then_sha256_of_salt_and_password() {
        // printf '\x90\x8d\xc6\x0atest12' | sha256sum
        let expected = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let hash = PasswordHash::with_salt(HashAlgorithm::Sha256, [0x90, 0x8d, 0xc6, 0x0a], "test12");
        assert_eq!(hash.to_base64(), expected);
        let read = PasswordHash::from_base64(HashAlgorithm::Sha256, expected).unwrap();
        assert!(read.matches("test12") && read.is_same(&hash));
    }

    #[test]
    fn sha512_is_the_same_with_a_longer_hash() {
        // printf '\x90\x8d\xc6\x0atest12' | sha512sum
        let expected = "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbINYwX2cDWb4DHnc=";
        let hash = PasswordHash::with_salt(HashAlgorithm::Sha512, [0x90, 0x8d, 0xc6, 0x0a], "test12");
        assert_eq!(hash.to_base64(), expected);
        let read = PasswordHash::from_definition(Some("rabbit_password_hashing_sha512"), expected).unwrap();
        assert!(read.matches("test12") && !read.matches("test1") && read.is_same(&hash));
        assert_eq!(read.algorithm().name(), "rabbit_password_hashing_sha512");
        assert!(PasswordHash::from_definition(None, expected).unwrap().matches("test12"));
    }

    #[test]
    fn md5_is_the_same_with_a_shorter_hash() {
        // printf '\x90\x8d\xc6\x0atest12' | md5sum
        let hash = PasswordHash::from_definition(Some("rabbit_password_hashing_md5"), "kI3GChNpte2FApYFXScl+0dIluk=");
        let hash = hash.unwrap();
        assert!(hash.matches("test12") && !hash.matches("test1"));
        assert_eq!(hash.to_base64(), "kI3GChNpte2FApYFXScl+0dIluk=");
    }

    #[test]
    fn only_the_password_matches() {
        let hash = PasswordHash::new("guest");
        assert!(hash.matches("guest"));
        for wrong in ["", "Guest", "guest ", "gues"] {
            assert!(!hash.matches(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn salts_differ() {
        // Three equal salts of 32 random bits in a row do not happen.
        let hashes: Vec<String> = (0..3).map(|_| PasswordHash::new("x").to_base64()).collect();
        assert!(hashes.iter().any(|hash| *hash != hashes[0]));
    }

    #[test]
    fn other_lengths_alphabets_and_algorithms_are_refused() {
        for text in ["", "AAAA", "!", &STANDARD.encode([0; 35]), &STANDARD.encode([0; 37]), &STANDARD.encode([0; 68])] {
            assert!(PasswordHash::from_base64(HashAlgorithm::Sha256, text).is_none(), "{text}");
        }
        let text = STANDARD.encode([7; 36]);
        let error = PasswordHash::from_definition(Some("rabbit_password_hashing_x"), &text).unwrap_err();
        assert_eq!(error.to_string(), "Bad argument: hashing algorithm 'rabbit_password_hashing_x' is not supported");
        assert!(PasswordHash::from_definition(Some("rabbit_password_hashing_md5"), &text).is_err());
        let error = PasswordHash::from_definition(Some("rabbit_password_hashing_sha512"), &text).unwrap_err();
        assert!(!error.to_string().contains(&text), "{error}");
    }

    #[test]
    fn debug_hides_it() {
        assert_eq!(format!("{:?}", PasswordHash::new("x")), "PasswordHash(<hidden>)");
    }
}
