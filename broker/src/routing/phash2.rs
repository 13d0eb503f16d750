//! Erlang's portable hash of a list of binaries, which `x-modulus-hash` of RabbitMQ selects by. The same keys over the same
//! destinations lead to the same queue in both brokers.
//!
//! The hash of octets is Bob Jenkins' of 1996 ("lookup2"); Erlang starts it with what came before.

/// 2^32 divided by the golden ratio.
const GOLDEN: u32 = 0x9e37_79b9;
/// What a binary and the end of a list add to the state before they are mixed in.
const BINARY: u32 = GOLDEN.wrapping_mul(13);
const END_OF_LIST: u32 = GOLDEN.wrapping_mul(2);
/// The tag of the empty list.
const NIL: u32 = 2;
/// Hash of the empty list by itself.
const EMPTY_LIST: u32 = 3_468_870_702;
/// RabbitMQ asks for a number below this.
const RANGE: u32 = 1 << 27;

/// The hash of a message's routing keys, below 2^27.
pub fn of_keys(keys: &[&str]) -> u32 {
    let mut hash = 0;
    for key in keys {
        let start = BINARY.wrapping_add(hash);
        hash = if key.is_empty() { start } else { of_octets(key.as_bytes(), start) };
    }
    let hash = match hash {
        0 => EMPTY_LIST,
        _ => mix([END_OF_LIST.wrapping_add(NIL), END_OF_LIST, hash])[2],
    };
    hash % RANGE
}

fn of_octets(octets: &[u8], start: u32) -> u32 {
    let mut state = [GOLDEN, GOLDEN, start];
    let (blocks, rest) = octets.as_chunks::<12>();
    for block in blocks {
        add(&mut state, block);
        state = mix(state);
    }
    // The lowest octet of the last word belongs to the length.
    let mut last = [0; 12];
    let (words, third) = rest.split_at(rest.len().min(8));
    last[..words.len()].copy_from_slice(words);
    last[9..9 + third.len()].copy_from_slice(third);
    add(&mut state, &last);
    state[2] = state[2].wrapping_add(octets.len() as u32);
    mix(state)[2]
}

fn add(state: &mut [u32; 3], block: &[u8; 12]) {
    let (words, _) = block.as_chunks::<4>();
    for (sum, word) in state.iter_mut().zip(words) {
        *sum = sum.wrapping_add(u32::from_le_bytes(*word));
    }
}

fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    for (first, second, third) in [(13, 8, 13), (12, 16, 5), (3, 10, 15)] {
        a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> first);
        b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << second);
        c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> third);
    }
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `erlang:phash2(Keys, 134217728)` says.
    #[test]
    fn as_erlang_has_it() {
        for (keys, hash) in [
            (&[][..], 113_427_502),
            (&[""], 38_220_213),
            (&["a"], 53_691_870),
            (&["abc"], 63_525_141),
            (&["123456789012"], 19_581_925),
            (&["1234567890123"], 36_917_331),
            (&["hello world, this is long"], 44_601_799),
            (&["", ""], 8_578_898),
            (&["a", "b"], 3_094_894),
            (&["k1", "k2", "k3"], 120_405_242),
        ] {
            assert_eq!(of_keys(keys), hash, "{keys:?}");
        }
    }
}
