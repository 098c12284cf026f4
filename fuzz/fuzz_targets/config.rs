//! A config file: no panic, errors that point into the text, and accepted ones that read back to themselves.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::config::fuzz(data));
