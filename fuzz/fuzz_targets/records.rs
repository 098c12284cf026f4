//! Records of tasks, jobs and services: a core starts with whatever they say, and what it keeps of them tells the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::core::fuzz(data));
