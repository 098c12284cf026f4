//! Bytes of a connection, in any of the three framings, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::protocol::frame::fuzz(data));
