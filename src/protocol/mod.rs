//! The wire: bytes to requests and replies to bytes, in three framings, and the one table of methods. Pure.

pub mod frame;
pub mod methods;
pub mod rpc;

/// Bytes in base64 (RFC 4648, with padding).
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    frame::base64::encode(bytes, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The bytes of base64 with or without its padding; `None` for anything else.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    frame::base64::decode(text)
}

/// Calls `check` with many damaged forms of each text, the same ones each time.
#[cfg(test)]
fn each_mutation(corpus: &[Vec<u8>], rounds: u32, check: fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % n.max(1)
    };
    const BYTES: &[u8] = b"\x00\x01\x04\xff{}[]\",:\\ \n\rC0192-.eEnulltruefalse";
    corpus.iter().for_each(|text| check(text));
    for _ in 0..rounds {
        let mut text = corpus[below(corpus.len())].clone();
        for _ in 0..=below(4) {
            let at = below(text.len() + 1);
            match below(5) {
                0 => text.truncate(at),
                1 => text.insert(at, BYTES[below(BYTES.len())]),
                2 if at < text.len() => text[at] = BYTES[below(BYTES.len())],
                3 if at < text.len() => drop(text.remove(at)),
                _ => {
                    let other = &corpus[below(corpus.len())];
                    text.extend_from_slice(&other[below(other.len())..]);
                }
            }
        }
        check(&text);
    }
}
