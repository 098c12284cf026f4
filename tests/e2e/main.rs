//! Scenarios on the real binary: real processes, real signals, real files.

// Every unwrap here is an assertion of a test.
#![allow(clippy::unwrap_used)]

mod config;
mod deaths;
mod life;
mod logs;
mod protocol;
mod services;
mod storm;
mod support;
