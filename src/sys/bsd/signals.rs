//! signals on BSD and macOS.
