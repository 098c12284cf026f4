//! One message as JSON-RPC: calls, batches, replies.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hob::protocol::rpc::fuzz(data));
