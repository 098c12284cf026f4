//! spawn on BSD and macOS.
