//! State to journal and back: one versioned record holds one entity's whole new state.

/// One entity in the journal: a key that later records of the same entity repeat, and its whole state as JSON.
/// `json` is `None` when the entity is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// `service/web`, `run/17`, `key/1000/abc`, `shutdown`, ...
    pub key: String,
    pub json: Option<String>,
}
