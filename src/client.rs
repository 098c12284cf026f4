//! Blocking client library.
