//! Base64 (RFC 4648, with padding) for stream bytes that are not text. Pure.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` in base64.
pub(in crate::protocol) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= group.len() { ALPHABET[six] } else { b'=' });
        }
    }
}

/// Reads base64 with or without its padding; `None` for anything else.
pub(in crate::protocol) fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut have, mut out) = (0_u32, 0, Vec::with_capacity(text.len() / 4 * 3));
    for b in text.trim_end_matches('=').bytes() {
        let six = ALPHABET.iter().position(|a| *a == b)?;
        bits = bits << 6 | u32::try_from(six).ok()?;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from(bits >> have & 255).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, coded.as_bytes());
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        encode(&all, &mut out);
        assert_eq!(decode(core::str::from_utf8(&out).unwrap()).unwrap(), all);
        assert_eq!(decode("a b"), None);
    }
}
