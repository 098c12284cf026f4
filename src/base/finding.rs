//! What an examination finds: how bad it is, what it is, why it matters and what to do. Touches nothing.

use super::json::Obj;
use serde::{Deserialize, Serialize};

/// How bad a finding is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, and may not go on to.
    Warning,
    /// Something does not work.
    Error,
}

impl Grade {
    pub const ALL: [Grade; 4] = [Grade::Ok, Grade::Note, Grade::Warning, Grade::Error];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Grade::Ok => "ok",
            Grade::Note => "note",
            Grade::Warning => "warning",
            Grade::Error => "error",
        }
    }
}

/// What is looked at by whoever reads the file and by whoever has read it.
pub const CONFIG: &str = "config";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub grade: Grade,
    /// What was looked at, in a word: `home`, `socket`, `config`, `kernel`, ...
    pub area: &'static str,
    /// A sentence without a full stop, as all the following.
    pub what: String,
    /// Why it matters.
    pub why: Option<String>,
    /// What to do: a command as it is to be typed, where there is one.
    pub todo: Option<String>,
}

impl Finding {
    #[must_use]
    pub fn new(grade: Grade, area: &'static str, what: impl Into<String>) -> Finding {
        Finding { grade, area, what: what.into(), why: None, todo: None }
    }

    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Finding {
        self.why = Some(why.into());
        self
    }

    #[must_use]
    pub fn todo(mut self, todo: impl Into<String>) -> Finding {
        self.todo = Some(todo.into());
        self
    }

    #[must_use]
    pub fn json(&self) -> String {
        let mut o = Obj::new();
        o.str("level", self.grade.name()).str("area", self.area).str("what", &self.what);
        o.opt_str("why", self.why.as_deref()).opt_str("do", self.todo.as_deref());
        o.finish()
    }
}
