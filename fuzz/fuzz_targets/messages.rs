//! Messages of HOB_FD, which its socket tells apart.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::protocol::frame::fuzz_messages(data));
