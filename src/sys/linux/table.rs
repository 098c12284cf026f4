//! table on Linux.
