//! Config text becomes a checked spec here, or a list of everything that is wrong with it. Pure: text in, values out.

pub mod spec;
pub use spec::*;
