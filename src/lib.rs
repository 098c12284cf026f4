//! hob: one small Unix program that keeps services running and can always say why.
#![deny(unsafe_code)]

pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod daemon;
pub mod keeper;
pub mod protocol;
pub mod sys;
