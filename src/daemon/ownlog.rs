//! ownlog.
