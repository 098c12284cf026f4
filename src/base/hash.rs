//! FNV-1a, for what only has to be told apart from most others: nobody is withstood by it. Its numbers are in journals,
//! so they never change.

/// The hash of nothing, which [`fnv`] goes on from.
pub const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what was fed to `hash` with these bytes after it.
#[must_use]
pub fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_numbers_are_those_of_the_reference() {
        for (text, hash) in [("", FNV), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(fnv(FNV, text.as_bytes()), hash, "{text}");
        }
        assert_eq!(fnv(fnv(FNV, b"foo"), b"bar"), fnv(FNV, b"foobar"));
    }
}
