//! table on BSD and macOS.
