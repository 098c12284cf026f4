//! Plain values that every room may use: time, ids, units, limits, timers, seeded chance. Touches nothing outside
//! itself.

pub mod access;
pub mod control;
pub mod finding;
pub mod gather;
pub mod hash;
pub mod ids;
pub mod json;
pub mod limits;
pub mod log;
pub mod map;
pub mod near;
pub mod paths;
pub mod signal;
pub mod text;
pub mod time;
pub mod timers;
pub mod units;
