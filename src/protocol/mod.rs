//! The wire: bytes to requests and replies to bytes, in three framings, and the one table of methods. Pure.

pub mod frame;
pub mod methods;
pub mod rpc;
