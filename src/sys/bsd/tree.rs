//! tree on BSD and macOS.
