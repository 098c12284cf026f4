//! One line of the journal: `crc32 SP json LF`, the checksum in eight lower-case hex digits over the JSON. Pure.
//!
//! The JSON is `{"v":1,"n":SEQUENCE,"k":KEY,"s":STATE}` with `null` for an entity that is gone, and `"m":true` before
//! the state where more records of the same round follow. Readers skip fields they do not know. The empty key is not an
//! entity's: it ends a snapshot and its state is `{"count":RECORDS}`.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Write as _;

const VERSION: u32 = 1;
/// No sequence number reaches this; every reader of JSON can hold those below it.
const SEQUENCE_END: u64 = 1 << 53;
/// Checksum and space.
const HEAD: usize = 9;
/// Key of the record that ends a snapshot.
pub(super) const END_KEY: &str = "";

/// A record that verifies, borrowed from its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) n: u64,
    pub(super) key: Cow<'a, str>,
    pub(super) json: Option<&'a str>,
    /// The next record belongs to the same round.
    pub(super) more: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    v: u32,
    n: u64,
    #[serde(borrow)]
    k: Cow<'a, str>,
    #[serde(default)]
    m: bool,
    // An Option would otherwise take a missing field for null, which means that the entity is gone.
    #[serde(borrow, deserialize_with = "present")]
    s: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a RawValue>, D::Error> {
    Option::deserialize(d)
}

#[derive(Deserialize)]
struct End {
    count: u64,
}

/// Appends one line. `more`: the next line belongs to the same round.
pub(super) fn encode(out: &mut Vec<u8>, n: u64, key: &str, json: Option<&str>, more: bool) {
    let start = out.len();
    out.extend_from_slice(&[b' '; HEAD]);
    // Writing to a Vec and serializing a str cannot fail.
    let _ = write!(out, "{{\"v\":{VERSION},\"n\":{n},\"k\":");
    let _ = serde_json::to_writer(&mut *out, key);
    out.extend_from_slice(if more { b",\"m\":true,\"s\":".as_slice() } else { b",\"s\":" });
    let state = out.len();
    out.extend_from_slice(json.unwrap_or("null").as_bytes());
    // Between the tokens of JSON a line end is a space; within them there is none.
    out[state..].iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b' ');
    out.push(b'}');
    let sum = hex(crc32fast::hash(&out[start + HEAD..]));
    out[start..start + HEAD - 1].copy_from_slice(&sum);
    out.push(b'\n');
}

/// Appends the record that ends a snapshot of `count` records.
pub(super) fn encode_end(out: &mut Vec<u8>, n: u64, count: u64) {
    encode(out, n, END_KEY, Some(&format!("{{\"count\":{count}}}")), false);
}

/// Reads one line, given without its LF.
///
/// # Errors
/// Why it is not a record, for the report.
pub(super) fn decode(line: &[u8]) -> Result<Record<'_>, &'static str> {
    let (head, body) = line.split_at_checked(HEAD).ok_or("too short")?;
    if head[HEAD - 1] != b' ' || head[..HEAD - 1] != hex(crc32fast::hash(body)) {
        return Err("damaged (its checksum is wrong)");
    }
    let text = core::str::from_utf8(body).map_err(|_| "not UTF-8")?;
    let line: Line<'_> = serde_json::from_str(text).map_err(|_| "not a record")?;
    if line.v != VERSION {
        return Err("of a version that is not known here");
    }
    if line.n >= SEQUENCE_END {
        return Err("of an impossible number");
    }
    Ok(Record { n: line.n, key: line.k, json: line.s.map(RawValue::get), more: line.m })
}

/// The count in the record that ends a snapshot.
pub(super) fn end_count(record: &Record<'_>) -> Option<u64> {
    serde_json::from_str::<End>(record.json?).ok().map(|e| e.count)
}

fn hex(sum: u32) -> [u8; 8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 8];
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = DIGITS[(sum >> (28 - 4 * i) & 15) as usize];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64, key: &str, json: Option<&str>) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encode(&mut out, n, key, json, false);
        assert_eq!(out.pop(), Some(b'\n'));
        out.split_off(6)
    }

    #[test]
    fn a_line_looks_as_documented_and_reads_back() {
        let text = String::from_utf8(line(7, "service/web", Some(r#"{"desired":"up"}"#))).unwrap();
        let body = r#"{"v":1,"n":7,"k":"service/web","s":{"desired":"up"}}"#;
        assert_eq!(text, format!("{:08x} {body}", crc32fast::hash(body.as_bytes())));
        for (n, key, json) in [
            (0, "k", None),
            (SEQUENCE_END - 1, "quote\" and \n line end \u{7}é", Some("[1, 2,\n 3]")),
            (1, END_KEY, Some("{}")),
            (2, "deep", Some("\"a\\u0000b\"")),
        ] {
            let bytes = line(n, key, json);
            let json = json.map(|j| j.replace('\n', " "));
            assert_eq!(decode(&bytes), Ok(Record { n, key: key.into(), json: json.as_deref(), more: false }));
        }
    }

    #[test]
    fn a_line_says_that_its_round_goes_on() {
        let mut out = Vec::new();
        encode(&mut out, 7, "a", Some("1"), true);
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(out.ends_with(br#"{"v":1,"n":7,"k":"a","m":true,"s":1}"#));
        assert_eq!(decode(&out), Ok(Record { n: 7, key: "a".into(), json: Some("1"), more: true }));
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_detected() {
        let good = line(12, "run/17", Some(r#"{"code":0}"#));
        for at in 0..good.len() {
            assert!(decode(&good[..at]).is_err());
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn what_verifies_and_is_no_record_is_refused_and_new_fields_are_skipped() {
        let with = |body: &str| {
            let mut line = hex(crc32fast::hash(body.as_bytes())).to_vec();
            line.push(b' ');
            line.extend_from_slice(body.as_bytes());
            decode(&line).map(|r| r.n)
        };
        assert_eq!(with(r#"{"v":1,"n":3,"k":"a","s":null,"later":[1]}"#), Ok(3));
        assert!(with(r#"{"v":1,"n":3,"k":"a"}"#).is_err(), "no state is not the state null");
        assert!(with(r#"{"v":2,"n":3,"k":"a","s":null}"#).is_err());
        assert!(with(r#"{"v":1,"n":9007199254740992,"k":"a","s":null}"#).is_err());
        assert!(with(r#"{"v":1,"n":-3,"k":"a","s":null}"#).is_err());
        assert!(with("").is_err());
    }

    #[test]
    fn the_end_of_a_snapshot_carries_its_count() {
        let mut out = Vec::new();
        encode_end(&mut out, 5, 1234);
        out.pop();
        let record = decode(&out).unwrap();
        assert_eq!((record.key.as_ref(), end_count(&record)), (END_KEY, Some(1234)));
    }
}
