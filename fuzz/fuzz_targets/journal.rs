//! A journal file: no panic, and what was loaded and saved again loads the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::daemon::journal::fuzz(data));
