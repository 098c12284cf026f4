//! spawn on Linux.
