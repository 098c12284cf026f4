//! wait on BSD and macOS.
