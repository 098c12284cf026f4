//! A cron expression: no panic, errors that point into the text, and times that are found forwards and backwards.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::config::cron::fuzz(data));
