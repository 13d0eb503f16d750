//! Salted password hashes, byte for byte as RabbitMQ's `rabbit_password_hashing_sha256` makes them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

const SALT_BYTES: usize = 4;
const HASH_BYTES: usize = 32;

/// 4 bytes of salt, then SHA-256 of salt and password.
#[derive(Clone)]
pub struct PasswordHash {
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

impl PasswordHash {
    /// Hashes a password with a new random salt.
    pub fn new(password: &str) -> Self {
        Self::with_salt(rand::random(), password)
    }

    fn with_salt(salt: [u8; SALT_BYTES], password: &str) -> Self {
        let hash = Sha256::new().chain_update(salt).chain_update(password).finalize();
        Self { salt, hash: hash.into() }
    }

    /// Reads the base64 form; `None` when it is not one.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let (salt, hash) = bytes.split_at_checked(SALT_BYTES)?;
        Some(Self { salt: salt.try_into().ok()?, hash: hash.try_into().ok()? })
    }

    /// The base64 form, as RabbitMQ exports it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode([self.salt.as_slice(), &self.hash].concat())
    }

    /// Whether that is the password. Takes the same time for every wrong one.
    pub fn matches(&self, password: &str) -> bool {
        let candidate = Self::with_salt(self.salt, password);
        candidate.hash.ct_eq(&self.hash).into()
    }

    /// Whether both are the same hash with the same salt.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.salt == other.salt && bool::from(self.hash.ct_eq(&other.hash))
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
        let hash = PasswordHash::with_salt([0x90, 0x8d, 0xc6, 0x0a], "test12");
        assert_eq!(hash.to_base64(), expected);
        let read = PasswordHash::from_base64(expected).unwrap();
        assert!(read.matches("test12") && read.is_same(&hash));
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
    fn other_lengths_and_alphabets_are_refused() {
        for text in ["", "AAAA", "!", &STANDARD.encode([0; 35]), &STANDARD.encode([0; 37])] {
            assert!(PasswordHash::from_base64(text).is_none(), "{text}");
        }
    }

    #[test]
    fn debug_hides_it() {
        assert_eq!(format!("{:?}", PasswordHash::new("x")), "PasswordHash(<hidden>)");
    }
}
