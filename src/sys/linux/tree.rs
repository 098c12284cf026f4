//! tree on Linux.
