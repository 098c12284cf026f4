//! Scenarios on the real binary: real processes, real signals, real files.

// Every unwrap here is an assertion of a test, and what is skipped or found is said on standard error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod attacks;
mod bad_bytes;
mod bad_config;
mod bad_home;
mod bad_life;
mod bad_programs;
mod bare;
mod cli;
mod config;
mod deaths;
mod doctor;
mod elsewhere;
mod escapes;
mod freeze;
mod health;
mod hung;
mod inhibit;
mod job;
mod keeper;
mod life;
mod loglines;
mod logs;
mod managed;
mod meant;
mod offline;
mod passed_on;
mod peers;
mod protocol;
mod ready;
mod safe;
mod schedule;
mod services;
mod shape;
mod slow;
mod sockets;
mod storm;
mod strangers;
mod support;
mod systemd;
mod task_faults;
mod task_given;
mod task_jobs;
mod task_limits;
mod task_story;
mod task_words;
mod tasks;
mod told;
mod upgrade;
mod words;
