//! Scenarios on the real binary: real processes, real signals, real files.

// Every unwrap here is an assertion of a test, and what is skipped or found is said on standard error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod attacks;
mod cli;
mod config;
mod deaths;
mod freeze;
mod health;
mod life;
mod loglines;
mod logs;
mod protocol;
mod safe;
mod services;
mod shape;
mod storm;
mod support;
mod upgrade;
