//! What a caller may do: the level that config grants, methods ask for, and connections carry. Touches nothing.

use serde::Serialize;

/// What a caller may do; each level contains those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Read,
    Operate,
    Admin,
}
