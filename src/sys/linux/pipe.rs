//! pipe on Linux.
