//! Tests of starting programs.
