//! pipe on BSD and macOS.
