//! The daemon acts: one loop turns readiness into inputs for the core and effects into system calls.

pub mod capture;
pub mod child;
pub mod conn;
pub mod events;
pub mod exec;
pub mod journal;
pub mod link;
pub mod logs;
pub mod ownlog;
pub mod pool;
pub mod source;
