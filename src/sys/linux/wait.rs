//! wait on Linux.
