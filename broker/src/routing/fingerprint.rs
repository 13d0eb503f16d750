//! 64-bit hashes that stay the same over restarts, machines and versions: what messages are placed by. They are not keyed, so
//! whoever chooses the keys can choose where they lead, which the exchange grants anyway.

use std::fmt;

const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a, with its last state mixed, so that every bit of the result depends on every octet.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// That of some octets.
    pub fn of(octets: &[u8]) -> u64 {
        let mut fingerprint = Self::default();
        fingerprint.add(octets);
        fingerprint.finish()
    }

    /// Takes in more octets.
    pub fn add(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(PRIME);
        }
    }

    /// The hash of all octets.
    pub fn finish(self) -> u64 {
        mix(self.0)
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self(START)
    }
}

/// Takes in what is formatted, so that numbers need no buffer.
impl fmt::Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

/// A permutation of 64 bits without visible order: the finaliser of MurmurHash3.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// Written down once: another value would move the keys of every durable exchange.
    #[test]
    fn never_changes() {
        let values = ["", "a", "customer-4711"].map(|text| Fingerprint::of(text.as_bytes()));
        assert_eq!(values, [0xefd0_1f60_ba99_2926, 0x82a2_a958_a9be_ce5b, 0x72b0_9c51_a8a6_b618]);
    }

    #[test]
    fn in_parts_or_as_a_whole() {
        let mut parts = Fingerprint::default();
        parts.add(b"order-");
        let written = write!(parts, "{}", -12);
        assert_eq!(written, Ok(()));
        assert_eq!(parts.finish(), Fingerprint::of(b"order--12"));
    }
}
