//! One timer wheel for all deadlines.
