//! signals on Linux.
